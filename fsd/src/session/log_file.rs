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

/// Where a log may be: far from where positions would overflow, and further than any disk can write.
const POSITION_MAX: u64 = 1 << 62;

/// The first position of the file of this name; `None` for a name that no log file has.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let start = u64::from_str_radix(digits, 16).ok()?;
    (digits == format!("{start:016x}") && start <= POSITION_MAX).then_some(start)
}

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
        let whole = xxh3_64(&bytes[..FILE_HEADER - 8]) == check && synced <= start && start <= POSITION_MAX;
        Ok(whole.then_some(FileHeader { start, synced, boot }))
    }
}

/// Bytes of a record's header in front of its checksum.
const CHECKED_HEADER: usize = RECORD_HEADER - 8;

/// Fills in the header that `bytes` begin with.
pub(super) fn seal_record(bytes: &mut [u8], position: u64, synced: u64) {
    let len = (bytes.len() - RECORD_HEADER) as u32;
    let mut header = [0; CHECKED_HEADER];
    header[0..4].copy_from_slice(&len.to_le_bytes());
    header[8..16].copy_from_slice(&position.to_le_bytes());
    header[16..24].copy_from_slice(&synced.to_le_bytes());
    // Next to the body for a moment: what is hashed in one piece takes half the time.
    let gap = RECORD_HEADER - CHECKED_HEADER;
    bytes[gap..RECORD_HEADER].copy_from_slice(&header);
    let check = xxh3_64(&bytes[gap..]);
    bytes[..CHECKED_HEADER].copy_from_slice(&header);
    bytes[CHECKED_HEADER..RECORD_HEADER].copy_from_slice(&check.to_le_bytes());
}

