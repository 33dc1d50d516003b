//! One file of the log: its header, the frames of its records, and what an intact frame says of the ones before it.
//! `docs/format.md`, "Log files". Knows nothing of what records mean.
//!
//! Every frame carries how much was safely on disk when it was written. That is how a replay tells a torn end, which
//! power loss leaves, from damage: nothing intact behind a torn record can claim that it was synced.

use cas::disk::{Disk, Open};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{
    Boot, Error, Result,
    codec::{Put, Take},
    record::RECORD_BYTES_MAX,
};

/// The folder of the state that holds the files.
pub(super) const DIR: &str = "log";
const MAGIC: u32 = u32::from_le_bytes(*b"aelg");
const VERSION: u32 = 1;
/// Header of a file: magic u32, version u32, position of the first record u64, all before this position was synced u64,
/// boot 16 bytes, xxh3 of these u64.
pub(super) const FILE_HEADER: usize = 48;
/// Header of a record: length of the body u32, zeros u32, its position u64, all before this position was synced u64, xxh3 of
/// these fields and the body u64. A record without a body is a mark.
pub(super) const RECORD_HEADER: usize = 32;

/// The file whose first record is at `start`.
pub(super) fn path_of(start: u64) -> String {
    format!("{DIR}/{start:016x}.log")
}

/// The header of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// The position of its first record.
    pub start: u64,
    /// Everything before this position was durable when the file was made.
    pub synced: u64,
    /// The run of the machine in which it was written.
    pub boot: Boot,
}

impl FileHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FILE_HEADER);
        out.u32(MAGIC);
        out.u32(VERSION);
        out.u64(self.start);
        out.u64(self.synced);
        out.extend_from_slice(&self.boot.0);
        out.u64(xxh3_64(&out));
        out
    }

    /// The header that `bytes` begin with; `None` if that is none, the version if it is one of a later program.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Option<FileHeader>, u32> {
        let mut take = Take(bytes);
        if take.u32() != Some(MAGIC) {
            return Ok(None);
        }
        match take.u32() {
            Some(version) if version > VERSION => return Err(version),
            Some(VERSION) => {}
            _ => return Ok(None),
        }
        let fields = || Some((take.u64()?, take.u64()?, Boot(take.array()?), take.u64()?));
        let Some((start, synced, boot, check)) = { fields }() else { return Ok(None) };
        let whole = xxh3_64(&bytes[..FILE_HEADER - 8]) == check && synced <= start;
        Ok(whole.then_some(FileHeader { start, synced, boot }))
    }
}

/// Fills in the header that `bytes` begin with.
pub(super) fn seal_record(bytes: &mut [u8], position: u64, synced: u64) {
    let len = (bytes.len() - RECORD_HEADER) as u32;
    bytes[0..4].copy_from_slice(&len.to_le_bytes());
    bytes[4..8].fill(0);
    bytes[8..16].copy_from_slice(&position.to_le_bytes());
    bytes[16..24].copy_from_slice(&synced.to_le_bytes());
    let check = check_of(bytes);
    bytes[24..32].copy_from_slice(&check.to_le_bytes());
}

fn check_of(bytes: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&bytes[..24]);
    hash.update(&bytes[RECORD_HEADER..]);
    hash.digest()
}

/// An intact record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    /// What it records; nothing for a mark.
    pub body: &'a [u8],
    /// Of a record: everything before this position was durable when it was written. Of a mark: the segment bytes that
    /// records before this position name were durable when the mark was written.
    pub synced: u64,
}

impl Frame<'_> {
    /// Bytes of header and body.
    pub fn len(&self) -> usize {
        RECORD_HEADER + self.body.len()
    }

    /// It only says what is durable.
    pub fn is_mark(&self) -> bool {
        self.body.is_empty()
    }
}

/// A log file in memory.
pub(super) struct LogFile {
    start: u64,
    bytes: Vec<u8>,
    /// `None` if it is torn or damaged.
    pub header: Option<FileHeader>,
}

impl LogFile {
    /// Reads the file whose first record is at `start`. Errors: `Newer`, `Io`.
    pub fn read(disk: &dyn Disk, start: u64) -> Result<LogFile> {
        let path = path_of(start);
        let fail = || Error::io(disk.display(&path));
        let file = disk.open(&path, Open::Read).map_err(fail())?;
        let mut bytes = vec![0; file.len().map_err(fail())? as usize];
        let read = file.read_at(&mut bytes, 0).map_err(fail())?;
        bytes.truncate(read);
        let header = FileHeader::decode(&bytes)
            .map_err(|found| Error::Newer { path: disk.display(&path), found, supported: VERSION })?
            .filter(|header| header.start == start);
        Ok(LogFile { start, bytes, header })
    }

    /// The intact record at `position`.
    pub fn frame(&self, position: u64) -> Option<Frame<'_>> {
        let at = self.offset_of(position)?;
        let mut take = Take(self.bytes.get(at..)?);
        let len = take.u32()? as usize;
        let (zeros, own, synced, check) = (take.u32()?, take.u64()?, take.u64()?, take.u64()?);
        if len > RECORD_BYTES_MAX || zeros != 0 || own != position || synced > position {
            return None;
        }
        let whole = self.bytes.get(at..at + RECORD_HEADER + len)?;
        (check == check_of(whole)).then(|| Frame { body: &whole[RECORD_HEADER..], synced })
    }

    /// Whether anything intact in this file says that all before a point behind `position` had been synced. Looks at
    /// every offset, because the length of what is damaged is not known; a record holds its own position, so nothing else
    /// looks like one. Marks say nothing of the kind: they are written before the sync that they belong to.
    pub fn claims_beyond(&self, position: u64) -> bool {
        if self.header.is_some_and(|header| header.synced > position) {
            return true;
        }
        // The header is synced with the first record behind it: of a file without one, a record is enough that claims no
        // more than all before the file.
        let least = if self.header.is_none() && position == self.start { position } else { position + 1 };
        let from = self.offset_of(position.max(self.start)).unwrap_or(usize::MAX);
        (from..self.bytes.len().saturating_sub(RECORD_HEADER - 1)).any(|at| {
            let expected = self.start + (at - FILE_HEADER) as u64;
            // The position is compared before anything is hashed.
            self.bytes[at + 8..at + 16] == expected.to_le_bytes()
                && self.frame(expected).is_some_and(|frame| !frame.is_mark() && frame.synced >= least)
        })
    }

    fn offset_of(&self, position: u64) -> Option<usize> {
        Some(FILE_HEADER + usize::try_from(position.checked_sub(self.start)?).ok()?)
    }
}
