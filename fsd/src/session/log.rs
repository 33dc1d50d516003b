//! The log: every change of every session of this host, in the order in which they happened.
//!
//! Files of checksummed records, each file named by the position of its first record. A record is in the file before the
//! operation is acknowledged, so a killed daemon loses nothing; `sync` makes all records so far survive power loss. Only
//! the position of a record and the bytes of it matter here; what it means is record.rs's business.
//!
//! Space is reserved ahead, and one file more than is needed is held back: on a full disk what frees space can still be
//! recorded.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use cas::disk::{Disk, DiskFile, Open};
use parking_lot::Mutex;

use super::{
    Boot, Error, Limits, Result,
    log_file::{DIR, FILE_HEADER, FileHeader, LogFile, RECORD_HEADER, path_of, seal_record},
    record::{RECORD_BYTES_MAX, Record},
};

/// A log file held back for a full disk.
pub(super) const RESERVE: &str = "log/reserve";
/// A file that a start is making.
const NEW: &str = "log/new";

/// What a full disk means for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It keeps or adds data: refused when only the reserve is left.
    Grow,
    /// It gives space back: may use the reserve.
    Shrink,
}

/// The log, open for appending.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    tail: Mutex<Tail>,
    /// Files that begin before this position may be gone. Held while some are removed.
    trimmed: Mutex<u64>,
    position: AtomicU64,
    synced: AtomicU64,
    /// The reserve could not be put back: the disk is full.
    low: AtomicBool,
    /// The last append failed, and may have left a whole record behind the end all the same.
    spoilt: AtomicBool,
    boot: Boot,
    limits: Limits,
}

#[derive(Debug)]
struct Tail {
    file: Arc<dyn DiskFile>,
    /// First positions of all files, the current one last.
    starts: VecDeque<u64>,
    /// Files with records that no sync covered yet, the current one not among them.
    unsynced: Vec<Arc<dyn DiskFile>>,
    names_changed: bool,
    /// No space is reserved for the current file: the disk was full when it was begun.
    bare: bool,
    scratch: Vec<u8>,
}

