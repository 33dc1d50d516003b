//! Segments: the files that changes' bytes live in until a seal moves them into the store.
//!
//! A segment is filled from the front and never reused: a byte range belongs to one extent for good. Whoever refers to it
//! holds an `Arc`; when the last one goes, its file goes too, but only after the log that says so is on disk, because
//! power loss may bring an older state back. Preallocated, so that a write that got its range cannot find the disk full.

use std::{
    collections::HashMap,
    io,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use cas::disk::{Disk, DiskFile, Open};
use parking_lot::Mutex;

use super::{
    Error, Limits, Result,
    sums::{Sum, Sums},
};

/// The folder of the state that holds them.
const DIR: &str = "segments";
/// The highest number that a record may name: the next ones must not begin at zero again.
pub(super) const SEGMENT_ID_MAX: u64 = 1 << 62;
/// What the kernel's cache of a file is made of.
const PAGE_BYTES: u64 = 4096;
/// What is tried last on a disk that is nearly full.
const SEGMENT_BYTES_LEAST: u64 = 256 << 10;

/// One segment file.
#[derive(Debug)]
pub struct Segment {
    id: u64,
    pool: Weak<Pool>,
    file: OnceLock<Arc<dyn DiskFile>>,
    /// Written since the last sync, and therefore in the pool's list of those.
    dirty: AtomicBool,
    /// Where its bytes ended when the daemon started, if there should have been more.
    lost_from: AtomicU64,
    /// What its bytes were when they were written, as far as that still counts. Locked for look-ups, never across I/O.
    sums: Mutex<Sums>,
}

impl Segment {
    #[cfg(test)]
    pub(crate) fn detached() -> Segment {
        Segment {
            id: 0,
            pool: Weak::new(),
            file: OnceLock::new(),
            dirty: AtomicBool::new(false),
            lost_from: AtomicU64::new(u64::MAX),
            sums: Mutex::default(),
        }
    }

    /// Its number, unique in the life of a state directory.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Fills `buf` from `offset`, checked against the sums of what was written there. Error: `Damaged`.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let range = offset..offset + buf.len() as u64;
        let sums = self.sums(range.clone());
        let start = sums.first().map_or(range.start, |sum| sum.offset.min(range.start));
        let end = sums.last().map_or(range.end, |sum| sum.range().end.max(range.end));
        let check = |bytes: &[u8]| {
            let part = |sum: &Sum| (sum.offset - start) as usize..(sum.range().end - start) as usize;
            sums.iter().try_for_each(|sum| self.check(sum, &bytes[part(sum)]))
        };
        if (start..end) == range {
            self.read_unchecked(buf, offset)?;
            return check(buf);
        }
        // A sum is of a whole block, so all of that is read.
        let mut blocks = vec![0; (end - start) as usize];
        self.read_unchecked(&mut blocks, start)?;
        check(&blocks)?;
        buf.copy_from_slice(&blocks[(range.start - start) as usize..(range.end - start) as usize]);
        Ok(())
    }

    /// The bytes under a sum, checked.
    pub fn read_block(&self, sum: &Sum) -> Result<Vec<u8>> {
        let mut block = vec![0; sum.len as usize];
        self.read_unchecked(&mut block, sum.offset)?;
        self.check(sum, &block)?;
        Ok(block)
    }

    fn check(&self, sum: &Sum, bytes: &[u8]) -> Result<()> {
        // A sum that went in between: the bytes are being overwritten.
        if sum.fits(bytes) || !self.sums.lock().holds(sum) {
            return Ok(());
        }
        Err(Error::Damaged {
            path: self.path(),
            position: sum.offset,
            reason: format!(
                "these {} bytes are not what was written; the changes that stood there are lost",
                sum.len
            ),
        })
    }

    /// The sums of which a byte is in `range`.
    pub fn sums(&self, range: Range<u64>) -> Vec<Sum> {
        self.sums.lock().touching(range).collect()
    }

    /// Whether there are any.
    pub fn has_sums(&self, range: Range<u64>) -> bool {
        self.sums.lock().touching(range).next().is_some()
    }

    /// Bytes that are there, of those that the daemon began with or wrote since; none of a segment that is missing.
    pub fn present(&self) -> Result<u64> {
        match self.file().and_then(|file| file.len().map_err(|e| Error::io(self.path())(e))) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(0),
            other => other.map(|len| len.min(self.lost_from.load(Ordering::Relaxed))),
        }
    }

    /// Whether everything before `end` was there when the daemon started. Behind a place where bytes are missing none may be
    /// overwritten: the file would grow around them, and what is lost would read as zeros.
    pub fn is_whole(&self, end: u64) -> bool {
        end <= self.lost_from.load(Ordering::Relaxed)
    }

    /// These bytes are what was written, and stay so.
    pub fn add_sums(&self, sums: &[Sum]) {
        let mut table = self.sums.lock();
        sums.iter().for_each(|sum| table.insert(*sum));
    }

    /// These bytes may be others from now on.
    pub fn clear_sums(&self, range: Range<u64>) {
        self.sums.lock().clear(range);
    }

    /// Reads without a check. A short file is damage: extents only name what was written.
    pub fn read_unchecked(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let file = self.file().map_err(|error| match error {
            Error::Io { source, path } if source.kind() == io::ErrorKind::NotFound => {
                let reason = "the segment is missing; the changes that stood there are lost".to_owned();
                Error::Damaged { path, position: offset, reason }
            }
            other => other,
        })?;
        let read = file.read_at(buf, offset).map_err(|e| Error::io(self.path())(e))?;
        if read < buf.len() {
            return Err(Error::Damaged {
                path: self.path(),
                position: offset + read as u64,
                reason: format!(
                    "{} bytes are missing; the changes that stood there are lost",
                    buf.len() - read
                ),
            });
        }
        Ok(())
    }

    /// Writes `data` at `offset`, inside a range that the caller got from [`Cursor::reserve`].
    pub fn write(self: &Arc<Self>, data: &[u8], offset: u64) -> Result<()> {
        let written = self.file()?.write_at(data, offset);
        // After the bytes: a sync clears the flag before it begins, so bytes it may have missed are in the list again. Of a
        // write that failed, too: what it did of an overwrite is seen, and must not be undone by power loss behind a sync.
        if !self.dirty.swap(true, Ordering::AcqRel)
            && let Some(pool) = self.pool.upgrade()
        {
            pool.dirty.lock().push(Arc::clone(self));
        }
        written.map_err(|e| Error::io(self.path())(e))
    }

    /// Where the file is, for a person.
    pub fn path(&self) -> PathBuf {
        self.pool.upgrade().map_or_else(PathBuf::new, |pool| pool.disk.display(&path_of(self.id)))
    }

    fn file(&self) -> Result<&Arc<dyn DiskFile>> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let pool = self.pool.upgrade().ok_or(Error::Invalid("the daemon is stopping"))?;
        let file = pool.disk.open(&path_of(self.id), Open::Write).map_err(|e| Error::io(self.path())(e))?;
        Ok(self.file.get_or_init(|| file))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.live.lock().remove(&self.id);
            pool.graveyard.lock().push(self.id);
        }
    }
}

