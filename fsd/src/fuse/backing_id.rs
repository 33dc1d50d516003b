//! The number that a mount's kernel side gives to a backing file: `FUSE_DEV_IOC_BACKING_OPEN` and `_CLOSE` of
//! include/uapi/linux/fuse.h. The kernel gives none to who is not root.
#![expect(unsafe_code, reason = "ioctl(2) has no safe wrapper")]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

/// `FUSE_DEV_IOC_MAGIC`.
const MAGIC: u8 = 229;

/// `struct fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}
const _: () = assert!(size_of::<BackingMap>() == 16);

nix::ioctl_write_ptr!(backing_open, MAGIC, 1, BackingMap);
nix::ioctl_write_ptr!(backing_close, MAGIC, 2, u32);

/// A number, for as long as this is there. Files that were opened with it go on with it.
#[derive(Debug)]
pub(super) struct BackingId {
    device: Arc<OwnedFd>,
    id: u32,
}

impl BackingId {
    /// Has the kernel of a mount know `file`. Error: what it says.
    pub fn open(device: &Arc<OwnedFd>, file: &File) -> io::Result<BackingId> {
        let map = BackingMap { fd: file.as_raw_fd(), flags: 0, padding: 0 };
        // SAFETY: the request reads one `BackingMap` from the pointer, which is to a whole one, and keeps a reference of its own to
        // the file. Both descriptors are open for as long as the call takes.
        let id = unsafe { backing_open(device.as_raw_fd(), &map) }?;
        let id = u32::try_from(id).map_err(|_| io::Error::other("the kernel gave no number"))?;
        Ok(BackingId { device: Arc::clone(device), id })
    }

    pub fn number(&self) -> u32 {
        self.id
    }
}

impl Drop for BackingId {
    fn drop(&mut self) {
        // SAFETY: the request reads one `u32` from the pointer; the descriptor is open.
        let closed = unsafe { backing_close(self.device.as_raw_fd(), &self.id) };
        if let Err(error) = closed {
            tracing::debug!(%error, "a backing file stays known until its mount is gone");
        }
    }
}
