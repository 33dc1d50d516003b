//! The reference: a file system as simple as it can be. Nodes in a map, bytes in a vector, no sharing, no cleverness.

use std::{collections::BTreeMap, sync::Arc};

use cas::{Attrs, Kind, Time};
use fsd::session::{Allocate, FILE_BYTES_MAX, New, ROOT, Rename, Seek, SetAttrs, SetTime, SetXattr};

use super::{
    picture::Picture,
    target::{Answer, Fail, Seen},
};

/// The number of the first node that a session makes.
const CREATED_MIN: u64 = 1 << 62;
const S_ISGID: u32 = 0o2000;

/// What a node contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    File(Arc<Vec<u8>>),
    Dir(BTreeMap<Vec<u8>, u64>),
    Symlink(Vec<u8>),
    Special,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: Kind,
    pub attrs: Attrs,
    pub body: Body,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a directory: the one it is in.
    pub parent: u64,
}

/// A session's tree. A clone is a fork.
#[derive(Clone, Debug)]
pub struct Tree {
    pub nodes: BTreeMap<u64, Arc<Node>>,
    pub next: u64,
    /// Its times are those of this moment.
    pub now: Time,
}

impl Tree {
    /// An empty tree; what is made in it is numbered from `next` on.
    pub fn empty(next: u64, root: Attrs) -> Tree {
        let body = Body::Dir(BTreeMap::new());
        let root = Node { kind: Kind::Dir, attrs: root, body, xattrs: BTreeMap::new(), parent: ROOT };
        Tree { nodes: BTreeMap::from([(ROOT, Arc::new(root))]), next, now: Time::default() }
    }

    /// The tree of a picture.
    pub fn of(picture: &Picture, next: u64) -> Tree {
        let mut tree = Tree::empty(next, picture[&Vec::new()].seen.attrs);
        for (path, item) in picture {
            let at = path.iter().rposition(|b| *b == b'/');
            let (dir, name) = at.map_or((&[][..], &path[..]), |at| (&path[..at], &path[at + 1..]));
            let (parent, seen) = (picture[dir].seen.ino, item.seen);
            let body = match seen.kind {
                Kind::File => Body::File(Arc::clone(&item.bytes)),
                Kind::Dir => Body::Dir(BTreeMap::new()),
                Kind::Symlink => Body::Symlink(item.bytes.to_vec()),
                _ => Body::Special,
            };
            let node = Node { kind: seen.kind, attrs: seen.attrs, body, xattrs: item.xattrs.clone(), parent };
            tree.nodes.insert(seen.ino, Arc::new(node));
            if !path.is_empty() {
                tree.names_mut(parent).insert(name.to_vec(), seen.ino);
            }
        }
        tree
    }

    /// From here on new nodes are numbered as a session numbers them.
    pub fn into_base(mut self) -> Tree {
        self.next = CREATED_MIN;
        self
    }

    pub fn node(&self, ino: u64) -> Answer<&Node> {
        self.nodes.get(&ino).map(|node| &**node).ok_or(Fail::Stale)
    }

    fn edit(&mut self, ino: u64) -> &mut Node {
        Arc::make_mut(self.nodes.get_mut(&ino).expect("looked up before"))
    }

    pub fn names(&self, dir: u64) -> Answer<&BTreeMap<Vec<u8>, u64>> {
        match &self.node(dir)?.body {
            Body::Dir(names) => Ok(names),
            _ => Err(Fail::NotADirectory),
        }
    }

    fn names_mut(&mut self, dir: u64) -> &mut BTreeMap<Vec<u8>, u64> {
        match &mut self.edit(dir).body {
            Body::Dir(names) => names,
            _ => panic!("checked to be a directory"),
        }
    }

    pub fn bytes(&self, ino: u64) -> Answer<&Arc<Vec<u8>>> {
        match &self.node(ino)?.body {
            Body::File(bytes) => Ok(bytes),
            Body::Dir(_) => Err(Fail::IsADirectory),
            _ => Err(Fail::Invalid),
        }
    }

