//! A disk in memory that forgets what no sync covered, fails on demand, and counts.
//!
//! Of every file it keeps the live image, which readers see, and the durable image, which power loss leaves. The same
//! holds for names: a created, removed or renamed file is only so after `sync_dir`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, Open, Space};

/// What a disk keeps or loses as one piece.
const SECTOR: usize = 512;
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
    inodes: Vec<Inode>,
    names: Names,
    durable: Names,
    /// Operations on names that no `sync_dir` covered, oldest first.
    pending: Vec<NameOp>,
    free_bytes: u64,
    mutations: u64,
    fault: Option<Fault>,
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

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
    /// The sector written last: the one that may be torn.
    last: Option<usize>,
}

/// Counts against `State::mutations`.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// This one mutating call fails.
    Once(u64),
    /// Everything behind this one fails.
    From(u64),
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
                fault: None,
                random: seed,
            },
        )
    }

    fn with(seed: u64, state: State) -> SimDisk {
        SimDisk { seed, state: Arc::new(Mutex::new(state)) }
    }

    /// The next number of the seed's sequence (splitmix64).
    pub fn random(&self) -> u64 {
        let mut state = self.state.lock();
        state.random = state.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The disk as power loss may leave it, `how` deciding about every byte and name that no sync covered.
    /// This disk goes on as if nothing had happened.
    pub fn crash(&self, how: &mut dyn FnMut() -> u64) -> SimDisk {
        let mut state = self.state.lock().clone();
        state.fault = None;
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
        let mut state = self.state.lock().clone();
        state.fault = None;
        SimDisk::with(self.seed, state)
    }

    /// From now on the disk has room for this many more bytes.
    pub fn set_space_free(&self, bytes: u64) {
        self.state.lock().free_bytes = bytes;
    }

    /// Mutating calls so far: creations, removals, renames, writes, cuts and syncs.
    pub fn mutations(&self) -> u64 {
        self.state.lock().mutations
    }

    /// The `n`-th mutating call from now (1 is the next) fails with EIO and does nothing; those behind it work.
    pub fn fail_after(&self, n: u64) {
        let mut state = self.state.lock();
        state.fault = Some(Fault::Once(state.mutations + n));
    }

    /// The next `n` mutating calls work; behind them every call fails, as if the machine were gone.
    pub fn crash_after(&self, n: u64) {
        let mut state = self.state.lock();
        state.fault = Some(Fault::From(state.mutations + n));
    }

    /// Flips the bits of `mask` in one stored byte, live and durable: what rot does.
    pub fn flip(&self, path: &str, offset: u64, mask: u8) {
        let mut state = self.state.lock();
        let at = state.names.files[path];
        let inode = &mut state.inodes[at];
        inode.live[offset as usize] ^= mask;
        if let Some(byte) = inode.durable.get_mut(offset as usize) {
            *byte ^= mask;
        }
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        match self.fault {
            Some(Fault::From(n)) if self.mutations >= n => Err(eio()),
            _ => Ok(()),
        }
    }

    fn mutate(&mut self) -> io::Result<()> {
        self.alive()?;
        self.mutations += 1;
        match self.fault {
            Some(Fault::Once(n)) if self.mutations == n => Err(eio()),
            _ => Ok(()),
        }
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
        let old = self.inodes[inode].live.len();
        if len > old {
            self.take((len - old) as u64)?;
        } else {
            self.free_bytes += (old - len) as u64;
        }
        let file = &mut self.inodes[inode];
        file.live.resize(len, 0);
        // What was cut off and comes back is zeros, which is a write like any other.
        file.touch(old.min(len), old.max(len));
        Ok(())
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

impl Inode {
    fn touch(&mut self, from: usize, to: usize) {
        if from < to {
            self.dirty.extend(from / SECTOR..=(to - 1) / SECTOR);
            self.last = Some((to - 1) / SECTOR);
        }
    }

    fn sync(&mut self) {
        self.durable = self.live.clone();
        self.dirty.clear();
        self.last = None;
    }

    /// Every unsynced sector stays, goes, or (the last one) is torn; so does an unsynced length.
    fn crash(&mut self, how: &mut dyn FnMut() -> u64) {
        let keep_len = self.live.len() == self.durable.len() || how().is_multiple_of(2);
        let mut image = std::mem::take(&mut self.durable);
        if keep_len {
            image.resize(self.live.len(), 0);
        }
        for &sector in &self.dirty {
            let start = sector * SECTOR;
            let whole = (start + SECTOR).min(image.len()).min(self.live.len());
            let end = match how() % 3 {
                0 => whole,
                1 if self.last == Some(sector) => whole.min(start + how() as usize % SECTOR),
                _ => continue,
            };
            if start < end {
                image[start..end].copy_from_slice(&self.live[start..end]);
            }
        }
        self.live = image;
        self.sync();
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.alive()?;
        let inode = match how {
            Open::Read | Open::Write => state.file(path)?,
            Open::Create => {
                state.parent(path)?;
                if state.names.files.contains_key(path) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                state.mutate()?;
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.note(NameOp::Create(path.to_owned(), inode));
                inode
            }
        };
        Ok(Arc::new(SimFile { disk: self.clone(), inode, writable: how != Open::Read }))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.alive()?;
        if !state.names.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = state.names.files.keys().chain(&state.names.dirs);
        Ok(all.filter(|p| !p.is_empty() && parent(p) == path).map(|p| name(p).to_owned()).collect())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for dir in ends.map(|end| &path[..end]) {
            if !state.names.dirs.contains(dir) {
                state.mutate()?;
                state.note(NameOp::Dir(dir.to_owned()));
            }
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        let inode = state.file(path)?;
        state.mutate()?;
        state.free_bytes += state.inodes[inode].live.len() as u64;
        state.note(NameOp::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        let inode = state.file(from)?;
        state.parent(to)?;
        state.mutate()?;
        state.note(NameOp::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.mutate()?;
        if !state.names.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (done, rest) = std::mem::take(&mut state.pending).into_iter().partition(|op| op.concerns(path));
        state.pending = rest;
        let done: Vec<NameOp> = done;
        for op in &done {
            state.durable.apply(op);
        }
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.state.lock();
        state.alive()?;
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
        if !self.writable {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let mut state = self.disk.state.lock();
        state.mutate()?;
        f(&mut state, self.inode)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state.lock();
        state.alive()?;
        let bytes = &state.inodes[self.inode].live;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let n = buf.len().min(bytes.len() - start);
        buf[..n].copy_from_slice(&bytes[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.change(|state, inode| {
            let start = offset as usize;
            let end = start + buf.len();
            if end > state.inodes[inode].live.len() {
                state.resize(inode, end)?;
            }
            let file = &mut state.inodes[inode];
            file.live[start..end].copy_from_slice(buf);
            file.touch(start, end);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.alive()?;
        Ok(state.inodes[self.inode].live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|state, inode| state.resize(inode, len as usize))
    }

    fn sync(&self) -> io::Result<()> {
        // Also allowed on a file opened for reading, as fdatasync is.
        let mut state = self.disk.state.lock();
        state.mutate()?;
        state.inodes[self.inode].sync();
        Ok(())
    }

    fn start_sync(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.disk.state.lock().alive()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(|state, inode| {
            let end = (offset + len) as usize;
            let long = state.inodes[inode].live.len() >= end;
            if long { Ok(()) } else { state.resize(inode, end) }
        })
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(|state, inode| {
            let file = &mut state.inodes[inode];
            let start = (offset as usize).min(file.live.len());
            let end = ((offset + len) as usize).min(file.live.len());
            file.live[start..end].fill(0);
            file.touch(start, end);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(path, Open::Read).ok()?;
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        Some(bytes)
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_may_drop_the_rest() {
        let disk = SimDisk::new(1);
        let file = disk.open("f", Open::Create).unwrap();
        file.write_at(&[1; 1024], 0).unwrap();
        file.sync().unwrap();
        assert_eq!(content(&disk.crash(&mut || 1), "f"), None, "its name was never synced");
        disk.sync_dir("").unwrap();
        file.write_at(&[2; 1024], 512).unwrap();
        let lost = disk.crash(&mut || 5);
        assert_eq!(content(&lost, "f"), Some(vec![1; 1024]));
        let kept = [[1; 512], [2; 512], [2; 512]].concat();
        assert_eq!(content(&disk.crash(&mut || 0), "f"), Some(kept.clone()));
        assert_eq!(content(&disk.kill(), "f"), Some(kept));
        disk.remove("f").unwrap();
        assert!(content(&disk.crash(&mut || 5), "f").is_some(), "an unsynced removal may be undone");
    }

    #[test]
    fn faults_come_when_they_are_ordered() {
        let disk = SimDisk::new(1);
        let file = disk.open("f", Open::Create).unwrap();
        disk.fail_after(2);
        file.write_at(b"1", 0).unwrap();
        assert_eq!(file.write_at(b"2", 0).unwrap_err().raw_os_error(), Some(libc::EIO));
        file.write_at(b"3", 0).unwrap();
        disk.set_space_free(1);
        assert_eq!(file.write_at(b"456", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_at(b"45", 0).unwrap();
        disk.crash_after(1);
        file.sync().unwrap();
        assert!(file.sync().is_err() && file.len().is_err());
        assert_eq!(disk.mutations(), 7);
        assert_eq!(content(&disk.kill(), "f"), Some(b"45".to_vec()));
    }
}
