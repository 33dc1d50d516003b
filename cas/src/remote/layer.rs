//! A layer: the packs that one publish sent, their frames, and which frame each object is in.
//!
//! Pure: bytes in, values out. A snapshot's manifest names layers; who has them needs one request for any object. Layers are made whole,
//! under random names, and never change. docs/format.md is normative.

use std::{ops::Range, sync::Arc};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    Failure,
    name::RemoteName,
    pack::{Built, FRAMES_MAX, FrameLens, is_possible},
};
use crate::{
    Digest, Error, Result,
    fields::{array, u16_at, u32_at, u64_at},
    record::PackKind,
};

const MAGIC: u32 = u32::from_le_bytes(*b"AFrl");
const VERSION: u16 = 1;
const HEADER: usize = 24;
const PACK: usize = 24;
const FRAME: usize = 8;
const OBJECT: usize = 24;
const SUM: usize = 8;
/// Of a digest, what an object is found by. Two objects with the same would have to be looked for 2^64 times; and who reads one checks
/// all of it.
pub(super) const PREFIX: usize = 16;
// magic, version, zeros; packs, frames; objects. name; frames, kind, zeros. prefix; pack, frame.
const _: () = assert!(HEADER == 8 + 8 + 8 && PACK == 16 + 8 && OBJECT == PREFIX + 8);
/// Of a layer, what is read to find out which packs it names: those of most are in it.
const BEGINNING: u64 = 16 << 10;
/// Packs of a layer: 1.5 TB of what does not compress.
pub const PACKS_MAX: usize = 1 << 16;
/// Objects of a layer.
pub const OBJECTS_MAX: usize = 1 << 26;
/// Bytes of the largest layer.
pub const LAYER_BYTES_MAX: u64 = 2 << 30;

/// See the module. Its bytes are searched in place.
#[derive(Clone, Debug)]
pub struct Layer {
    bytes: Vec<u8>,
    packs: Vec<PackEntry>,
    frames: Vec<FrameLens>,
    /// Where each frame is in its pack.
    starts: Vec<u64>,
}

/// A pack in a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// Its name.
    pub name: RemoteName,
    /// What it holds.
    pub(crate) kind: PackKind,
    /// Of all frames of the layer.
    frames: Range<u32>,
    /// How many frames the packs of its kind have that stand before it.
    before: u32,
}

/// Where an object is: the pack's number in its layer, and the frame's in the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Of the packs.
    pub pack: u32,
    /// Of its frames.
    pub frame: u32,
}

/// A frame, whatever layer says where it is: its pack, and its number there.
pub type FrameName = (RemoteName, u32);

impl Layer {
    /// The layer of one pack.
    pub fn of_pack(name: RemoteName, built: &Built) -> Layer {
        let place = |(digest, frame): &(Digest, u32)| (prefix(*digest), Place { pack: 0, frame: *frame });
        let objects = built.places.iter().map(place).collect();
        assemble(&[(name, built.kind, &built.frames)], objects)
            .expect("a pack that was built is within bounds")
    }

    /// One layer that says what all of these say, their packs in this order. Of an object that is in several the first counts.
    /// Error: `Malformed`, there is none, a pack is in several, or there are more packs or objects than a layer may have.
    pub fn merge(layers: &[Arc<Layer>]) -> Result<Layer> {
        let mut packs = Vec::new();
        let mut objects = Vec::new();
        for layer in layers {
            let first = packs.len() as u32;
            packs.extend(layer.packs.iter().map(|pack| {
                let frames = pack.frames.start as usize..pack.frames.end as usize;
                (pack.name, pack.kind, &layer.frames[frames])
            }));
            objects.extend(layer.objects().chunks_exact(OBJECT).map(|entry| {
                let Place { pack, frame } = place_of(entry);
                (array(entry, 0), Place { pack: first + pack, frame })
            }));
        }
        assemble(&packs, objects)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its packs.
    pub fn packs(&self) -> &[PackEntry] {
        &self.packs
    }

    /// Of each object, what it is found by.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = [u8; PREFIX]> {
        self.objects().chunks_exact(OBJECT).map(|entry| array(entry, 0))
    }

    /// How many objects it has.
    pub fn object_count(&self) -> usize {
        (self.bytes.len() - self.objects_at() - SUM) / OBJECT
    }

