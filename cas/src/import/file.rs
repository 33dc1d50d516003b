//! A file of the source while it is read.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

use super::stat::Stat;
use crate::blob::Source;

/// An open regular file. Reading it leaves no trace where the system allows that.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub(super) file: File,
    size: u64,
    dense: bool,
}

impl SourceFile {
    /// Opens `path`, which was a regular file of the size in `stat`; if it is something else by now, this neither follows a
    /// symlink nor waits for a fifo's other end.
    pub(super) fn open(path: &Path, stat: &Stat) -> io::Result<SourceFile> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match open(flags | libc::O_NOATIME) {
            // Only the owner may leave the access time alone.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(flags)?,
            result => result?,
        };
        Ok(SourceFile { file, size: stat.size, dense: stat.is_dense() })
    }

    pub(super) fn stat(&self) -> io::Result<Stat> {
        Stat::new(&self.file.metadata()?).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    fn seek(&self, offset: u64, whence: Whence) -> io::Result<Option<u64>> {
        match lseek(&self.file, offset as i64, whence) {
            Ok(found) => Ok(Some(found as u64)),
            Err(Errno::ENXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Source for SourceFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        if self.dense {
            return Ok((offset < self.size).then_some(offset..self.size));
        }
        let Some(start) = self.seek(offset, Whence::SeekData)? else { return Ok(None) };
        let end = self.seek(start, Whence::SeekHole)?.unwrap_or(self.size);
        Ok(Some(start..end))
    }
}
