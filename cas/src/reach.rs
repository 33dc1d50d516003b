//! Walks everything that roots refer to: gc marks with it, fsck checks with it.
//!
//! Every object is visited once, except what is above damage: that is walked again for every path to it, so that all of
//! them can be named. The stack is explicit, because trees are as deep as somebody made them.

use std::{collections::HashMap, fmt};

use crate::{Content, Digest, Error, Node, ObjectKind, Result, SnapshotId, Store, blob::List, dir::Dir};

/// Problems that are told one by one; of the rest only the number is, and the first of each root as long as there are not
/// twice as many.
pub(crate) const PROBLEMS_MAX: usize = 1000;

/// Something that is referred to and is not as it should be.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The object.
    pub digest: Digest,
    /// Who uses it: `snp_...:/path`, or what else led there.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The walk, and what it has found.
pub(crate) struct Reach<'a> {
    store: &'a Store,
    /// What somebody already knows to be wrong with an object.
    known_damage: &'a dyn Fn(Digest) -> Option<String>,
    /// Objects other than chunks that were reached, and whether they and all below them are sound.
    seen: HashMap<Digest, bool>,
    /// Chunks that were reached, and whether they are sound. Apart from the rest, because a file may hold the very bytes of
    /// a dir object or a chunk list, and having met the file says nothing of what that object refers to.
    chunks: HashMap<Digest, bool>,
    pub(crate) problems: Vec<Problem>,
    /// Nothing was told of the present root yet.
    root_is_sound: bool,
    /// What is not here of the present root is with another host.
    hangs: bool,
    pub(crate) problem_count: u64,
    /// Objects that could not be read for what they refer to: what is below them is unknown.
    pub(crate) opaque: u64,
}

/// A directory that is being walked.
struct Frame {
    dir: Dir,
    next: u32,
    sound: bool,
    /// Length of the path above it.
    path_len: usize,
}

