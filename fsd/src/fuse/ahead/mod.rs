//! Reading ahead of programs that scan a tree: who starts the reader ([`walk`]), and when.
//!
//! A scan is seen by what nobody else does again and again: it lists a directory and reads what is in it. Then the reader runs ahead of it,
//! a process for each scan. If nobody follows it ends, and the next one has to be surer of itself.

mod again;
mod lead;
pub mod walk;

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam::channel::{Sender, unbounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::session::Session;

/// Readers at a time, of all mounts.
const READERS_MAX: usize = 4;
/// Directories that were listed and read make a scan; twice as many each time that nobody followed.
const DIRS_MIN: u32 = 4;
const DIRS_MAX: u32 = 768;
/// Marks that are kept; a reader is never further ahead.
const MARKS_MAX: usize = lead::WINDOWS_AHEAD as usize;
/// Files that are remembered as read: those of some windows.
const READ_MAX: usize = 2048;
/// How long somebody who unmounts waits for a reader to end that was killed.
const END_WAIT: Duration = Duration::from_secs(1);

/// Starts readers for the mounts of a daemon.
#[derive(Debug)]
pub struct Readers {
    /// aetherfsd, which is the reader with `--read-ahead-in`.
    program: PathBuf,
    count: AtomicUsize,
    /// To a thread that starts them: who sees a scan is the thread of a ring, on one CPU and with next to no share of it, and what it
    /// starts would stay so.
    starts: Sender<Start>,
}

struct Start {
    follower: Arc<Follower>,
    dir: u64,
    place: Place,
}

/// A scan that is read ahead of. It ends with this, whatever happens.
struct Running(Arc<Follower>, #[expect(dead_code, reason = "it is held")] Place);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Watches the reads of one mount.
#[derive(Debug)]
pub(super) struct Follower {
    readers: Arc<Readers>,
    session: Arc<Session>,
    mount: PathBuf,
    device: String,
    /// The process that reads ahead; 0 if there is none.
    reader: AtomicU32,
    /// Inside it only what takes down what was read.
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    /// Directories that were listed and read since the last scan.
    dirs: u32,
    dirs_wanted: u32,
    scan: Option<Scan>,
    /// The reader before: what it had the kernel read may still be under way.
    last_reader: Option<u32>,
    /// Somebody unmounts.
    is_stopped: bool,
}

/// A reader at work.
#[derive(Debug, Default)]
struct Scan {
    reader: Option<(Child, ChildStdin)>,
    marks: VecDeque<u64>,
    /// Files that the scan read by itself: it may be faster than the reader at times.
    read: VecDeque<u64>,
    was_followed: bool,
    is_cancelled: bool,
}

impl Readers {
    /// `program` is aetherfsd. Error: the system has no thread.
    pub fn new(program: PathBuf) -> io::Result<Arc<Readers>> {
        let (starts, queue) = unbounded::<Start>();
        thread::Builder::new().name("fuse-readers".into()).spawn(move || {
            for Start { follower, dir, place } in queue {
                let scan = Running(follower, place);
                let body = move || {
                    if let Err(error) = scan.0.accompany(dir) {
                        tracing::debug!(mount = %scan.0.mount.display(), %error, "nothing is read ahead");
                    }
                };
                if let Err(error) = thread::Builder::new().name("fuse-ahead".into()).spawn(body) {
                    tracing::debug!(%error, "nothing is read ahead");
                }
            }
        })?;
        Ok(Arc::new(Readers { program, count: AtomicUsize::new(0), starts }))
    }

    /// Room for one more, until it is dropped.
    fn place(self: &Arc<Readers>) -> Option<Place> {
        let place = Place(Arc::clone(self));
        (self.count.fetch_add(1, Ordering::Relaxed) < READERS_MAX).then_some(place)
    }
}

struct Place(Arc<Readers>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Follower {
    /// For a mount on this directory, with this device number.
    pub fn new(
        readers: Arc<Readers>,
        session: Arc<Session>,
        mount: PathBuf,
        device: String,
    ) -> Arc<Follower> {
        let state =
            State { dirs: 0, dirs_wanted: DIRS_MIN, scan: None, last_reader: None, is_stopped: false };
        Arc::new(Follower {
            readers,
            session,
            mount,
            device,
            reader: AtomicU32::new(0),
            state: Mutex::new(state),
            ended: Condvar::new(),
        })
    }

    /// A process has begun to read a file. `worn` is its directory, if enough of that was read by now.
    pub fn read(self: &Arc<Follower>, ino: u64, pid: u32, worn: Option<u64>) {
        let mut state = self.state.lock();
        if let Some(scan) = &mut state.scan {
            let passed = scan.read(ino, pid);
            return self.passed(passed);
        }
        let Some(dir) = worn.filter(|_| !state.is_stopped && state.last_reader != Some(pid)) else { return };
        state.dirs += 1;
        if state.dirs >= state.dirs_wanted {
            state.dirs = 0;
            self.start(state, dir);
        }
    }

    fn start(self: &Arc<Follower>, mut state: MutexGuard<'_, State>, dir: u64) {
        let Some(place) = self.readers.place() else { return };
        state.scan = Some(Scan::default());
        drop(state);
        let sent = self.readers.starts.send(Start { follower: Arc::clone(self), dir, place });
        // The thread ends after whoever sends to it.
        debug_assert!(sent.is_ok());
    }

    /// Has a reader run, and takes down how far it is.
    fn accompany(&self, dir: u64) -> io::Result<()> {
        let from = self.session.path_of(dir).map_err(io::Error::other)?;
        let mut command = Command::new(&self.readers.program);
        command.arg("--read-ahead-in").arg(&self.mount).arg("--device").arg(&self.device);
        command.current_dir("/").env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        self.reader.store(child.id(), Ordering::Relaxed);
        let (Some(mut go), Some(mut marks)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both were asked for")
        };
        // Not among its arguments, which everybody can see. If it fails the reader is gone, which is seen below.
        let _ = go.write_all(&[from.as_os_str().as_bytes(), &[0]].concat());
        if let Some(scan) = &mut self.state.lock().scan {
            if scan.is_cancelled {
                // Reaped below.
                let _ = child.kill();
            }
            scan.reader = Some((child, go));
        }
        let mut mark = [0; size_of::<u64>()];
        while marks.read_exact(&mut mark).is_ok() {
            let mark = u64::from_le_bytes(mark);
            if mark & walk::WAS_READ != 0 {
                self.read_ahead(mark & !walk::WAS_READ);
            } else if let Some(scan) = &mut self.state.lock().scan {
                self.session.accesses().iter().for_each(|accesses| accesses.window_read());
                let passed = scan.marked(mark);
                self.passed(passed);
            }
        }
        Ok(())
    }

    fn end(&self) {
        let reader = self.state.lock().scan.as_mut().and_then(|scan| scan.reader.take());
        let number = reader.as_ref().map(|(child, _)| child.id());
        if let Some((mut child, go)) = reader {
            drop(go);
            // It closed its end, or is about to: nothing holds it.
            if let Err(error) = child.wait() {
                tracing::debug!(%error, "a reader cannot be waited for");
            }
        }
        // What it had read may be under way for long after it, so it stays the reader until there is another one. A process that has its number
        // by then is not taken down.
        let mut state = self.state.lock();
        let was_followed = state.scan.take().is_some_and(|scan| scan.was_followed);
        self.session.accesses().iter().for_each(|accesses| accesses.end_ahead());
        state.last_reader = number;
        state.dirs_wanted = if was_followed { DIRS_MIN } else { (2 * state.dirs_wanted).min(DIRS_MAX) };
        drop(state);
        self.ended.notify_all();
    }

    /// The reader had something read or listed: it counts when the scan has come that far.
    fn read_ahead(&self, ino: u64) {
        self.session.accesses().iter().for_each(|accesses| accesses.read_ahead(ino, 0..walk::READ_BYTES_MAX));
    }

    /// The scan has come to the end of so many more windows.
    fn passed(&self, windows: usize) {
        if let Some(accesses) = self.session.accesses().filter(|_| windows > 0) {
            accesses.windows_passed(windows);
        }
    }

    /// Whether it is the process that reads ahead.
    pub fn is_reader(&self, pid: u32) -> bool {
        pid != 0 && self.reader.load(Ordering::Relaxed) == pid
    }

    /// It stays mounted after all.
    pub fn resume(&self) {
        self.state.lock().is_stopped = false;
    }

    /// Ends the reader, if there is one, and starts none any more: somebody unmounts.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.is_stopped = true;
        while let Some(scan) = &mut state.scan {
            scan.is_cancelled = true;
            if let Some((child, _)) = &mut scan.reader {
                // Gone already: nothing to end.
                let _ = child.kill();
            }
            if self.ended.wait_for(&mut state, END_WAIT).timed_out() {
                return;
            }
        }
    }
}

impl Scan {
    /// Somebody reads: if it is a mark, the reader may go on. How many windows are through by that.
    fn read(&mut self, ino: u64, pid: u32) -> usize {
        if self.reader.as_ref().is_some_and(|(reader, _)| reader.id() == pid) {
            return 0;
        }
        let Some(at) = self.marks.iter().position(|mark| *mark == ino) else {
            if self.read.len() == READ_MAX {
                self.read.pop_front();
            }
            self.read.push_back(ino);
            return 0;
        };
        self.marks.drain(..=at);
        self.step(at + 1)
    }

    /// The reader is through with a window, up to this file. How many the scan is through with by that.
    fn marked(&mut self, mark: u64) -> usize {
        if self.read.contains(&mark) {
            let passed = self.marks.drain(..).count();
            return self.step(passed + 1);
        }
        if self.marks.len() < MARKS_MAX {
            self.marks.push_back(mark);
        }
        0
    }

    fn step(&mut self, windows: usize) -> usize {
        let Some((_, go)) = &mut self.reader else { return windows };
        self.was_followed = true;
        // A pipe that is full, or has no other end: the reader ends by itself.
        let _ = go.write(&[0; MARKS_MAX][..windows.min(MARKS_MAX)]);
        windows
    }
}
