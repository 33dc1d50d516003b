//! Blobs: a file's bytes as one chunk, or as a list of chunks and holes.
//!
//! The same bytes always give the same blob: neither the source's holes nor what was stored before can be seen in it.

mod base;
mod list;
mod split;
#[cfg(test)]
mod tests;

use std::{io, ops::Range};

use base::Base;
pub(crate) use list::ListBuilder;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use list::rewrite_list;
pub use list::{Extent, List};
pub(crate) use split::{Piece, Sink, unreadable};

use crate::{Content, Digest, Error, Object, ObjectKind, Result, Store, disk::Patience, store::Writer};

/// Files up to this size are one chunk, zeros or not: 96 % of source files, at one index record each.
pub const CHUNK_ONLY_MAX: u64 = 256 << 10;
/// No chunk of a list is larger.
pub const CHUNK_MAX: usize = 1 << 20;
/// A chunk of a list is at least this long, unless a hole or the file's end cuts it.
pub const CHUNK_MIN: usize = 64 << 10;
/// What the lengths of chunks scatter around.
pub const CHUNK_AVERAGE: usize = 256 << 10;
/// A block of this size, at a multiple of it, is a hole if it is all zeros.
pub const HOLE_UNIT: u64 = 64 << 10;

/// Where a blob's bytes come from while it is stored.
pub trait Source {
    /// Reads all of `buf` from `offset`; the caller never asks beyond the size it was told.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// The first range of data (not hole) that ends behind `offset`, cut at `offset`; None: only holes follow.
    /// A hint: what lies between data ranges reads as zeros. Dense sources answer offset..size.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
}

/// The blob that a new one grew out of.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// The old content.
    pub content: &'a Content,
    /// Its size.
    pub size: u64,
    /// Ranges of the new file that may differ from the old one; what lies beyond the old size always does. In any order.
    pub changed: &'a [Range<u64>],
}

impl Store {
    /// Reads file bytes: fills `buf` from `offset`, holes as zeros; the caller clamps to the size.
    pub fn read(&self, content: &Content, size: u64, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read_with(Patience::Waits, content, size, offset, buf)
    }

    /// [`Store::read`]. Error: `NotNow` for one who does not wait for file bytes.
    pub fn read_with(
        &self,
        patience: Patience,
        content: &Content,
        size: u64,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        assert!(
            offset.checked_add(buf.len() as u64).is_some_and(|end| end <= size),
            "a read beyond the file"
        );
        match *content {
            Content::Empty => Ok(()),
            Content::Chunk(digest) => self.read_chunk_with(patience, digest, offset, buf),
            Content::List(digest) => {
                let object = self.chunk_list(digest)?;
                self.read_list(patience, open_list(&object, size)?, offset, buf)
            }
        }
    }

    /// The first data range that ends behind `offset`, cut at `offset`; None if only a hole follows up to `size`.
    pub fn next_data(&self, content: &Content, size: u64, offset: u64) -> Result<Option<Range<u64>>> {
        match *content {
            Content::Empty => Ok(None),
            Content::Chunk(_) => Ok((offset < size).then_some(offset..size)),
            Content::List(digest) => {
                let object = self.chunk_list(digest)?;
                next_data(open_list(&object, size)?, offset)
            }
        }
    }

    /// Bytes that are data rather than hole (what st_blocks counts).
    pub fn data_bytes(&self, content: &Content, size: u64) -> Result<u64> {
        match *content {
            Content::Empty => Ok(0),
            Content::Chunk(_) => Ok(size),
            Content::List(digest) => {
                let object = self.chunk_list(digest)?;
                Ok(open_list(&object, size)?.data_bytes())
            }
        }
    }

    /// The object of a chunk list; [`List::open`] reads it.
    pub fn chunk_list(&self, digest: Digest) -> Result<Object> {
        self.object(ObjectKind::List, digest)
    }

    fn read_list(
        &self,
        patience: Patience,
        list: List<'_>,
        mut offset: u64,
        mut buf: &mut [u8],
    ) -> Result<()> {
        let mut extents = list.extents_from(offset);
        while !buf.is_empty() {
            let extent = extents.next().ok_or(list::malformed("it ends before its size"))??;
            let len = buf.len().min((extent.range.end - offset) as usize);
            let (part, rest) = buf.split_at_mut(len);
            match extent.chunk {
                Some(chunk) => self.read_chunk_with(patience, chunk, offset - extent.range.start, part)?,
                None => part.fill(0),
            }
            offset += len as u64;
            buf = rest;
        }
        Ok(())
    }
}