impl Log {
    /// Goes on at `position`, in a new file behind those of `starts`, whose records are durable, and so is what they refer
    /// to. Uses up the reserve on a full disk; if there is none either, appends will fail until there is room.
    ///
    /// The file begins with where the log begins: the record of the last trim may be one of those that no longer count.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        mut starts: VecDeque<u64>,
        position: u64,
        boot: Boot,
        limits: Limits,
    ) -> Result<Log> {
        let header = FileHeader { start: position, synced: position, boot };
        let fail = |path: &str| Error::io(disk.display(path));
        match disk.remove(NEW) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(NEW)(error)),
            Ok(()) | Err(_) => {}
        }
        let (file, made) = match create(&*disk, NEW, &header, limits.log_file_bytes) {
            Err(Error::NoSpace) => match reuse(&*disk, &header)? {
                Some(file) => (file, RESERVE),
                None => (create(&*disk, NEW, &header, 0)?, NEW),
            },
            other => (other?, NEW),
        };
        let bare = is_short(&*file, limits);
        let beginning = trim_record(starts.front().copied().unwrap_or(position), position);
        let end = position + beginning.len() as u64;
        // Whole before it has its name, and the names before it durable: power loss in the middle must not leave less than
        // there was, and what stands at this position may be all that tells how much of the log is durable.
        let path = path_of(position);
        file.write_at(&beginning, FILE_HEADER as u64).and_then(|()| file.sync()).map_err(fail(made))?;
        let named = disk.sync_dir(DIR).and_then(|()| disk.rename(made, &path));
        named.and_then(|()| disk.sync_dir(DIR)).map_err(fail(&path))?;
        starts.push_back(position);
        let log = Log {
            tail: Mutex::new(Tail {
                file,
                starts,
                unsynced: Vec::new(),
                names_changed: false,
                bare,
                scratch: Vec::new(),
            }),
            trimmed: Mutex::new(0),
            position: AtomicU64::new(end),
            synced: AtomicU64::new(end),
            low: AtomicBool::new(false),
            spoilt: AtomicBool::new(false),
            disk,
            boot,
            limits,
        };
        log.refill();
        Ok(log)
    }

    /// Appends one record; it survives a kill of the process from here on. Returns the position behind it. Nothing is
    /// recorded when this fails. Errors: `NoSpace`, `Io`.
    pub fn append(&self, purpose: Purpose, encode: impl FnOnce(&mut Vec<u8>)) -> Result<u64> {
        if purpose == Purpose::Grow && self.low.load(Ordering::Relaxed) {
            return Err(Error::NoSpace);
        }
        let mut tail = self.tail.lock();
        let mut bytes = std::mem::take(&mut tail.scratch);
        bytes.clear();
        bytes.resize(RECORD_HEADER, 0);
        encode(&mut bytes);
        let result = self.write(&mut tail, &mut bytes);
        tail.scratch = bytes;
        result
    }

    fn write(&self, tail: &mut Tail, bytes: &mut [u8]) -> Result<u64> {
        if bytes.len() - RECORD_HEADER > RECORD_BYTES_MAX {
            // Only an operation below some 20,000 directories that nobody changed before makes one.
            return Err(Error::Invalid("too deep in the tree for one record of the log"));
        }
        self.write_frame(tail, bytes, self.synced.load(Ordering::Relaxed))
    }

    fn write_frame(&self, tail: &mut Tail, bytes: &mut [u8], synced: u64) -> Result<u64> {
        let position = self.position.load(Ordering::Relaxed);
        seal_record(bytes, position, synced);
        let mut start = *tail.starts.back().expect("there is always a current file");
        if position > start
            && FILE_HEADER as u64 + position - start + bytes.len() as u64 > self.limits.log_file_bytes
        {
            self.rotate(tail, position)?;
            start = position;
        }
        let at = FILE_HEADER as u64 + position - start;
        let written = tail.file.write_at(bytes, at);
        self.spoilt.store(written.is_err(), Ordering::Relaxed);
        // The path is for a failure alone: to write it down takes as long as all else that is done here.
        written.map_err(|error| Error::io(self.disk.display(&path_of(start)))(error))?;
        let end = position + bytes.len() as u64;
        self.position.store(end, Ordering::Release);
        Ok(end)
    }

    /// Goes on in a new file: the reserve if there is one.
    fn rotate(&self, tail: &mut Tail, position: u64) -> Result<()> {
        let header = FileHeader { start: position, synced: self.synced(), boot: self.boot };
        let path = path_of(position);
        let file = match reuse(&*self.disk, &header)? {
            Some(file) => {
                let renamed = self.disk.rename(RESERVE, &path);
                renamed.map_err(Error::io(self.disk.display(&path)))?;
                file
            }
            None => create(&*self.disk, &path, &header, self.limits.log_file_bytes)?,
        };
        let old = std::mem::replace(&mut tail.file, file);
        tail.unsynced.push(old);
        tail.starts.push_back(position);
        tail.names_changed = true;
        tail.bare = is_short(&*tail.file, self.limits);
        self.refill_behind(tail);
        Ok(())
    }

    /// Puts the reserve back if it is used up, and reserves what the current file lacks; until that works only what shrinks is
    /// recorded. Called after space came back, too.
    pub fn refill(&self) {
        self.refill_behind(&mut self.tail.lock());
    }

    fn refill_behind(&self, tail: &mut Tail) {
        let current = match tail.bare {
            true => tail.file.allocate(0, self.limits.log_file_bytes),
            false => Ok(()),
        };
        tail.bare &= current.is_err();
        let made = current.and_then(|()| match self.disk.open(RESERVE, Open::Write) {
            // Power loss may have left its name alone.
            Ok(file) => file.allocate(0, self.limits.log_file_bytes),
            Err(_) => self.disk.open(RESERVE, Open::Create).and_then(|file| {
                file.allocate(0, self.limits.log_file_bytes).inspect_err(|_| {
                    let _ = self.disk.remove(RESERVE);
                })
            }),
        });
        if let Err(error) = &made
            && !self.low.load(Ordering::Relaxed)
        {
            tracing::warn!(%error, "no room for the log's reserve: only what frees space is accepted now");
        }
        self.low.store(made.is_err(), Ordering::Relaxed);
    }

    /// The position behind the last record.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Everything before this position survives power loss.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// The disk is full and the reserve is in use.
    pub fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// An append failed and none came after it: a replay may find what it left. A sync writes a mark over that.
    pub fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Relaxed)
    }

    /// Makes all records so far durable, and says so in a mark. Bytes that records before `covered` refer to are durable
    /// already.
    pub fn sync(&self, covered: u64) -> Result<()> {
        let (claim, mut files, names_changed) = {
            let mut tail = self.tail.lock();
            let last = self.position() == covered;
            let end = self.write_frame(&mut tail, &mut [0; RECORD_HEADER], covered)?;
            let mut files = std::mem::take(&mut tail.unsynced);
            files.push(Arc::clone(&tail.file));
            (if last { end } else { covered }, files, std::mem::take(&mut tail.names_changed))
        };
        let synced = files.iter().try_for_each(|file| file.sync()).and_then(|()| match names_changed {
            true => self.disk.sync_dir(DIR),
            false => Ok(()),
        });
        if let Err(error) = synced {
            let mut tail = self.tail.lock();
            files.pop();
            tail.unsynced.extend(files);
            tail.names_changed |= names_changed;
            return Err(Error::io(self.disk.display(DIR))(error));
        }
        self.synced.fetch_max(claim, Ordering::AcqRel);
        Ok(())
    }

    /// Removes files that lie wholly before `position`, the oldest first and each for good: power loss must not leave a gap.
    /// The log says so before they go, so that a file that somebody else removes is missed.
    pub fn trim(&self, position: u64) -> Result<()> {
        let first = {
            let tail = self.tail.lock();
            let kept = tail.starts.iter().rposition(|start| *start <= position).unwrap_or(0);
            if kept == 0 {
                return Ok(());
            }
            tail.starts[kept]
        };
        self.append(Purpose::Shrink, |out| Record::Trim(first).encode(out))?;
        self.sync(self.synced())?;
        let mut trimmed = self.trimmed.lock();
        *trimmed = first.max(*trimmed);
        // No more than it says: the record may have gone to a new file that begins at `position` itself.
        while let Some(start) = self.oldest_before(first) {
            let path = path_of(start);
            // Nobody who wants to append waits for this.
            let removed = match self.disk.remove(&path) {
                // Somebody was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
            let removed = removed.and_then(|()| self.disk.sync_dir(DIR));
            removed.map_err(Error::io(self.disk.display(&path)))?;
            self.tail.lock().starts.pop_front();
        }
        Ok(())
    }

    /// The first file, if it lies wholly before `position`.
    fn oldest_before(&self, position: u64) -> Option<u64> {
        let tail = self.tail.lock();
        tail.starts.get(1).filter(|end| **end <= position).map(|_| tail.starts[0])
    }

    /// Reads every file again, up to the last record that was there when this was called. Gives how many bytes that were, and
    /// of each damaged file the first place where no record can be read.
    pub fn check(&self) -> Result<(u64, Vec<DamagedFile>)> {
        let (starts, end) = {
            let tail = self.tail.lock();
            (tail.starts.clone(), self.position())
        };
        let (mut bytes, mut damaged) = (0, Vec::new());
        for (i, &start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(end);
            let broken = match LogFile::read(&*self.disk, start) {
                Ok(file) => file.break_before(end),
                // Trimmed in the meantime.
                Err(_) if start < *self.trimmed.lock() => continue,
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Some(start),
                Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EIO) => Some(start),
                Err(Error::Newer { .. }) => Some(start),
                Err(error) => return Err(error),
            };
            bytes += end - start;
            if let Some(position) = broken {
                let offset = FILE_HEADER as u64 + position - start;
                damaged.push(DamagedFile {
                    start,
                    path: self.disk.display(&path_of(start)),
                    offset,
                    position,
                });
            }
        }
        Ok((bytes, damaged))
    }

    /// Copies damaged files to `.lost`, as far as they can be read; gives where.
    pub fn set_aside(&self, damaged: &[DamagedFile]) -> Result<Vec<std::path::PathBuf>> {
        let mut aside = Vec::new();
        for file in damaged {
            if copy_aside(&*self.disk, file.start)? {
                aside.push(self.disk.display(&lost_path_of(file.start)));
            }
        }
        Ok(aside)
    }

    /// Goes on in a new file.
    pub fn begin_file(&self) -> Result<()> {
        let mut tail = self.tail.lock();
        if tail.starts.back() == Some(&self.position()) {
            // Two files cannot have one position, and the present one may be damaged although it is empty.
            self.write_frame(&mut tail, &mut [0; RECORD_HEADER], self.synced())?;
        }
        self.rotate(&mut tail, self.position())
    }

    /// The first position that is still there.
    pub fn start(&self) -> u64 {
        *self.tail.lock().starts.front().expect("there is always a current file")
    }
}

