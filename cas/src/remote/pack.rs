//! A pack as the remote store has it: objects in frames, each of which says what is in it, and a footer that says where frames are.
//!
//! Pure: bytes in, values out. A pack is made whole, under a name that was never used, and never changes. Objects stand in the order
//! they were added, which is that of the tree, and neighbours share a frame: it compresses as one, and who reads one of them soon
//! reads the next. Who knows where a frame is needs nothing else of the pack. docs/format.md is normative.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::{Compressor, Decompressor};

use crate::{
    Digest, Error, ObjectKind, Result,
    fields::{array, u16_at, u32_at, u64_at},
    record::{OBJECT_BYTES_MAX, PackKind},
};

/// Bytes of objects in a frame; one that is larger has a frame of its own.
pub const FRAME_BYTES: usize = 256 << 10;
/// A pack is full at this size: as many requests as a scan can bear, and no more to send again after a failure than that.
pub const PACK_BYTES: usize = 24 << 20;
/// Objects of a frame: more would be smaller than what a frame says of each.
const OBJECTS_MAX: usize = FRAME_BYTES / 32;
/// Bytes of a chunk: see `blob`. What is in meta packs may be larger.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Frames of a pack.
pub const FRAMES_MAX: usize = 1 << 16;
/// The fastest that zstd is at its usual format.
const LEVEL: i32 = 1;

const MAGIC: u32 = u32::from_le_bytes(*b"AFrp");
const VERSION: u16 = 1;
/// What a frame says of each object in it.
const ENTRY: usize = 40;
/// In front of those.
const FRAME_HEADER: usize = 8;
const FRAME_LENS: usize = 8;
/// Bytes at the end of a pack that say how long its footer is.
pub const TRAILER: usize = 24;
// digest; length, kind, zeros. count, zeros. frames, zeros; magic, version, kind, zero; sum.
const _: () = assert!(ENTRY == 32 + 8 && FRAME_HEADER == 8 && TRAILER == 8 + 8 + 8);

/// How long a frame is: in its pack, and unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLens {
    /// Bytes in the pack.
    pub stored: u32,
    /// Bytes unpacked.
    pub raw: u32,
}

/// Puts a pack together.
pub struct Builder {
    kind: PackKind,
    compressor: Compressor<'static>,
    stored: Vec<u8>,
    frames: Vec<FrameLens>,
    /// The objects of all frames, each with its frame's number.
    places: Vec<(Digest, u32)>,
    /// Of the frame that is not done: what it says of its objects, and those.
    table: Vec<u8>,
    bytes: Vec<u8>,
}

/// A pack that is whole.
#[derive(Debug)]
pub struct Built {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it holds.
    pub(crate) kind: PackKind,
    /// Its frames, one behind the other from the start.
    pub frames: Vec<FrameLens>,
    /// Its objects, and which frame each is in.
    pub places: Vec<(Digest, u32)>,
}

/// An object in a frame that was unpacked. It is what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// What it is called.
    pub digest: Digest,
    /// What it is.
    pub kind: ObjectKind,
    /// Where it is among the bytes.
    pub range: Range<usize>,
}

/// A frame that was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What is in it, in its order: something, always.
    pub objects: Vec<Unpacked>,
    /// All of its bytes, those of the objects among them.
    pub bytes: Vec<u8>,
}

impl Builder {
    /// An empty pack for objects that go into packs of this kind. Error: zstd has no memory.
    pub(crate) fn new(kind: PackKind) -> Result<Builder> {
        let compressor = Compressor::new(LEVEL).map_err(Error::io("zstd"))?;
        Ok(Builder {
            kind,
            compressor,
            stored: Vec::new(),
            frames: Vec::new(),
            places: Vec::new(),
            table: Vec::new(),
            bytes: Vec::new(),
        })
    }

