//! What differs between two trees: sessions, or snapshots seen as sessions without changes.
//!
//! Walks both from the root and skips what is the same object on both sides, so the cost is that of the changes. Inode
//! numbers tell renames, but only of inodes that both trees have from a common ancestor: two forks give the same new number
//! to different files.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
};

use cas::{Kind, SnapshotId, Store, dir::Dir};

use super::{
    Error, Name, Result,
    data::{fill, next_data},
    extent::{FileBody, Origin},
    inode::{Body, CREATED_MIN, ROOT},
    linked::linked_dirs,
    state::State,
    tree::{DirNode, Found},
};

/// Bytes compared at a time.
const COMPARE_BYTES: u64 = 1 << 20;

/// Part of a range, and where it comes from.
type Part = (Range<u64>, Origin);

/// One of the two trees.
#[derive(Clone, Debug)]
pub struct Side {
    /// Its content.
    pub state: State,
    /// The snapshot that its inode numbers go back to.
    pub origin: SnapshotId,
}

impl Side {
    /// A snapshot.
    pub fn snapshot(store: &Store, id: SnapshotId) -> Result<Side> {
        Ok(Side { state: State::of_snapshot(store, id)?, origin: id })
    }
}

/// One difference. Directories that are new or gone are listed, and so is what is in them.
#[derive(Clone, Debug)]
pub enum Difference {
    /// Only in the new tree.
    Added(Vec<u8>, Found),
    /// Only in the old tree.
    Deleted(Vec<u8>, Found),
    /// Content, target, owner, permissions or extended attributes differ; times alone do not count.
    Modified(Vec<u8>, Found, Found),
    /// Another kind of file.
    TypeChanged(Vec<u8>, Found, Found),
    /// The same inode under another path; what differs inside a renamed directory is listed beside it.
    Renamed(Vec<u8>, Found, Vec<u8>, Found),
}

impl Difference {
    /// The path that it is sorted by: the new one of a rename.
    pub fn path(&self) -> &[u8] {
        match self {
            Difference::Added(path, _)
            | Difference::Deleted(path, _)
            | Difference::Modified(path, _, _)
            | Difference::TypeChanged(path, _, _)
            | Difference::Renamed(_, _, path, _) => path,
        }
    }
}

/// A name that only one tree has at that path.
struct Loose {
    path: Vec<u8>,
    found: Found,
    /// The loose directory that it was found in.
    within: Option<usize>,
    expanded: bool,
    /// It, or a directory around it, turned out to be renamed.
    matched: bool,
}

struct Differ<'a> {
    store: &'a Store,
    old: &'a Side,
    new: &'a Side,
    expand_renames: bool,
    differences_max: usize,
    /// Untouched directories that hold names of changed hard-linked inodes, and those above them.
    dirty: [HashSet<u64>; 2],
    /// Numbers up to this one mean the same in both trees.
    common_ino_max: u64,
    pairs: Vec<(Found, Found, Vec<u8>, Vec<u8>)>,
    loose: [Vec<Loose>; 2],
    /// Paths that were found to be renamed: when the directory around one turns out to be renamed, too, and is compared,
    /// it must not be met again.
    renamed: [BTreeSet<Vec<u8>>; 2],
    out: Vec<Difference>,
}

/// Compares two trees; the result is sorted by path, component by component. With `expand_renames` every file of a renamed directory is listed as
/// renamed itself, for readers that know no renamed directories. Error: `TooMany` for more than `differences_max`.
pub fn diff(
    store: &Store,
    old: &Side,
    new: &Side,
    expand_renames: bool,
    differences_max: usize,
) -> Result<Vec<Difference>> {
    let common_ino_max = if old.origin == new.origin {
        Dir::open(store, store.snapshot(old.origin)?.dir)?.totals().ino_max
    } else {
        0
    };
    let dirty = |side: &Side| Ok::<_, Error>(linked_dirs(store, &side.state)?.into_keys().collect());
    let mut differ = Differ {
        store,
        old,
        new,
        expand_renames,
        differences_max,
        dirty: [dirty(old)?, dirty(new)?],
        common_ino_max: common_ino_max.max(CREATED_MIN - 1),
        pairs: Vec::new(),
        loose: [Vec::new(), Vec::new()],
        renamed: [BTreeSet::new(), BTreeSet::new()],
        out: Vec::new(),
    };
    let roots = (old.state.root(), new.state.root());
    differ.pairs.push((Found::changed(ROOT, roots.0), Found::changed(ROOT, roots.1), Vec::new(), Vec::new()));
    differ.run()?;
    let mut out = differ.out;
    out.sort_by(|a, b| components(a.path()).cmp(components(b.path())));
    Ok(out)
}

