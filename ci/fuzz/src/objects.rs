//! Objects of the store: directories and their pages, chunk lists, snapshots, extended attributes. What a decoder accepts
//! is read all through, and written again gives the same bytes.

use cas::{Snapshot, dir, fuzzing, xattrs};

/// The first byte chooses the decoder, the rest is the object; a page in its index has the index's length in front.
pub fn run(data: &[u8]) {
    let Some((&what, bytes)) = data.split_first() else { return };
    match what {
        b'd' => directory(bytes),
        b'l' => fuzzing::list(bytes),
        b's' => {
            if let Ok(snapshot) = Snapshot::decode(bytes) {
                assert_eq!(
                    snapshot.encode().expect("it was one before"),
                    bytes,
                    "a snapshot has one spelling"
                );
            }
        }
        b'x' => {
            if let Ok(set) = xattrs::decode(bytes) {
                assert_eq!(xattrs::encode(&set).expect("it was one before"), bytes, "a set has one spelling");
            }
        }
        b'p' => {
            let Some((len, rest)) = bytes.split_first_chunk() else { return };
            let Some((index, page)) = rest.split_at_checked(u16::from_le_bytes(*len).into()) else { return };
            fuzzing::page_of_index(index, page);
        }
        _ => {}
    }
}

fn directory(bytes: &[u8]) {
    fuzzing::dir(bytes);
    // The checks of fsck are those of the readers.
    let (whole, page) = (dir::check_dir(bytes).is_ok(), dir::check_dir_page(bytes).is_ok());
    assert!(!(whole && page), "no bytes are two kinds of object");
}
