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
    /// Nothing is open yet on the mount of `session` that `device` belongs to. Error: the file system has no nameless files, or the
    /// kernel does not pass those through.
    pub fn new(session: Arc<Session>, files: Arc<BackingFiles>, device: OwnedFd) -> io::Result<Passthrough> {
        let device = Arc::new(device);
        drop(BackingId::open(&device, &files.create()?)?);
        Ok(Passthrough { session, files, device, open: Mutex::default() })
    }

    /// Answers OPEN. Error: the file cannot be looked up.
    pub fn open(&self, ino: u64) -> Result<OpenOut> {
        if let Some(open) = self.open_again(ino) {
            return Ok(open);
        }
        let large = self.large(ino)?;
        let backing = large.and_then(|content| {
            let passed = self.copied(ino, content).and_then(|file| self.hand_over(file));
            passed.inspect_err(|error| tracing::warn!(ino, %error, "read through the daemon")).ok()
        });
        Ok(self.opened(ino, backing))
    }

    /// [`Passthrough::open`] for one who does not wait: `None` if there has to be a copy first.
    pub fn open_now(&self, ino: u64) -> Result<Option<OpenOut>> {
        if let Some(open) = self.open_again(ino) {
            return Ok(Some(open));
        }
        let Some(content) = self.large(ino)? else { return Ok(Some(self.opened(ino, None))) };
        let backing = self.files.get(content).and_then(|file| self.hand_over(file).ok());
        Ok(backing.map(|backing| self.opened(ino, Some(backing))))
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

    /// One more open of a file that is open already.
    fn open_again(&self, ino: u64) -> Option<OpenOut> {
        self.open.lock().get_mut(&ino).map(Opened::again)
    }

    /// Somebody else may have been first; what the kernel was told then holds.
    fn opened(&self, ino: u64, backing: Option<Backing>) -> OpenOut {
        if backing.is_some()
            && let Some(accesses) = self.session.accesses()
            && let Ok(found) = self.session.stat(ino)
        {
            // All of it was copied, and of what the kernel reads nobody hears.
            accesses.add_file(ino, 0..found.attrs.size);
        }
        self.open.lock().entry(ino).or_insert(Opened { times: 0, backing }).again()
    }

    /// The copy of a content, which the file has.
    fn copied(&self, ino: u64, content: Digest) -> std::result::Result<Arc<BackingFile>, NotPassed> {
        let found = self.session.stat(ino)?;
        let bytes = self.session.data_bytes(&found)?;
        if bytes > DATA_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        let free_bytes = || Ok(self.session.space()?.free_bytes);
        self.files.get_or_make(content, bytes, free_bytes, |file| self.copy(ino, found.attrs.size, file))
    }

    fn hand_over(&self, file: Arc<BackingFile>) -> std::result::Result<Backing, NotPassed> {
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
                if read == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
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
