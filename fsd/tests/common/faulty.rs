//! A disk with a planted fault: the checkers must find it. Or one that is slow, so that others get in between.

use std::{io, path::PathBuf, sync::Arc, thread, time::Duration};

use cas::{
    disk::{Disk, DiskFile, Open, Space},
    sim::SimDisk,
};

/// What the disk does wrong with files whose path begins with a given text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Says that it synced, and did not.
    Sync(&'static str),
    /// Says that it wrote, and did not.
    Write(&'static str),
    /// Is no fault: writes in two halves, and takes a while in between.
    Slow(&'static str),
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
        let (Fault::Sync(prefix) | Fault::Write(prefix) | Fault::Slow(prefix)) = self.fault;
        match path.starts_with(prefix) {
            true => Ok(Arc::new(FaultyFile { file, fault: self.fault })),
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
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    fault: Fault,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        match self.fault {
            Fault::Write(_) => Ok(()),
            Fault::Sync(_) => self.file.write_at(buf, offset),
            Fault::Slow(_) => {
                let (front, back) = buf.split_at(buf.len() / 2);
                self.file.write_at(front, offset)?;
                thread::sleep(Duration::from_micros(20));
                self.file.write_at(back, offset + front.len() as u64)
            }
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
            Fault::Write(_) | Fault::Slow(_) => self.file.sync(),
            Fault::Sync(_) => Ok(()),
        }
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
