//! Sealing: a session's changes become a snapshot in the store, and the live session goes on over that.
//!
//! Three steps. The cut is cloned, which makes its extents shared, hence frozen. The store gets what changed, bottom-up,
//! without any lock of the session. Then, under the lock, the live state is rebased: what did not change since the cut is
//! dropped, what did is expressed against the new base, and the log gets an anchor that says so.

use std::{
    collections::{HashMap, VecDeque},
    io,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use cas::{
    Content, Digest, Kind, Snapshot, SnapshotId, Store,
    blob::{Previous, Source as BlobSource},
    dir::{Dir, DirEntry, OwnedNode, Totals},
    store::{Writer, Written},
};

use super::{
    Error, Name, Result,
    data::{fill, next_data},
    extent::FileBody,
    inode::{Body, Inode, ROOT, XattrSet},
    linked::{LinkedDirs, linked_dirs},
    live::Session,
    log::Purpose,
    rebase::{Moved, SealedDirs},
    record::anchor,
    state::{DirDelta, State},
    tree::{DirNode, Found, Source},
};

/// How far a seal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealProgress {
    /// Directories written.
    pub dirs_done: u64,
    /// Directories to write.
    pub dirs: u64,
    /// Bytes of changed files stored.
    pub bytes_done: u64,
}

/// What a seal gave.
#[derive(Clone, Copy, Debug)]
pub struct Sealed {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What the store got.
    pub written: Written,
}

impl Session {
    /// Writes all changes into the store and goes on over the snapshot that this gives. An unchanged session gives its base.
    /// The caller keeps the store's garbage collection away until the snapshot is rooted somewhere. Errors: `NoSpace`, and
    /// what the store says; the session is then as it was.
    pub(super) fn seal(&self, progress: &mut dyn FnMut(SealProgress)) -> Result<Sealed> {
        let _one_at_a_time = self.sealing.lock();
        let cut = self.freeze();
        // Nobody waits for this: it has what it needs brought here.
        let store = &self.shared.store.fetching();
        let mut writing = Writing::new(store, &cut)?;
        let root = writing.run(progress)?;
        let (snapshot, sealed, written) = writing.finish(root)?;
        // Before anything stands on it: what it has of an older one may not be here.
        store.hang_like(cut.base, snapshot)?;
        let moved = sealed.places(store, &cut)?;

        let mut state = self.state.write();
        self.check_alive()?;
        let rebased = sealed.rebase(&state, &cut, snapshot, &moved)?;
        let listed = self.listed(&state, &cut)?;
        let log = &self.shared.durability.log;
        let position = log.position();
        for record in anchor(&self.meta, &self.notes(), &rebased, self.shared.limits.part_bytes) {
            log.append(Purpose::Grow, |out| record.encode(out))?;
        }
        self.anchor.store(position, Ordering::Release);
        listed.into_iter().for_each(|(dir, base, delta)| self.listings.freeze(dir, base, delta));
        for Moved { ino, place, parent } in moved {
            self.known.relocate(ino, place, parent);
        }
        let replaced = std::mem::replace(&mut *state, rebased);
        drop(state);
        // Letting go of what was sealed takes a while.
        drop(replaced);
        self.cursor.lock().retire();
        Ok(Sealed { snapshot, written })
    }

    /// The directories of a cut that somebody may be in the middle of listing.
    fn listed(&self, state: &State, cut: &State) -> Result<Vec<(u64, Option<Dir>, DirDelta)>> {
        let mut listed = Vec::new();
        for &dir in cut.dirs.keys().filter(|dir| self.listings.contains(**dir)) {
            // As they are now, not as the cut had them: who began to list after the cut was promised what came since.
            let Some(delta) = state.dirs.get(&dir) else { continue };
            let base = match state.inodes.get(&dir).map(|inode| &inode.body) {
                // It is open already: who lists it has done that.
                Some(Body::Dir(Some(base))) => Some(base.open(&self.shared.store)?),
                _ => None,
            };
            listed.push((dir, base, delta.clone()));
        }
        Ok(listed)
    }

    /// Writes the session's state into the log anew, so that the log before need not be kept for it.
    pub fn write_anchor(&self) -> Result<()> {
        let state = self.state.write();
        self.check_alive()?;
        let log = &self.shared.durability.log;
        let position = log.position();
        for record in anchor(&self.meta, &self.notes(), &state, self.shared.limits.part_bytes) {
            log.append(Purpose::Grow, |out| record.encode(out))?;
        }
        self.anchor.store(position, Ordering::Release);
        Ok(())
    }
}

/// A cut on its way into the store.
struct Writing<'a> {
    store: &'a Store,
    cut: &'a State,
    writer: Writer,
    /// Untouched directories that hold a further name of a changed hard-linked inode, with their parents.
    extra: LinkedDirs,
    sealed: SealedDirs,
    progress: SealProgress,
}

