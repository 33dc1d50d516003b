use std::{cell::Cell, collections::HashMap};

use proptest::prelude::*;

use super::{split::split, *};
use crate::Error;

/// A file in memory that counts what is read of it and knows nothing of holes.
struct Memory {
    bytes: Vec<u8>,
    read_bytes: Cell<u64>,
    hints: bool,
}

impl Memory {
    fn new(bytes: Vec<u8>) -> Memory {
        Memory { bytes, read_bytes: Cell::new(0), hints: false }
    }
}

impl Source for Memory {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_bytes.set(self.read_bytes.get() + buf.len() as u64);
        buf.copy_from_slice(&self.bytes[offset as usize..][..buf.len()]);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.bytes.len() as u64;
        if !self.hints {
            return Ok((offset < size).then_some(offset..size));
        }
        let rest = &self.bytes[offset as usize..];
        let Some(start) = rest.iter().position(|&byte| byte != 0) else { return Ok(None) };
        let len =
            rest[start..].chunks(4096).take_while(|page| page.iter().any(|&byte| byte != 0)).map(<[u8]>::len);
        let start = offset + start as u64;
        Ok(Some(start..start + len.sum::<usize>() as u64))
    }
}

/// Keeps the list and the chunks in memory.
#[derive(Default)]
struct Kept {
    list: ListBuilder,
    chunks: HashMap<Digest, Vec<u8>>,
}

impl Sink for Kept {
    fn put(&mut self, end: u64, piece: Piece<'_>) -> Result<()> {
        let chunk = match piece {
            Piece::Hole => None,
            Piece::Known(digest) => Some(digest),
            Piece::Data(bytes) => {
                self.chunks.insert(Digest::of(bytes), bytes.to_vec());
                Some(Digest::of(bytes))
            }
        };
        self.list.push(end, chunk);
        Ok(())
    }

    fn has(&mut self, _: Digest) -> Result<bool> {
        Ok(true)
    }
}

fn list_of(source: &Memory, base: Option<(&[u8], &[Range<u64>])>) -> Vec<u8> {
    kept(source, base).0
}

fn kept(source: &Memory, base: Option<(&[u8], &[Range<u64>])>) -> (Vec<u8>, HashMap<Digest, Vec<u8>>) {
    let mut sink = Kept::default();
    let base = base.map(|(list, changed)| Base::new(List::open(list).unwrap(), changed));
    split(source.bytes.len() as u64, source, base, &mut sink).unwrap();
    let bytes = sink.list.finish().unwrap();
    List::open(&bytes).unwrap().verify().unwrap();
    (bytes, sink.chunks)
}

fn extents(list: &[u8]) -> Vec<Extent> {
    List::open(list).unwrap().extents_from(0).map(|extent| extent.unwrap()).collect()
}