impl<'a> Reach<'a> {
    pub(crate) fn new(store: &'a Store, known_damage: &'a dyn Fn(Digest) -> Option<String>) -> Reach<'a> {
        let (seen, chunks) = (HashMap::new(), HashMap::new());
        let problems = Vec::new();
        Reach {
            store,
            known_damage,
            seen,
            chunks,
            problems,
            root_is_sound: true,
            hangs: false,
            problem_count: 0,
            opaque: 0,
        }
    }

    /// What is walked from here on is somebody else's.
    pub(crate) fn begin_root(&mut self) {
        self.root_is_sound = true;
    }

    /// What is walked from here on, but for snapshots, hangs on another host, or does not. Of snapshots the store knows it.
    pub(crate) fn set_hangs(&mut self, hangs: bool) {
        self.hangs = hangs;
    }

    /// Whether somebody else has an object that is not here: the remote store, as far as is known, or the host that the present root hangs on, which has all
    /// that is below it as well.
    fn is_elsewhere(&self, kind: ObjectKind, digest: Digest) -> bool {
        self.store.is_elsewhere(kind, digest) || self.hangs
    }

    /// Takes note that the remote store is to keep an object. What another host has as well it need not have.
    fn note_far(&self, kind: ObjectKind, digest: Digest) -> Result<()> {
        if self.hangs {
            self.store.is_elsewhere(kind, digest);
            return Ok(());
        }
        self.store.note_far(kind, digest)
    }

    /// Whether a further problem would only be counted.
    fn has_told_enough(&self) -> bool {
        let max = if self.root_is_sound { 2 * PROBLEMS_MAX } else { PROBLEMS_MAX };
        self.problems.len() >= max
    }

    /// Whether anything led here.
    pub(crate) fn contains(&self, digest: Digest) -> bool {
        self.seen.contains_key(&digest) || self.chunks.contains_key(&digest)
    }

    /// How many objects were reached.
    pub(crate) fn count(&self) -> u64 {
        let both = self.chunks.keys().filter(|chunk| self.seen.contains_key(chunk)).count();
        (self.seen.len() + self.chunks.len() - both) as u64
    }

    /// Walks a snapshot.
    pub(crate) fn snapshot(&mut self, id: SnapshotId) -> Result<()> {
        self.snapshot_of(id, &format!("{id}:/"))
    }

    /// Walks a snapshot whose root is called `path`.
    pub(crate) fn snapshot_of(&mut self, id: SnapshotId, path: &str) -> Result<()> {
        self.hangs = self.store.hangs(id);
        let walked = self.tree(id, path);
        self.hangs = false;
        walked
    }

    fn tree(&mut self, id: SnapshotId, path: &str) -> Result<()> {
        let Some(snapshot) = self.node(ObjectKind::Snapshot, id.0, path, |store| store.snapshot(id))? else {
            return Ok(());
        };
        if let Some(xattrs) = snapshot.xattrs {
            self.xattrs(xattrs, path)?;
        }
        self.dir(snapshot.dir, path)
    }

    /// Walks a directory and all below it.
    pub(crate) fn dir(&mut self, digest: Digest, path: &str) -> Result<()> {
        let mut path = path.to_owned();
        let mut stack: Vec<Frame> = self.enter(digest, &path, path.len())?.into_iter().collect();
        while let Some(frame) = stack.last_mut() {
            if frame.next < frame.dir.count() {
                let (dir, index) = (frame.dir.clone(), frame.next);
                frame.next += 1;
                match self.entry(&dir, index, &mut path)? {
                    Step::Done(sound) => frame.sound &= sound,
                    Step::Into(below) => stack.push(below),
                    Step::SkipPage(sound) => {
                        frame.sound &= sound;
                        frame.next = dir.page_range(dir.page_at(index)).end;
                    }
                }
            } else {
                let (digest, sound, path_len) = (frame.dir.digest(), frame.sound, frame.path_len);
                self.seen.insert(digest, sound);
                path.truncate(path_len);
                stack.pop();
                if let Some(above) = stack.last_mut() {
                    above.sound &= sound;
                }
            }
        }
        Ok(())
    }

    /// Walks a file's content. True if all of it is there.
    pub(crate) fn content(&mut self, content: Content, size: Option<u64>, path: &str) -> Result<bool> {
        match content {
            Content::Empty => Ok(true),
            Content::Chunk(digest) => self.chunk(digest, size, path),
            Content::List(digest) => self.list(digest, size, path),
        }
    }

    /// Counts dir objects as reached, with their pages, and nothing below them. For when everything else was walked.
    pub(crate) fn keep_dirs(&mut self, dirs: &[Digest]) -> Result<()> {
        for digest in dirs {
            if self.seen.contains_key(digest) {
                continue;
            }
            match Dir::open(self.store, *digest) {
                Ok(dir) => {
                    self.note_far(ObjectKind::Dir, *digest)?;
                    self.seen.extend((0..dir.page_count()).map(|page| (dir.page_digest(page), true)));
                }
                // Whoever remembers it is told so when he asks.
                Err(
                    Error::Corrupt { .. }
                    | Error::Malformed { .. }
                    | Error::Missing(_)
                    | Error::Absent { .. },
                ) => {}
                Err(other) => return Err(other),
            }
            self.seen.insert(*digest, true);
        }
        Ok(())
    }

    /// Walks a set of extended attributes. True if it is there.
    pub(crate) fn xattrs(&mut self, digest: Digest, path: &str) -> Result<bool> {
        Ok(self.seen.get(&digest) == Some(&true)
            || self.node(ObjectKind::Xattrs, digest, path, |store| store.xattrs(digest))?.is_some()
            || self.seen.get(&digest) == Some(&true))
    }

    fn list(&mut self, digest: Digest, size: Option<u64>, path: &str) -> Result<bool> {
        if self.seen.get(&digest) == Some(&true) {
            return Ok(true);
        }
        let read = |store: &Store| {
            let object = store.chunk_list(digest)?;
            let list = List::open(&object)?;
            list.verify()?;
            let extents = list.extents_from(0).collect::<Result<Vec<_>>>()?;
            Ok((list.size(), extents))
        };
        let Some((list_size, extents)) = self.node(ObjectKind::List, digest, path, read)? else {
            return Ok(self.seen.get(&digest) == Some(&true));
        };
        let mut sound = true;
        if size.is_some_and(|size| size != list_size) {
            self.problem(digest, path, "the list is of a file of another size");
            sound = false;
        }
        for extent in extents {
            if let Some(chunk) = extent.chunk {
                sound &= self.chunk(chunk, Some(extent.range.end - extent.range.start), path)?;
            }
        }
        self.seen.insert(digest, sound);
        Ok(sound)
    }

    /// A chunk is looked up, not read: fsck has read all of them before it walks.
    fn chunk(&mut self, digest: Digest, len: Option<u64>, path: &str) -> Result<bool> {
        if self.chunks.get(&digest) == Some(&true) {
            return Ok(true);
        }
        let there = self.store.object_len(digest)?;
        let reason = match (there, (self.known_damage)(digest)) {
            // A host that the root hangs on is not asked for what is here.
            (_, Some(_)) if self.store.is_elsewhere(ObjectKind::Chunk, digest) => None,
            (_, Some(reason)) => Some(reason),
            (None, None) if self.is_elsewhere(ObjectKind::Chunk, digest) => None,
            (None, None) => Some("missing".to_owned()),
            (Some(there), None) => len
                .is_some_and(|len| len != u64::from(there))
                .then(|| "the chunk has another length than its file says".to_owned()),
        };
        self.chunks.insert(digest, reason.is_none());
        if let Some(reason) = &reason {
            self.problem(digest, path, reason);
        }
        Ok(reason.is_none())
    }

    /// Opens a directory, unless it was walked and all below it is sound.
    fn enter(&mut self, digest: Digest, path: &str, path_len: usize) -> Result<Option<Frame>> {
        let walked = self.seen.get(&digest).copied();
        if walked == Some(true) || (walked.is_some() && self.has_told_enough()) {
            return Ok(None);
        }
        let open = |store: &Store| Dir::open(store, digest);
        let Some(dir) = self.node(ObjectKind::Dir, digest, path, open)? else { return Ok(None) };
        if dir.page_count() > 1 {
            for page in (0..dir.page_count()).map(|page| dir.page_digest(page)) {
                self.note_far(ObjectKind::DirPage, page)?;
                self.seen.insert(page, true);
            }
        }
        Ok(Some(Frame { dir, next: 0, sound: true, path_len }))
    }

    fn entry(&mut self, dir: &Dir, index: u32, path: &mut String) -> Result<Step> {
        let entry = match dir.entry(index) {
            Ok(entry) => entry,
            Err(error) => {
                let page = dir.page_digest(dir.page_at(index));
                let is_elsewhere = match &error {
                    Error::Absent { kind, digest } => self.is_elsewhere(*kind, *digest),
                    _ => false,
                };
                if !is_elsewhere {
                    self.unreadable(page, path, error)?;
                }
                return Ok(Step::SkipPage(is_elsewhere));
            }
        };
        let path_len = path.len();
        path.push_str(&String::from_utf8_lossy(entry.name));
        let mut sound = match entry.xattrs {
            Some(xattrs) => self.xattrs(xattrs, path)?,
            None => true,
        };
        match entry.node {
            Node::Dir(digest) => {
                path.push('/');
                if let Some(mut frame) = self.enter(digest, path, path_len)? {
                    frame.sound = sound;
                    return Ok(Step::Into(frame));
                }
                sound &= self.seen.get(&digest) == Some(&true);
            }
            Node::File(content) => sound &= self.content(content, Some(entry.attrs.size), path)?,
            Node::Symlink(_) | Node::Fifo | Node::Socket | Node::CharDevice | Node::BlockDevice => {}
        }
        path.truncate(path_len);
        Ok(Step::Done(sound))
    }

    /// Reads an object that refers to others; None if it cannot be.
    fn node<T>(
        &mut self,
        kind: ObjectKind,
        digest: Digest,
        path: &str,
        read: impl FnOnce(&Store) -> Result<T>,
    ) -> Result<Option<T>> {
        // What is in memory may be whole where the disk is not. What others have as well is read from there.
        if let Some(reason) = (self.known_damage)(digest)
            && !self.store.is_elsewhere(kind, digest)
        {
            self.opaque(digest, path, reason);
            return Ok(None);
        }
        match read(self.store) {
            Ok(value) => {
                self.note_far(kind, digest)?;
                self.seen.insert(digest, true);
                Ok(Some(value))
            }
            // All that it refers to is there, too: docs/format.md says why.
            Err(Error::Absent { kind, digest }) if self.is_elsewhere(kind, digest) => {
                self.seen.insert(digest, true);
                Ok(None)
            }
            Err(error) => {
                self.unreadable(digest, path, error)?;
                Ok(None)
            }
        }
    }

    fn unreadable(&mut self, digest: Digest, path: &str, error: Error) -> Result<()> {
        match error {
            Error::Corrupt { .. }
            | Error::Malformed { .. }
            | Error::Missing(_)
            | Error::Absent { .. }
            | Error::UnknownSnapshot(_) => {
                self.opaque(digest, path, error);
                Ok(())
            }
            // Not about this object: the walk itself cannot go on.
            other => Err(other),
        }
    }

    fn opaque(&mut self, digest: Digest, path: &str, reason: impl fmt::Display) {
        self.seen.insert(digest, false);
        self.opaque += 1;
        self.problem(digest, path, reason);
    }

    fn problem(&mut self, digest: Digest, path: &str, reason: impl fmt::Display) {
        self.problem_count += 1;
        if !self.has_told_enough() {
            self.root_is_sound = false;
            self.problems.push(Problem { digest, path: path.to_owned(), reason: reason.to_string() });
        }
    }
}

/// What came of an entry.
enum Step {
    /// It is done with; true if it is sound.
    Done(bool),
    /// It is a directory to be walked.
    Into(Frame),
    /// It cannot be read here, nor can the others of its page; true if the remote store has them.
    SkipPage(bool),
}