    /// Adds an object, which must not be in it already. Error: zstd has no memory.
    ///
    /// # Panics
    /// If the object is empty, too large, or does not go into packs of this kind: the caller sorts them.
    pub fn add(&mut self, kind: ObjectKind, digest: Digest, bytes: &[u8]) -> Result<()> {
        assert!(PackKind::of(kind) == self.kind && (1..=bytes_max(self.kind)).contains(&bytes.len()));
        let is_full = self.bytes.len() + bytes.len() > FRAME_BYTES || self.table.len() == OBJECTS_MAX * ENTRY;
        if !self.table.is_empty() && is_full {
            self.close_frame()?;
        }
        self.table.extend(digest.0);
        self.table.extend((bytes.len() as u32).to_le_bytes());
        self.table.extend([kind as u8, 0, 0, 0]);
        self.bytes.extend_from_slice(bytes);
        self.places.push((digest, self.frames.len() as u32));
        Ok(())
    }

    /// What goes into it.
    pub(crate) fn kind(&self) -> PackKind {
        self.kind
    }

    /// Whether it should be finished before anything else goes into it.
    pub fn is_full(&self) -> bool {
        self.stored.len() + self.bytes.len() >= PACK_BYTES || self.frames.len() + 1 == FRAMES_MAX
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The pack. Error: zstd has no memory.
    ///
    /// # Panics
    /// If it is empty.
    pub fn finish(mut self) -> Result<Built> {
        assert!(!self.is_empty(), "a pack holds something");
        self.close_frame()?;
        let Builder { kind, frames, places, stored: mut bytes, .. } = self;
        let footer = Footer { kind, frames };
        bytes.extend(footer.encode());
        Ok(Built { bytes, kind, frames: footer.frames, places })
    }

    fn close_frame(&mut self) -> Result<()> {
        let count = (self.table.len() / ENTRY) as u32;
        let raw = [&count.to_le_bytes()[..], &[0; 4], &self.table, &self.bytes].concat();
        let packed = self.compressor.compress(&raw).map_err(Error::io("zstd"))?;
        // What does not get shorter stays as it is.
        let stored = if packed.len() < raw.len() { &packed } else { &raw };
        self.stored.extend_from_slice(stored);
        self.frames.push(FrameLens { stored: stored.len() as u32, raw: raw.len() as u32 });
        self.table.clear();
        self.bytes.clear();
        Ok(())
    }
}

/// Bytes of the largest object in packs of a kind.
pub(super) fn bytes_max(kind: PackKind) -> usize {
    match kind {
        PackKind::Data => CHUNK_BYTES_MAX,
        PackKind::Meta => OBJECT_BYTES_MAX,
    }
}

/// Whether a frame of a pack can have these lengths.
pub(crate) fn is_possible(kind: PackKind, lens: FrameLens) -> bool {
    let max = FRAME_HEADER + OBJECTS_MAX * ENTRY + bytes_max(kind).max(FRAME_BYTES);
    (FRAME_HEADER + ENTRY + 1..=max).contains(&(lens.raw as usize)) && (1..=lens.raw).contains(&lens.stored)
}

/// Bytes of the footer of a pack that ends with these. Error: no pack does.
pub fn footer_len(trailer: &[u8; TRAILER]) -> Result<u64> {
    let is_ours = u32_at(trailer, 8) == MAGIC && u16_at(trailer, 12) == VERSION && trailer[15] == 0;
    let frames = u32_at(trailer, 0) as usize;
    if !is_ours || trailer[4..8] != [0; 4] || frames == 0 || frames > FRAMES_MAX {
        return Err(malformed("not a pack of version 1"));
    }
    Ok((frames * FRAME_LENS + TRAILER) as u64)
}

/// What the end of a pack says: enough to read all of it, for who has no layer that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    pub(crate) kind: PackKind,
    /// Its frames, one behind the other from the start.
    pub frames: Vec<FrameLens>,
}

