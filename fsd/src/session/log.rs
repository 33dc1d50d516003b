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
    log_file::{DIR, FILE_HEADER, FileHeader, RECORD_HEADER, path_of, seal_record},
    record::RECORD_BYTES_MAX,
};

const RESERVE: &str = "log/reserve";
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
    scratch: Vec<u8>,
}

impl Log {
    /// Goes on at `position`, in a new file behind those of `starts`, whose records are durable, and so is what they refer
    /// to. Uses up the reserve on a full disk; if there is none either, appends will fail until there is room.
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
        // Whole before it has its name, and the names before it durable: power loss in the middle must not leave less than
        // there was, and what stands at this position may be all that tells how much of the log is durable.
        let path = path_of(position);
        file.sync().map_err(fail(made))?;
        let named = disk.sync_dir(DIR).and_then(|()| disk.rename(made, &path));
        named.and_then(|()| disk.sync_dir(DIR)).map_err(fail(&path))?;
        starts.push_back(position);
        let log = Log {
            tail: Mutex::new(Tail {
                file,
                starts,
                unsynced: Vec::new(),
                names_changed: false,
                scratch: Vec::new(),
            }),
            position: AtomicU64::new(position),
            synced: AtomicU64::new(position),
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
        written.map_err(Error::io(self.disk.display(&path_of(start))))?;
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
        self.refill();
        Ok(())
    }

    /// Puts the reserve back if it is used up; until that works only what shrinks is recorded. Called after space came back, too.
    pub fn refill(&self) {
        let made = match self.disk.open(RESERVE, Open::Read) {
            Ok(_) => Ok(()),
            Err(_) => self.disk.open(RESERVE, Open::Create).and_then(|file| {
                file.allocate(0, self.limits.log_file_bytes).inspect_err(|_| {
                    let _ = self.disk.remove(RESERVE);
                })
            }),
        };
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
    pub fn trim(&self, position: u64) -> Result<()> {
        let mut tail = self.tail.lock();
        while tail.starts.len() > 1 && tail.starts[1] <= position {
            let path = path_of(tail.starts[0]);
            let removed = self.disk.remove(&path).and_then(|()| self.disk.sync_dir(DIR));
            removed.map_err(Error::io(self.disk.display(&path)))?;
            tail.starts.pop_front();
        }
        Ok(())
    }

    /// The first position that is still there.
    pub fn start(&self) -> u64 {
        *self.tail.lock().starts.front().expect("there is always a current file")
    }
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
