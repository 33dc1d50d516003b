//! Finding things: a state's changes over the directories of its base. One look in a map, then one in a dir object, at any
//! fork depth. Pure but for reads of the store.

use std::{borrow::Cow, sync::Arc};

use cas::{Attrs, Content, Entry, Kind, Node, Store, Time, dir::Dir};

use super::{
    Error, Name, Result,
    extent::{Blob, FileBody},
    inode::{Body, Inode, ROOT, XattrSet},
    state::{Change, State},
};

/// Where an untouched inode's entry is. The object never changes, so a place is right for as long as the inode is untouched.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory it is in.
    pub dir: Dir,
    /// Which of its entries.
    pub index: u32,
}

/// An inode as it is now.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its number.
    pub ino: u64,
    /// The directory it was found in; that of its record for one found by number.
    pub parent: u64,
    /// Its kind.
    pub kind: Kind,
    /// Its attributes.
    pub attrs: Attrs,
    /// Last access, as far as that is kept.
    pub atime: Time,
    /// Where the rest is.
    pub source: Source,
}

/// Where an inode is described.
#[derive(Clone, Debug)]
pub enum Source {
    /// In the session's changes.
    Changed(Arc<Inode>),
    /// In the base.
    Base(Place),
}

impl Found {
    /// A changed inode.
    pub fn changed(ino: u64, inode: &Arc<Inode>) -> Found {
        Found {
            ino,
            parent: inode.parent,
            kind: inode.kind,
            attrs: inode.attrs,
            atime: inode.atime,
            source: Source::Changed(Arc::clone(inode)),
        }
    }

    /// An entry of the base.
    pub fn base(place: Place, parent: u64) -> Result<Found> {
        let entry = place.dir.entry(place.index)?;
        let (ino, kind, attrs) = (entry.ino, entry.node.kind(), entry.attrs);
        Ok(Found { ino, parent, kind, attrs, atime: attrs.mtime, source: Source::Base(place) })
    }

    /// The same for who has read the entry already.
    fn of_entry(place: Place, entry: &Entry<'_>, parent: u64) -> Found {
        let (ino, kind, attrs) = (entry.ino, entry.node.kind(), entry.attrs);
        Found { ino, parent, kind, attrs, atime: attrs.mtime, source: Source::Base(place) }
    }

    /// The inode as the session's changes would record it.
    pub fn inode(&self) -> Result<Arc<Inode>> {
        match &self.source {
            Source::Changed(inode) => Ok(Arc::clone(inode)),
            Source::Base(place) => Ok(Arc::new(Inode::of_entry(&place.dir.entry(place.index)?, self.parent))),
        }
    }

    /// Whether it has bytes to read and write. Errors: `IsADirectory`, `Invalid` for other kinds.
    pub fn check_file(&self) -> Result<()> {
        match self.kind {
            Kind::File => Ok(()),
            Kind::Dir => Err(Error::IsADirectory),
            _ => Err(Error::Invalid("not a regular file")),
        }
    }

    /// A regular file's bytes. Errors: those of [`Found::check_file`].
    pub fn file(&self) -> Result<Cow<'_, FileBody>> {
        self.check_file()?;
        match &self.source {
            Source::Changed(inode) => match &inode.body {
                Body::File(file) => Ok(Cow::Borrowed(file)),
                _ => unreachable!("a file has a file's body"),
            },
            Source::Base(place) => {
                let entry = place.dir.entry(place.index)?;
                Ok(Cow::Owned(match entry.node {
                    Node::File(Content::Empty) => FileBody::default(),
                    Node::File(content) => FileBody::of_base(Blob { content, size: entry.attrs.size }),
                    _ => unreachable!("the entry of a file"),
                }))
            }
        }
    }

    /// A symlink's target. Error: `Invalid` for other kinds.
    pub fn target(&self) -> Result<Vec<u8>> {
        match &self.inode()?.body {
            Body::Symlink(target) => Ok(target.to_vec()),
            _ => Err(Error::Invalid("not a symbolic link")),
        }
    }

    /// Whether it has extended attributes. False if that cannot be read, which whoever reads them will hear of.
    pub fn has_xattrs(&self) -> bool {
        match &self.source {
            Source::Base(place) => place.dir.entry(place.index).is_ok_and(|entry| entry.xattrs.is_some()),
            Source::Changed(inode) => match &inode.xattrs {
                XattrSet::Base(digest) => digest.is_some(),
                XattrSet::Own(own) => !own.is_empty(),
            },
        }
    }

    /// Its extended attributes.
    pub fn xattrs(&self, store: &Store) -> Result<cas::xattrs::Xattrs> {
        Ok(match &self.inode()?.xattrs {
            XattrSet::Base(None) => Default::default(),
            XattrSet::Base(Some(digest)) => store.xattrs(*digest)?,
            XattrSet::Own(own) => (**own).clone(),
        })
    }
}

/// A directory, ready to be looked into.
#[derive(Clone, Debug)]
pub struct DirNode {
    /// Its number.
    pub ino: u64,
    /// Its object in the base, if it has one.
    pub base: Option<Dir>,
}

