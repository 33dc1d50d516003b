//! The names of a source and what `lstat` says of them, in tree order: depth first, names of a directory by their bytes.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    ops::Range,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{Progress, stat::Stat};
use crate::{Error, Kind, Result};

/// A source as it was when it was scanned. Node 0 is its root; a directory's subtree stands right behind it.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    nodes: Vec<Node>,
    names: Vec<u8>,
    /// Names of each inode that has several, by [`Node::link`].
    pub(super) link_counts: Vec<u32>,
    /// Bytes of regular files, for each of their names.
    pub(super) bytes: u64,
}

/// One name.
#[derive(Debug)]
pub(super) struct Node {
    name: Range<usize>,
    parent: u32,
    /// Behind the last node of its subtree.
    pub(super) end: u32,
    pub(super) stat: Stat,
    pub(super) link: Option<Link>,
}

/// An inode that may have other names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Which one.
    pub(super) group: u32,
    /// Whether this is its first name in tree order.
    pub(super) first: bool,
}

impl Tree {
    /// Walks the directory `source`.
    pub(super) fn scan(source: &Path, progress: &dyn Fn(Progress), cancel: &AtomicBool) -> Result<Tree> {
        let unreadable = |error| Error::Unreadable { path: source.into(), source: error };
        let root = fs::canonicalize(source).map_err(unreadable)?;
        let metadata = fs::metadata(&root).map_err(unreadable)?;
        if !metadata.is_dir() {
            return Err(Error::NotADirectory(source.into()));
        }
        let stat = Stat::new(&metadata).expect("a directory is a type of file");
        let mut tree = Tree { root, nodes: Vec::new(), names: Vec::new(), link_counts: Vec::new(), bytes: 0 };
        tree.push(b"", 0, stat, &mut HashMap::new())?;
        tree.walk(progress, cancel)?;
        Ok(tree)
    }

    /// All names below the root.
    pub(super) fn files(&self) -> u64 {
        self.nodes.len() as u64 - 1
    }

    pub(super) fn len(&self) -> u32 {
        self.nodes.len() as u32
    }

    pub(super) fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    pub(super) fn name(&self, index: u32) -> &[u8] {
        &self.names[self.node(index).name.clone()]
    }

    /// Where the file is in this process's view.
    pub(super) fn path(&self, index: u32) -> PathBuf {
        let mut names = Vec::new();
        let mut at = index;
        while at != 0 {
            names.push(self.name(at));
            at = self.node(at).parent;
        }
        let mut path = self.root.clone().into_os_string().into_vec();
        for name in names.iter().rev() {
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend(*name);
        }
        PathBuf::from(std::ffi::OsString::from_vec(path))
    }

    /// Directories that are no longer as they were scanned.
    pub(super) fn changed_dirs(&self, cancel: &AtomicBool) -> Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        for index in (0..self.len()).filter(|&index| self.node(index).stat.kind == Kind::Dir) {
            check(cancel)?;
            let path = self.path(index);
            let now = fs::symlink_metadata(&path).ok().and_then(|metadata| Stat::new(&metadata));
            let stat = &self.node(index).stat;
            // A directory's size is the file system's business and may change by itself.
            if !now.is_some_and(|now| Stat { size: stat.size, ..now }.is_unchanged(stat)) {
                changed.push(path);
            }
        }
        Ok(changed)
    }

    fn walk(&mut self, progress: &dyn Fn(Progress), cancel: &AtomicBool) -> Result<()> {
        let mut inodes = HashMap::new();
        let mut open = vec![Open::read(0, self.root.clone(), cancel)?];
        while let Some(dir) = open.last_mut() {
            let Some((name, stat)) = dir.entries.next() else {
                self.nodes[dir.node as usize].end = self.len();
                open.pop();
                progress(Progress::Scanning { files: self.files(), bytes: self.bytes });
                continue;
            };
            let index = self.push(&name, dir.node, stat, &mut inodes)?;
            if stat.kind == Kind::Dir {
                let path = dir.path.join(OsStr::from_bytes(&name));
                open.push(Open::read(index, path, cancel)?);
            }
        }
        Ok(())
    }

    /// `inodes` holds the link groups that were met, by device and inode number.
    fn push(
        &mut self,
        name: &[u8],
        parent: u32,
        stat: Stat,
        inodes: &mut HashMap<(u64, u64), u32>,
    ) -> Result<u32> {
        let index = u32::try_from(self.nodes.len()).ok().filter(|&index| index < u32::MAX);
        let index = index
            .ok_or(Error::Unsupported { path: self.root.clone(), reason: "more than four billion names" })?;
        let start = self.names.len();
        self.names.extend(name);
        let mut link = None;
        if stat.kind != Kind::Dir && stat.nlink > 1 {
            let new = self.link_counts.len() as u32;
            let group = *inodes.entry((stat.dev, stat.ino)).or_insert(new);
            if group == new {
                self.link_counts.push(0);
            }
            self.link_counts[group as usize] += 1;
            link = Some(Link { group, first: group == new });
        }
        if stat.kind == Kind::File {
            self.bytes = self.bytes.saturating_add(stat.size);
        }
        self.nodes.push(Node { name: start..self.names.len(), parent, end: index + 1, stat, link });
        Ok(index)
    }
}

/// A directory whose entries are being walked.
struct Open {
    node: u32,
    path: PathBuf,
    entries: std::vec::IntoIter<(Vec<u8>, Stat)>,
}

impl Open {
    fn read(node: u32, path: PathBuf, cancel: &AtomicBool) -> Result<Open> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&path).map_err(scan_error(&path))? {
            check(cancel)?;
            let entry = entry.map_err(scan_error(&path))?;
            let metadata = entry.metadata().map_err(|error| scan_error(&entry.path())(error))?;
            let stat = Stat::new(&metadata).ok_or_else(|| Error::Unsupported {
                path: entry.path(),
                reason: "an unknown type of file",
            })?;
            entries.push((entry.file_name().into_vec(), stat));
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(Open { node, path, entries: entries.into_iter() })
    }
}

/// What was listed a moment ago and is gone has changed; all else cannot be read.
fn scan_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::SourceChanged(vec![path.into()]),
        _ => Error::Unreadable { path: path.into(), source },
    }
}

/// Fails if the caller wants to stop.
pub(super) fn check(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
}
