//! Walks the records of a pack from its bytes alone, without the index.
//!
//! Behind damage it looks for the next record at every place where one may begin. Bytes of a file may look like a
//! record there, so what is found this way must have the digest it claims.

use std::{io, sync::Arc};

use crate::{
    Digest, Error, Result,
    disk::DiskFile,
    pack::{Location, Pack},
    record::{ALIGN, PACK_HEADER, RECORD_HEADER, RecordHeader},
};

/// Bytes read at once.
const WINDOW_BYTES: usize = 4 << 20;
/// What is skipped where the disk cannot read.
const UNREADABLE_STEP: u64 = 4096;

/// What stands at a place in a pack.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A record, whose payload is what was written if `intact`.
    Record { at: Location, digest: Digest, payload: &'a [u8], intact: bool },
    /// No record, for so many bytes.
    Bad { offset: u64, len: u64, reason: &'static str },
}

/// Shows `visit` everything from the first record up to `end`.
pub(crate) fn scan(pack: &Pack, end: u64, visit: &mut dyn FnMut(Found<'_>) -> Result<()>) -> Result<()> {
    let mut window = Window { file: pack.file()?.clone(), start: 0, bytes: Vec::new() };
    let mut offset = PACK_HEADER as u64;
    let mut bad: Option<(u64, &'static str)> = None;
    let io = |e| Error::io(pack.display())(e);
    while offset < end {
        match record_at(&mut window, offset, end, bad.is_some()).map_err(io)? {
            Ok((header, intact)) => {
                if let Some((start, reason)) = bad.take() {
                    visit(Found::Bad { offset: start, len: offset - start, reason })?;
                }
                let at = Location { pack: pack.id, offset, len: header.len, kind: header.kind };
                let payload = window.get(payload_offset(offset, &header), header.len as usize).map_err(io)?;
                let payload = payload.unwrap_or_default();
                visit(Found::Record { at, digest: header.digest, payload, intact })?;
                offset += header.span();
            }
            Err((reason, step)) => {
                bad.get_or_insert((offset, reason));
                offset = (offset + 1).next_multiple_of(step);
            }
        }
    }
    match bad {
        Some((start, reason)) => visit(Found::Bad { offset: start, len: end.max(start) - start, reason }),
        None => Ok(()),
    }
}

type Record = Result<(RecordHeader, bool), (&'static str, u64)>;

/// The record at `offset`, or why there is none and how far to step.
fn record_at(window: &mut Window, offset: u64, end: u64, lost: bool) -> io::Result<Record> {
    let Some(header) = window.get(offset, RECORD_HEADER)? else {
        let reason = if offset + RECORD_HEADER as u64 > end { "the pack is truncated" } else { UNREADABLE };
        return Ok(Err((reason, UNREADABLE_STEP)));
    };
    let header = match RecordHeader::decode(header.try_into().expect("a slice of one header")) {
        Ok(header) => header,
        Err(reason) => return Ok(Err((reason, ALIGN))),
    };
    if payload_offset(offset, &header) + u64::from(header.len) > end {
        return Ok(Err(("the pack is truncated", ALIGN)));
    }
    let sums_bytes = header.sums_bytes();
    let content = window.get(offset + RECORD_HEADER as u64, sums_bytes + header.len as usize)?;
    let intact = content.map(|content| content.split_at(sums_bytes)).is_some_and(|(sums, payload)| {
        header.matches(sums, payload) && (!lost || Digest::of(payload) == header.digest)
    });
    Ok(if lost && !intact { Err(("no record begins here", ALIGN)) } else { Ok((header, intact)) })
}

fn payload_offset(record: u64, header: &RecordHeader) -> u64 {
    record + (RECORD_HEADER + header.sums_bytes()) as u64
}

const UNREADABLE: &str = "the disk cannot read it";

/// A part of the file in memory.
struct Window {
    file: Arc<dyn DiskFile>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// These bytes; None if the file ends before, or the medium cannot give them back.
    fn get(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let within = |w: &Window| {
            let skip = usize::try_from(offset.checked_sub(w.start)?).ok()?;
            (skip + len <= w.bytes.len()).then_some(skip)
        };
        if within(self).is_none() {
            self.start = offset;
            if !self.fill(len.max(WINDOW_BYTES))? {
                self.fill(len)?;
            }
        }
        Ok(within(self).map(|skip| &self.bytes[skip..skip + len]))
    }

    /// Reads from `start`; false if the medium refuses.
    fn fill(&mut self, len: usize) -> io::Result<bool> {
        self.bytes.resize(len, 0);
        match self.file.read_at(&mut self.bytes, self.start) {
            Ok(n) => {
                self.bytes.truncate(n);
                Ok(true)
            }
            Err(e) if e.raw_os_error() == Some(libc::EIO) => {
                self.bytes.clear();
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }
}