impl State {
    /// The root directory.
    pub fn root(&self) -> &Arc<Inode> {
        self.inodes.get(&ROOT).expect("the root is always among the changed inodes")
    }

    /// A found inode as a directory. Error: `NotADirectory`.
    pub fn open_dir(&self, store: &Store, found: &Found) -> Result<DirNode> {
        if found.kind != Kind::Dir {
            return Err(Error::NotADirectory);
        }
        let base = match &found.source {
            Source::Changed(inode) => match &inode.body {
                Body::Dir(Some(base)) => Some(base.open(store)?),
                _ => None,
            },
            Source::Base(place) => match place.dir.entry(place.index)?.node {
                Node::Dir(digest) => Some(Dir::open(store, digest)?),
                _ => None,
            },
        };
        Ok(DirNode { ino: found.ino, base })
    }

    /// What `name` in `dir` stands for.
    pub fn child(&self, dir: &DirNode, name: &Name) -> Result<Option<Found>> {
        match self.change_of(dir.ino, name) {
            Some(Change::Gone) => Ok(None),
            Some(Change::Added { ino, .. }) => self.added_child(dir.ino, ino).map(Some),
            None => self.base_child(dir, name),
        }
    }

    fn base_child(&self, dir: &DirNode, name: &Name) -> Result<Option<Found>> {
        let Some(base) = &dir.base else { return Ok(None) };
        let Some((index, entry)) = base.find(name.as_bytes())? else { return Ok(None) };
        let found = self.of_entry(base, index, &entry, dir.ino);
        self.check_place(&found).map(|()| Some(found))
    }

    /// What an added name of the directory `dir` stands for.
    fn added_child(&self, dir: u64, ino: u64) -> Result<Found> {
        let inode = self.inodes.get(&ino).ok_or(Error::Stale(ino))?;
        let found = Found { parent: dir, ..Found::changed(ino, inode) };
        self.check_place(&found).map(|()| found)
    }

    fn check_place(&self, found: &Found) -> Result<()> {
        if self.stands(found.ino, found.parent) {
            return Ok(());
        }
        Err(Error::Damaged {
            path: "log".into(),
            position: 0,
            reason: format!("directory {} is in two places", found.ino),
        })
    }

    /// Whether a name of the directory `dir` may stand for this inode. A changed directory is where it says that it is, the
    /// root is nowhere: else it would be inside itself, or in two places, and walks would not end. Only a log that nobody
    /// should have written has a name for which this is false.
    pub fn stands(&self, ino: u64, dir: u64) -> bool {
        let is_there = |inode: &Arc<Inode>| inode.kind != Kind::Dir || inode.parent == dir;
        ino != ROOT && self.inodes.get(&ino).is_none_or(is_there)
    }

    /// An entry of a directory's object, or what became of its inode.
    pub(super) fn of_entry(&self, base: &Dir, index: u32, entry: &Entry<'_>, dir: u64) -> Found {
        match self.inodes.get(&entry.ino) {
            Some(inode) => Found { parent: dir, ..Found::changed(entry.ino, inode) },
            None => Found::of_entry(Place { dir: base.clone(), index }, entry, dir),
        }
    }

    /// Whether a directory has no names.
    pub fn is_empty_dir(&self, dir: &DirNode) -> bool {
        let in_base = dir.base.as_ref().map_or(0, |base| base.count() as usize);
        // What is gone was in the base, so an empty directory is one whose changes are as many as its names in the base.
        self.dirs
            .get(&dir.ino)
            .map_or(in_base == 0, |delta| delta.added.is_empty() && delta.names.len() == in_base)
    }

    /// Walks from the root. Error: `NotFound`, `NotADirectory`.
    pub fn walk(&self, store: &Store, path: &[Name]) -> Result<Found> {
        self.walk_past(store, path, |_| {})
    }

    /// [`State::walk`], telling of each directory that is looked into.
    pub fn walk_past(&self, store: &Store, path: &[Name], mut past: impl FnMut(u64)) -> Result<Found> {
        let mut found = Found::changed(ROOT, self.root());
        for name in path {
            let dir = self.open_dir(store, &found)?;
            past(dir.ino);
            found = self.child(&dir, name)?.ok_or(Error::NotFound)?;
        }
        Ok(found)
    }

    /// All names of a directory with what they stand for, sorted by name.
    pub fn entries(&self, dir: &DirNode) -> Result<Vec<(Name, Found)>> {
        let delta = self.dirs.get(&dir.ino);
        let mut entries = Vec::new();
        if let Some(base) = &dir.base {
            for index in 0..base.count() {
                let entry = base.entry(index)?;
                if delta.is_none_or(|delta| !delta.names.contains_key(entry.name)) {
                    let found = self.of_entry(base, index, &entry, dir.ino);
                    self.check_place(&found)?;
                    entries.push((Name::parse(entry.name)?, found));
                }
            }
        }
        for (name, change) in delta.into_iter().flat_map(|delta| &delta.names) {
            if let Change::Added { ino, .. } = change {
                entries.push((name.clone(), self.added_child(dir.ino, *ino)?));
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }
}
