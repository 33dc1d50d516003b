//! Passthrough of one read-only mount: which open files the kernel reads by itself, from a backing file, without asking the daemon.
//!
//! OPEN is answered then, and RELEASE tells that an open file is gone. All opens of a file at a time are of one sort: the
//! kernel lets nobody mix them (fs/fuse/iomode.c). What cannot be passed through is read through the daemon.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::Arc,
};

use cas::{Content, Digest};
use parking_lot::Mutex;

use super::{
    abi::{FOPEN_KEEP_CACHE, FOPEN_PASSTHROUGH, OpenOut},
    backing_file::{BackingFile, BackingFiles},
    backing_id::BackingId,
};
use crate::session::{Error, Result, Seek, Session};

/// Smaller files are read through the daemon: one message brings all of them.
const FILE_BYTES_MIN: u64 = 1 << 20;
/// Data of a file beyond which nobody is to wait for a copy of it (some seconds).
const DATA_BYTES_MAX: u64 = 8 << 30;
const COPY_BYTES: usize = 1 << 20;

/// The open files of a mount.
#[derive(Debug)]
pub(super) struct Passthrough {
    session: Arc<Session>,
    files: Arc<BackingFiles>,
    device: Arc<OwnedFd>,
    open: Mutex<HashMap<u64, Opened>>,
}

#[derive(Debug)]
struct Opened {
    times: u64,
    backing: Option<Backing>,
}

/// What the kernel reads instead of asking.
#[derive(Debug)]
struct Backing {
    id: BackingId,
    /// In use, so that it does not go for another one.
    _file: Arc<BackingFile>,
}

/// Why a file is not passed through.
#[derive(Debug, thiserror::Error)]
enum NotPassed {
    #[error(transparent)]
    Engine(#[from] Error),
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Passthrough {
    /// Nothing is open yet on the mount of `session` that `device` belongs to.
    pub fn new(session: Arc<Session>, files: Arc<BackingFiles>, device: OwnedFd) -> Passthrough {
        Passthrough { session, files, device: Arc::new(device), open: Mutex::default() }
    }

    /// Whether an open of this file has to wait until there is a copy.
    pub fn waits_for_copy(&self, ino: u64) -> bool {
        let is_open = || self.open.lock().contains_key(&ino);
        let large = || self.large(ino).ok().flatten();
        !is_open() && large().is_some_and(|content| self.files.get(content).is_none())
    }

    /// Answers OPEN. Error: the file cannot be looked up.
    pub fn open(&self, ino: u64) -> Result<OpenOut> {
        if let Some(opened) = self.open.lock().get_mut(&ino) {
            return Ok(opened.again());
        }
        let large = self.large(ino)?;
        let backing = large.and_then(|content| {
            let passed = self.pass(ino, content);
            passed.inspect_err(|error| tracing::warn!(ino, %error, "read through the daemon")).ok()
        });
        // Somebody else may have been first; what the kernel was told then holds.
        Ok(self.open.lock().entry(ino).or_insert(Opened { times: 0, backing }).again())
    }

    /// One open file less.
    pub fn release(&self, ino: u64) {
        let mut open = self.open.lock();
        let Some(opened) = open.get_mut(&ino) else { return };
        opened.times -= 1;
        if opened.times == 0 {
            open.remove(&ino);
        }
    }

    /// The content of a file that is large enough and has all its bytes in the store.
    fn large(&self, ino: u64) -> Result<Option<Digest>> {
        let blob = self.session.sealed_content(ino)?.filter(|blob| blob.size >= FILE_BYTES_MIN);
        Ok(blob.and_then(|blob| match blob.content {
            Content::List(digest) => Some(digest),
            Content::Empty | Content::Chunk(_) => None,
        }))
    }

    fn pass(&self, ino: u64, content: Digest) -> std::result::Result<Backing, NotPassed> {
        let found = self.session.stat(ino)?;
        let bytes = self.session.data_bytes(&found)?;
        if bytes > DATA_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        let free_bytes = self.session.space()?.free_bytes;
        let copy = |file: &File| self.copy(ino, found.attrs.size, file);
        let file = self.files.get_or_make(content, bytes, free_bytes, copy)?;
        Ok(Backing { id: BackingId::open(&self.device, file.file())?, _file: file })
    }

    /// Copies the data of a file; its holes stay holes.
    fn copy(&self, ino: u64, size: u64, to: &File) -> std::result::Result<(), NotPassed> {
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        while let Some(start) = self.next_data(ino, at)? {
            let end = self.session.seek(ino, start, Seek::Hole)?;
            at = start;
            while at < end {
                let part = buffer.len().min((end - at) as usize);
                let read = self.session.read(ino, at, &mut buffer[..part])?;
                to.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
        }
        Ok(to.set_len(size)?)
    }

    fn next_data(&self, ino: u64, from: u64) -> Result<Option<u64>> {
        match self.session.seek(ino, from, Seek::Data) {
            Err(Error::NoData) => Ok(None),
            start => start.map(Some),
        }
    }
}

impl Opened {
    fn again(&mut self) -> OpenOut {
        self.times += 1;
        match &self.backing {
            Some(backing) => OpenOut {
                open_flags: FOPEN_PASSTHROUGH,
                backing_id: backing.id.number() as i32,
                ..OpenOut::default()
            },
            None => OpenOut { open_flags: FOPEN_KEEP_CACHE, ..OpenOut::default() },
        }
    }
}
