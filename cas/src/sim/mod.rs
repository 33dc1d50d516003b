//! A disk in memory that forgets what no sync covered, fails on demand, and counts.
//!
//! Of every file it keeps what readers see and what power loss leaves (image.rs). The same holds for names: a created,
//! removed or renamed file is only so after `sync_dir`. Copies share their bytes until one of them writes, so a test may
//! have thousands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, Open, Space};
use image::Image;

mod image;
#[cfg(test)]
mod tests;

const TOTAL_BYTES: u64 = 1 << 40;

/// A simulated disk; clones share it.
#[derive(Clone)]
pub struct SimDisk {
    seed: u64,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk(seed {})", self.seed)
    }
}

#[derive(Clone, Debug)]
struct State {
    inodes: Vec<Image>,
    names: Names,
    durable: Names,
    /// Operations on names that no `sync_dir` covered, oldest first.
    pending: Vec<NameOp>,
    free_bytes: u64,
    mutations: u64,
    reads: u64,
    fault: Option<Fault>,
    /// The reading call that fails.
    read_fault: Option<u64>,
    random: u64,
}

#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<String, usize>,
    dirs: BTreeSet<String>,
}

#[derive(Clone, Debug)]
enum NameOp {
    Dir(String),
    Create(String, usize),
    Remove(String),
    Rename(String, String, usize),
}

/// How a call that changes the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With EIO, and nothing was done.
    Io,
    /// With EIO, and part of a write was done.
    Short,
    /// With EIO, and all of it was done.
    Late,
}

/// Counts against `State::mutations`.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// This one mutating call fails.
    Once(u64, Failure),
    /// Everything behind this one fails. A write that comes next is cut off in the middle.
    From(u64),
    /// When this one comes there is room for so many bytes more.
    Full(u64, u64),
    /// The machine is gone.
    Down,
}

/// How far a mutating call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Whole,
    Part,
    Late,
}

impl SimDisk {
    /// An empty disk. The seed feeds [`SimDisk::random`] and is shown with the disk.
    pub fn new(seed: u64) -> SimDisk {
        let mut root = Names::default();
        root.dirs.insert(String::new());
        SimDisk::with(
            seed,
            State {
                inodes: Vec::new(),
                names: root.clone(),
                durable: root,
                pending: Vec::new(),
                free_bytes: TOTAL_BYTES,
                mutations: 0,
                reads: 0,
                fault: None,
                read_fault: None,
                random: seed,
            },
        )
    }

    fn with(seed: u64, state: State) -> SimDisk {
        SimDisk { seed, state: Arc::new(Mutex::new(state)) }
    }

    /// The next number of the seed's sequence (splitmix64).
    pub fn random(&self) -> u64 {
        self.state.lock().random()
    }

    /// Another disk that has the same.
    pub fn copied(&self) -> SimDisk {
        SimDisk::with(self.seed, self.copy())
    }

    /// The disk as power loss may leave it, `how` deciding about every byte and name that no sync covered.
    /// This disk goes on as if nothing had happened.
    pub fn crash(&self, how: &mut dyn FnMut() -> u64) -> SimDisk {
        let mut state = self.copy();
        for op in std::mem::take(&mut state.pending) {
            if how().is_multiple_of(2) {
                state.durable.apply(&op);
            }
        }
        state.names = state.durable.clone();
        for inode in &mut state.inodes {
            inode.crash(how);
        }
        SimDisk::with(self.seed, state)
    }

    /// The disk as the death of the process leaves it: everything written is there, synced or not.
    pub fn kill(&self) -> SimDisk {
        SimDisk::with(self.seed, self.copy())
    }

    fn copy(&self) -> State {
        State { fault: None, read_fault: None, ..self.state.lock().clone() }
    }

    /// From now on the disk has room for this many more bytes.
    pub fn set_space_free(&self, bytes: u64) {
        self.state.lock().free_bytes = bytes;
    }

    /// Mutating calls so far: creations, removals, renames, writes, cuts and syncs.
    pub fn mutations(&self) -> u64 {
        self.state.lock().mutations
    }

    /// Calls so far that only read: look-ups of names, reads, maps.
    pub fn reads(&self) -> u64 {
        self.state.lock().reads
    }

    /// The `n`-th mutating call from now (1 is the next) fails with EIO and does nothing; those behind it work.
    pub fn fail_after(&self, n: u64) {
        self.fail_with(n, Failure::Io);
    }

    /// The `n`-th mutating call from now (1 is the next) fails in this way; those behind it work.
    pub fn fail_with(&self, n: u64, failure: Failure) {
        let mut state = self.state.lock();
        state.fault = Some(Fault::Once(state.mutations + n, failure));
    }

