//! Builds the directories of a snapshot from loaded files, bottom-up, as they come in tree order.

use super::{
    inode::Numbers,
    load::{Loaded, What},
    scan::Tree,
};
use crate::{
    Digest, Kind, Result, Snapshot, SnapshotId,
    dir::{DirEntry, OwnedNode, Totals},
    store::Writer,
};

/// The appender's state: directories that are not complete, and what later names may refer to.
#[derive(Debug)]
pub(super) struct Assembly<'a> {
    tree: &'a Tree,
    pub(super) writer: Writer,
    numbers: Numbers,
    open: Vec<OpenDir>,
    /// The path of the innermost open directory, relative to the root, with a slash behind it.
    path: Vec<u8>,
    /// The first name of each inode that has several.
    links: Vec<Option<(u64, Loaded)>>,
}

#[derive(Debug)]
struct OpenDir {
    loaded: Loaded,
    ino: u64,
    /// Bytes of the path that are the parent's.
    path_len: usize,
    subdirs: u32,
    entries: Vec<DirEntry>,
}

/// A complete directory.
struct Closed {
    dir: OpenDir,
    digest: Digest,
    totals: Totals,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(tree: &'a Tree, writer: Writer) -> Assembly<'a> {
        let links = tree.link_counts.iter().map(|_| None).collect();
        Assembly { tree, writer, numbers: Numbers::default(), open: Vec::new(), path: Vec::new(), links }
    }

    /// Adds the next name in tree order.
    pub(super) fn add(&mut self, loaded: Loaded) -> Result<()> {
        self.close_before(loaded.node)?;
        let ino = match loaded.node {
            0 => 1,
            node => self.number(node),
        };
        match &loaded.what {
            What::Dir => self.open_dir(loaded, ino),
            What::Leaf(leaf) => {
                let nlink = match self.tree.node(loaded.node).link {
                    None => 1,
                    Some(link) => {
                        self.links[link.group as usize] = Some((ino, loaded.clone()));
                        self.tree.link_counts[link.group as usize]
                    }
                };
                self.add_entry(leaf.clone(), nlink, ino, &loaded);
            }
        }
        Ok(())
    }

    /// Adds the next name in tree order, whose inode has come before.
    pub(super) fn add_link(&mut self, node: u32) -> Result<()> {
        self.close_before(node)?;
        let link = self.tree.node(node).link.expect("the loader calls only links linked");
        let (ino, first) = self.links[link.group as usize].clone().expect("a first name comes first");
        let What::Leaf(leaf) = first.what.clone() else { unreachable!("directories have one name") };
        self.add_entry(leaf, self.tree.link_counts[link.group as usize], ino, &Loaded { node, ..first });
        Ok(())
    }

    /// Stores what is left of the directories, and the snapshot.
    pub(super) fn finish(mut self) -> Result<(SnapshotId, Totals, Writer)> {
        let root = loop {
            let closed = self.close()?;
            match self.open.last_mut() {
                Some(parent) => parent.add_dir(self.tree, closed),
                None => break closed,
            }
        };
        let attrs = root.dir.loaded.stat.attrs(2 + root.dir.subdirs);
        let snapshot = Snapshot { attrs, xattrs: root.dir.loaded.xattrs, dir: root.digest };
        let id = self.writer.put_snapshot(&snapshot)?;
        Ok((id, root.totals, self.writer))
    }

    fn number(&mut self, node: u32) -> u64 {
        let len = self.path.len();
        self.path.extend(self.tree.name(node));
        let ino = self.numbers.assign(&self.path);
        self.path.truncate(len);
        ino
    }

    fn open_dir(&mut self, loaded: Loaded, ino: u64) {
        let path_len = self.path.len();
        if loaded.node != 0 {
            self.path.extend(self.tree.name(loaded.node));
            self.path.push(b'/');
        }
        self.open.push(OpenDir { loaded, ino, path_len, subdirs: 0, entries: Vec::new() });
    }

    fn add_entry(&mut self, node: OwnedNode, nlink: u32, ino: u64, loaded: &Loaded) {
        let entry = DirEntry {
            name: self.tree.name(loaded.node).to_vec(),
            ino,
            attrs: loaded.stat.attrs(nlink),
            node,
            xattrs: loaded.xattrs,
            totals: Totals::default(),
        };
        self.open.last_mut().expect("the root stays open until the end").entries.push(entry);
    }

    /// Completes the directories whose subtrees end before `node`.
    fn close_before(&mut self, node: u32) -> Result<()> {
        while self.open.last().is_some_and(|dir| self.tree.node(dir.loaded.node).end <= node) {
            let closed = self.close()?;
            let parent = self.open.last_mut().expect("the root ends behind every node");
            parent.add_dir(self.tree, closed);
        }
        Ok(())
    }

    fn close(&mut self) -> Result<Closed> {
        let mut dir = self.open.pop().expect("the root is there from the first node on");
        self.path.truncate(dir.path_len);
        let (digest, totals) = self.writer.put_dir(std::mem::take(&mut dir.entries))?;
        Ok(Closed { dir, digest, totals })
    }
}

impl OpenDir {
    fn add_dir(&mut self, tree: &Tree, closed: Closed) {
        let Closed { dir, digest, totals } = closed;
        debug_assert_eq!(dir.loaded.stat.kind, Kind::Dir);
        self.subdirs += 1;
        self.entries.push(DirEntry {
            name: tree.name(dir.loaded.node).to_vec(),
            ino: dir.ino,
            attrs: dir.loaded.stat.attrs(2 + dir.subdirs),
            node: OwnedNode::Dir(digest),
            xattrs: dir.loaded.xattrs,
            totals,
        });
    }
}