    fn set_bytes(&mut self, ino: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let now = self.now;
        let node = self.edit(ino);
        let Body::File(bytes) = &mut node.body else { panic!("checked to be a file") };
        change(Arc::make_mut(bytes));
        let size = bytes.len() as u64;
        node.attrs = Attrs { size, mtime: now, ctime: now, ..node.attrs };
    }

    /// A directory that names can be put into: one that is not removed.
    fn live_dir(&self, dir: u64) -> Answer<&BTreeMap<Vec<u8>, u64>> {
        let names = self.names(dir)?;
        if self.node(dir)?.attrs.nlink == 0 { Err(Fail::NotFound) } else { Ok(names) }
    }

    pub fn stat(&self, ino: u64) -> Answer<Seen> {
        let node = self.node(ino)?;
        Ok(Seen { ino, kind: node.kind, attrs: node.attrs })
    }

    pub fn lookup(&self, dir: u64, name: &[u8]) -> Answer<Seen> {
        self.stat(*self.names(dir)?.get(name).ok_or(Fail::NotFound)?)
    }

    /// A directory's names changed, and the number of its subdirectories by `subdirs`.
    fn touch(&mut self, dir: u64, subdirs: i32) {
        let now = self.now;
        let attrs = &mut self.edit(dir).attrs;
        attrs.nlink = attrs.nlink.saturating_add_signed(subdirs);
        (attrs.mtime, attrs.ctime) = (now, now);
    }

    pub fn make(&mut self, dir: u64, name: &[u8], new: New) -> Answer<Seen> {
        if self.live_dir(dir)?.contains_key(name) {
            return Err(Fail::Exists);
        }
        let target = new.target.unwrap_or_default();
        if new.kind == Kind::Symlink && target.is_empty() {
            return Err(Fail::Invalid);
        }
        let (parent, is_dir) = (self.node(dir)?.attrs, new.kind == Kind::Dir);
        let inherits = parent.mode & S_ISGID != 0;
        let device = matches!(new.kind, Kind::CharDevice | Kind::BlockDevice);
        let attrs = Attrs {
            mode: (new.mode & 0o7777) | if inherits && is_dir { S_ISGID } else { 0 },
            uid: new.uid,
            gid: if inherits { parent.gid } else { new.gid },
            nlink: if is_dir { 2 } else { 1 },
            rdev: if device { new.rdev } else { 0 },
            size: target.len() as u64,
            mtime: self.now,
            ctime: self.now,
        };
        let body = match new.kind {
            Kind::File => Body::File(Arc::default()),
            Kind::Dir => Body::Dir(BTreeMap::new()),
            Kind::Symlink => Body::Symlink(target),
            _ => Body::Special,
        };
        let ino = self.next;
        self.next += 1;
        let node = Node { kind: new.kind, attrs, body, xattrs: BTreeMap::new(), parent: dir };
        self.nodes.insert(ino, Arc::new(node));
        self.names_mut(dir).insert(name.to_vec(), ino);
        self.touch(dir, is_dir as i32);
        self.stat(ino)
    }

    pub fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Answer<Seen> {
        self.live_dir(dir)?;
        let node = self.node(ino)?;
        if node.kind == Kind::Dir {
            return Err(Fail::NotPermitted);
        }
        if node.attrs.nlink == 0 {
            return Err(Fail::NotFound);
        }
        if self.names(dir)?.contains_key(name) {
            return Err(Fail::Exists);
        }
        let now = self.now;
        let attrs = &mut self.edit(ino).attrs;
        (attrs.nlink, attrs.ctime) = (attrs.nlink + 1, now);
        self.names_mut(dir).insert(name.to_vec(), ino);
        self.touch(dir, 0);
        self.stat(ino)
    }

    fn lose(&mut self, ino: u64) {
        let now = self.now;
        let node = self.edit(ino);
        node.attrs.nlink = if node.kind == Kind::Dir { 0 } else { node.attrs.nlink - 1 };
        node.attrs.ctime = now;
    }