/// A log file in which not every record can be read.
#[derive(Clone, Debug)]
pub struct DamagedFile {
    start: u64,
    /// The file.
    pub path: std::path::PathBuf,
    /// The first byte in it that is no record.
    pub offset: u64,
    /// The same as a position.
    pub position: u64,
}

/// Where a damaged log file is kept for whoever wants to look; no replay reads it.
pub(super) fn lost_path_of(start: u64) -> String {
    format!("{}.lost", path_of(start))
}

/// Copies a log file to where it is kept; false if there is none.
pub(super) fn copy_aside(disk: &dyn Disk, start: u64) -> Result<bool> {
    let (path, lost) = (path_of(start), lost_path_of(start));
    let fail = || Error::io(disk.display(&path));
    let file = match disk.open(&path, Open::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(fail())?,
    };
    let mut bytes = vec![0; file.len().map_err(fail())? as usize];
    let mut read = 0;
    for block in bytes.chunks_mut(4096) {
        let at = read;
        read += block.len();
        match file.read_at(block, at as u64) {
            // A sector that cannot be read stays zeros.
            Err(error) if error.raw_os_error() != Some(libc::EIO) => return Err(fail()(error)),
            _ => {}
        }
    }
    let _ = disk.remove(&lost);
    let copy = disk.open(&lost, Open::Create).map_err(fail())?;
    copy.write_at(&bytes, 0).and_then(|()| copy.sync()).and_then(|()| disk.sync_dir(DIR)).map_err(fail())?;
    Ok(true)
}

