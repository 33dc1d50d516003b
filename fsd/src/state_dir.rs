//! The state directory: whose it is, what version wrote it, and that one daemon at a time uses it.
//!
//! `VERSION` names the format of the whole; what is in the files says more. `lock` is held by flock for the daemon's life,
//! so the kernel lets go of it however the daemon ends. `docs/format.md` is normative for both.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

/// The newest state that this code reads, and the one it writes.
pub const VERSION: u32 = 1;

const VERSION_FILE: &str = "VERSION";
const VERSION_NEW: &str = "VERSION.new";
const LOCK_FILE: &str = "lock";
/// A daemon that was killed while it started a process leaves the lock to that, until it is another program. So often a dead one's
/// lock is tried again.
const DEAD_HOLDER_TRIES: u32 = 500;
const DEAD_HOLDER_PAUSE: Duration = Duration::from_millis(10);
const MAGIC: &str = "aetherfs state ";
/// What a directory may hold and still count as empty: what a first start that was cut short left, and what mkfs makes.
const HARMLESS: [&str; 3] = [LOCK_FILE, VERSION_NEW, "lost+found"];

/// Why a directory cannot be this daemon's state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another daemon has it.
    #[error("state {} is in use by aetherfsd with pid {pid}", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// What the lock file says; `unknown` if nothing.
        pid: String,
    },
    /// A later version wrote it.
    #[error("state {} has format {found}, and this aetherfsd reads up to {VERSION}; use the newer aetherfsd", dir.display())]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Something else is in it.
    #[error("{} is not empty and is not a state directory of aetherfs; name another one with --state", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
    },
    /// The version file is not one.
    #[error("{} does not begin with \"{MAGIC}\" and a number; restore it or name another state with --state", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A state directory that is this process's alone.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Takes the directory, which is made (mode 0700) if it is not there.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(failed(path))?;
        // Other daemons may be using it, but their paths are not this one's working directory.
        let path = fs::canonicalize(path).map_err(failed(path))?;
        // Before anything is written: a foreign directory stays as it is.
        let known = read_version(&path)?;
        if known.is_none() && !is_empty(&path)? {
            return Err(StateError::Foreign { dir: path });
        }
        let lock = take_lock(&path)?;
        match read_version(&path)? {
            None => write_version(&path)?,
            Some(found) if found > VERSION => return Err(StateError::Newer { dir: path, found }),
            Some(_) => {}
        }
        Ok(StateDir { path, _lock: lock })
    }

    /// Where it is, without symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { path, source }
}

fn is_empty(dir: &Path) -> Result<bool, StateError> {
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let name = entry.map_err(failed(dir))?.file_name();
        if !HARMLESS.iter().any(|harmless| name == *harmless) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_version(dir: &Path) -> Result<Option<u32>, StateError> {
    let path = dir.join(VERSION_FILE);
    match fs::read(&path) {
        Ok(bytes) => match parse_version(&bytes) {
            Some(version) => Ok(Some(version)),
            None => Err(StateError::Unreadable { path }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&path)(error)),
    }
}

fn parse_version(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?;
    // A later version may have more lines.
    text.lines().next()?.strip_prefix(MAGIC)?.parse().ok()
}

/// Whole or not at all: a name appears when its bytes are on the disk.
fn write_version(dir: &Path) -> Result<(), StateError> {
    let (new, path) = (dir.join(VERSION_NEW), dir.join(VERSION_FILE));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(format!("{MAGIC}{VERSION}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(failed(&path))
}

/// Who says that it has the lock. What cannot be read only makes the message poorer.
fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
    let pid = pid.trim();
    if pid.is_empty() { "unknown".to_owned() } else { pid.to_owned() }
}

fn is_dead(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

fn take_lock(dir: &Path) -> Result<File, StateError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed(&path))?;
    let mut tries = DEAD_HOLDER_TRIES;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file);
                if tries == 0 || !holder.parse().is_ok_and(is_dead) {
                    return Err(StateError::InUse { dir: dir.to_owned(), pid: holder });
                }
                tries -= 1;
                thread::sleep(DEAD_HOLDER_PAUSE);
            }
            Err(TryLockError::Error(error)) => return Err(failed(&path)(error)),
        }
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
    };
    write(&mut file).map_err(failed(&path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_state_is_taken_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state");
        let first = StateDir::open(&path).unwrap();
        assert_eq!(fs::read_to_string(path.join(VERSION_FILE)).unwrap(), "aetherfs state 1\n");
        let second = StateDir::open(&path).unwrap_err();
        assert_eq!(
            second.to_string(),
            format!(
                "state {} is in use by aetherfsd with pid {}",
                first.path().display(),
                std::process::id()
            )
        );
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn what_a_dead_daemon_was_starting_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = StateDir::open(dir.path()).unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        fs::write(dir.path().join(LOCK_FILE), format!("{}\n", dead.id())).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(10 * DEAD_HOLDER_PAUSE);
                drop(held);
            });
            StateDir::open(dir.path()).unwrap();
        });
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::Foreign { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join(VERSION_FILE), "aetherfs state 2\nmore\n").unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::Newer { found: 2, .. })));
        fs::write(dir.path().join(VERSION_FILE), "\0\0\0").unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::Unreadable { .. })));
    }

    #[test]
    fn a_first_start_that_was_cut_short_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        for name in HARMLESS {
            fs::write(dir.path().join(name), "").unwrap();
        }
        StateDir::open(dir.path()).unwrap();
    }
}
