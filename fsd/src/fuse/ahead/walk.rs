//! The reader that runs ahead of a scan: a process of its own, which walks a mount as the scan will, and has the kernel read each file.
//!
//! The kernel sends those READs in the background, many at a time, on the CPU that the scan does not use; the scan finds pages. Only a
//! client of the mount can do that without a risk for what is written meanwhile, and the daemon must never be its own client.
//!
//! It goes on in windows. The last file of a window is left for the scan: when the daemon sees it read, the scan has come that far, and
//! the reader may go on. While it waits it holds nothing of the mount open, so it keeps nobody from unmounting it.
//!
//! A READ makes the kernel doubt what it knows of a file, and a listing what it knows of the directory, so the scan would ask for all
//! of that once more. The reader asks before it comes: a window later, when the READs are through, it lists the directories again.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    dir::{Dir, Type},
    fcntl::{OFlag, OpenHow, PosixFadviseAdvice, ResolveFlag, open, openat2, posix_fadvise},
    sys::{
        stat::{Mode, fstat},
        statvfs::{FsFlags, fstatvfs},
    },
};

use super::{
    again::{Again, Left},
    lead::Lead,
};

/// Files in a window: some ms of a scan's time, and of each so many bytes, which is what one READ brings. A scan of large files
/// has the kernel read ahead by itself.
const WINDOW_FILES: usize = 128;
const FILE_BYTES_MAX: i64 = 128 << 10;
/// Of a directory: more is not looked at.
const ENTRIES_MAX: usize = 65_536;
/// The bit that no inode number has: of what the daemon is told, it tells what was read from marks.
pub(super) const WAS_READ: u64 = 1 << 63;
/// What the kernel read of a file at most, because of the reader.
pub(super) const READ_BYTES_MAX: u64 = FILE_BYTES_MAX as u64;
/// Entries that a window may have, of whatever kind, and windows without a file to leave to the scan until it is given up.
const WINDOW_ENTRIES: usize = 1024;
const EMPTY_WINDOWS_MAX: usize = 16;

/// What to read.
#[derive(Clone, Debug)]
pub struct Task {
    /// The mount point.
    pub mount: PathBuf,
    /// Its device number, `major:minor`: if something else is there by now, nothing is read.
    pub device: String,
}

/// Reads ahead until the tree ends, or nobody follows. First `go` tells the directory that the scan is in, from the mount point on,
/// with a 0 behind it. The number of the file at the end of each window goes to `marks`, and before it, with `WAS_READ`, those of what was read and
/// listed in that window; each further byte from `go` says that one of
/// them was read. Errors: there is no such mount or directory; the daemon is gone.
pub fn run(task: &Task, mut go: impl Read + AsFd, mut marks: impl Write) -> io::Result<()> {
    let from = read_path(&mut go)?;
    let mut walk = Walk::begin(task, &from)?;
    let mut lead = Lead::new(go);
    let mut again = Again::default();
    let mut empty = 0;
    loop {
        if !lead.look()? {
            return Ok(());
        }
        let is_read = lead.is_enough() || !walk.has_doubts;
        let mark = match walk.window(is_read)? {
            Window::Mark(mark) => Some(mark),
            Window::Empty if empty < EMPTY_WINDOWS_MAX => {
                empty += 1;
                continue;
            }
            Window::Empty => return Ok(()),
            Window::End => None,
        };
        empty = 0;
        let told: Vec<u8> = walk.take_read().into_iter().chain(mark).flat_map(u64::to_le_bytes).collect();
        marks.write_all(&told)?;
        marks.flush()?;
        if mark.is_none() {
            break;
        }
        lead.step();
        again.add(lead.windows(), walk.take_left());
        loop {
            walk.list_again(again.due(lead.windows(), lead.passed(), lead.is_enough()))?;
            if !lead.is_most() {
                break;
            }
            if !lead.wait()? {
                return Ok(());
            }
        }
    }
    // The rest, when the scan has come to the last mark.
    while lead.passed() < lead.windows() {
        if !lead.wait()? {
            return Ok(());
        }
    }
    again.add(lead.windows(), walk.take_left());
    walk.list_again(again.all())
}

/// Byte by byte: what is behind it is not its own.
fn read_path(from: &mut impl Read) -> io::Result<PathBuf> {
    let (mut path, mut byte) = (Vec::new(), [0]);
    loop {
        from.read_exact(&mut byte)?;
        match byte {
            [0] => return Ok(OsString::from_vec(path).into()),
            [byte] => path.push(byte),
        }
    }
}

