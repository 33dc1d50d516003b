//! The disk as the store and the log see it: a handful of verbs, so that a test can put a disk there that fails and forgets.
//!
//! Paths are relative to the state directory. Durability follows POSIX: bytes are safe after `sync` of their file, a name
//! after `sync_dir` of its directory.

use std::{
    fmt,
    io::{self, IoSliceMut},
    sync::Arc,
};

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// It exists and is only read.
    Read,
    /// It exists and is read and written.
    Write,
    /// It must not exist; it is created with mode 0600, read and written.
    Create,
}

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as it takes.
    Waits,
    /// Not at all: what is not in memory is not read, for who has others to serve.
    Now,
}

/// A directory tree of files. Every implementation passes the contract suite in this crate's tests.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens the file at `path`.
    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// The names in the directory `path`, unsorted; an error if it is not there.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Makes the directory `path` (mode 0700) and its parents where they are missing.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Removes the file at `path`.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Puts the file `from` at `to`, replacing what is there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes creations, removals and renames in the directory `path` durable.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Bytes free for this process, and bytes in all.
    fn space(&self) -> io::Result<Space>;
    /// Where `path` is for a person who reads an error.
    fn display(&self, path: &str) -> std::path::PathBuf;
}

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Free for this process.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// An open file. All calls may be made from many threads at once.
#[expect(
    clippy::len_without_is_empty,
    reason = "a length is where to append; nobody asks a file whether it is empty"
)]
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads at `offset` up to `buf.len()` bytes; short only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Reads at `offset` into one part after the other: by one call where the system can. Short only at the end of the file.
    fn read_parts_at(&self, parts: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        read_each_at(self, parts, offset)
    }
    /// The same, if the bytes are in memory; `None` if the disk would have to be waited for, with anything in the parts. A disk
    /// that cannot tell waits.
    fn read_parts_now(&self, parts: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<Option<usize>> {
        self.read_parts_at(parts, offset).map(Some)
    }
    /// Writes all of `buf` at `offset`, extending the file where needed.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends the file (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the bytes written so far, and the length, durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Asks for write-back of a range to begin, and does not wait.
    fn start_sync(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Reserves blocks, so that later writes there cannot find the disk full. Extends the file.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Gives the blocks of a range back; it reads as zeros. Keeps the length.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// Puts a file in the place of the one at `path`, in the directory `dir`, whole or not at all. Durable when it returns. `new`, in the same directory, is
/// what it is called meanwhile: one at a time, whose caller makes sure of it.
pub fn put_whole(disk: &dyn Disk, dir: &str, new: &str, path: &str, bytes: &[u8]) -> io::Result<()> {
    // Left by one that did not come to its end.
    match disk.remove(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = disk.open(new, Open::Create)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(new, path)?;
    disk.sync_dir(dir)
}

/// The bytes of a small file, of a larger one the first `bytes_max`. `None` if it is not there.
pub fn read_whole(disk: &dyn Disk, path: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, Open::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = vec![0; file.len()?.min(bytes_max) as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// [`DiskFile::read_parts_at`], by a call for each part.
pub(crate) fn read_each_at<F: DiskFile + ?Sized>(
    file: &F,
    parts: &mut [IoSliceMut<'_>],
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0;
    for part in parts {
        let read = file.read_at(part, offset + done as u64)?;
        done += read;
        if read < part.len() {
            break;
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sim::SimDisk, sys::SysDisk};

    /// What every disk does.
    fn contract(disk: &dyn Disk) {
        let missing = |r: io::Result<Arc<dyn DiskFile>>| r.unwrap_err().kind() == io::ErrorKind::NotFound;
        disk.create_dir("a/b").unwrap();
        disk.create_dir("a/b").unwrap();
        assert_eq!(disk.list("a").unwrap(), ["b"]);
        assert!(disk.list("nowhere").is_err());
        assert!(missing(disk.open("a/b/f", Open::Read)) && missing(disk.open("x/f", Open::Create)));

        let file = disk.open("a/b/f", Open::Create).unwrap();
        let twice = disk.open("a/b/f", Open::Create).unwrap_err();
        assert_eq!(twice.kind(), io::ErrorKind::AlreadyExists);
        file.write_at(b"hello", 3).unwrap();
        file.write_at(b"HE", 3).unwrap();
        file.start_sync(0, 5).unwrap();
        file.sync().unwrap();
        disk.sync_dir("a/b").unwrap();
        let mut buf = [9; 10];
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 8);
        assert_eq!(&buf[..8], b"\0\0\0HEllo");
        assert_eq!(file.read_at(&mut buf, 8).unwrap(), 0);
        for (len, got) in [(3, 5), (5, 7), (6, 8), (9, 8)] {
            let (mut first, mut second, mut third) = ([9; 2], [9; 0], [9; 9]);
            let mut parts = [&mut first[..], &mut second, &mut third[..len]].map(IoSliceMut::new);
            assert_eq!(file.read_parts_at(&mut parts, 0).unwrap(), got);
            assert_eq!((first, &third[..got - 2]), ([0; 2], &b"\0HEllo"[..got - 2]));
        }
        let (mut first, mut second) = ([9; 2], [9]);
        let mut parts = [&mut first[..], &mut second].map(IoSliceMut::new);
        assert_eq!(file.read_parts_at(&mut parts, 7).unwrap(), 1);
        let (mut first, mut second) = ([9; 2], [9; 3]);
        let mut parts = [&mut first[..], &mut second].map(IoSliceMut::new);
        if let Some(read) = file.read_parts_now(&mut parts, 2).unwrap() {
            assert_eq!((read, first, second), (5, *b"\0H", *b"Ell"));
        }
        assert_eq!(disk.open("a/b/f", Open::Read).unwrap().read_at(&mut buf[..5], 3).unwrap(), 5);
        assert_eq!(&buf[..5], b"HEllo");

        file.set_len(5).unwrap();
        file.set_len(7).unwrap();
        assert_eq!((file.read_at(&mut buf, 0).unwrap(), &buf[3..7]), (7, &b"HE\0\0"[..]));
        file.allocate(0, 4).unwrap();
        assert_eq!(file.len().unwrap(), 7);
        file.allocate(4, 6000).unwrap();
        assert_eq!(file.len().unwrap(), 6004);
        file.write_at(&[7; 6000], 0).unwrap();
        file.punch(1, 4999).unwrap();
        assert_eq!((file.read_at(&mut buf, 4996).unwrap(), buf), (10, [0, 0, 0, 0, 7, 7, 7, 7, 7, 7]));
        assert_eq!(file.len().unwrap(), 6004);

        disk.open("a/b/g", Open::Create).unwrap().write_at(b"g", 0).unwrap();
        disk.rename("a/b/g", "a/b/f").unwrap();
        assert_eq!(disk.list("a/b").unwrap(), ["f"]);
        assert_eq!(disk.open("a/b/f", Open::Write).unwrap().len().unwrap(), 1);
        disk.remove("a/b/f").unwrap();
        assert!(missing(disk.open("a/b/f", Open::Write)));
        assert_eq!(file.len().unwrap(), 6004, "an open file outlives its name");
        let space = disk.space().unwrap();
        assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes);
    }

    #[test]
    fn the_real_disk_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        contract(&SysDisk::open(dir.path().join("new")).unwrap());
    }

    #[test]
    fn the_simulated_disk_keeps_the_contract() {
        contract(&SimDisk::new(1));
    }

    #[test]
    fn files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let disk = SysDisk::open(dir.path()).unwrap();
        disk.create_dir("d").unwrap();
        disk.open("d/f", Open::Create).unwrap();
        let mode = |path| std::fs::metadata(disk.display(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("d"), mode("d/f")), (0o700, 0o600));
    }
}
