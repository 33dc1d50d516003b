//! A small tree that has one of everything, as the model knows it and as a snapshot in a store.

use std::{collections::BTreeMap, sync::Arc};

use cas::{
    Attrs, Kind, Snapshot, SnapshotId, Store, Time,
    blob::Source,
    dir::{DirEntry, OwnedNode, Totals},
    store::Writer,
};
use fsd::session::{New, ROOT, SetXattr};

use crate::model::tree::{Body, Tree};

/// Names in the wide directory: enough for an index and several pages.
pub const WIDE: usize = 320;

/// The attributes of the root of every base.
pub fn root_attrs() -> Attrs {
    let time = Time { secs: 1_700_000_000, nanos: 5 };
    Attrs { mode: 0o755, uid: 1, gid: 1, nlink: 2, rdev: 0, size: 0, mtime: time, ctime: time }
}

/// Makes things in a tree under construction.
struct Build(Tree);

impl Build {
    fn make(&mut self, dir: u64, name: &str, kind: Kind, target: Option<&str>) -> u64 {
        let target = target.map(|target| target.as_bytes().to_vec());
        let new = New { kind, mode: 0o644, uid: 1, gid: 2, rdev: 0x105, umask: 0, target };
        self.0.now.nanos += 17;
        self.0.make(dir, name.as_bytes(), new).unwrap().ino
    }

    fn dir(&mut self, dir: u64, name: &str) -> u64 {
        self.make(dir, name, Kind::Dir, None)
    }

    fn file(&mut self, dir: u64, name: &str, bytes: &[u8]) -> u64 {
        let ino = self.make(dir, name, Kind::File, None);
        self.0.write(ino, 0, bytes).unwrap();
        ino
    }
}

/// The tree: nested directories, a wide one, hard links within a directory and across two, symlinks, special files, extended
/// attributes, a file of more than one chunk with holes, an empty one.
pub fn tree() -> Tree {
    let mut build = Build(Tree::empty(2, root_attrs()));
    build.0.now = Time { secs: 1_700_000_000, nanos: 0 };
    let b = &mut build;
    let sub = b.dir(ROOT, "sub");
    let (deep, other) = (b.dir(sub, "deep"), b.dir(sub, "other"));
    let deeper = b.dir(deep, "deeper");
    let wide = b.dir(ROOT, "wide");
    b.dir(ROOT, "empty dir");
    for i in 0..WIDE {
        b.file(wide, &format!("f{i:03}"), format!("contents of {i}").as_bytes());
    }
    b.dir(wide, "inner");
    b.file(ROOT, "empty", b"");
    b.file(ROOT, "small", &[b's'; 5000]);
    b.file(deeper, "bottom", b"the bottom");
    let mut big: Vec<u8> = (0..1_300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    big[300_000..700_000].fill(0);
    b.file(ROOT, "big", &big);
    let within = b.file(other, "linked", b"two names here");
    b.0.link(within, other, b"linked too").unwrap();
    let across = b.file(deep, "linked", b"names in two directories");
    b.0.link(across, other, b"from deep").unwrap();
    b.0.link(across, ROOT, b"from the root").unwrap();
    b.make(ROOT, "symlink", Kind::Symlink, Some("sub/deep/deeper/bottom"));
    b.make(other, "dangling", Kind::Symlink, Some("nowhere"));
    b.make(other, "fifo", Kind::Fifo, None);
    b.make(other, "device", Kind::CharDevice, None);
    for ino in [sub, within, ROOT] {
        b.0.set_xattr(ino, b"user.attribute1", b"from the base", SetXattr::Any).unwrap();
    }
    build.0.into_base()
}

/// A tree that costs little to copy, read and compare: two levels, hard links across them, a symlink, extended attributes.
pub fn small_tree() -> Tree {
    let mut build = Build(Tree::empty(2, root_attrs()));
    build.0.now = Time { secs: 1_700_000_000, nanos: 0 };
    let b = &mut build;
    let sub = b.dir(ROOT, "sub");
    let deep = b.dir(sub, "deep");
    b.file(deep, "bottom", b"the bottom");
    b.dir(ROOT, "empty dir");
    b.file(ROOT, "small", &[b's'; 5000]);
    let across = b.file(deep, "linked", b"names in two directories");
    b.0.link(across, ROOT, b"from the root").unwrap();
    b.make(sub, "symlink", Kind::Symlink, Some("deep/bottom"));
    b.0.set_xattr(sub, b"user.attribute1", b"from the base", SetXattr::Any).unwrap();
    build.0.into_base()
}

/// Stores a tree.
pub fn store(store: &Store, tree: &Tree) -> SnapshotId {
    let mut writer = store.writer().unwrap();
    let (dir, _) = put_dir(&mut writer, tree, ROOT);
    let root = tree.node(ROOT).unwrap();
    let xattrs = writer.put_xattrs(&root.xattrs).unwrap();
    let id = writer.put_snapshot(&Snapshot { attrs: root.attrs, xattrs, dir }).unwrap();
    writer.finish().unwrap();
    store.keep(id, None, Time::default()).unwrap();
    id
}

fn put_dir(writer: &mut Writer, tree: &Tree, dir: u64) -> (cas::Digest, Totals) {
    let names: BTreeMap<Vec<u8>, u64> = tree.names(dir).unwrap().clone();
    let mut entries = Vec::new();
    for (name, ino) in names {
        let node = tree.node(ino).unwrap();
        let mut totals = Totals::default();
        let content = match &node.body {
            Body::Dir(_) => {
                let (digest, below) = put_dir(writer, tree, ino);
                totals = below;
                OwnedNode::Dir(digest)
            }
            Body::File(bytes) if bytes.is_empty() => OwnedNode::File(cas::Content::Empty),
            Body::File(bytes) => {
                let source = Bytes(Arc::clone(bytes));
                OwnedNode::File(writer.put_file(bytes.len() as u64, &source, None).unwrap())
            }
            Body::Symlink(target) => OwnedNode::Symlink(target.clone()),
            Body::Special if node.kind == Kind::Fifo => OwnedNode::Fifo,
            Body::Special => OwnedNode::CharDevice,
        };
        let xattrs = writer.put_xattrs(&node.xattrs).unwrap();
        entries.push(DirEntry { name, ino, attrs: node.attrs, node: content, xattrs, totals });
    }
    writer.put_dir(entries).unwrap()
}

struct Bytes(Arc<Vec<u8>>);

impl Source for Bytes {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        buf.copy_from_slice(&self.0[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> std::io::Result<Option<std::ops::Range<u64>>> {
        let size = self.0.len() as u64;
        Ok((offset < size).then_some(offset..size))
    }
}