/// How a window ends.
#[derive(Debug, PartialEq, Eq)]
enum Window {
    /// At a file, with this number.
    Mark(u64),
    /// With many entries, and too few files among them.
    Empty,
    /// With the tree.
    End,
}

/// A directory on the way: what is in it, and how far the walk has come.
struct Level {
    path: PathBuf,
    entries: Vec<Listed>,
    next: usize,
    /// Some of its files are left to the scan, not counting marks.
    is_scans: bool,
}

struct Listed {
    name: Box<OsStr>,
    kind: Type,
    /// The inode's.
    number: u64,
}

/// Depth first, in the order of the listings, as programs that scan a tree go.
struct Walk {
    task: Task,
    levels: Vec<Level>,
    /// Directories that it is through with, since somebody asked.
    left: Vec<Left>,
    /// What it had the kernel read and list since somebody asked, each with `WAS_READ`.
    read: Vec<u64>,
    /// Whether a READ makes the kernel doubt the access time. Not of a read-only mount.
    has_doubts: bool,
}

impl Walk {
    /// At the beginning of a directory; what comes behind it in the directories above comes later.
    fn begin(task: &Task, from: &Path) -> io::Result<Walk> {
        let root = open_root(task)?;
        let mut levels = vec![list(&root, PathBuf::new())?];
        for part in from.components() {
            let name = match part {
                Component::CurDir => continue,
                Component::Normal(name) => name,
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            };
            let above = levels.last_mut().ok_or(io::ErrorKind::NotFound)?;
            let at = above.entries.iter().position(|entry| *entry.name == *name);
            above.next = at.ok_or(io::ErrorKind::NotFound)? + 1;
            let path = above.path.join(name);
            levels.push(list(&root, path)?);
        }
        let has_doubts = !fstatvfs(&root)?.flags().contains(FsFlags::ST_RDONLY);
        Ok(Walk { task: task.clone(), levels, left: Vec::new(), read: Vec::new(), has_doubts })
    }

    /// Has the kernel read the next files but one, or, without `is_read`, leaves them to the scan.
    fn window(&mut self, is_read: bool) -> io::Result<Window> {
        let root = open_root(&self.task)?;
        let (mut files, mut entries) = (0, 0);
        let mut dir: Option<OwnedFd> = None;
        while let Some(level) = self.levels.last_mut() {
            let Some(entry) = level.entries.get(level.next) else {
                let left = |Level { path, is_scans, .. }| Left { path, is_scans };
                self.left.extend(self.levels.pop().map(left));
                dir = None;
                continue;
            };
            if entries == WINDOW_ENTRIES {
                return Ok(Window::Empty);
            }
            entries += 1;
            level.next += 1;
            match entry.kind {
                // Hidden ones are rarely looked into, and often large.
                Type::Directory if entry.name.as_bytes().starts_with(b".") => {}
                Type::Directory => {
                    let path = level.path.join(&*entry.name);
                    self.read.push(WAS_READ | entry.number);
                    self.levels.extend(list(&root, path));
                    dir = None;
                }
                Type::File if !is_read && files + 1 < WINDOW_FILES => {
                    (files, level.is_scans) = (files + 1, true)
                }
                Type::File => {
                    let here = match dir.take() {
                        Some(dir) => dir,
                        None => match open_dir(&root, &level.path) {
                            Ok(dir) => dir,
                            // Gone meanwhile, with all that was in it.
                            Err(_) => {
                                self.levels.pop();
                                continue;
                            }
                        },
                    };
                    let is_mark = files + 1 >= WINDOW_FILES;
                    let found = look(&here, &entry.name, is_mark).ok().flatten();
                    if !is_mark && found.is_some() {
                        self.read.push(WAS_READ | entry.number);
                    }
                    dir = Some(here);
                    match found {
                        Some(number) if is_mark => return Ok(Window::Mark(number)),
                        found => files += usize::from(found.is_some()),
                    }
                }
                _ => {}
            }
        }
        Ok(Window::End)
    }