    /// The `n`-th reading call from now (1 is the next) fails with EIO; those behind it work.
    pub fn fail_read_after(&self, n: u64) {
        let mut state = self.state.lock();
        state.read_fault = Some(state.reads + n);
    }

    /// The next `n` mutating calls work; behind them every call fails, as if the machine were gone. A write that comes next
    /// is done in part.
    pub fn crash_after(&self, n: u64) {
        let mut state = self.state.lock();
        state.fault = Some(Fault::From(state.mutations + n));
    }

    /// From the `n`-th mutating call from now on (1 is the next) the disk has room for this many more bytes.
    pub fn fill_after(&self, n: u64, bytes: u64) {
        let mut state = self.state.lock();
        state.fault = Some(Fault::Full(state.mutations + n, bytes));
    }

    /// What was ordered and has not come yet does not come. A machine that is gone stays gone.
    pub fn clear_faults(&self) {
        let mut state = self.state.lock();
        state.fault = state.fault.filter(|fault| matches!(fault, Fault::Down));
        state.read_fault = None;
    }

    /// Whether a failure was ordered and has not come yet.
    pub fn is_armed(&self) -> bool {
        let state = self.state.lock();
        let waits = match state.fault {
            Some(Fault::Once(n, _) | Fault::Full(n, _)) => state.mutations < n,
            Some(Fault::From(_)) => true,
            Some(Fault::Down) | None => false,
        };
        waits || state.read_fault.is_some_and(|n| state.reads < n)
    }

    /// Whether everything fails from now on.
    pub fn is_down(&self) -> bool {
        let state = self.state.lock();
        matches!(state.fault, Some(Fault::Down))
    }

    /// Flips the bits of `mask` in one stored byte, live and durable: what rot does.
    pub fn flip(&self, path: &str, offset: u64, mask: u8) {
        let mut state = self.state.lock();
        let at = state.names.files[path];
        state.inodes[at].flip(offset as usize, mask);
    }
}

impl State {
    /// A call that only reads.
    fn look(&mut self) -> io::Result<()> {
        match self.fault {
            Some(Fault::From(n)) if self.mutations >= n => self.fault = Some(Fault::Down),
            _ => {}
        }
        if let Some(Fault::Down) = self.fault {
            return Err(eio());
        }
        self.reads += 1;
        if self.read_fault == Some(self.reads) { Err(eio()) } else { Ok(()) }
    }

    /// A call that changes the disk: how far it gets, or that it fails before it does anything.
    fn mutate(&mut self) -> io::Result<Verdict> {
        match self.fault {
            Some(Fault::Down) => return Err(eio()),
            Some(Fault::From(n)) if self.mutations >= n => {
                self.fault = Some(Fault::Down);
                return Ok(Verdict::Part);
            }
            _ => {}
        }
        self.mutations += 1;
        match self.fault {
            Some(Fault::Once(n, failure)) if self.mutations == n => match failure {
                Failure::Io => Err(eio()),
                Failure::Short => Ok(Verdict::Part),
                Failure::Late => Ok(Verdict::Late),
            },
            Some(Fault::Full(n, bytes)) if self.mutations == n => {
                self.free_bytes = bytes;
                Ok(Verdict::Whole)
            }
            _ => Ok(Verdict::Whole),
        }
    }

    /// [`State::mutate`] for a call that is done as a whole or not at all.
    fn mutate_whole(&mut self) -> io::Result<Verdict> {
        match self.mutate()? {
            Verdict::Part => Err(eio()),
            verdict => Ok(verdict),
        }
    }

    /// See [`SimDisk::random`].
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn take(&mut self, bytes: u64) -> io::Result<()> {
        self.free_bytes = self.free_bytes.checked_sub(bytes).ok_or(io::ErrorKind::StorageFull)?;
        Ok(())
    }

    fn note(&mut self, op: NameOp) {
        self.names.apply(&op);
        self.pending.push(op);
    }

