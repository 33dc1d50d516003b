//! The real disk: files under one directory of this host, through std and a few system calls.
//!
//! The crate's only unsafe code is here: `sync_file_range` and `preadv2`, which neither std nor nix wraps.
#![expect(unsafe_code, reason = "sync_file_range and preadv2 have no safe wrappers")]

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, IoSliceMut},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    sys::uio::preadv,
};

use crate::disk::{Disk, DiskFile, Open, Space, read_each_at};

/// The files under `root`.
#[derive(Debug)]
pub struct SysDisk {
    root: PathBuf,
}

impl SysDisk {
    /// The disk at `root`, which is made (mode 0700) if it is not there.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<SysDisk> {
        let disk = SysDisk { root: root.into() };
        disk.create_dir("")?;
        Ok(disk)
    }

    /// The directory that all paths are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Disk for SysDisk {
    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Open::Read).create_new(how == Open::Create).mode(0o600);
        Ok(Arc::new(SysFile(options.open(self.display(path))?)))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is not one of ours.
        fs::read_dir(self.display(path))?
            .filter_map(|entry| entry.map(|e| e.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.display(path))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.display(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.display(from), self.display(to))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        File::open(self.display(path))?.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let stat = nix::sys::statvfs::statvfs(&self.root)?;
        let block = stat.fragment_size();
        Ok(Space { free_bytes: stat.blocks_available() * block, total_bytes: stat.blocks() * block })
    }

    fn display(&self, path: &str) -> PathBuf {
        // `join("")` would add a slash.
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

#[derive(Debug)]
struct SysFile(File);

impl DiskFile for SysFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn read_parts_at(&self, parts: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        let len = parts.iter().map(|part| part.len()).sum();
        match preadv(&self.0, parts, signed(offset)?) {
            Ok(read) if read == len => Ok(len),
            // The file ends there, or a signal came: one part after the other tells.
            Ok(_) | Err(Errno::EINTR) => read_each_at(self, parts, offset),
            Err(error) => Err(error.into()),
        }
    }

    fn read_parts_now(&self, parts: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<Option<usize>> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        // SAFETY: IoSliceMut is documented to have the layout of iovec. All parts are borrowed mutably for longer than the call
        // takes, which writes no more than their lengths, and the descriptor is open for as long as `self` lives.
        let read = unsafe {
            let (iovecs, fd) = (parts.as_ptr().cast::<libc::iovec>(), self.0.as_raw_fd());
            libc::preadv2(fd, iovecs, parts.len() as i32, signed(offset)?, libc::RWF_NOWAIT)
        };
        if read >= 0 && read as usize == len {
            return Ok(Some(len));
        }
        if read >= 0 {
            // The file may end there, or the part behind may not be in memory: who waits finds out.
            return Ok(None);
        }
        match Errno::last() {
            Errno::EAGAIN | Errno::EINTR => Ok(None),
            // A file system that cannot tell.
            Errno::EOPNOTSUPP => self.read_parts_at(parts, offset).map(Some),
            error => Err(error.into()),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn start_sync(&self, offset: u64, len: u64) -> io::Result<()> {
        let (offset, len) = (signed(offset)?, signed(len)?);
        // SAFETY: the call takes four integers and no pointer; the descriptor is open for as long as `self` lives.
        let answer =
            unsafe { libc::sync_file_range(self.0.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
        if answer == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // A hint: some file systems (ESPIPE, ENOSYS) have no such thing, and `sync` does the work later.
        let lacking = matches!(error.raw_os_error(), Some(libc::ESPIPE | libc::ENOSYS | libc::EINVAL));
        if lacking { Ok(()) } else { Err(error) }
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(fallocate(&self.0, FallocateFlags::empty(), signed(offset)?, signed(len)?)?)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(&self.0, flags, signed(offset)?, signed(len)?)?)
    }
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}