fn path_of(id: u64) -> String {
    format!("{DIR}/{id:016x}")
}

/// All segments of a state.
#[derive(Debug)]
pub struct Pool {
    this: Weak<Pool>,
    disk: Arc<dyn Disk>,
    next_id: AtomicU64,
    live: Mutex<HashMap<u64, Weak<Segment>>>,
    dirty: Mutex<Vec<Arc<Segment>>>,
    /// Segments that nothing refers to; their files go after the next sync of the log.
    graveyard: Mutex<Vec<u64>>,
    names_changed: AtomicBool,
    limits: Limits,
}

impl Pool {
    /// Opens the folder of segments. What a recovered state turns out not to need is removed by [`Pool::sweep`].
    pub fn open(disk: Arc<dyn Disk>, limits: Limits) -> Result<Arc<Pool>> {
        disk.create_dir(DIR).map_err(|e| Error::io(disk.display(DIR))(e))?;
        let ids = list(&*disk)?;
        let next_id = ids.iter().max().map_or(1, |id| id.saturating_add(1));
        Ok(Arc::new_cyclic(|this| Pool {
            this: this.clone(),
            disk,
            next_id: AtomicU64::new(next_id),
            live: Mutex::default(),
            dirty: Mutex::default(),
            graveyard: Mutex::default(),
            names_changed: AtomicBool::new(true),
            limits,
        }))
    }