    pub fn unlink(&mut self, dir: u64, name: &[u8]) -> Answer<()> {
        let ino = *self.live_dir(dir)?.get(name).ok_or(Fail::NotFound)?;
        if self.node(ino)?.kind == Kind::Dir {
            return Err(Fail::IsADirectory);
        }
        self.names_mut(dir).remove(name);
        self.lose(ino);
        self.touch(dir, 0);
        Ok(())
    }

    pub fn rmdir(&mut self, dir: u64, name: &[u8]) -> Answer<()> {
        let ino = *self.live_dir(dir)?.get(name).ok_or(Fail::NotFound)?;
        if !self.names(ino)?.is_empty() {
            return Err(Fail::NotEmpty);
        }
        self.names_mut(dir).remove(name);
        self.lose(ino);
        self.touch(dir, -1);
        Ok(())
    }

    fn is_inside(&self, mut dir: u64, ancestor: u64) -> bool {
        loop {
            match dir {
                _ if dir == ancestor => return true,
                ROOT => return false,
                _ => dir = self.nodes[&dir].parent,
            }
        }
    }

    pub fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), how: Rename) -> Answer<()> {
        self.live_dir(from.0)?;
        self.live_dir(to.0)?;
        let source = *self.names(from.0)?.get(from.1).ok_or(Fail::NotFound)?;
        let target = self.names(to.0)?.get(to.1).copied();
        match (how, target) {
            (Rename::NoReplace, Some(_)) => return Err(Fail::Exists),
            (Rename::Exchange, None) => return Err(Fail::NotFound),
            (_, Some(target)) if target == source => return Ok(()),
            _ => {}
        }
        let is_dir = |ino: u64| self.nodes[&ino].kind == Kind::Dir;
        let source_dir = is_dir(source);
        if source_dir && self.is_inside(to.0, source) {
            return Err(Fail::Invalid);
        }
        let target_dir = target.is_some_and(is_dir);
        if how == Rename::Exchange {
            if target_dir && self.is_inside(from.0, target.expect("checked")) {
                return Err(Fail::Invalid);
            }
            self.put(from, target.expect("checked"));
            self.put(to, source);
            let balance = target_dir as i32 - source_dir as i32;
            self.touch(from.0, if from.0 == to.0 { 0 } else { balance });
            self.touch(to.0, if from.0 == to.0 { 0 } else { -balance });
            return Ok(());
        }
        if let Some(target) = target {
            match (source_dir, target_dir) {
                (true, true) if !self.names(target)?.is_empty() => return Err(Fail::NotEmpty),
                (true, false) => return Err(Fail::NotADirectory),
                (false, true) => return Err(Fail::IsADirectory),
                _ => {}
            }
            self.lose(target);
        }
        self.names_mut(from.0).remove(from.1);
        self.put(to, source);
        self.touch(from.0, -(source_dir as i32));
        self.touch(to.0, source_dir as i32 - target_dir as i32);
        Ok(())
    }

    fn put(&mut self, (dir, name): (u64, &[u8]), ino: u64) {
        self.names_mut(dir).insert(name.to_vec(), ino);
        let now = self.now;
        let node = self.edit(ino);
        (node.parent, node.attrs.ctime) = (dir, now);
    }

    pub fn read(&self, ino: u64, offset: u64, len: usize) -> Answer<Vec<u8>> {
        let bytes = self.bytes(ino)?;
        let start = (offset as usize).min(bytes.len());
        Ok(bytes[start..(start + len).min(bytes.len())].to_vec())
    }

    pub fn write(&mut self, ino: u64, offset: u64, data: &[u8]) -> Answer<()> {
        if data.is_empty() {
            return Ok(());
        }
        let end = end_of(offset, data.len() as u64)?;
        self.bytes(ino)?;
        self.set_bytes(ino, |bytes| {
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset as usize..end].copy_from_slice(data);
        });
        Ok(())
    }

    pub fn allocate(&mut self, ino: u64, offset: u64, len: u64, how: Allocate) -> Answer<()> {
        let end = end_of(offset, len)?;
        let size = self.bytes(ino)?.len();
        let grows = matches!(how, Allocate::Extend | Allocate::Zero { extend: true }) && end > size;
        let clears = matches!(how, Allocate::Punch | Allocate::Zero { .. });
        let cleared = (offset as usize).min(size)..end.min(size);
        if grows || (clears && !cleared.is_empty()) {
            self.set_bytes(ino, |bytes| {
                if clears && !cleared.is_empty() {
                    bytes[cleared].fill(0);
                }
                if grows {
                    bytes.resize(end, 0);
                }
            });
        }
        Ok(())
    }

    /// Checks a place that a seek answered: what was skipped, or was said to be a hole, must be zeros. Where holes really are
    /// is the target's business.
    pub fn check_seek(&self, ino: u64, offset: u64, what: Seek, answer: Answer<u64>) -> Result<(), String> {
        let bytes = match self.bytes(ino) {
            Ok(bytes) => bytes,
            Err(fail) if answer == Err(fail) => return Ok(()),
            Err(fail) => return Err(format!("seek gave {answer:?}, not {fail:?}")),
        };
        let zeros = |from: u64, to: usize| bytes[from as usize..to].iter().all(|byte| *byte == 0);
        let size = bytes.len() as u64;
        let good = match (what, answer) {
            _ if offset >= size => answer == Err(Fail::NoData),
            (Seek::Data, Err(Fail::NoData)) => zeros(offset, bytes.len()),
            (Seek::Data, Ok(at)) => offset <= at && at < size && zeros(offset, at as usize),
            (Seek::Hole, Ok(at)) => offset <= at && at <= size && (at == size || bytes[at as usize] == 0),
            _ => false,
        };
        if good { Ok(()) } else { Err(format!("seek {what:?} at {offset} of {size} bytes gave {answer:?}")) }
    }

    pub fn set_attrs(&mut self, ino: u64, set: SetAttrs) -> Answer<Seen> {
        self.node(ino)?;
        if let Some(size) = set.size {
            if size > FILE_BYTES_MAX {
                return Err(Fail::FileTooBig);
            }
            self.bytes(ino)?;
            self.set_bytes(ino, |bytes| bytes.resize(size as usize, 0));
        }
        let now = self.now;
        let attrs = &mut self.edit(ino).attrs;
        attrs.mode = set.mode.map_or(attrs.mode, |mode| mode & 0o7777);
        attrs.uid = set.uid.unwrap_or(attrs.uid);
        attrs.gid = set.gid.unwrap_or(attrs.gid);
        attrs.mtime = match set.mtime {
            Some(SetTime::Now) => now,
            Some(SetTime::At(time)) => time,
            None => attrs.mtime,
        };
        attrs.ctime = now;
        self.stat(ino)
    }

    pub fn set_xattr(&mut self, ino: u64, name: &[u8], value: &[u8], how: SetXattr) -> Answer<()> {
        let there = self.node(ino)?.xattrs.contains_key(name);
        match how {
            SetXattr::Create if there => return Err(Fail::Exists),
            SetXattr::Replace if !there => return Err(Fail::NoAttribute),
            _ => {}
        }
        let now = self.now;
        let node = self.edit(ino);
        node.xattrs.insert(name.to_vec(), value.to_vec());
        node.attrs.ctime = now;
        Ok(())
    }

    pub fn remove_xattr(&mut self, ino: u64, name: &[u8]) -> Answer<()> {
        if !self.node(ino)?.xattrs.contains_key(name) {
            return Err(Fail::NoAttribute);
        }
        let now = self.now;
        let node = self.edit(ino);
        node.xattrs.remove(name);
        node.attrs.ctime = now;
        Ok(())
    }
}

fn end_of(offset: u64, len: u64) -> Answer<usize> {
    let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Fail::FileTooBig)?;
    Ok(end as usize)
}
