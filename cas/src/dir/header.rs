//! The 48 bytes that every dir object begins with.

use super::Totals;
use crate::{
    Error, Result,
    fields::{u16_at, u32_at, u64_at},
};

const MAGIC: u32 = u32::from_le_bytes(*b"AFdr");
const VERSION: u16 = 1;
/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 48;

/// What a dir object is, as its flags say. A page differs from a whole directory with the same entries in its bytes, so
/// that one digest never stands for two kinds of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Shape {
    /// All entries of a directory.
    Whole = 0,
    /// The table of a wide directory's pages.
    Index = 1,
    /// Some entries of a wide directory.
    Page = 2,
}

/// A header's fields; `count` and `totals` cover everything below the object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) shape: Shape,
    pub(super) count: u32,
    pub(super) heap_len: u32,
    pub(super) totals: Totals,
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Result<Header> {
        if bytes.len() < HEADER_LEN {
            return Err(malformed("shorter than a header"));
        }
        if u32_at(bytes, 0) != MAGIC || u16_at(bytes, 4) != VERSION {
            return Err(malformed("not a dir object of version 1"));
        }
        let shape = match u16_at(bytes, 6) {
            0 => Shape::Whole,
            1 => Shape::Index,
            2 => Shape::Page,
            _ => return Err(malformed("unknown flags")),
        };
        let totals = totals_at(bytes, 16);
        Ok(Header { shape, count: u32_at(bytes, 8), heap_len: u32_at(bytes, 12), totals })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(MAGIC.to_le_bytes());
        out.extend(VERSION.to_le_bytes());
        out.extend((self.shape as u16).to_le_bytes());
        out.extend(self.count.to_le_bytes());
        out.extend(self.heap_len.to_le_bytes());
        write_totals(out, &self.totals);
    }
}

/// The four sums at `at`.
pub(super) fn totals_at(bytes: &[u8], at: usize) -> Totals {
    Totals {
        files: u64_at(bytes, at),
        bytes: u64_at(bytes, at + 8),
        links: u64_at(bytes, at + 16),
        ino_max: u64_at(bytes, at + 24),
    }
}

pub(super) fn write_totals(out: &mut Vec<u8>, totals: &Totals) {
    for sum in [totals.files, totals.bytes, totals.links, totals.ino_max] {
        out.extend(sum.to_le_bytes());
    }
}

pub(super) fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: "dir object", reason }
}