    /// The segment `id`, opened when it is first used: a replay may name segments that are long gone.
    pub fn get(&self, id: u64) -> Arc<Segment> {
        let mut live = self.live.lock();
        if let Some(segment) = live.get(&id).and_then(Weak::upgrade) {
            return segment;
        }
        let segment = Arc::new(Segment {
            id,
            pool: self.this.clone(),
            file: OnceLock::new(),
            dirty: AtomicBool::new(false),
            lost_from: AtomicU64::new(u64::MAX),
            sums: Mutex::default(),
        });
        live.insert(id, Arc::downgrade(&segment));
        self.next_id.fetch_max(id.saturating_add(1), Ordering::Relaxed);
        segment
    }

    /// Reserves a new file of up to `want` bytes; less when the disk has no room for that.
    fn create(&self, want: u64) -> Result<(Arc<Segment>, u64)> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if id > SEGMENT_ID_MAX {
            return Err(Error::NoSpace);
        }
        let path = path_of(id);
        let file = self.disk.open(&path, Open::Create).map_err(Error::io(self.disk.display(&path)))?;
        self.names_changed.store(true, Ordering::Release);
        let mut len = want;
        while let Err(error) = file.allocate(0, len) {
            if error.kind() != io::ErrorKind::StorageFull || len <= SEGMENT_BYTES_LEAST {
                self.graveyard.lock().push(id);
                return Err(Error::io(self.disk.display(&path))(error));
            }
            len = (len / 4).max(SEGMENT_BYTES_LEAST);
        }
        let segment = self.get(id);
        segment.file.get_or_init(|| file);
        Ok((segment, len))
    }

    /// Makes every byte written so far durable. The log is synced by the caller, afterwards.
    pub fn sync(&self) -> Result<()> {
        if self.names_changed.swap(false, Ordering::AcqRel)
            && let Err(error) = self.disk.sync_dir(DIR)
        {
            self.names_changed.store(true, Ordering::Release);
            return Err(Error::io(self.disk.display(DIR))(error));
        }
        let dirty = std::mem::take(&mut *self.dirty.lock());
        for (done, segment) in dirty.iter().enumerate() {
            segment.dirty.store(false, Ordering::Release);
            let synced = segment.file().and_then(|f| f.sync().map_err(|e| Error::io(segment.path())(e)));
            if let Err(error) = synced {
                for segment in &dirty[done..] {
                    segment.dirty.store(true, Ordering::Release);
                    self.dirty.lock().push(Arc::clone(segment));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes the segments that died so far. The caller syncs the log and then gives them to [`Pool::bury`].
    pub fn dead(&self) -> Vec<u64> {
        // What only waits for a sync is dead, too: nobody would ever read what that makes durable.
        let (dirty, dead): (Vec<_>, Vec<_>) = std::mem::take(&mut *self.dirty.lock())
            .into_iter()
            .partition(|segment| Arc::strong_count(segment) > 1);
        self.dirty.lock().extend(dirty);
        drop(dead);
        std::mem::take(&mut *self.graveyard.lock())
    }

    /// Takes dead segments back: the log could not be synced, so their files are for a later time.
    pub fn defer(&self, dead: Vec<u64>) {
        self.graveyard.lock().extend(dead);
    }

    /// Removes the files of dead segments; returns how many. A file that is gone already is no error.
    pub fn bury(&self, dead: &[u64]) -> Result<usize> {
        for (done, &id) in dead.iter().enumerate() {
            match self.disk.remove(&path_of(id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.graveyard.lock().extend(&dead[done..]);
                    return Err(Error::io(self.disk.display(&path_of(id)))(error));
                }
                _ => {}
            }
        }
        Ok(dead.len())
    }

    /// After a replay: `used` says for each segment that is referred to where its last byte in use ends. What the last run
    /// wrote may not be on disk yet, so the next sync takes all of them. A segment that is missing, or too short, is
    /// damage: it is logged, and reads of what stood there fail. Error: `Io` if the disk does not tell; a segment that is taken
    /// for lost is not synced.
    pub fn adopt(&self, used: &HashMap<u64, u64>) -> Result<()> {
        for (&id, &end) in used {
            let segment = self.get(id);
            let path = segment.path();
            match segment.file().and_then(|file| file.len().map_err(Error::io(path.clone()))) {
                Ok(len) => {
                    if len < end {
                        segment.lost_from.store(len, Ordering::Relaxed);
                        let missing_bytes = end - len;
                        tracing::error!(path = %path.display(), missing_bytes, "a segment was cut short");
                    }
                    if !segment.dirty.swap(true, Ordering::AcqRel) {
                        self.dirty.lock().push(segment);
                    }
                }
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    segment.lost_from.store(0, Ordering::Relaxed);
                    tracing::error!(path = %path.display(), "a segment is lost, and changes with it");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// After a replay, once the log that it read is durable: every file that is not in `used` is dead, and of the others the
    /// tail that was reserved and never written goes back to the disk. With `set_aside` the dead are kept as `.lost`: part of
    /// the log is lost, and what it named may be in them.
    pub fn sweep(&self, used: &HashMap<u64, u64>, set_aside: bool) -> Result<()> {
        let mut dead = list(&*self.disk)?;
        dead.retain(|id| !used.contains_key(id));
        if set_aside {
            for id in std::mem::take(&mut dead) {
                let path = path_of(id);
                let renamed = self.disk.rename(&path, &format!("{path}.lost"));
                renamed.map_err(Error::io(self.disk.display(&path)))?;
            }
        }
        *self.graveyard.lock() = dead;
        for (&id, &end) in used {
            let segment = self.get(id);
            let path = segment.path();
            // What is missing was logged before.
            let Ok(file) = segment.file() else { continue };
            if file.len().map_err(Error::io(path.clone()))? > end {
                file.set_len(end).map_err(Error::io(path))?;
            }
        }
        Ok(())
    }

    /// Segments in use, and dead ones whose files still stand.
    pub fn counts(&self) -> (usize, usize) {
        (self.live.lock().len(), self.graveyard.lock().len())
    }
}

fn list(disk: &dyn Disk) -> Result<Vec<u64>> {
    let names = disk.list(DIR).map_err(|e| Error::io(disk.display(DIR))(e))?;
    Ok(names.iter().filter_map(|name| parse_name(name)).collect())
}

/// The segment whose file has this name; `None` for a name that none has.
fn parse_name(name: &str) -> Option<u64> {
    let id = u64::from_str_radix(name, 16).ok()?;
    (name == format!("{id:016x}") && id <= SEGMENT_ID_MAX).then_some(id)
}

/// Where a session writes next: its own, so that discarding it frees whole files.
#[derive(Debug, Default)]
pub struct Cursor {
    current: Option<(Arc<Segment>, u64, u64)>,
    last_len: u64,
}

/// A range that nobody else will ever get.
#[derive(Debug)]
pub struct Reserved {
    /// The segment it is in.
    pub segment: Arc<Segment>,
    /// Its first byte there.
    pub offset: u64,
    /// Its length, at least 1.
    pub len: u64,
}

impl Cursor {
    /// Reserves `len` bytes for what a file has at `start`, in one piece unless a segment ends in between. Pages of the
    /// file, as most large writes are made of, are given pages of the segment: else each costs two. Error: `NoSpace`.
    pub fn reserve(&mut self, pool: &Pool, start: u64, len: u64) -> Result<Vec<Reserved>> {
        if let Some((_, next, end)) = &mut self.current
            && start.is_multiple_of(PAGE_BYTES)
            && len >= PAGE_BYTES
        {
            *next = next.next_multiple_of(PAGE_BYTES).min(*end);
        }
        let mut pieces = Vec::with_capacity(1);
        let mut left = len;
        while left > 0 {
            let Some((segment, next, end)) = self.current.as_mut().filter(|(_, next, end)| next < end) else {
                let want =
                    (self.last_len * 4).clamp(pool.limits.segment_bytes_min, pool.limits.segment_bytes_max);
                let (segment, len) = pool.create(want)?;
                self.last_len = want;
                self.current = Some((segment, 0, len));
                continue;
            };
            let len = left.min(*end - *next);
            pieces.push(Reserved { segment: Arc::clone(segment), offset: *next, len });
            *next += len;
            left -= len;
        }
        Ok(pieces)
    }

    /// Lets go of the segment, and gives the part of it that was never used back to the disk.
    pub fn retire(&mut self) {
        if let Some((segment, next, end)) = self.current.take()
            && next < end
            && let Ok(file) = segment.file()
            && let Err(error) = file.set_len(next)
        {
            tracing::warn!(%error, segment = segment.id, "the unused tail of a segment stays allocated");
        }
        self.last_len = 0;
    }
}