    /// Where an object is, among the packs of this kind.
    pub(crate) fn find(&self, kind: PackKind, digest: Digest) -> Option<Place> {
        let (objects, wanted) = (self.objects(), prefix(digest));
        let (mut low, mut high) = (0, objects.len() / OBJECT);
        while low < high {
            let middle = low + (high - low) / 2;
            if objects[middle * OBJECT..][..PREFIX] < wanted[..] { low = middle + 1 } else { high = middle }
        }
        // A file may hold the very bytes of a directory: then there are two.
        let found =
            objects[low * OBJECT..].chunks_exact(OBJECT).take_while(|entry| entry[..PREFIX] == wanted);
        found.map(place_of).find(|place| self.packs[place.pack as usize].kind == kind)
    }

    /// How many frames a pack has.
    pub fn frame_count(&self, pack: u32) -> u32 {
        let frames = &self.packs[pack as usize].frames;
        frames.end - frames.start
    }

    /// The lengths of a frame.
    pub fn lens(&self, place: Place) -> FrameLens {
        self.frames[self.nth(place)]
    }

    /// What the frame at a place is called.
    pub(super) fn frame_name(&self, place: Place) -> FrameName {
        (self.packs[place.pack as usize].name, place.frame)
    }

    /// Where these frames of a pack are in it.
    pub fn range(&self, pack: u32, frames: Range<u32>) -> Range<u64> {
        let (first, last) = (Place { pack, frame: frames.start }, Place { pack, frame: frames.end - 1 });
        self.starts[self.nth(first)]..self.starts[self.nth(last)] + u64::from(self.lens(last).stored)
    }

    /// How many bytes these frames of a pack have there.
    pub(super) fn stored_bytes(&self, pack: u32, frames: Range<u32>) -> u64 {
        let range = self.range(pack, frames);
        range.end - range.start
    }

    /// Where a frame is in the order of the tree: how many frames of its kind are before it.
    pub(super) fn position(&self, place: Place) -> u32 {
        self.packs[place.pack as usize].before + place.frame
    }

    /// The frames at these positions, by packs, of the kind of `pack`. None of them is in a pack before that one.
    pub(super) fn frames_at(
        &self,
        pack: u32,
        positions: Range<u32>,
    ) -> impl Iterator<Item = (u32, Range<u32>)> {
        let kind = self.packs[pack as usize].kind;
        let packs = (pack..).zip(&self.packs[pack as usize..]).filter(move |(_, entry)| entry.kind == kind);
        packs
            .map(move |(pack, entry)| {
                let count = entry.frames.end - entry.frames.start;
                let within = |position: u32| position.saturating_sub(entry.before).min(count);
                (pack, within(positions.start)..within(positions.end))
            })
            .skip_while(|(_, frames)| frames.is_empty())
            .take_while(|(_, frames)| !frames.is_empty())
    }

    /// The pack that the frames of a kind begin with, by which readers of two layers are told apart, and how many frames of that kind there are.
    pub(super) fn run(&self, pack: u32) -> (RemoteName, u32) {
        let kind = self.packs[pack as usize].kind;
        let first = self.packs.iter().find(|entry| entry.kind == kind);
        let last = self.packs.iter().rfind(|entry| entry.kind == kind);
        let (Some(first), Some(last)) = (first, last) else { unreachable!("the pack is one of them") };
        (first.name, last.before + (last.frames.end - last.frames.start))
    }

    fn nth(&self, place: Place) -> usize {
        (self.packs[place.pack as usize].frames.start + place.frame) as usize
    }

    fn objects_at(&self) -> usize {
        HEADER + self.packs.len() * PACK + self.frames.len() * FRAME
    }

    fn objects(&self) -> &[u8] {
        &self.bytes[self.objects_at()..self.bytes.len() - SUM]
    }

    /// The layer that `bytes` stand for, if they are what a layer has.
    pub fn decode(bytes: Vec<u8>) -> Result<Layer> {
        if bytes.len() < HEADER + PACK + FRAME + OBJECT + SUM {
            return Err(malformed("shorter than a layer can be"));
        }
        if u32_at(&bytes, 0) != MAGIC || u16_at(&bytes, 4) != VERSION || bytes[6..8] != [0; 2] {
            return Err(malformed("not a layer of version 1"));
        }
        let end = bytes.len() - SUM;
        if u64_at(&bytes, end) != xxh3_64(&bytes[..end]) {
            return Err(malformed("the checksum is wrong"));
        }
        let (packs, frames, objects) =
            (u32_at(&bytes, 8) as usize, u32_at(&bytes, 12) as usize, u64_at(&bytes, 16));
        let counts = packs <= PACKS_MAX && frames <= packs * FRAMES_MAX && objects <= OBJECTS_MAX as u64;
        if !counts || (HEADER + packs * PACK + frames * FRAME) as u64 + objects * OBJECT as u64 != end as u64
        {
            return Err(malformed("another length than it says"));
        }
        let (packs, starts, frames) = decode_packs(&bytes[HEADER..], packs, frames)?;
        let layer = Layer { packs, frames, starts, bytes };
        layer.check_objects()?;
        Ok(layer)
    }

