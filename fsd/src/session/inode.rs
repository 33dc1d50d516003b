//! An inode that the session changed, or an ancestor of one. Inodes of the base that nobody touched have no such value.

use std::sync::{Arc, OnceLock};

use cas::{Attrs, Content, Digest, Entry, Kind, Node, Store, Time, dir::Dir, xattrs::Xattrs};

use super::{
    Result,
    extent::{Blob, FileBody},
};

/// The root directory's number, in every session (FUSE_ROOT_ID).
pub const ROOT: u64 = 1;
/// The parent of a file that was made without a name and has none yet. No inode has this number.
pub const NOWHERE: u64 = 0;
/// Numbers from here on are given to files that a session creates; below are the path-derived ones of imports.
pub const CREATED_MIN: u64 = 1 << 62;

/// Numbers from here on are given to nobody: the store takes none of 2^63 or more, which would be negative in an `ino_t` that
/// a program takes for signed.
pub const INO_END: u64 = 1 << 63;
/// Inodes that a session may create, as statfs(2) shows it.
pub const INODES_MAX: u64 = INO_END - CREATED_MIN;
/// Up to this many extents it is cheap to add up what a file occupies.
const FEW_EXTENTS: usize = 64;

/// Whether a changed file's data bytes can be counted without a walk over many extents.
pub fn has_few_extents(inode: &Inode) -> bool {
    !matches!(&inode.body, Body::File(file) if file.extents.len() > FEW_EXTENTS)
}

/// A changed inode.
#[derive(Clone, Debug)]
pub struct Inode {
    /// A directory that has a name for it, itself in the session's map of changed inodes.
    pub parent: u64,
    /// Its kind.
    pub kind: Kind,
    /// It has, or once had, a second name: what changes it must be looked for under all of them.
    pub linked: bool,
    /// Owner, permissions, times, size, links.
    pub attrs: Attrs,
    /// Last access as set by utimensat; not kept by a seal.
    pub atime: Time,
    /// Extended attributes.
    pub xattrs: XattrSet,
    /// What it contains.
    pub body: Body,
}

/// Extended attributes of a changed inode.
#[derive(Clone, Debug)]
pub enum XattrSet {
    /// Those of the base.
    Base(Option<Digest>),
    /// The session's own.
    Own(Arc<Xattrs>),
}

/// What a changed inode contains.
#[derive(Clone, Debug)]
pub enum Body {
    /// A regular file's bytes.
    File(FileBody),
    /// A directory: its object in the base, if it has one. Changed names are in the session's other map.
    Dir(Option<BaseDir>),
    /// A symlink's target.
    Symlink(Arc<[u8]>),
    /// Fifo, socket, device: all there is to them is in the attributes.
    Special,
}

/// A dir object, opened when it is first needed and then kept open.
#[derive(Clone, Debug)]
pub struct BaseDir(Arc<(Digest, OnceLock<Dir>)>);

impl BaseDir {
    /// The dir object `digest`, not opened yet.
    pub fn new(digest: Digest) -> BaseDir {
        BaseDir(Arc::new((digest, OnceLock::new())))
    }

    /// Its name.
    pub fn digest(&self) -> Digest {
        self.0.0
    }

    /// Opens it, once, for who asks through this store.
    pub fn open(&self, store: &Store) -> Result<Dir> {
        if let Some(dir) = self.0.1.get() {
            return Ok(dir.bound(store));
        }
        let dir = Dir::open(store, self.0.0)?;
        Ok(self.0.1.get_or_init(|| dir).bound(store))
    }
}

impl From<Dir> for BaseDir {
    fn from(dir: Dir) -> BaseDir {
        BaseDir(Arc::new((dir.digest(), OnceLock::from(dir))))
    }
}

impl Inode {
    /// The inode of an entry of the base, as it is before its first change.
    pub fn of_entry(entry: &Entry<'_>, parent: u64) -> Inode {
        let body = match entry.node {
            Node::File(Content::Empty) => Body::File(FileBody::default()),
            Node::File(content) => Body::File(FileBody::of_base(Blob { content, size: entry.attrs.size })),
            Node::Dir(digest) => Body::Dir(Some(BaseDir::new(digest))),
            Node::Symlink(target) => Body::Symlink(target.into()),
            Node::Fifo | Node::Socket | Node::CharDevice | Node::BlockDevice => Body::Special,
        };
        let kind = entry.node.kind();
        Inode {
            parent,
            kind,
            linked: kind != Kind::Dir && entry.attrs.nlink > 1,
            attrs: entry.attrs,
            atime: entry.attrs.mtime,
            xattrs: XattrSet::Base(entry.xattrs),
            body,
        }
    }

    /// Bytes that live in segments, and how many extents there are.
    pub fn changed_bytes(&self) -> (u64, usize) {
        match &self.body {
            Body::File(file) => {
                let bytes = file.extents.iter().map(|(_, e)| match e.data {
                    super::extent::Data::Segment { .. } => e.len,
                    super::extent::Data::Hole => 0,
                });
                (bytes.fold(0, u64::saturating_add), file.extents.len())
            }
            _ => (0, 0),
        }
    }
}
