//! A disk that counts what is read and written, by the folder it is in.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, IoSliceMut},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use cas::{
    disk::{Disk, DiskFile, Open, Space},
    sim::SimDisk,
};

const PAGE_BYTES: u64 = 4096;

/// Calls and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    /// Pages of the kernel's cache that were written to.
    pub written_pages: u64,
    pub syncs: u64,
}

/// By the first part of the path.
pub type Counts = BTreeMap<String, Count>;

/// A simulated disk that counts.
#[derive(Debug)]
pub struct CountingDisk {
    pub disk: SimDisk,
    counts: Arc<Mutex<Counts>>,
    hold: Hold,
    /// Nothing of it is in memory: who does not wait gets nothing.
    pub is_distant: Arc<AtomicBool>,
}

impl CountingDisk {
    pub fn new(disk: SimDisk) -> CountingDisk {
        CountingDisk::with_syncs_held(disk, |_| {})
    }

    /// One whose syncs take as long as `hold` does, which is told the folder.
    pub fn with_syncs_held(disk: SimDisk, hold: impl Fn(&str) + Send + Sync + 'static) -> CountingDisk {
        CountingDisk { disk, counts: Arc::default(), hold: Hold(Arc::new(hold)), is_distant: Arc::default() }
    }

    /// What was counted since the last time this was asked.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut self.counts.lock().unwrap())
    }
}

#[derive(Clone)]
struct Hold(Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

impl Disk for CountingDisk {
    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let folder = path.split('/').next().unwrap_or_default().to_owned();
        Ok(Arc::new(CountingFile {
            file: self.disk.open(path, how)?,
            folder,
            counts: Arc::clone(&self.counts),
            hold: self.hold.clone(),
            is_distant: Arc::clone(&self.is_distant),
        }))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    fn display(&self, path: &str) -> PathBuf {
        self.disk.display(path)
    }
}

#[derive(Debug)]
struct CountingFile {
    file: Arc<dyn DiskFile>,
    folder: String,
    counts: Arc<Mutex<Counts>>,
    hold: Hold,
    is_distant: Arc<AtomicBool>,
}

impl CountingFile {
    fn count(&self, add: impl FnOnce(&mut Count)) {
        add(self.counts.lock().unwrap().entry(self.folder.clone()).or_default());
    }
}

impl DiskFile for CountingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.count(|count| {
            (count.reads, count.read_bytes) = (count.reads + 1, count.read_bytes + buf.len() as u64)
        });
        self.file.read_at(buf, offset)
    }

    fn read_parts_at(&self, parts: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.count(|count| (count.reads, count.read_bytes) = (count.reads + 1, count.read_bytes + bytes));
        self.file.read_parts_at(parts, offset)
    }

    fn read_parts_now(&self, parts: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<Option<usize>> {
        match self.is_distant.load(Ordering::Relaxed) {
            true => Ok(None),
            false => self.read_parts_at(parts, offset).map(Some),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let bytes = buf.len() as u64;
        self.count(|count| {
            (count.writes, count.written_bytes) = (count.writes + 1, count.written_bytes + bytes);
            count.written_pages += (offset + bytes).div_ceil(PAGE_BYTES) - offset / PAGE_BYTES;
        });
        self.file.write_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.count(|count| count.syncs += 1);
        (self.hold.0)(&self.folder);
        self.file.sync()
    }

    fn start_sync(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_sync(offset, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }
}