    fn file(&self, path: &str) -> io::Result<usize> {
        self.names.files.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn parent(&self, path: &str) -> io::Result<()> {
        if self.names.dirs.contains(parent(path)) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn resize(&mut self, inode: usize, len: usize) -> io::Result<()> {
        let old = self.inodes[inode].bytes().len();
        if len > old {
            self.take((len - old) as u64)?;
        } else {
            self.free_bytes += (old - len) as u64;
        }
        self.inodes[inode].resize(len);
        Ok(())
    }

    /// Writes as much as there is room for.
    fn write(&mut self, inode: usize, start: usize, buf: &[u8]) -> io::Result<()> {
        let (old, end) = (self.inodes[inode].bytes().len(), start + buf.len());
        let need = end.saturating_sub(old);
        let lacking = (need as u64).saturating_sub(self.free_bytes).min(buf.len() as u64) as usize;
        if lacking > 0 {
            let fits = &buf[..buf.len() - lacking];
            if !fits.is_empty() {
                self.write(inode, start, fits)?;
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        if end > old {
            self.resize(inode, end)?;
        }
        self.inodes[inode].write(start, buf);
        Ok(())
    }
}

impl Verdict {
    /// What the caller is told once the call is done.
    fn done(self) -> io::Result<()> {
        if self == Verdict::Whole { Ok(()) } else { Err(eio()) }
    }
}

impl Names {
    fn apply(&mut self, op: &NameOp) {
        match op {
            NameOp::Dir(path) => {
                self.dirs.insert(path.clone());
            }
            NameOp::Create(path, inode) => {
                self.files.insert(path.clone(), *inode);
            }
            NameOp::Remove(path) => {
                self.files.remove(path);
            }
            NameOp::Rename(from, to, inode) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *inode);
            }
        }
    }
}

impl NameOp {
    fn concerns(&self, dir: &str) -> bool {
        match self {
            NameOp::Dir(path) | NameOp::Create(path, _) | NameOp::Remove(path) => parent(path) == dir,
            NameOp::Rename(from, to, _) => parent(from) == dir || parent(to) == dir,
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.look()?;
        let inode = match how {
            Open::Read | Open::Write => state.file(path)?,
            Open::Create => {
                state.parent(path)?;
                if state.names.files.contains_key(path) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let verdict = state.mutate_whole()?;
                state.inodes.push(Image::default());
                let inode = state.inodes.len() - 1;
                state.note(NameOp::Create(path.to_owned(), inode));
                verdict.done()?;
                inode
            }
        };
        Ok(Arc::new(SimFile { disk: self.clone(), inode, writable: how != Open::Read }))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.look()?;
        if !state.names.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = state.names.files.keys().chain(&state.names.dirs);
        Ok(all.filter(|p| !p.is_empty() && parent(p) == path).map(|p| name(p).to_owned()).collect())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.look()?;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for dir in ends.map(|end| &path[..end]) {
            if !state.names.dirs.contains(dir) {
                let verdict = state.mutate_whole()?;
                state.note(NameOp::Dir(dir.to_owned()));
                verdict.done()?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.look()?;
        let inode = state.file(path)?;
        let verdict = state.mutate_whole()?;
        state.free_bytes += state.inodes[inode].bytes().len() as u64;
        state.note(NameOp::Remove(path.to_owned()));
        verdict.done()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.look()?;
        let inode = state.file(from)?;
        state.parent(to)?;
        let verdict = state.mutate_whole()?;
        state.note(NameOp::Rename(from.to_owned(), to.to_owned(), inode));
        verdict.done()
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let verdict = state.mutate_whole()?;
        if !state.names.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (done, rest) = std::mem::take(&mut state.pending).into_iter().partition(|op| op.concerns(path));
        state.pending = rest;
        let done: Vec<NameOp> = done;
        for op in &done {
            state.durable.apply(op);
        }
        verdict.done()
    }

    fn space(&self) -> io::Result<Space> {
        let mut state = self.state.lock();
        state.look()?;
        Ok(Space { free_bytes: state.free_bytes, total_bytes: TOTAL_BYTES })
    }

    fn display(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/simulated/{path}"))
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
    writable: bool,
}

impl SimFile {
    fn change(&self, f: impl FnOnce(&mut State, usize) -> io::Result<()>) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state.lock();
        let verdict = state.mutate_whole()?;
        f(&mut state, self.inode)?;
        verdict.done()
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.look()?;
        let bytes = state.inodes[self.inode].bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let n = buf.len().min(bytes.len() - start);
        buf[..n].copy_from_slice(&bytes[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state.lock();
        let verdict = state.mutate()?;
        let len = match verdict {
            Verdict::Part => state.random() as usize % buf.len().max(1),
            Verdict::Whole | Verdict::Late => buf.len(),
        };
        if len > 0 {
            state.write(self.inode, offset as usize, &buf[..len])?;
        }
        verdict.done()
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.look()?;
        Ok(state.inodes[self.inode].bytes().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|state, inode| state.resize(inode, len as usize))
    }

    fn sync(&self) -> io::Result<()> {
        // Also allowed on a file opened for reading, as fdatasync is.
        let mut state = self.disk.state.lock();
        let verdict = state.mutate_whole()?;
        state.inodes[self.inode].sync();
        verdict.done()
    }

    fn start_sync(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.disk.state.lock().look()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(|state, inode| {
            let end = (offset + len) as usize;
            let long = state.inodes[inode].bytes().len() >= end;
            if long { Ok(()) } else { state.resize(inode, end) }
        })
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(|state, inode| {
            state.inodes[inode].clear(offset as usize, (offset + len) as usize);
            Ok(())
        })
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}
