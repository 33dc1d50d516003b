//! SKELETON - to be written (chunk lists, cut points, holes, Source).
#![expect(missing_docs, unused_variables, clippy::todo, reason = "skeleton")]
use crate::{Content, Result, Store, store::Writer};
use std::{io, ops::Range};

/// Where a blob's bytes come from while it is stored.
pub trait Source {
    /// Reads all of `buf` from `offset`; the caller never asks beyond the size it was told.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// The first range of data (not hole) that ends behind `offset`, cut at `offset`; None: only holes follow.
    /// A hint: what lies between data ranges reads as zeros. Dense sources answer offset..size.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
}

#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> { pub content: &'a Content, pub size: u64, pub changed: &'a [Range<u64>] }

impl Store {
    /// Reads file bytes: fills `buf` from `offset`, holes as zeros; the caller clamps to the size.
    pub fn read(&self, content: &Content, size: u64, offset: u64, buf: &mut [u8]) -> Result<()> { todo!() }
    /// The first data range that ends behind `offset`, cut at `offset`; None if only a hole follows up to `size`.
    pub fn next_data(&self, content: &Content, size: u64, offset: u64) -> Result<Option<Range<u64>>> { todo!() }
    /// Bytes that are data rather than hole (what st_blocks counts).
    pub fn data_bytes(&self, content: &Content, size: u64) -> Result<u64> { todo!() }
}
impl Writer {
    /// Stores a file's bytes. `previous`: the blob this one grew out of and the ranges that differ from it, to reuse its chunks.
    pub fn put_file(&mut self, size: u64, source: &dyn Source, previous: Option<Previous<'_>>) -> Result<Content> { todo!() }
}
