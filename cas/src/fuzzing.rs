//! A door for the fuzz targets of `ci/fuzz`: decoders that nothing outside this crate needs. Only with feature `simulation`.
//!
//! Each function takes bytes from anywhere, and asserts what must hold of those that are accepted.

pub use crate::dir::fuzzing::{dir, page_of_index};
use crate::{
    SnapshotId,
    blob::{List, rewrite_list},
    record::PackKind,
    remote::{
        Manifest,
        layer::Layer,
        lease,
        pack::{Footer, FrameLens, TRAILER, Unpacker, footer_len},
    },
};

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

/// A frame of a pack of the remote store that says it has so many bytes unpacked: each object that comes out of it is what it is called.
pub fn frame(is_meta: bool, raw: u32, stored: &[u8]) {
    let kind = if is_meta { PackKind::Meta } else { PackKind::Data };
    let Ok(mut unpacker) = Unpacker::new() else { return };
    let lens = FrameLens { stored: stored.len() as u32, raw };
    if let Ok(frame) = unpacker.unpack(kind, lens, stored, Vec::new()) {
        for object in frame.objects {
            assert_eq!(crate::Digest::of(&frame.bytes[object.range]), object.digest);
        }
    }
}

/// A frame of a pack of the remote store: whether it is of a meta pack, how many bytes it has unpacked, and itself.
pub type Frame = (bool, u32, Vec<u8>);

/// The footer of such a pack, and its frames. For seeds.
///
/// # Panics
/// At anything that no publish has made.
pub fn pack(bytes: &[u8]) -> (Vec<u8>, Vec<Frame>) {
    let trailer = bytes.last_chunk::<TRAILER>().expect("a pack has a trailer");
    let len = footer_len(trailer).expect("a pack has a footer");
    let (frames, footer) = bytes.split_at(bytes.len() - len as usize);
    let decoded = Footer::decode(footer).expect("a footer");
    let mut at = 0;
    let frame = |lens: &FrameLens| {
        let frame = frames[at..at + lens.stored as usize].to_vec();
        at += lens.stored as usize;
        (decoded.kind == PackKind::Meta, lens.raw, frame)
    };
    (footer.to_vec(), decoded.frames.iter().map(frame).collect())
}

/// The footer of such a pack.
pub fn footer(bytes: &[u8]) {
    if let Ok(footer) = Footer::decode(bytes) {
        assert_eq!(footer.encode(), bytes, "a footer has one spelling");
    }
}

/// A layer: all that it answers is within its packs.
pub fn layer(bytes: &[u8]) {
    let Ok(layer) = Layer::decode(bytes.to_vec()) else { return };
    assert_eq!(layer.bytes(), bytes, "a layer has one spelling");
    for pack in 0..layer.packs().len() as u32 {
        let frames = layer.frame_count(pack);
        let range = layer.range(pack, 0..frames);
        assert!(range.start == 0 && range.end >= u64::from(frames));
    }
}

/// The manifest of a snapshot.
pub fn manifest(snapshot: SnapshotId, bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(snapshot, bytes) {
        assert_eq!(manifest.encode(), bytes, "a manifest has one spelling");
    }
}

/// The lease of a host.
pub fn lease(bytes: &[u8]) {
    if let Ok(leased) = lease::decode(bytes) {
        let encoded = lease::encode(&leased).expect("no more than one can name");
        assert_eq!(encoded, bytes, "a lease has one spelling");
    }
}
