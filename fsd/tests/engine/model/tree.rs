//! The reference: a file system as simple as it can be. Nodes in a map, bytes in a vector, no sharing, no cleverness.

use std::{collections::BTreeMap, sync::Arc};

use cas::{Attrs, Kind, Time};
use fsd::session::{Allocate, FILE_BYTES_MAX, ROOT, Seek, SetAttrs, SetTime, SetXattr, Writer};

use super::{
    notes::Attached,
    picture::Picture,
    target::{Answer, Fail, Seen},
};

mod names;

/// The number of the first node that a session makes.
const CREATED_MIN: u64 = 1 << 62;

/// The parent of a node that never had a name.
pub const NOWHERE: u64 = 0;

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
    /// Of a directory: the one it is in. Of a file: `NOWHERE`, or anything else.
    pub parent: u64,
}

/// A session's tree. A clone is a fork, but for what is attached.
#[derive(Clone, Debug)]
pub struct Tree {
    pub nodes: BTreeMap<u64, Arc<Node>>,
    pub next: u64,
    /// Its times are those of this moment.
    pub now: Time,
    /// Beside the tree.
    pub attached: Attached,
}

impl Tree {
    /// An empty tree; what is made in it is numbered from `next` on.
    pub fn empty(next: u64, root: Attrs) -> Tree {
        let body = Body::Dir(BTreeMap::new());
        let root = Node { kind: Kind::Dir, attrs: root, body, xattrs: BTreeMap::new(), parent: ROOT };
        Tree {
            nodes: BTreeMap::from([(ROOT, Arc::new(root))]),
            next,
            now: Time::default(),
            attached: Attached::default(),
        }
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

    /// The files have the bytes that they have in a picture of the same tree.
    pub fn take_bytes(&mut self, picture: &Picture) {
        for item in picture.values().filter(|item| item.seen.kind == Kind::File) {
            self.edit(item.seen.ino).body = Body::File(Arc::clone(&item.bytes));
        }
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
        self.set_bytes(ino, |bytes| {
            if clears && !cleared.is_empty() {
                bytes[cleared].fill(0);
            }
            if grows {
                bytes.resize(end, 0);
            }
        });
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
        if set.by == Writer::Ordinary {
            let runs_as_group = attrs.mode & 0o2010 == 0o2010;
            attrs.mode &= if runs_as_group { 0o1777 } else { 0o3777 };
        }
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
