//! Chunk lists: which bytes of a large file are which chunk, and where its holes are. Searched in place.
//!
//! Opening a list costs the same whatever its length; each entry is checked when it is touched, so that a wrong list gives
//! an error and never a panic. [`List::verify`] checks all of it.

use std::ops::Range;

use super::{CHUNK_MAX, CHUNK_ONLY_MAX, HOLE_UNIT};
use crate::{
    Digest, Error, Result,
    fields::{digest_at, digest_bytes, u16_at, u32_at, u64_at},
};

const MAGIC: u32 = u32::from_le_bytes(*b"AFls");
const VERSION: u16 = 1;
/// magic u32, version u16, zero u16, count u64, size u64, data_bytes u64.
const HEADER_LEN: usize = 32;
/// end u64, digest.
const ENTRY_LEN: usize = 40;
/// Chunks and holes in a list: 4 TiB of data at the average cut.
const COUNT_MAX: u64 = 16 << 20;

/// A chunk or a hole of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The file's bytes that it stands for; never empty.
    pub range: Range<u64>,
    /// The chunk; `None` is a hole.
    pub chunk: Option<Digest>,
}

/// A chunk list, borrowed from its object.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    bytes: &'a [u8],
    count: u64,
}

impl<'a> List<'a> {
    /// Checks the header and the length.
    pub fn open(bytes: &'a [u8]) -> Result<List<'a>> {
        if bytes.len() < HEADER_LEN {
            return Err(malformed("shorter than a header"));
        }
        if u32_at(bytes, 0) != MAGIC || u16_at(bytes, 4) != VERSION || u16_at(bytes, 6) != 0 {
            return Err(malformed("not a chunk list of version 1"));
        }
        let count = u64_at(bytes, 8);
        if !(1..=COUNT_MAX).contains(&count)
            || bytes.len() as u64 != HEADER_LEN as u64 + count * ENTRY_LEN as u64
        {
            return Err(malformed("length is not that of its table"));
        }
        let list = List { bytes, count };
        if list.size() <= CHUNK_ONLY_MAX
            || list.size() > i64::MAX as u64
            || list.size() != list.end(count - 1)
        {
            return Err(malformed("a size out of range or not that of its last entry"));
        }
        Ok(list)
    }

    /// Checks every rule of docs/format.md.
    pub fn verify(&self) -> Result<()> {
        let (mut data_bytes, mut after_hole) = (0u64, false);
        // By index: a search for offset 0 would skip entries in front of one whose end is out of order.
        for index in 0..self.count {
            let extent = self.extent(index)?;
            let hole = extent.chunk.is_none();
            if hole && after_hole {
                return Err(malformed("two holes side by side"));
            }
            after_hole = hole;
            if !hole {
                data_bytes += extent.range.end - extent.range.start;
            }
        }
        if data_bytes != self.data_bytes() {
            return Err(malformed("data bytes are not those of its chunks"));
        }
        Ok(())
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        u64_at(self.bytes, 16)
    }

    /// Bytes of the file that are no hole.
    pub fn data_bytes(&self) -> u64 {
        u64_at(self.bytes, 24)
    }

    /// Chunks and holes.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Chunks and holes in order, from the one that holds `offset`.
    pub fn extents_from(&self, offset: u64) -> impl Iterator<Item = Result<Extent>> + use<'a> {
        let list = *self;
        (list.index_of(offset)..list.count).map(move |index| list.extent(index))
    }

    /// The extent that holds `offset` and the one behind it, if there are.
    pub(super) fn extent_at(&self, offset: u64) -> Result<(Option<Extent>, Option<Extent>)> {
        let mut extents = self.extents_from(offset);
        Ok((extents.next().transpose()?, extents.next().transpose()?))
    }

    /// The first index whose end is behind `offset`.
    fn index_of(&self, offset: u64) -> u64 {
        let (mut start, mut end) = (0, self.count);
        while start < end {
            let middle = start + (end - start) / 2;
            if self.end(middle) <= offset { start = middle + 1 } else { end = middle }
        }
        start
    }

    fn end(&self, index: u64) -> u64 {
        u64_at(self.bytes, HEADER_LEN + index as usize * ENTRY_LEN)
    }

    fn extent(&self, index: u64) -> Result<Extent> {
        let start = if index == 0 { 0 } else { self.end(index - 1) };
        let end = self.end(index);
        let chunk = digest_at(self.bytes, HEADER_LEN + index as usize * ENTRY_LEN + 8);
        let fits = start < end
            && match chunk {
                Some(_) => end - start <= CHUNK_MAX as u64,
                None => {
                    start.is_multiple_of(HOLE_UNIT) && (end.is_multiple_of(HOLE_UNIT) || end == self.size())
                }
            };
        if fits {
            Ok(Extent { range: start..end, chunk })
        } else {
            Err(malformed("a chunk or hole out of bounds"))
        }
    }
}

/// Collects a file's chunks and holes in order.
#[derive(Debug, Default)]
pub(crate) struct ListBuilder {
    entries: Vec<u8>,
    end: u64,
    data_bytes: u64,
}

impl ListBuilder {
    /// Adds what ends at `end`; `None` is a hole.
    pub(crate) fn push(&mut self, end: u64, chunk: Option<Digest>) {
        if chunk.is_some() {
            self.data_bytes += end - self.end;
        }
        self.end = end;
        self.entries.extend(end.to_le_bytes());
        self.entries.extend(digest_bytes(chunk));
    }

    /// The bytes of the list.
    pub(crate) fn finish(self) -> Result<Vec<u8>> {
        let count = (self.entries.len() / ENTRY_LEN) as u64;
        if count > COUNT_MAX {
            return Err(malformed("more chunks than a file can have"));
        }
        let mut out = Vec::with_capacity(HEADER_LEN + self.entries.len());
        out.extend(MAGIC.to_le_bytes());
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 2]);
        out.extend(count.to_le_bytes());
        out.extend(self.end.to_le_bytes());
        out.extend(self.data_bytes.to_le_bytes());
        out.extend(self.entries);
        Ok(out)
    }
}

/// A list that was verified, written again. For the fuzz targets.
#[cfg(any(test, feature = "simulation"))]
pub(crate) fn rewrite_list(list: &List<'_>) -> Vec<u8> {
    let mut builder = ListBuilder::default();
    for extent in list.extents_from(0) {
        let extent = extent.expect("the list was verified");
        builder.push(extent.range.end, extent.chunk);
    }
    builder.finish().expect("it was a list before")
}

pub(super) fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: "chunk list", reason }
}