impl Footer {
    /// The footer that `bytes` are, if such a pack has one. Error: `Malformed`.
    pub fn decode(bytes: &[u8]) -> Result<Footer> {
        let trailer = *bytes.last_chunk::<TRAILER>().ok_or(malformed("shorter than a footer can be"))?;
        if footer_len(&trailer)? != bytes.len() as u64 {
            return Err(malformed("another length than it says"));
        }
        if u64_at(&trailer, 16) != xxh3_64(&bytes[..bytes.len() - 8]) {
            return Err(malformed("the checksum is wrong"));
        }
        let kind = PackKind::from_u8(trailer[14]).ok_or(malformed("neither data nor meta"))?;
        let frames = bytes[..bytes.len() - TRAILER].chunks_exact(FRAME_LENS);
        let frames = frames.map(|frame| FrameLens { stored: u32_at(frame, 0), raw: u32_at(frame, 4) });
        let frames: Vec<_> = frames.collect();
        if !frames.iter().all(|frame| is_possible(kind, *frame)) {
            return Err(malformed("a frame of an impossible length"));
        }
        Ok(Footer { kind, frames })
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.frames.len() * FRAME_LENS + TRAILER);
        for frame in &self.frames {
            out.extend(frame.stored.to_le_bytes());
            out.extend(frame.raw.to_le_bytes());
        }
        out.extend((self.frames.len() as u32).to_le_bytes());
        out.extend([0; 4]);
        out.extend(MAGIC.to_le_bytes());
        out.extend(VERSION.to_le_bytes());
        out.extend([self.kind as u8, 0]);
        out.extend(xxh3_64(&out).to_le_bytes());
        out
    }
}