fn xorshift(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

const MIB: usize = 1 << 20;

#[test]
fn cut_points_are_pinned() {
    let list = list_of(&Memory::new(xorshift(0x9e37_79b9_7f4a_7c15, 4 * MIB)), None);
    let ends: Vec<_> = extents(&list).iter().map(|extent| extent.range.end).collect();
    assert_eq!(ends, GOLDEN_ENDS);
    assert_eq!(Digest::of(&list).to_string(), GOLDEN_LIST);
}

const GOLDEN_ENDS: &[u64] = &[
    364_837, 532_150, 874_286, 1_150_732, 1_346_742, 1_508_172, 2_045_878, 2_414_571, 2_621_071, 2_858_326,
    3_226_926, 3_554_559, 3_982_536, 4_194_304,
];
const GOLDEN_LIST: &str = "1078d203727f3835b7d084b4c44ed32dae62d52d0880b86a80779842d3dcf0d6";

#[test]
fn cuts_are_those_of_the_whole_buffer() {
    for len in [300_000, 700_001, 5 * MIB + 1] {
        let bytes = xorshift(42, len);
        let list = list_of(&Memory::new(bytes.clone()), None);
        let expected: Vec<_> = fastcdc::v2020::FastCDC::new(&bytes, CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX)
            .map(|chunk| (chunk.offset + chunk.length) as u64)
            .collect();
        assert_eq!(extents(&list).iter().map(|extent| extent.range.end).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_list_is_pinned_byte_by_byte() {
    let mut list = ListBuilder::default();
    list.push(1 << 20, None);
    list.push((1 << 20) + 5, Some(Digest([0xee; 32])));
    let expected = "41466c7301000000".to_owned()
        + "0200000000000000"
        + "0500100000000000"
        + "0500000000000000"
        + "0000100000000000"
        + &"00".repeat(32)
        + "0500100000000000"
        + &"ee".repeat(32);
    assert_eq!(data_encoding::HEXLOWER.encode(&list.finish().unwrap()), expected);
}

#[test]
fn zeros_are_holes_whatever_the_source_says() {
    let mut bytes = xorshift(1, 3 * MIB);
    bytes[MIB + 100..2 * MIB + 100].fill(0);
    let dense = Memory::new(bytes);
    let list = list_of(&dense, None);
    let hole = extents(&list).into_iter().find(|extent| extent.chunk.is_none()).unwrap();
    assert_eq!(hole.range, MIB as u64 + HOLE_UNIT..2 * MIB as u64);
    assert_eq!(list_of(&Memory { hints: true, ..dense }, None), list);
}

#[test]
fn a_huge_hole_is_one_entry_and_nothing_is_read() {
    struct Hole;
    impl Source for Hole {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Err(io::Error::other("a hole was read"))
        }
        fn next_data(&self, _: u64) -> io::Result<Option<Range<u64>>> {
            Ok(None)
        }
    }
    let size = i64::MAX as u64;
    let mut sink = Kept::default();
    split(size, &Hole, None, &mut sink).unwrap();
    let list = sink.list.finish().unwrap();
    assert_eq!(extents(&list), [Extent { range: 0..size, chunk: None }]);
    // Growing such a file by a change at its end does not walk the hole either.
    let base = Base::new(List::open(&list).unwrap(), &[]);
    let mut sink = Kept::default();
    split(size, &Hole, Some(base), &mut sink).unwrap();
    assert_eq!(sink.list.finish().unwrap(), list);
}

#[test]
fn a_small_edit_reads_little() {
    let mut bytes = xorshift(7, 16 * MIB);
    let base = list_of(&Memory::new(bytes.clone()), None);
    bytes[5 * MIB..5 * MIB + 4096].fill(0x55);
    let edited = Memory::new(bytes);
    let changed = 5 * MIB as u64..5 * MIB as u64 + 4096;
    let list = list_of(&edited, Some((&base, std::slice::from_ref(&changed))));
    assert!(edited.read_bytes.get() < 2 * MIB as u64, "{} bytes read", edited.read_bytes.get());
    assert_eq!(list, list_of(&edited, None));
}

#[test]
fn a_store_gives_back_what_was_put() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(std::sync::Arc::new(crate::sys::SysDisk::open(state.path()).unwrap())).unwrap();
    let mut bytes = xorshift(3, 3 * MIB);
    bytes[MIB..2 * MIB].fill(0);
    let size = bytes.len() as u64;
    let mut writer = store.writer().unwrap();
    let old = writer.put_file(size, &Memory::new(bytes.clone()), None).unwrap();
    bytes[77] ^= 1;
    let changed = std::slice::from_ref(&(77..78));
    let source = Memory::new(bytes.clone());
    let previous = Some(Previous { content: &old, size, changed });
    // The writer has not finished: its list cannot be read, which changes nothing but the work.
    let new = writer.put_file(size, &source, previous).unwrap();
    assert!(source.read_bytes.get() >= 2 * MIB as u64);
    let written = writer.finish().unwrap();

    let mut writer = store.writer().unwrap();
    let source = Memory::new(bytes.clone());
    assert_eq!(writer.put_file(size, &source, previous).unwrap(), new);
    assert!(source.read_bytes.get() <= MIB as u64, "{} bytes read", source.read_bytes.get());
    assert_eq!(writer.finish().unwrap().new_objects, 0);
    assert!(written.new_bytes < 3 * size / 2);

    let mut read = vec![1; bytes.len()];
    store.read(&new, size, 0, &mut read).unwrap();
    assert!(read == bytes);
    for (offset, len) in
        [(0, 1), (MIB - 3, 7), (2 * MIB - 1, 2), (3 * MIB - 5, 5), (999_999, 1_200_000), (5, 0)]
    {
        let mut part = vec![1; len];
        store.read(&new, size, offset as u64, &mut part).unwrap();
        assert!(part == bytes[offset..offset + len]);
    }
    assert_eq!(store.next_data(&new, size, 5).unwrap(), Some(5..MIB as u64));
    assert_eq!(store.next_data(&new, size, MIB as u64).unwrap(), Some(2 * MIB as u64..size));
    assert_eq!(store.data_bytes(&new, size).unwrap(), 2 * MIB as u64);
    assert!(store.read(&new, size + 1, 0, &mut [0]).is_err());
}

#[test]
fn wrong_lists_are_refused() {
    let list = |entries: &[(u64, Option<u8>)]| {
        let mut builder = ListBuilder::default();
        entries.iter().for_each(|&(end, chunk)| builder.push(end, chunk.map(|byte| Digest([byte; 32]))));
        let bytes = builder.finish().unwrap();
        List::open(&bytes).and_then(|list| list.verify())
    };
    assert!(list(&[(MIB as u64, Some(1)), (2 * MIB as u64, None)]).is_ok());
    assert!(list(&[(300_000, None)]).is_ok());
    assert!(list(&[(CHUNK_ONLY_MAX, Some(1))]).is_err());
    assert!(list(&[(MIB as u64 + 1, Some(1))]).is_err());
    assert!(list(&[(MIB as u64, None), (2 * MIB as u64, None)]).is_err());
    assert!(list(&[(MIB as u64 + 1, None), (2 * MIB as u64, Some(1))]).is_err());
    assert!(list(&[(100, Some(1)), (MIB as u64, None)]).is_err());
    assert!(list(&[(MIB as u64, Some(1)), (MIB as u64, Some(2))]).is_err());
    assert!(list(&[]).is_err());
    assert!(matches!(List::open(b""), Err(Error::Malformed { .. })));
}

/// A list's first entries escaped `verify`: it began with a search for offset 0, and a search in ends that are out of
/// order skips some of them. Found by fuzzing.
#[test]
fn ends_out_of_order_are_refused_wherever_they_stand() {
    let mut builder = ListBuilder::default();
    for end in [u64::MAX >> 1, 0, CHUNK_ONLY_MAX + 1] {
        builder.push(end, None);
    }
    let bytes = builder.finish().unwrap();
    let list = List::open(&bytes).unwrap();
    assert!(list.verify().is_err());
    assert!(list.extents_from(0).all(|extent| extent.is_ok()), "what a search finds is in order");
}

/// A file of parts: random bytes, zeros, and one byte repeated (which only the longest chunks cut).
fn any_file() -> impl Strategy<Value = Vec<(u8, usize, u64)>> {
    prop::collection::vec((0u8..3, 1usize..700_000, any::<u64>()), 2..8)
}

fn file_of(parts: &[(u8, usize, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &(what, len, seed) in parts {
        match what {
            0 => bytes.extend(xorshift(seed | 1, len)),
            1 => bytes.extend(vec![0; len * 2]),
            _ => bytes.extend(vec![seed as u8 | 1; len * 3]),
        }
    }
    bytes.resize(bytes.len().max(CHUNK_ONLY_MAX as usize + 1), 7);
    bytes
}

#[derive(Clone, Debug)]
enum Edit {
    Fill(prop::sample::Index, usize, u8),
    Random(prop::sample::Index, usize, u64),
    Resize(prop::sample::Index),
    Grow(usize, u8),
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1usize..300_000, prop_oneof![Just(0), any::<u8>()])
            .prop_map(|(at, len, byte)| Edit::Fill(at, len, byte)),
        (at(), 1usize..5_000, any::<u64>()).prop_map(|(at, len, seed)| Edit::Random(at, len, seed | 1)),
        at().prop_map(Edit::Resize),
        (1usize..400_000, any::<u8>()).prop_map(|(len, byte)| Edit::Grow(len, byte)),
    ]
}

/// Applies an edit and returns what it touched.
fn apply(bytes: &mut Vec<u8>, edit: &Edit) -> Option<Range<u64>> {
    let mut write = |at: &prop::sample::Index, new: Vec<u8>| {
        let start = at.index(bytes.len());
        let end = (start + new.len()).min(bytes.len());
        bytes[start..end].copy_from_slice(&new[..end - start]);
        Some(start as u64..end as u64)
    };
    match edit {
        Edit::Fill(at, len, byte) => write(at, vec![*byte; *len]),
        Edit::Random(at, len, seed) => write(at, xorshift(*seed, *len)),
        Edit::Resize(at) => {
            let old = bytes.len() as u64;
            let new = at.index(bytes.len()).max(CHUNK_ONLY_MAX as usize + 1);
            bytes.resize(new, 0);
            // What was cut off and grew again is not what it was.
            Some(new as u64..old.max(new as u64))
        }
        Edit::Grow(len, byte) => {
            let old = bytes.len() as u64;
            bytes.resize(bytes.len() + len, *byte);
            Some(old..bytes.len() as u64)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_previous_blob_saves_reads_and_changes_nothing(
        parts in any_file(),
        edits in prop::collection::vec(any_edit(), 0..5),
    ) {
        let bytes = file_of(&parts);
        let (base, mut chunks) = kept(&Memory::new(bytes.clone()), None);
        let mut edited = bytes;
        let changed: Vec<_> = edits.iter().filter_map(|edit| apply(&mut edited, edit)).collect();
        let source = Memory::new(edited);
        let (list, new) = kept(&source, Some((&base, &changed)));
        if edits.is_empty() {
            prop_assert_eq!(source.read_bytes.get(), 0);
        }
        prop_assert!(list == list_of(&source, None));
        let hinted = Memory { bytes: source.bytes.clone(), read_bytes: Cell::new(0), hints: true };
        prop_assert!(list == list_of(&hinted, Some((&base, &changed))));
        chunks.extend(new);
        let mut read = Vec::new();
        for extent in extents(&list) {
            match extent.chunk {
                Some(chunk) => read.extend(&chunks[&chunk]),
                None => read.resize(extent.range.end as usize, 0),
            }
            prop_assert_eq!(read.len() as u64, extent.range.end);
        }
        prop_assert!(read == source.bytes);
    }

    #[test]
    fn only_canonical_lists_are_accepted(
        mut ends in prop::collection::vec((1u64..=16, any::<bool>(), any::<u8>()), 1..10),
        flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4),
    ) {
        let mut builder = ListBuilder::default();
        let mut end = 0;
        ends.push((16, true, 1));
        for (units, data, byte) in ends {
            end += units * HOLE_UNIT;
            builder.push(end, data.then_some(Digest([byte; 32])));
        }
        let mut bytes = builder.finish().unwrap();
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        if let Ok(list) = List::open(&bytes) && list.verify().is_ok() {
            let mut builder = ListBuilder::default();
            list.extents_from(0).map(|extent| extent.unwrap()).for_each(|e| builder.push(e.range.end, e.chunk));
            prop_assert_eq!(builder.finish().unwrap(), bytes.clone());
        }
        // Reading what was not verified must not panic either.
        if let Ok(list) = List::open(&bytes) {
            let _ = next_data(list, 1 << 16);
            let _ = list.extents_from(1 << 17).collect::<Vec<_>>();
        }
    }
}
