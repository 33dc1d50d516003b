//! What a session is at one moment: a base and two persistent maps of what differs from it. Cloning it is a fork.
//!
//! Pure but for the handles it holds: no locks, no clock, no log. It changes by [`Effect`]s alone, and so does a replay: what
//! a live session did and what recovery does are the same function.
//!
//! True at all times: the root is in `inodes`; the parent of every inode in `inodes` that has a name is there too, so
//! a walk from the root through directories in `inodes` meets every change (but for further names of hard-linked inodes).

use std::{ops::Range, sync::Arc};

use cas::{Attrs, Kind, SnapshotId, Store, Time, dir::Dir, xattrs::Xattrs};
use imbl::{OrdMap, OrdSet};

use super::{
    Name, Result,
    extent::{Data, Extent},
    inode::{BaseDir, Body, CREATED_MIN, Inode, ROOT, XattrSet},
    segment::Segment,
    sums::Sum,
};

/// A session's content.
#[derive(Clone, Debug)]
pub struct State {
    /// The snapshot that everything untouched is read from.
    pub base: SnapshotId,
    /// Changed inodes and their ancestors.
    pub inodes: OrdMap<u64, Arc<Inode>>,
    /// Directories whose names changed. Each is in `inodes`.
    pub dirs: OrdMap<u64, DirDelta>,
    /// Inodes without a name that somebody may still hold. Each is in `inodes`.
    pub orphans: OrdSet<u64>,
    /// The number of the next inode to be created.
    pub next_ino: u64,
    /// Extents of this epoch are the session's own; see `Data::Segment`.
    pub epoch: u64,
}

/// How a directory's names differ from its object in the base.
#[derive(Clone, Debug, Default)]
pub struct DirDelta {
    /// By name.
    pub names: OrdMap<Name, Change>,
    /// Added names by the order in which they came, for listings.
    pub added: OrdMap<u64, Name>,
    /// The sequence of the next added name. Never goes down.
    pub next_seq: u64,
}

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It stands for this inode, whatever the base says.
    Added {
        /// The inode.
        ino: u64,
        /// Its place among the added names.
        seq: u64,
    },
    /// The base has it, the session does not.
    Gone,
}

impl Change {
    /// The place among the added names, and the inode, of a name that was added.
    pub fn added(&self) -> Option<(u64, u64)> {
        match self {
            Change::Added { ino, seq } => Some((*seq, *ino)),
            Change::Gone => None,
        }
    }
}

/// One step of a change. A log record holds those of one operation; all or none of them happen.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The inode has this value: it was created, or is about to change for the first time.
    Inode(u64, Arc<Inode>),
    /// Attributes and access time.
    Attrs(u64, Attrs, Time),
    /// The directory that is its parent from now on.
    Parent(u64, u64),
    /// It has more than one name from now on.
    Linked(u64),
    /// Its extended attributes.
    Xattrs(u64, Arc<Xattrs>),
    /// Bytes of a file come from a segment.
    Write {
        /// The file.
        ino: u64,
        /// The first byte in the file.
        start: u64,
        /// How many bytes.
        len: u64,
        /// Where they are.
        segment: Arc<Segment>,
        /// The first byte there.
        offset: u64,
    },
    /// What bytes of a segment are, whoever's they are.
    Sums(Arc<Segment>, Vec<Sum>),
    /// Bytes of a segment are about to be overwritten in place.
    Unsum(Arc<Segment>, Range<u64>),
    /// A range of a file is a hole.
    Punch(u64, Range<u64>),
    /// A file's bytes from here on are gone.
    Truncate(u64, u64),
    /// A directory has a name for an inode, which is no orphan then; replaces what the name stood for.
    Add {
        /// The directory.
        dir: u64,
        /// The name.
        name: Name,
        /// The inode.
        ino: u64,
    },
    /// A directory has a name of the base no more.
    Hide {
        /// The directory.
        dir: u64,
        /// The name.
        name: Name,
    },
    /// A directory has a name no more that the base never had.
    Remove {
        /// The directory.
        dir: u64,
        /// The name.
        name: Name,
    },
    /// An inode has no name: the last one went, or it was made without.
    Orphan(u64),
    /// Nobody holds an inode without a name any more.
    Drop(u64),
}