    fn check_objects(&self) -> Result<()> {
        let mut last: Option<(&[u8], Place)> = None;
        for entry in self.objects().chunks_exact(OBJECT) {
            let (prefix, place) = (&entry[..PREFIX], place_of(entry));
            if place.pack as usize >= self.packs.len() || place.frame >= self.frame_count(place.pack) {
                return Err(malformed("an object in a frame that there is not"));
            }
            let kind = |place: Place| self.packs[place.pack as usize].kind as u8;
            let is_sorted = last.is_none_or(|(before, other)| {
                (before, other) < (prefix, place) && (before != prefix || kind(other) != kind(place))
            });
            if !is_sorted {
                return Err(malformed("objects that are not sorted, or there twice"));
            }
            last = Some((prefix, place));
        }
        Ok(())
    }
}

/// The packs that a layer of so many bytes names, of which only the beginning is read. Not checked against the layer's digest or checksum: for who keeps
/// what is named. Errors: `Malformed`, `Remote`.
pub(super) fn pack_names(
    read: impl Fn(Range<u64>) -> std::result::Result<Vec<u8>, Failure>,
    len: u64,
) -> Result<Vec<RemoteName>> {
    let mut bytes = read(0..len.min(BEGINNING))?;
    if bytes.len() < HEADER || u32_at(&bytes, 0) != MAGIC || u16_at(&bytes, 4) != VERSION {
        return Err(malformed("not a layer of version 1"));
    }
    let count = u32_at(&bytes, 8) as usize;
    let end = (HEADER + count.min(PACKS_MAX + 1) * PACK) as u64;
    if count == 0 || count > PACKS_MAX || end > len {
        return Err(malformed("another length than it says"));
    }
    if end > bytes.len() as u64 {
        bytes.extend(read(bytes.len() as u64..end)?);
    }
    let packs = bytes.get(HEADER..end as usize).ok_or(malformed("shorter than it was"))?;
    Ok(packs.chunks_exact(PACK).map(|pack| RemoteName(array(pack, 0))).collect())
}