/// Takes frames apart; keeps the memory for that.
pub struct Unpacker(Decompressor<'static>);

impl Unpacker {
    /// Error: zstd has no memory.
    pub fn new() -> Result<Unpacker> {
        Ok(Unpacker(Decompressor::new().map_err(Error::io("zstd"))?))
    }

    /// Takes a frame apart that stands in a pack of this kind and has these lengths, and checks each object against its digest. Its bytes go where those in
    /// `memory` were. Error: `Malformed`, these are not a frame's bytes.
    pub(crate) fn unpack(
        &mut self,
        kind: PackKind,
        lens: FrameLens,
        stored: &[u8],
        memory: Vec<u8>,
    ) -> Result<Frame> {
        if !is_possible(kind, lens) || stored.len() != lens.stored as usize {
            return Err(malformed("a frame of another length"));
        }
        let mut bytes = memory;
        bytes.clear();
        if lens.stored == lens.raw {
            bytes.extend_from_slice(stored);
        } else {
            bytes.reserve_exact(lens.raw as usize);
            let unpacked = self.0.decompress_to_buffer(stored, &mut bytes);
            unpacked.map_err(|_| malformed("a frame that does not unpack"))?;
        }
        if bytes.len() != lens.raw as usize {
            return Err(malformed("a frame that unpacks to another length"));
        }
        let objects = objects_of(kind, &bytes)?;
        Ok(Frame { objects, bytes })
    }
}

fn objects_of(kind: PackKind, raw: &[u8]) -> Result<Vec<Unpacked>> {
    let count = u32_at(raw, 0) as usize;
    let start = FRAME_HEADER + count.min(OBJECTS_MAX + 1) * ENTRY;
    if count == 0 || count > OBJECTS_MAX || raw[4..8] != [0; 4] || start >= raw.len() {
        return Err(malformed("a frame with an impossible number of objects"));
    }
    let mut end = start;
    let objects = raw[FRAME_HEADER..start].chunks_exact(ENTRY).map(|entry| {
        let len = u32_at(entry, 32) as usize;
        let object_kind = ObjectKind::from_u8(entry[36]).filter(|object| PackKind::of(*object) == kind);
        let object_kind = object_kind.ok_or(malformed("an object that goes elsewhere"))?;
        if len == 0 || entry[37..] != [0; 3] || len > raw.len() - end {
            return Err(malformed("an object's length out of range"));
        }
        let range = end..end + len;
        end = range.end;
        let digest = Digest(array(entry, 0));
        match Digest::of(&raw[range.clone()]) == digest {
            true => Ok(Unpacked { digest, kind: object_kind, range }),
            false => Err(malformed("an object that is not what it is called")),
        }
    });
    let objects: Vec<_> = objects.collect::<Result<_>>()?;
    let bytes = end - start;
    if end != raw.len() || (count > 1 && bytes > FRAME_BYTES) || bytes > bytes_max(kind).max(FRAME_BYTES) {
        return Err(malformed("a frame that is larger than its objects"));
    }
    Ok(objects)
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: "remote pack", reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::remote::tests::{flipped, flips};

    /// Of text and of noise, in turns.
    fn object(nth: u32, len: usize) -> Vec<u8> {
        let mut bytes = format!("object {nth}, ").repeat(len / 8 + 1).into_bytes();
        bytes.truncate(len);
        if nth.is_multiple_of(3) {
            blake3::Hasher::new().update(&nth.to_le_bytes()).finalize_xof().fill(&mut bytes);
        }
        bytes
    }

    fn pack(lens: &[usize]) -> Built {
        let mut builder = Builder::new(PackKind::Data).unwrap();
        for (nth, len) in lens.iter().enumerate() {
            let bytes = object(nth as u32, *len);
            builder.add(ObjectKind::Chunk, Digest::of(&bytes), &bytes).unwrap();
        }
        builder.finish().unwrap()
    }

    fn unpacked(built: &Built) -> Vec<Vec<u8>> {
        let (mut unpacker, mut at, mut all) = (Unpacker::new().unwrap(), 0, Vec::new());
        for lens in &built.frames {
            let stored = &built.bytes[at..at + lens.stored as usize];
            at += stored.len();
            let frame = unpacker.unpack(PackKind::Data, *lens, stored, Vec::new()).unwrap();
            all.extend(frame.objects.iter().map(|object| frame.bytes[object.range.clone()].to_vec()));
        }
        all
    }

    #[test]
    fn what_goes_in_comes_out_in_its_order_and_neighbours_share_a_frame() {
        let lens = [100, 200_000, 60_000, 3, 1 << 20, 7, FRAME_BYTES, 1];
        let built = pack(&lens);
        let all: Vec<_> = lens.iter().enumerate().map(|(nth, len)| object(nth as u32, *len)).collect();
        assert_eq!(unpacked(&built), all);
        let frames: Vec<_> = built.places.iter().map(|(_, frame)| *frame).collect();
        assert_eq!(frames, [0, 0, 0, 0, 1, 2, 3, 4]);
        assert!(built.frames[0].stored < built.frames[0].raw / 2, "{:?}", built.frames);
    }

    #[test]
    fn the_end_of_a_pack_says_where_its_frames_are() {
        let built = pack(&[10, 2000, 300_000]);
        let len = footer_len(built.bytes.last_chunk().unwrap()).unwrap() as usize;
        let (frames, footer) = built.bytes.split_at(built.bytes.len() - len);
        let expected = Footer { kind: PackKind::Data, frames: built.frames.clone() };
        assert_eq!(Footer::decode(footer).unwrap(), expected);
        assert_eq!(frames.len(), built.frames.iter().map(|lens| lens.stored as usize).sum());
    }

    #[test]
    fn bytes_that_are_not_those_of_a_frame_are_refused() {
        let built = pack(&[1000, 2000, 3000]);
        let (lens, mut unpacker) = (built.frames[0], Unpacker::new().unwrap());
        let stored = &built.bytes[..lens.stored as usize];
        for at in 0..stored.len() {
            let mut wrong = stored.to_vec();
            wrong[at] ^= 1;
            // zstd may not care for a bit; then the objects are right.
            if let Ok(Frame { objects, bytes }) = unpacker.unpack(PackKind::Data, lens, &wrong, Vec::new()) {
                assert!(
                    objects.iter().all(|object| Digest::of(&bytes[object.range.clone()]) == object.digest)
                );
            }
        }
        let mut unpack = |kind, lens, stored| unpacker.unpack(kind, lens, stored, vec![1; 10]);
        assert!(unpack(PackKind::Data, lens, &stored[1..]).is_err());
        assert!(unpack(PackKind::Meta, lens, stored).is_err());
        let shorter = FrameLens { raw: lens.raw - 1, ..lens };
        assert!(unpack(PackKind::Data, shorter, stored).is_err());
        assert!(unpack(PackKind::Data, lens, stored).is_ok());
    }

    proptest! {
        #[test]
        fn only_canonical_footers_are_accepted(
            lens in prop::collection::vec(1_usize..100_000, 1..8),
            flips in flips(),
        ) {
            let footer = Footer { kind: PackKind::Data, frames: pack(&lens).frames };
            let bytes = flipped(footer.encode(), flips);
            if let Ok(footer) = Footer::decode(&bytes) {
                prop_assert_eq!(footer.encode(), bytes);
            }
        }
    }
}