fn check_of(bytes: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&bytes[..CHECKED_HEADER]);
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
        if len > RECORD_BYTES_MAX
            || zeros != 0
            || own != position
            || synced > position
            || position > POSITION_MAX
        {
            return None;
        }
        let whole = self.bytes.get(at..at + RECORD_HEADER + len)?;
        (check == check_of(whole)).then(|| Frame { body: &whole[RECORD_HEADER..], synced })
    }

    /// Hands the body of every intact record behind `position` to `visit`, whatever lies between them.
    pub fn each_behind(&self, position: u64, visit: &mut dyn FnMut(&[u8])) {
        let mut at = self.offset_of(position.max(self.start)).unwrap_or(usize::MAX);
        while at.saturating_add(RECORD_HEADER) <= self.bytes.len() {
            let expected = self.start + (at - FILE_HEADER) as u64;
            let own = self.bytes[at + 8..at + 16] == expected.to_le_bytes();
            match own.then(|| self.frame(expected)).flatten() {
                Some(frame) => {
                    visit(frame.body);
                    at += frame.len();
                }
                None => at += 1,
            }
        }
    }

    /// The first position before `end` where no intact record stands; None if all are there. Without a header it is the
    /// first of the file.
    pub fn break_before(&self, end: u64) -> Option<u64> {
        let mut position = self.start;
        while self.header.is_some() && position < end {
            match self.frame(position) {
                Some(frame) => position += frame.len() as u64,
                None => return Some(position),
            }
        }
        (position < end || self.header.is_none()).then_some(position)
    }

    /// Whether anything intact in this file says that all before a point behind `position` had been synced. Looks at
    /// every offset, because the length of what is damaged is not known; a record holds its own position, so nothing else
    /// looks like one. Marks say nothing of the kind: they are written before the sync that they belong to.
    ///
    /// With `whole_header` the file's header was durable before any record was: of a file without one a record is enough
    /// then that claims no more than all before the file.
    pub fn claims_beyond(&self, position: u64, whole_header: bool) -> bool {
        if self.header.is_some_and(|header| header.synced > position) {
            return true;
        }
        let least = if whole_header && self.header.is_none() && position == self.start {
            position
        } else {
            position.saturating_add(1)
        };
        let from = self.offset_of(position.max(self.start)).unwrap_or(usize::MAX);
        (from..self.bytes.len().saturating_sub(RECORD_HEADER - 1)).any(|at| {
            let expected = self.start.saturating_add((at - FILE_HEADER) as u64);
            // The position is compared before anything is hashed.
            self.bytes[at + 8..at + 16] == expected.to_le_bytes()
                && self.frame(expected).is_some_and(|frame| !frame.is_mark() && frame.synced >= least)
        })
    }

    fn offset_of(&self, position: u64) -> Option<usize> {
        FILE_HEADER.checked_add(usize::try_from(position.checked_sub(self.start)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> FileHeader {
        FileHeader { start: 0x1234_5678, synced: 0x1234_0000, boot: Boot(*b"boot id, 16 byte") }
    }

    /// A file of two records and a mark, each saying that everything up to the first was synced.
    fn file() -> LogFile {
        let header = sample();
        let (mut bytes, mut position) = (header.encode(), header.start);
        for body in [&b"a first body"[..], b"", b"another"] {
            let mut record = [&[0; RECORD_HEADER], body].concat();
            seal_record(&mut record, position, header.start);
            position += record.len() as u64;
            bytes.extend(record);
        }
        LogFile { start: header.start, bytes, header: Some(header) }
    }

    #[test]
    fn bytes_are_pinned() {
        let hex = data_encoding::HEXLOWER.encode(&file().bytes);
        assert_eq!(hex, include_str!("../../tests/golden/log_file.hex").trim());
    }

    #[test]
    fn records_follow_each_other_and_say_what_they_are() {
        let file = file();
        let mut position = file.start;
        for body in [&b"a first body"[..], b"", b"another"] {
            let frame = file.frame(position).unwrap();
            assert_eq!((frame.body, frame.is_mark(), frame.synced), (body, body.is_empty(), file.start));
            position += frame.len() as u64;
        }
        assert!(file.frame(position).is_none() && file.frame(file.start + 1).is_none());
        assert!(file.claims_beyond(file.start - 1, true) && !file.claims_beyond(file.start, true));
    }

    /// An empty file called ffffffffffffffff.log ended the start, and was where the log would have gone on. Found by fuzzing.
    #[test]
    fn no_log_is_where_positions_overflow() {
        assert_eq!(parse_name(path_of(7).rsplit('/').next().unwrap()), Some(7));
        for name in ["ffffffffffffffff.log", "7.log", "+000000000000007.log", "0000000000000007.lost"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
        let file = LogFile { start: u64::MAX, bytes: vec![0; 200], header: None };
        assert!(!file.claims_beyond(u64::MAX, true) && file.frame(u64::MAX).is_none());
        assert_eq!(FileHeader::decode(&FileHeader { start: u64::MAX, ..sample() }.encode()), Ok(None));
    }

    #[test]
    fn a_later_version_is_told_apart_from_garbage() {
        let mut bytes = sample().encode();
        assert_eq!(FileHeader::decode(&bytes), Ok(Some(sample())));
        bytes[4] = 2;
        assert_eq!(FileHeader::decode(&bytes), Err(2));
        bytes[0] ^= 1;
        assert_eq!(FileHeader::decode(&bytes), Ok(None));
        assert_eq!(FileHeader::decode(&[]), Ok(None));
    }

    proptest! {
        #[test]
        fn damage_is_noticed(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut file = file();
            let at = at.index(file.bytes.len());
            file.bytes[at] ^= flip;
            if at < FILE_HEADER {
                prop_assert!(!matches!(FileHeader::decode(&file.bytes), Ok(Some(_))));
            } else {
                let positions = [0, 44, 76].map(|offset| file.start + offset);
                prop_assert_eq!(positions.iter().filter(|at| file.frame(**at).is_none()).count(), 1);
            }
        }

        #[test]
        fn garbage_is_no_file(bytes in prop::collection::vec(any::<u8>(), 0..300), position in any::<u64>()) {
            let file = LogFile { start: position, header: FileHeader::decode(&bytes).ok().flatten(), bytes };
            prop_assert!(file.header.is_none() && file.frame(position).is_none());
            prop_assert!(file.frame(u64::MAX).is_none() && !file.claims_beyond(position, true));
        }
    }
}