impl Writer {
    /// Stores a file's bytes. `previous`: the blob this one grew out of and the ranges that may differ from it, to reuse its
    /// chunks without reading them; the result is the same without it.
    ///
    /// An error of `source` comes back as [`Error::Unreadable`] with a path that means nothing.
    pub fn put_file(
        &mut self,
        size: u64,
        source: &dyn Source,
        previous: Option<Previous<'_>>,
    ) -> Result<Content> {
        if size <= CHUNK_ONLY_MAX {
            return self.put_small_file(size, source, previous);
        }
        let object = previous.map_or(Ok(None), |previous| self.base_object(&previous))?;
        let base = match (&object, previous) {
            (Some(object), Some(previous)) => Some(Base::new(List::open(object)?, previous.changed)),
            _ => None,
        };
        let mut sink = PutChunks { writer: self, list: ListBuilder::default() };
        split::split(size, source, base, &mut sink)?;
        let bytes = sink.list.finish()?;
        let digest = Digest::of(&bytes);
        self.put_object(ObjectKind::List, digest, &bytes)?;
        Ok(Content::List(digest))
    }

    fn put_small_file(
        &mut self,
        size: u64,
        source: &dyn Source,
        previous: Option<Previous<'_>>,
    ) -> Result<Content> {
        if size == 0 {
            return Ok(Content::Empty);
        }
        if let Some(Previous { content: &Content::Chunk(digest), size: old_size, changed: [] }) = previous
            && old_size == size
            && self.has(digest)?
        {
            return Ok(Content::Chunk(digest));
        }
        let mut bytes = vec![0; size as usize];
        source.read_at(&mut bytes, 0).map_err(unreadable)?;
        let digest = Digest::of(&bytes);
        self.put_object(ObjectKind::Chunk, digest, &bytes)?;
        Ok(Content::Chunk(digest))
    }

    /// The chunk list that `previous` stands for. One that this writer put and has not finished cannot be read: then the file
    /// is read as a whole, which gives the same blob.
    fn base_object(&self, previous: &Previous<'_>) -> Result<Option<Object>> {
        let Content::List(digest) = *previous.content else { return Ok(None) };
        match self.store().chunk_list(digest) {
            Ok(object) => {
                open_list(&object, previous.size)?;
                Ok(Some(object))
            }
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Splits a large file and lets `sink` have the pieces. For an import, whose sink is another thread.
pub(crate) fn split_file(size: u64, source: &dyn Source, sink: &mut dyn Sink) -> Result<()> {
    split::split(size, source, None, sink)
}

struct PutChunks<'a> {
    writer: &'a mut Writer,
    list: ListBuilder,
}

impl Sink for PutChunks<'_> {
    fn put(&mut self, end: u64, piece: Piece<'_>) -> Result<()> {
        let chunk = match piece {
            Piece::Hole => None,
            Piece::Known(digest) => Some(digest),
            Piece::Data(bytes) => {
                let digest = Digest::of(bytes);
                self.writer.put_object(ObjectKind::Chunk, digest, bytes)?;
                Some(digest)
            }
        };
        self.list.push(end, chunk);
        Ok(())
    }

    fn has(&mut self, chunk: Digest) -> Result<bool> {
        self.writer.has(chunk)
    }
}

/// A list that is of a file of `size` bytes.
fn open_list(object: &Object, size: u64) -> Result<List<'_>> {
    let list = List::open(object)?;
    if list.size() == size { Ok(list) } else { Err(list::malformed("its size is not the file's")) }
}

fn next_data(list: List<'_>, offset: u64) -> Result<Option<Range<u64>>> {
    let mut found: Option<Range<u64>> = None;
    for extent in list.extents_from(offset) {
        let extent = extent?;
        match (&mut found, extent.chunk) {
            (None, Some(_)) => found = Some(extent.range.start.max(offset)..extent.range.end),
            (Some(range), Some(_)) => range.end = extent.range.end,
            (None, None) => {}
            (Some(_), None) => break,
        }
    }
    Ok(found)
}
