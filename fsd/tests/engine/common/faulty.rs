//! A disk with a planted fault: the checkers must find it. Or one that is slow, so that others get in between.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cas::{
    disk::{Disk, DiskFile, Open, Space},
    sim::SimDisk,
};
use xxhash_rust::xxh3::Xxh3;

/// What the disk does wrong with files whose path begins with a given text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Says that it synced, and did not.
    Sync(&'static str),
    /// Says that it made names durable, and did not.
    SyncDir(&'static str),
    /// Says that it wrote, and did not.
    Write(&'static str),
    /// So with every third write to a file alone.
    Forgetful(&'static str),
    /// Says that it reserved room, and did not.
    Reserve(&'static str),
    /// Takes a failed write for a good one.
    Trusting(&'static str),
    /// Takes a failed sync for a good one.
    TrustingSync(&'static str),
    /// Gives whatever a log file holds a good checksum: a torn record looks intact.
    Heal,
    /// Is no fault: writes in two halves, and takes a while in between.
    Slow(&'static str),
}

impl Fault {
    fn concerns(self, path: &str) -> bool {
        match self {
            Fault::Heal => path.starts_with("log/"),
            Fault::SyncDir(_) => false,
            Fault::Sync(prefix)
            | Fault::Write(prefix)
            | Fault::Forgetful(prefix)
            | Fault::Reserve(prefix)
            | Fault::Trusting(prefix)
            | Fault::TrustingSync(prefix)
            | Fault::Slow(prefix) => path.starts_with(prefix),
        }
    }
}

/// A simulated disk with a fault.
#[derive(Debug)]
pub struct FaultyDisk {
    pub disk: SimDisk,
    pub fault: Fault,
}

impl Disk for FaultyDisk {
    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, how)?;
        match self.fault.concerns(path) {
            true => Ok(Arc::new(FaultyFile { file, fault: self.fault, writes: AtomicU64::new(0) })),
            false => Ok(file),
        }
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
        match self.fault {
            Fault::SyncDir(dir) if dir == path => Ok(()),
            _ => self.disk.sync_dir(path),
        }
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    fn display(&self, path: &str) -> PathBuf {
        self.disk.display(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    fault: Fault,
    writes: AtomicU64,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buf, offset)?;
        if self.fault == Fault::Heal && offset == 0 {
            heal(&mut buf[..read]);
        }
        Ok(read)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        match self.fault {
            Fault::Write(_) => Ok(()),
            Fault::Forgetful(_) if self.writes.fetch_add(1, Ordering::Relaxed) % 3 == 2 => Ok(()),
            Fault::Trusting(_) => {
                let _ = self.file.write_at(buf, offset);
                Ok(())
            }
            Fault::Slow(_) => {
                let (front, back) = buf.split_at(buf.len() / 2);
                self.file.write_at(front, offset)?;
                thread::sleep(Duration::from_micros(20));
                self.file.write_at(back, offset + front.len() as u64)
            }
            _ => self.file.write_at(buf, offset),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        match self.fault {
            Fault::Sync(_) => Ok(()),
            Fault::TrustingSync(_) => {
                let _ = self.file.sync();
                Ok(())
            }
            _ => self.file.sync(),
        }
    }

    fn start_sync(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_sync(offset, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.fault {
            Fault::Reserve(_) => Ok(()),
            _ => self.file.allocate(offset, len),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }
}

/// Puts a good checksum into the header of every record of a log file (docs/format.md, section 4).
fn heal(bytes: &mut [u8]) {
    const FILE_HEADER: usize = 48;
    const RECORD_HEADER: usize = 32;
    let mut at = FILE_HEADER;
    while let Some(header) = bytes.get(at..at + RECORD_HEADER) {
        let len = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
        let end = at + RECORD_HEADER + len;
        if header.iter().all(|byte| *byte == 0) || end > bytes.len() {
            return;
        }
        let mut hash = Xxh3::new();
        hash.update(&bytes[at..at + 24]);
        hash.update(&bytes[at + RECORD_HEADER..end]);
        bytes[at + 24..at + RECORD_HEADER].copy_from_slice(&hash.digest().to_le_bytes());
        at = end;
    }
}