fn assemble(
    packs: &[(RemoteName, PackKind, &[FrameLens])],
    mut objects: Vec<([u8; PREFIX], Place)>,
) -> Result<Layer> {
    let kind = |place: &Place| packs[place.pack as usize].1;
    // One of each kind; those stand in the order of their places.
    objects.sort_unstable();
    objects.sort_by_key(|(prefix, place)| (*prefix, kind(place) as u8));
    objects.dedup_by(|(prefix, place), (other, first)| prefix == other && kind(place) == kind(first));
    objects.sort_unstable();
    let frame_count: usize = packs.iter().map(|(.., frames)| frames.len()).sum();
    let len = HEADER + packs.len() * PACK + frame_count * FRAME + objects.len() * OBJECT + SUM;
    let mut bytes = Vec::with_capacity(len);
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend((packs.len() as u32).to_le_bytes());
    bytes.extend((frame_count as u32).to_le_bytes());
    bytes.extend((objects.len() as u64).to_le_bytes());
    for (name, kind, frames) in packs {
        bytes.extend(name.0);
        bytes.extend((frames.len() as u32).to_le_bytes());
        bytes.extend([*kind as u8, 0, 0, 0]);
    }
    for lens in packs.iter().flat_map(|(.., frames)| *frames) {
        bytes.extend(lens.stored.to_le_bytes());
        bytes.extend(lens.raw.to_le_bytes());
    }
    for (prefix, place) in objects {
        bytes.extend(prefix);
        bytes.extend(place.pack.to_le_bytes());
        bytes.extend(place.frame.to_le_bytes());
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    // It is held to the rules as any other.
    Layer::decode(bytes)
}

type Packs = (Vec<PackEntry>, Vec<u64>, Vec<FrameLens>);

fn decode_packs(bytes: &[u8], pack_count: usize, frame_count: usize) -> Result<Packs> {
    let (packs, rest) = bytes.split_at(pack_count * PACK);
    let mut lens = rest[..frame_count * FRAME].chunks_exact(FRAME);
    let (mut entries, mut starts, mut frames) = (Vec::new(), Vec::new(), Vec::new());
    let (mut data, mut meta) = (0, 0);
    for pack in packs.chunks_exact(PACK) {
        let (name, count) = (RemoteName(array(pack, 0)), u32_at(pack, 16));
        let kind = PackKind::from_u8(pack[20]).ok_or(malformed("neither data nor meta"))?;
        if pack[21..] != [0; 3] || count == 0 || count as usize > FRAMES_MAX {
            return Err(malformed("a pack with an impossible number of frames"));
        }
        let (first, mut at) = (frames.len() as u32, 0);
        for _ in 0..count {
            let frame = lens.next().ok_or(malformed("packs of more frames than there are"))?;
            let frame = FrameLens { stored: u32_at(frame, 0), raw: u32_at(frame, 4) };
            if !is_possible(kind, frame) {
                return Err(malformed("a frame of an impossible length"));
            }
            starts.push(at);
            at += u64::from(frame.stored);
            frames.push(frame);
        }
        let of_kind = match kind {
            PackKind::Data => &mut data,
            PackKind::Meta => &mut meta,
        };
        let before = *of_kind;
        *of_kind += count;
        entries.push(PackEntry { name, kind, frames: first..frames.len() as u32, before });
    }
    if lens.next().is_some() {
        return Err(malformed("frames that are in no pack"));
    }
    let mut names: Vec<_> = entries.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    if names.windows(2).any(|two| two[0] == two[1]) {
        return Err(malformed("a pack that is there twice"));
    }
    Ok((entries, starts, frames))
}

pub(super) fn prefix(digest: Digest) -> [u8; PREFIX] {
    array(&digest.0, 0)
}

fn place_of(entry: &[u8]) -> Place {
    Place { pack: u32_at(entry, PREFIX), frame: u32_at(entry, PREFIX + 4) }
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: "layer", reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::remote::tests::{flipped, flips};
    use crate::{ObjectKind, remote::pack::Builder};

    fn object(pack: u8, nth: u32) -> Vec<u8> {
        [&[pack; 1][..], &nth.to_le_bytes().repeat(500 + nth as usize)].concat()
    }

    fn sample(packs: u8, objects: u32) -> Layer {
        let pack = |pack: u8| {
            let kind = if pack.is_multiple_of(2) { PackKind::Meta } else { PackKind::Data };
            let object_kind = if pack.is_multiple_of(2) { ObjectKind::Dir } else { ObjectKind::Chunk };
            let mut builder = Builder::new(kind).unwrap();
            for nth in 0..objects {
                let bytes = object(pack, nth);
                builder.add(object_kind, Digest::of(&bytes), &bytes).unwrap();
            }
            // In packs of both kinds.
            builder.add(object_kind, Digest::of(b"both"), b"both").unwrap();
            Arc::new(Layer::of_pack(RemoteName([pack; 16]), &builder.finish().unwrap()))
        };
        Layer::merge(&(1..=packs).map(pack).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn it_says_where_each_object_is() {
        let layer = sample(2, 300);
        assert_eq!((layer.packs().len(), layer.object_count()), (2, 602));
        for pack in [1_u8, 2] {
            let kind = layer.packs()[usize::from(pack) - 1].kind;
            let mut last = 0;
            for nth in 0..300 {
                let place = layer.find(kind, Digest::of(&object(pack, nth))).unwrap();
                assert!(place.pack == u32::from(pack) - 1 && (last..=last + 1).contains(&place.frame));
                last = place.frame;
            }
            assert_eq!(last + 1, layer.frame_count(u32::from(pack) - 1));
            assert_eq!(layer.find(kind, Digest::of(b"both")).unwrap().pack, u32::from(pack) - 1);
        }
        assert_eq!(layer.find(PackKind::Data, Digest::of(&object(2, 3))), None);
        let frames = layer.frame_count(0);
        assert_eq!(layer.range(0, 0..frames).end, layer.range(0, frames - 1..frames).end);
        let read = |range: Range<u64>| Ok(layer.bytes()[range.start as usize..range.end as usize].to_vec());
        let names: Vec<_> = layer.packs().iter().map(|pack| pack.name).collect();
        assert_eq!(pack_names(read, layer.bytes().len() as u64).unwrap(), names);
        assert_eq!(layer.range(0, 1..2).start, u64::from(layer.lens(Place { pack: 0, frame: 0 }).stored));
    }

    proptest! {
        #[test]
        fn only_canonical_bytes_are_accepted(
            (packs, objects) in (1_u8..3, 0_u32..20),
            flips in flips(),
        ) {
            let bytes = flipped(sample(packs, objects).bytes, flips);
            if let Ok(layer) = Layer::decode(bytes.clone()) {
                // What it answers is in it.
                for pack in 0..layer.packs().len() as u32 {
                    layer.range(pack, 0..layer.frame_count(pack));
                }
                prop_assert_eq!(layer.bytes(), bytes);
            }
        }
    }
}
