//! A door for the fuzz targets of `ci/fuzz`: decoders that nothing outside this crate needs. Only with feature `simulation`.
//!
//! Each function takes bytes from anywhere, and asserts what must hold of those that are accepted.

pub use crate::dir::fuzzing::{dir, page_of_index};
use crate::{blob::List, blob::rewrite_list};

/// A chunk list: nothing in it is out of bounds, and written again it is the same bytes.
pub fn list(bytes: &[u8]) {
    let Ok(list) = List::open(bytes) else { return };
    let verified = list.verify().is_ok();
    for offset in [0, 1, list.size() / 2, list.size() - 1, list.size(), u64::MAX] {
        for extent in list.extents_from(offset).take(3) {
            assert!(!verified || extent.is_ok(), "a verified list has no bad extent");
        }
    }
    if verified {
        assert_eq!(rewrite_list(&list), bytes, "a chunk list has one spelling");
    }
}