impl State {
    /// An unchanged session over the snapshot. Errors: what the store says of an unknown or damaged one.
    pub fn of_snapshot(store: &Store, id: SnapshotId) -> Result<State> {
        let snapshot = store.snapshot(id)?;
        let dir = Dir::open(store, snapshot.dir)?;
        let next_ino = dir.totals().ino_max.saturating_add(1).max(CREATED_MIN);
        let root = Inode {
            parent: ROOT,
            kind: Kind::Dir,
            linked: false,
            attrs: snapshot.attrs,
            atime: snapshot.attrs.mtime,
            xattrs: XattrSet::Base(snapshot.xattrs),
            body: Body::Dir(Some(BaseDir::from(dir))),
        };
        Ok(State {
            base: id,
            inodes: OrdMap::unit(ROOT, Arc::new(root)),
            dirs: OrdMap::new(),
            orphans: OrdSet::new(),
            next_ino,
            epoch: 0,
        })
    }

    /// Carries out one effect. The caller made sure that the inodes it names are there; an effect on one that is not has
    /// no effect, which only a damaged log could show, and its checksum is checked before.
    pub fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Inode(ino, inode) => {
                self.inodes.insert(*ino, Arc::clone(inode));
                self.next_ino = self.next_ino.max(ino.saturating_add(1));
            }
            Effect::Attrs(ino, attrs, atime) => self.change(*ino, |inode| {
                inode.attrs = *attrs;
                inode.atime = *atime;
            }),
            Effect::Parent(ino, parent) => self.change(*ino, |inode| inode.parent = *parent),
            Effect::Linked(ino) => self.change(*ino, |inode| inode.linked = true),
            Effect::Xattrs(ino, xattrs) => {
                self.change(*ino, |inode| inode.xattrs = XattrSet::Own(Arc::clone(xattrs)));
            }
            Effect::Write { ino, start, len, segment, offset } => {
                let epoch = self.epoch;
                // An anchor says anew what is known of the bytes that it names.
                segment.clear_sums(*offset..offset + len);
                self.change(*ino, |inode| {
                    if let Body::File(file) = &mut inode.body {
                        let data = Data::Segment { segment: Arc::clone(segment), offset: *offset, epoch };
                        file.extents.insert(*start, Extent { len: *len, data });
                    }
                });
            }
            Effect::Sums(segment, sums) => segment.add_sums(sums),
            Effect::Unsum(segment, range) => segment.clear_sums(range.clone()),
            Effect::Punch(ino, range) => self.change(*ino, |inode| {
                if let Body::File(file) = &mut inode.body {
                    file.punch(range.clone());
                }
            }),
            Effect::Truncate(ino, size) => self.change(*ino, |inode| {
                if let Body::File(file) = &mut inode.body {
                    file.truncate(*size);
                }
            }),
            Effect::Add { dir, name, ino } => {
                self.orphans.remove(ino);
                self.delta(*dir).add(name, *ino);
            }
            Effect::Hide { dir, name } => self.delta(*dir).hide(name),
            Effect::Remove { dir, name } => self.delta(*dir).remove(name),
            Effect::Orphan(ino) => {
                self.orphans.insert(*ino);
            }
            Effect::Drop(ino) => {
                self.orphans.remove(ino);
                self.inodes.remove(ino);
                self.dirs.remove(ino);
            }
        }
    }

    /// The changes of a directory's names, if there are any.
    pub fn change_of(&self, dir: u64, name: &Name) -> Option<Change> {
        self.dirs.get(&dir)?.names.get(name).copied()
    }

    /// Lets go of the inodes without a name: after a restart, and in a fork, nobody holds them.
    pub fn drop_orphans(&mut self) {
        for ino in std::mem::take(&mut self.orphans) {
            self.apply(&Effect::Drop(ino));
        }
    }

    fn change(&mut self, ino: u64, change: impl FnOnce(&mut Inode)) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            change(Arc::make_mut(inode));
        }
    }

    fn delta(&mut self, dir: u64) -> &mut DirDelta {
        self.dirs.entry(dir).or_default()
    }
}

impl DirDelta {
    fn add(&mut self, name: &Name, ino: u64) {
        // A name that is replaced keeps its place: who is in the middle of a listing must not be shown it twice.
        let seq = match self.names.get(name) {
            Some(Change::Added { seq, .. }) => *seq,
            Some(Change::Gone) | None => self.next_seq,
        };
        self.next_seq = self.next_seq.max(seq + 1);
        self.names.insert(name.clone(), Change::Added { ino, seq });
        self.added.insert(seq, name.clone());
    }

    fn hide(&mut self, name: &Name) {
        if let Some(Change::Added { seq, .. }) = self.names.insert(name.clone(), Change::Gone) {
            self.added.remove(&seq);
        }
    }

    fn remove(&mut self, name: &Name) {
        if let Some(Change::Added { seq, .. }) = self.names.remove(name) {
            self.added.remove(&seq);
        }
    }
}