impl<'a> Writing<'a> {
    fn new(store: &'a Store, cut: &'a State) -> Result<Writing<'a>> {
        let extra = linked_dirs(store, cut)?;
        let writer = store.writer()?;
        Ok(Writing {
            store,
            cut,
            writer,
            extra,
            sealed: SealedDirs::default(),
            progress: SealProgress::default(),
        })
    }

    /// Writes every directory that may differ from the base, children first. Returns the root's.
    fn run(&mut self, progress: &mut dyn FnMut(SealProgress)) -> Result<Digest> {
        let order = self.top_down();
        self.progress.dirs = order.len() as u64;
        for &dir in order.iter().rev() {
            let node = self.node(dir)?;
            let written = self.write_dir(&node)?;
            self.sealed.0.insert(dir, written);
            self.progress.dirs_done += 1;
            progress(self.progress);
        }
        Ok(self.sealed.0[&ROOT].0)
    }

    /// Changed directories and extra ones, each behind its parent. No recursion: trees may be deeper than a stack.
    fn top_down(&self) -> Vec<u64> {
        let mut children: HashMap<u64, Vec<u64>> = HashMap::new();
        for (&ino, inode) in &self.cut.inodes {
            if inode.kind == Kind::Dir && ino != ROOT && !self.cut.orphans.contains(&ino) {
                children.entry(inode.parent).or_default().push(ino);
            }
        }
        for (&ino, &(parent, _)) in &self.extra {
            children.entry(parent).or_default().push(ino);
        }
        let (mut order, mut queue) = (Vec::new(), VecDeque::from([ROOT]));
        while let Some(dir) = queue.pop_front() {
            order.push(dir);
            queue.extend(children.get(&dir).into_iter().flatten());
        }
        order
    }

    fn node(&self, dir: u64) -> Result<DirNode> {
        let base = match (self.cut.inodes.get(&dir), self.extra.get(&dir)) {
            (Some(inode), _) => match &inode.body {
                Body::Dir(Some(base)) => Some(base.open(self.store)?),
                _ => None,
            },
            (None, Some(&(_, digest))) => Some(Dir::open(self.store, digest)?),
            (None, None) => return Err(Error::Stale(dir)),
        };
        Ok(DirNode { ino: dir, base })
    }

    fn write_dir(&mut self, dir: &DirNode) -> Result<(Digest, Totals)> {
        let entries = self.cut.entries(dir)?;
        let mut list = Vec::with_capacity(entries.len());
        for (name, found) in entries {
            list.push(self.entry(name, &found)?);
        }
        Ok(self.writer.put_dir(list)?)
    }

    fn entry(&mut self, name: Name, found: &Found) -> Result<DirEntry> {
        let inode = found.inode()?;
        let mut totals = Totals::default();
        let node = match (&inode.body, found.kind) {
            (Body::File(file), _) => OwnedNode::File(self.put_file(file, found.attrs.size)?),
            (Body::Dir(base), _) => {
                let (digest, below) = match (self.sealed.0.get(&found.ino), base) {
                    (Some(&written), _) => written,
                    (None, Some(base)) => (base.digest(), base.open(self.store)?.totals()),
                    (None, None) => return Err(Error::Stale(found.ino)),
                };
                totals = below;
                OwnedNode::Dir(digest)
            }
            (Body::Symlink(target), _) => OwnedNode::Symlink(target.to_vec()),
            (Body::Special, Kind::CharDevice) => OwnedNode::CharDevice,
            (Body::Special, Kind::BlockDevice) => OwnedNode::BlockDevice,
            (Body::Special, Kind::Socket) => OwnedNode::Socket,
            (Body::Special, _) => OwnedNode::Fifo,
        };
        let xattrs = self.put_xattrs(&inode)?;
        let name = name.as_bytes().to_vec();
        Ok(DirEntry { name, ino: found.ino, attrs: found.attrs, node, xattrs, totals })
    }

    fn put_xattrs(&mut self, inode: &Inode) -> Result<Option<Digest>> {
        Ok(match &inode.xattrs {
            XattrSet::Base(digest) => *digest,
            XattrSet::Own(own) => self.writer.put_xattrs(own)?,
        })
    }

    fn put_file(&mut self, file: &FileBody, size: u64) -> Result<Content> {
        if size == 0 {
            return Ok(Content::Empty);
        }
        if let Some(blob) = file.unchanged(size) {
            return Ok(blob.content);
        }
        let mut changed: Vec<Range<u64>> =
            file.extents.iter().map(|(start, extent)| start..start + extent.len).collect();
        if let Some(blob) = &file.base {
            let cut = file.base_visible..blob.size.max(size);
            changed.extend(Some(cut).filter(|cut| !cut.is_empty()));
            changed.sort_by_key(|range| range.start);
        }
        let previous =
            file.base.as_ref().map(|b| Previous { content: &b.content, size: b.size, changed: &changed });
        let content = self.writer.put_file(size, &FileSource { store: self.store, file, size }, previous)?;
        // Sparse files may be larger together than any number.
        self.progress.bytes_done = self.progress.bytes_done.saturating_add(size);
        Ok(content)
    }

    fn finish(mut self, dir: Digest) -> Result<(SnapshotId, SealedDirs, Written)> {
        let root = self.cut.root();
        let xattrs = self.put_xattrs(&Arc::clone(root))?;
        let snapshot = self.writer.put_snapshot(&Snapshot { attrs: root.attrs, xattrs, dir })?;
        Ok((snapshot, self.sealed, self.writer.finish()?))
    }
}

/// A changed file as the chunker reads it.
struct FileSource<'a> {
    store: &'a Store,
    file: &'a FileBody,
    size: u64,
}

impl BlobSource for FileSource<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        fill(self.store, self.file, offset, buf).map_err(io::Error::other)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        next_data(self.store, self.file, self.size, offset).map_err(io::Error::other)
    }
}

/// For the tests and for diffs: whether a found inode is untouched.
pub(super) fn is_untouched(found: &Found) -> bool {
    matches!(found.source, Source::Base(_))
}