fn is_short(file: &dyn DiskFile, limits: Limits) -> bool {
    file.len().map_or(true, |len| len < limits.log_file_bytes)
}

/// The record that begins the file at `position` of a log that begins at `first`.
fn trim_record(first: u64, position: u64) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_HEADER];
    Record::Trim(first).encode(&mut bytes);
    seal_record(&mut bytes, position, position);
    bytes
}

fn create(disk: &dyn Disk, path: &str, header: &FileHeader, len: u64) -> Result<Arc<dyn DiskFile>> {
    let fail = || Error::io(disk.display(path));
    let file = disk.open(path, Open::Create).map_err(fail())?;
    let made = match len {
        0 => Ok(()),
        len => file.allocate(0, len),
    };
    if let Err(error) = made.and_then(|()| file.write_at(&header.encode(), 0)) {
        let _ = disk.remove(path);
        return Err(fail()(error));
    }
    Ok(file)
}

/// The reserve with a log file's header, if there is one; it still has to get its name.
fn reuse(disk: &dyn Disk, header: &FileHeader) -> Result<Option<Arc<dyn DiskFile>>> {
    let fail = || Error::io(disk.display(RESERVE));
    match disk.open(RESERVE, Open::Write) {
        Ok(reserve) => {
            reserve.write_at(&header.encode(), 0).map_err(fail())?;
            Ok(Some(reserve))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail()(error)),
    }
}