/// Sorted by these, what is in a directory comes right behind it.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
}

impl Differ<'_> {
    fn run(&mut self) -> Result<()> {
        loop {
            while let Some((old, new, old_path, new_path)) = self.pairs.pop() {
                self.compare_dirs(&old, &new, &old_path, &new_path)?;
            }
            self.match_loose()?;
            if self.pairs.is_empty() && !self.expand_loose()? {
                break;
            }
        }
        let [deleted, added] = std::mem::take(&mut self.loose);
        let rest = |loose: Vec<Loose>| loose.into_iter().filter(|l| !l.matched);
        self.out.extend(rest(deleted).map(|l| Difference::Deleted(l.path, l.found)));
        self.out.extend(rest(added).map(|l| Difference::Added(l.path, l.found)));
        Ok(())
    }

    fn compare_dirs(&mut self, old: &Found, new: &Found, old_path: &[u8], new_path: &[u8]) -> Result<()> {
        let (mut a, mut b) = (self.entries(0, old)?, self.entries(1, new)?);
        a.retain(|(name, _)| !self.renamed[0].contains(&join(old_path, name)));
        b.retain(|(name, _)| !self.renamed[1].contains(&join(new_path, name)));
        let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
        loop {
            let order = match (a.peek(), b.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let left = if order.is_le() { a.next() } else { None };
            let right = if order.is_ge() { b.next() } else { None };
            match (left, right) {
                (Some((name, old)), Some((_, new))) => {
                    self.compare(old, new, join(old_path, &name), join(new_path, &name))?;
                }
                (Some((name, old)), None) => self.add_loose(0, join(old_path, &name), old, None),
                (None, Some((name, new))) => self.add_loose(1, join(new_path, &name), new, None),
                (None, None) => unreachable!("one of them is the smaller"),
            }
            self.check_count()?;
        }
    }

    /// Two entries that stand at the same place.
    fn compare(&mut self, old: Found, new: Found, old_path: Vec<u8>, new_path: Vec<u8>) -> Result<()> {
        let moved = self.expand_renames && old_path != new_path;
        if old.kind != new.kind {
            for (side, dir, path) in [(0, &old, &old_path), (1, &new, &new_path)] {
                if dir.kind == Kind::Dir {
                    self.expand(side, dir, path, None)?;
                }
            }
            self.out.push(Difference::TypeChanged(new_path, old, new));
            return Ok(());
        }
        let same = same_attributes(self.store, &old, &new)? && self.same_content(&old, &new)?;
        if old.kind == Kind::Dir && (moved || !self.is_done(&old, &new, &old_path, &new_path)?) {
            self.pairs.push((old.clone(), new.clone(), old_path.clone(), new_path.clone()));
        }
        match (moved && old.kind != Kind::Dir, same) {
            (true, _) => self.out.push(Difference::Renamed(old_path, old, new_path, new)),
            (false, false) => self.out.push(Difference::Modified(new_path, old, new)),
            (false, true) => {}
        }
        Ok(())
    }

    /// Whether nothing in two directories is left to be compared: they are the same all the way down, and no name in
    /// them was found to be renamed, which leaves its counterpart alone.
    fn is_done(&self, old: &Found, new: &Found, old_path: &[u8], new_path: &[u8]) -> Result<bool> {
        let taken = |side: usize, dir: &[u8]| {
            let below = [dir, b"/"].concat();
            let next = self.renamed[side].range(below.clone()..).next();
            next.is_some_and(|path| path.starts_with(&below))
        };
        Ok(self.same_tree(old, new)? && !taken(0, old_path) && !taken(1, new_path))
    }

    /// Whether two directories are the same all the way down.
    fn same_tree(&self, old: &Found, new: &Found) -> Result<bool> {
        let untouched = super::seal::is_untouched(old)
            && super::seal::is_untouched(new)
            && !self.dirty[0].contains(&old.ino)
            && !self.dirty[1].contains(&new.ino);
        Ok(untouched && dir_digest(old)? == dir_digest(new)?)
    }

    /// Whether two non-directories contain the same.
    fn same_content(&self, old: &Found, new: &Found) -> Result<bool> {
        Ok(match old.kind {
            Kind::File => old.attrs.size == new.attrs.size && self.same_bytes(old, new)?,
            Kind::Symlink => old.target()? == new.target()?,
            Kind::CharDevice | Kind::BlockDevice => old.attrs.rdev == new.attrs.rdev,
            Kind::Dir | Kind::Fifo | Kind::Socket => true,
        })
    }

    /// Compares only what both sides do not have from one place.
    fn same_bytes(&self, old: &Found, new: &Found) -> Result<bool> {
        let (a, b, size) = (old.file()?, new.file()?, old.attrs.size);
        if let (Some(left), Some(right)) = (a.unchanged(size), b.unchanged(size)) {
            // The same bytes have the same name.
            return Ok(left.content == right.content);
        }
        let one_base = a.base == b.base;
        for (range, left, right) in in_step(a.origins(0..size), b.origins(0..size)) {
            let same_place = match (left, right) {
                (Origin::Hole, Origin::Hole) => true,
                (Origin::Base, Origin::Base) => one_base,
                (
                    Origin::Segment { segment: left, offset: left_at, .. },
                    Origin::Segment { segment: right, offset: right_at, .. },
                ) => left.id() == right.id() && left_at == right_at,
                _ => false,
            };
            if !same_place && !self.same_data(&a, &b, range)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads and compares a range, but for what is a hole on both sides.
    fn same_data(&self, a: &FileBody, b: &FileBody, range: Range<u64>) -> Result<bool> {
        let mut at = range.start;
        loop {
            let data = [a, b].map(|file| next_data(self.store, file, range.end, at));
            let [left, right] = data;
            let starts = [left?, right?].into_iter().flatten().map(|data| data.start);
            let Some(start) = starts.min() else { return Ok(true) };
            let len = COMPARE_BYTES.min(range.end - start);
            if !self.same_range(a, b, start, len as usize)? {
                return Ok(false);
            }
            at = start + len;
        }
    }

    fn same_range(&self, a: &FileBody, b: &FileBody, at: u64, len: usize) -> Result<bool> {
        let (mut left, mut right) = (vec![0; len], vec![0; len]);
        fill(self.store, a, at, &mut left)?;
        fill(self.store, b, at, &mut right)?;
        Ok(left == right)
    }

    /// Pairs names that are gone with names that are new, by inode.
    fn match_loose(&mut self) -> Result<()> {
        let gone: HashMap<u64, usize> = self.loose[0]
            .iter()
            .enumerate()
            .filter(|(_, loose)| !loose.matched)
            .map(|(i, loose)| (loose.found.ino, i))
            .collect();
        for j in 0..self.loose[1].len() {
            let new = &self.loose[1][j];
            let Some(&i) = gone.get(&new.found.ino).filter(|_| !new.matched) else { continue };
            let old = &self.loose[0][i];
            if old.matched || old.found.kind != new.found.kind || !self.same_inode(&old.found, &new.found)? {
                continue;
            }
            let (old_path, new_path) = (old.path.clone(), new.path.clone());
            let (old, new) = (old.found.clone(), new.found.clone());
            self.void(0, i);
            self.void(1, j);
            self.renamed[0].insert(old_path.clone());
            self.renamed[1].insert(new_path.clone());
            if old.kind == Kind::Dir
                && (self.expand_renames || !self.is_done(&old, &new, &old_path, &new_path)?)
            {
                self.pairs.push((old.clone(), new.clone(), old_path.clone(), new_path.clone()));
            }
            self.out.push(Difference::Renamed(old_path, old, new_path, new));
        }
        Ok(())
    }

    /// Whether one number means one inode in both trees.
    fn same_inode(&self, old: &Found, new: &Found) -> Result<bool> {
        if old.ino <= self.common_ino_max {
            return Ok(true);
        }
        // Numbers of created files from unrelated trees may coincide; then only equal content makes a rename of it.
        match old.kind {
            Kind::Dir => Ok(dir_digest(old)?.is_some() && dir_digest(old)? == dir_digest(new)?),
            _ => Ok(old.attrs.mtime == new.attrs.mtime && self.same_content(old, new)?),
        }
    }

    /// Takes a loose name, and what was found under it, out of the game.
    fn void(&mut self, side: usize, at: usize) {
        self.loose[side][at].matched = true;
        // Children stand behind their directories, so one pass reaches all of them.
        for i in at + 1..self.loose[side].len() {
            if let Some(within) = self.loose[side][i].within
                && within >= at
                && self.loose[side][within].matched
            {
                self.loose[side][i].matched = true;
            }
        }
    }

    /// Lists loose directories that have no counterpart so far, one level. False if there was none.
    fn expand_loose(&mut self) -> Result<bool> {
        let mut any = false;
        for side in 0..2 {
            for i in 0..self.loose[side].len() {
                let loose = &mut self.loose[side][i];
                if loose.matched || loose.expanded || loose.found.kind != Kind::Dir {
                    continue;
                }
                loose.expanded = true;
                let (found, path) = (loose.found.clone(), loose.path.clone());
                self.expand(side, &found, &path, Some(i))?;
                any = true;
            }
        }
        Ok(any)
    }

    fn expand(&mut self, side: usize, dir: &Found, path: &[u8], within: Option<usize>) -> Result<()> {
        for (name, found) in self.entries(side, dir)? {
            self.add_loose(side, join(path, &name), found, within);
            self.check_count()?;
        }
        Ok(())
    }

    /// What is gathered here stays in memory until it is sorted.
    fn check_count(&self) -> Result<()> {
        let [deleted, added] = &self.loose;
        if self.out.len() + deleted.len() + added.len() > self.differences_max {
            let advice = "compare trees that are closer to each other";
            return Err(Error::TooMany { what: "differences", max: self.differences_max, advice });
        }
        Ok(())
    }

    fn add_loose(&mut self, side: usize, path: Vec<u8>, found: Found, within: Option<usize>) {
        self.loose[side].push(Loose { path, found, within, expanded: false, matched: false });
    }

    fn entries(&self, side: usize, dir: &Found) -> Result<Vec<(Name, Found)>> {
        let state = if side == 0 { &self.old.state } else { &self.new.state };
        let node: DirNode = state.open_dir(self.store, dir)?;
        state.entries(&node)
    }
}

/// Cuts two lists of the parts of one range where either has a cut, and puts them side by side.
fn in_step(
    left: impl Iterator<Item = Part>,
    right: impl Iterator<Item = Part>,
) -> Vec<(Range<u64>, Origin, Origin)> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    let (mut both, mut at) = (Vec::new(), 0);
    while let (Some((a, from)), Some((b, other))) = (left.peek(), right.peek()) {
        let end = a.end.min(b.end);
        both.push((at..end, from.skip(at - a.start), other.skip(at - b.start)));
        at = end;
        let (a_ends, b_ends) = (a.end == end, b.end == end);
        left.next_if(|_| a_ends);
        right.next_if(|_| b_ends);
    }
    both
}

fn dir_digest(found: &Found) -> Result<Option<cas::Digest>> {
    Ok(match &found.inode()?.body {
        Body::Dir(base) => base.as_ref().map(|base| base.digest()),
        _ => None,
    })
}

/// Owner, permissions and extended attributes.
fn same_attributes(store: &Store, old: &Found, new: &Found) -> Result<bool> {
    let key = |found: &Found| (found.attrs.mode, found.attrs.uid, found.attrs.gid);
    if key(old) != key(new) {
        return Ok(false);
    }
    use super::inode::XattrSet::Base;
    match (&old.inode()?.xattrs, &new.inode()?.xattrs) {
        (Base(a), Base(b)) if a == b => Ok(true),
        _ => Ok(old.xattrs(store)? == new.xattrs(store)?),
    }
}

fn join(dir: &[u8], name: &Name) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_followed_by_what_is_beneath_it() {
        let mut paths = [&b"a.c"[..], b"a/b", b"a", b"a-b"];
        paths.sort_by(|a, b| components(a).cmp(components(b)));
        assert_eq!(paths, [&b"a"[..], b"a/b", b"a-b", b"a.c"]);
    }
}