    /// What it had the kernel read and list since the last call.
    fn take_read(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.read)
    }

    /// The directories that it is through with since the last call and that the kernel comes to doubt.
    fn take_left(&mut self) -> Vec<Left> {
        let left = std::mem::take(&mut self.left);
        if self.has_doubts { left } else { Vec::new() }
    }

    /// Lists directories once more: the attributes of what is in them come with it, and then those of the directory itself.
    fn list_again(&self, dirs: Vec<PathBuf>) -> io::Result<()> {
        if dirs.is_empty() {
            return Ok(());
        }
        let root = open_root(&self.task)?;
        for path in dirs {
            // What is gone meanwhile needs no listing.
            let _ = list_again(&root, &path);
        }
        Ok(())
    }
}

fn list_again(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let mut dir = Dir::from_fd(open_dir(root, path)?)?;
    dir.iter().take(ENTRIES_MAX).try_for_each(|entry| entry.map(drop))?;
    fstat(&dir)?;
    Ok(())
}

/// Nothing but what is below the mount point, and on it.
fn how(flags: OFlag) -> OpenHow {
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
    OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve)
}

fn open_root(task: &Task) -> io::Result<OwnedFd> {
    let root = open(&task.mount, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let device = fstat(&root)?.st_dev;
    if format!("{}:{}", libc::major(device), libc::minor(device)) != task.device {
        return Err(io::Error::new(io::ErrorKind::NotFound, "another file system is mounted there"));
    }
    Ok(root)
}

fn open_dir(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(openat2(root, path, how(OFlag::O_RDONLY | OFlag::O_DIRECTORY))?)
}

/// The whole listing; the kernel keeps what the names stand for.
fn list(root: &OwnedFd, path: PathBuf) -> io::Result<Level> {
    let mut entries = Vec::new();
    for entry in Dir::from_fd(open_dir(root, &path)?)?.iter().take(ENTRIES_MAX) {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if let (Some(kind), false) = (entry.file_type(), name == "." || name == "..") {
            entries.push(Listed { name: name.into(), kind, number: entry.ino() });
        }
    }
    Ok(Level { path, entries, next: 0, is_scans: false })
}

/// Has the kernel read a file, or, of a mark, only finds out its number. None if there is nothing to read. A moment ago it was a file:
/// of a fifo that took its place nobody is waited for.
fn look(dir: &OwnedFd, name: &OsStr, is_mark: bool) -> io::Result<Option<u64>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
    let file = openat2(dir, name, how(flags))?;
    if !is_mark {
        posix_fadvise(&file, 0, FILE_BYTES_MAX, PosixFadviseAdvice::POSIX_FADV_WILLNEED)?;
        return Ok(Some(0));
    }
    let stat = fstat(&file)?;
    Ok((stat.st_size > 0).then_some(stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::{super::lead::WINDOWS_AHEAD, *};

    /// Whole windows of the files that are neither hidden nor, most of them, empty.
    const WINDOWS: usize = 4 * 400 / WINDOW_FILES;

    /// Some directories of some files each, on any file system.
    fn tree() -> (tempfile::TempDir, Task) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b/c", "b", ".hidden", "d"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            for n in 0..400 {
                fs::write(dir.path().join(name).join(n.to_string()), b"x").unwrap();
            }
            fs::write(dir.path().join(name).join("empty"), b"").unwrap();
        }
        let device = fs::metadata(dir.path()).unwrap().dev();
        let device = format!("{}:{}", libc::major(device), libc::minor(device));
        let task = Task { mount: dir.path().to_owned(), device };
        (dir, task)
    }

    fn marks(walk: &mut Walk) -> Vec<u64> {
        let mark = |walk: &mut Walk| match walk.window(true).unwrap() {
            Window::Mark(mark) => Some(mark),
            Window::Empty | Window::End => None,
        };
        std::iter::from_fn(|| mark(walk)).collect()
    }

    /// Of what the daemon is told, how many marks, and how much that was read.
    fn told_of(told: &[u8]) -> (usize, usize) {
        let numbers =
            told.chunks(size_of::<u64>()).map(|number| u64::from_le_bytes(number.try_into().unwrap()));
        let (read, marks): (Vec<_>, Vec<_>) = numbers.partition(|number| number & WAS_READ != 0);
        (marks.len(), read.len())
    }

    /// What comes from the daemon: the directory, and so many steps.
    fn told(from: &str, steps: usize) -> (io::PipeReader, io::PipeWriter) {
        let (go, mut daemon) = io::pipe().unwrap();
        daemon.write_all(&[from.as_bytes(), &vec![0; 1 + steps]].concat()).unwrap();
        (go, daemon)
    }

    #[test]
    fn windows_end_at_files_that_are_there_and_the_walk_ends() {
        let (_dir, task) = tree();
        let mut walk = Walk::begin(&task, Path::new(".")).unwrap();
        let mut marks = marks(&mut walk);
        assert_eq!(marks.len(), WINDOWS);
        marks.sort_unstable();
        marks.dedup();
        assert_eq!(marks.len(), WINDOWS, "{marks:?}");
    }

    #[test]
    fn a_walk_begins_where_the_scan_is() {
        let (_dir, task) = tree();
        let walk = Walk::begin(&task, Path::new("./b/c")).unwrap();
        assert_eq!(walk.levels.len(), 3);
        assert_eq!(walk.levels[2].path, Path::new("b/c"));
        assert_eq!(&*walk.levels[1].entries[walk.levels[1].next - 1].name, "c");
        assert!(!marks(&mut Walk::begin(&task, Path::new(".hidden")).unwrap()).is_empty());
        for from in ["nowhere", "../a", "/etc"] {
            assert!(Walk::begin(&task, Path::new(from)).is_err(), "{from}");
        }
    }

    #[test]
    fn another_file_system_is_left_alone() {
        let (_dir, task) = tree();
        assert!(Walk::begin(&Task { device: "0:0".into(), ..task }, Path::new(".")).is_err());
    }

    #[test]
    fn what_has_no_files_is_given_up() {
        let (dir, task) = tree();
        let empty = dir.path().join("d/nothing");
        fs::create_dir(&empty).unwrap();
        (0..2 * WINDOW_ENTRIES)
            .for_each(|n| std::os::unix::fs::symlink("x", empty.join(n.to_string())).unwrap());
        let mut walk = Walk::begin(&task, Path::new("d/nothing")).unwrap();
        assert_eq!([walk.window(true).unwrap(), walk.window(true).unwrap()], [Window::Empty, Window::Empty]);
    }

    #[test]
    fn what_is_gone_by_then_is_not_listed_again() {
        let (dir, task) = tree();
        let mut walk = Walk::begin(&task, Path::new(".")).unwrap();
        assert_eq!(marks(&mut walk).len(), WINDOWS);
        let mut left: Vec<_> = walk.take_left().into_iter().map(|left| left.path).collect();
        left.sort();
        assert_eq!(left, ["", "a", "b", "b/c", "d"].map(PathBuf::from));
        fs::remove_dir_all(dir.path().join("b")).unwrap();
        walk.list_again(left.clone()).unwrap();
        let other = Walk {
            task: Task { device: "0:0".into(), ..task },
            levels: Vec::new(),
            left: Vec::new(),
            read: Vec::new(),
            has_doubts: true,
        };
        assert!(other.list_again(left).is_err(), "another file system is there");
    }

    #[test]
    fn windows_that_are_left_to_the_scan_end_where_the_others_do() {
        let (_dir, task) = tree();
        let marks = |is_read| {
            let mut walk = Walk::begin(&task, Path::new(".")).unwrap();
            let window = |walk: &mut Walk| match walk.window(is_read).unwrap() {
                Window::Mark(mark) => Some(mark),
                Window::Empty | Window::End => None,
            };
            std::iter::from_fn(|| window(&mut walk)).collect::<Vec<_>>()
        };
        // An empty file counts for who does not look: the windows drift apart by a few files.
        assert_eq!(marks(true)[0], marks(false)[0]);
        assert_eq!(marks(true).len(), marks(false).len());
    }

    #[test]
    fn nobody_is_waited_for_in_vain() {
        let (_dir, task) = tree();
        // No step, or too few: it ends by its patience. No daemon any more: it is not waited for.
        let (silent, _keep) = told(".", 0);
        let mut marks = Vec::new();
        run(&task, silent, &mut marks).unwrap();
        assert_eq!(told_of(&marks).0, WINDOWS_AHEAD as usize);
        let (steps, _keep) = told(".", 8);
        let mut marks = Vec::new();
        run(&task, steps, &mut marks).unwrap();
        assert_eq!(told_of(&marks).0, WINDOWS_AHEAD as usize);
        let (steps, daemon) = told(".", 8);
        drop(daemon);
        let mut marks = Vec::new();
        run(&task, steps, &mut marks).unwrap();
        assert_eq!(told_of(&marks).0, 1, "it ends as soon as it looks");
    }
}
