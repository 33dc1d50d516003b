//! What a blob that is stored already tells of the one that grew out of it, so that only changes are read.

use std::ops::Range;

use super::{CHUNK_MAX, HOLE_UNIT, list::List};
use crate::{Digest, Result};

/// A stored chunk list and what differs from it.
pub(super) struct Base<'a> {
    list: List<'a>,
    /// Sorted, disjoint, none empty; the last one is all that lies behind the list's end.
    changed: Vec<Range<u64>>,
}

/// What the base knows of one block of the new file.
pub(super) enum Block {
    /// It is a hole, and so is everything up to here (a multiple of the hole unit, or behind the file).
    HoleUntil(u64),
    /// It has bytes that are not zero.
    Data,
    /// It must be read.
    Unknown,
}

/// A chunk of the base whose bytes are the new file's too.
pub(super) struct Unchanged {
    pub(super) end: u64,
    pub(super) chunk: Digest,
    /// It stays one chunk if the file's data goes on behind it (two bytes at least, see [`Base::chunk_at`]).
    pub(super) cut_by_content: bool,
    /// It stays one chunk whatever follows.
    pub(super) cut_by_length: bool,
}

impl<'a> Base<'a> {
    pub(super) fn new(list: List<'a>, changed: &[Range<u64>]) -> Base<'a> {
        let mut ranges: Vec<_> = changed.iter().filter(|range| range.start < range.end).cloned().collect();
        ranges.push(list.size()..u64::MAX);
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, range| {
            let joined = next.start <= range.end;
            if joined {
                range.end = range.end.max(next.end);
            }
            joined
        });
        Base { list, changed: ranges }
    }

    /// What is known of `block`, which begins at a multiple of the hole unit and ends at one or with the file.
    pub(super) fn block(&self, block: &Range<u64>) -> Result<Block> {
        let change = self.next_change(block.start);
        if change < block.end {
            return Ok(Block::Unknown);
        }
        let (Some(extent), _) = self.list.extent_at(block.start)? else { return Ok(Block::Unknown) };
        // What was data as a whole block need not be in a file that ends within it.
        let whole = block.end == (block.start + HOLE_UNIT).min(self.list.size());
        Ok(match extent.chunk {
            None => Block::HoleUntil(extent.range.end.min(change)),
            Some(_) if whole => Block::Data,
            Some(_) => Block::Unknown,
        })
    }

    /// The chunk that begins at `offset`, if all its bytes are unchanged.
    ///
    /// The cut behind a chunk is decided by the byte there and is only looked for while two bytes are left (see the
    /// `fastcdc` crate's loop over pairs); so a cut by content is one only if that byte is unchanged, too.
    pub(super) fn chunk_at(&self, offset: u64) -> Result<Option<Unchanged>> {
        let (Some(extent), next) = self.list.extent_at(offset)? else { return Ok(None) };
        let Some(chunk) = extent.chunk else { return Ok(None) };
        let Range { start, end } = extent.range;
        let change = self.next_change(start);
        if start != offset || change < end {
            return Ok(None);
        }
        let data_goes_on = next.is_some_and(|next| next.chunk.is_some());
        let cut_by_content = data_goes_on && change > end;
        Ok(Some(Unchanged { end, chunk, cut_by_content, cut_by_length: end - start == CHUNK_MAX as u64 }))
    }

    /// The first changed byte at or behind `offset`.
    fn next_change(&self, offset: u64) -> u64 {
        let next = self.changed.partition_point(|range| range.end <= offset);
        self.changed.get(next).map_or(u64::MAX, |range| range.start.max(offset))
    }
}
