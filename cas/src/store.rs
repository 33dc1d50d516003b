//! The store: packs, their index and the catalogue behind one handle.
//!
//! Owns the folder `store/` of a disk. An object that is in it never changes; a reader never waits for a writer or for
//! gc. Knows nothing of what objects mean beyond where they go.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::RwLock;

use crate::{
    Content, Digest, Error, Node, Result, SnapshotId,
    cache::Cache,
    catalogue::Catalogue,
    dir::Dir,
    disk::{Disk, Patience},
    gate::Gate,
    hash::KeyedHash,
    index::{Change, Index, Move, PackState},
    pack::{Location, PACKS_DIR, Pack, pack_path},
    pool::{Appender, Pool},
    record::PackKind,
    recover,
    remote::{
        Manifest, Remote,
        cache::Kept,
        counters::{Counters, Counts},
        fetch::{Fetcher, Ticket},
        known::{self, Atlas},
        name::RemoteName,
        publish::{self, Asked, Published, Resumed},
    },
};
pub use crate::{
    fsck::{Damage, FsckOptions, FsckProgress, FsckReport, Use},
    gate::Hold,
    gc::{GcProgress, GcReport, Roots},
    kept::Listed,
    object::{Object, ObjectKind},
    reach::Problem,
    record::{OBJECT_BYTES_MAX, PACK_BYTES_MAX},
    writer::{Writer, Written},
};

/// Look-ups of one object before its pack is taken to be gone for good. Each failed one means that gc has just moved
/// the object, and gc runs once at a time.
const MOVED_RETRIES_MAX: u32 = 16;

/// Snapshots of this host that the remote store is asked about when nothing that is known has an object.
const MAYBE_MAX: usize = 64;
/// Directories that are looked into, and names in each, to tell what snapshots have in common.
const MARKED_DIRS_MAX: usize = 16;
const MARKS_OF_DIR_MAX: u32 = 256;

/// A handle to the store; clones share it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>, Absence);

/// What becomes of who asks for an object that only the remote store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// He is told: [`Error::Absent`].
    Told,
    /// He waits until it is here.
    Fetched,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    options: Options,
    index: Index,
    catalogue: OnceLock<Catalogue>,
    gate: Arc<Gate>,
    pool: Pool,
    /// Every pack that the index knows or a writer is filling. Locked for look-ups only, never across I/O.
    packs: RwLock<HashMap<u64, Arc<Pack>, KeyedHash>>,
    /// Objects of meta packs.
    objects: Cache,
    /// The store that hosts share, if there is one.
    far: OnceLock<Far>,
    /// Counts evictions: what a pack's last use is told by.
    era: AtomicU64,
}

/// What there is beyond this store.
#[derive(Debug)]
struct Far {
    atlas: Arc<Atlas>,
    remote: Arc<dyn Remote>,
    kept: Kept,
    fetcher: Fetcher,
    counters: Arc<Counters>,
}

/// Bounds that tests shrink.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A pack is full at this size; at most [`PACK_BYTES_MAX`].
    pub pack_bytes_max: u64,
    /// Bytes that a writer gathers before it writes them.
    pub batch_bytes: usize,
    /// Directories, lists and attribute sets that are kept in memory.
    pub object_cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            pack_bytes_max: PACK_BYTES_MAX,
            batch_bytes: 2 << 20,
            // The directories of 100,000 files: a source tree that is in use stays, a larger one is read again.
            object_cache_bytes: 16 << 20,
        }
    }
}

/// How much there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packs.
    pub packs: u64,
    /// Their committed bytes.
    pub pack_bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Snapshots that are kept.
    pub snapshots: u64,
}

impl Store {
    /// Opens the store in the folder `store/` of `disk`, or makes an empty one. Rebuilds a missing or broken index from packs.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Store> {
        Store::open_with(disk, Options::default())
    }

    /// [`Store::open`] with other bounds.
    pub fn open_with(disk: Arc<dyn Disk>, options: Options) -> Result<Store> {
        assert!(options.pack_bytes_max <= PACK_BYTES_MAX, "the format bounds a pack");
        make_dirs(&disk)?;
        let store = Store::assemble(disk.clone(), options, recover::open_index(&disk)?)?;
        // A kept snapshot that the index does not know means that the index is older than the catalogue, unless it was
        // not found in the packs either.
        let store = if store.lacking()? > store.index().lacking()? {
            tracing::warn!("the index lacks snapshots of the catalogue; it is rebuilt from the packs");
            drop(store);
            let store = Store::assemble(disk.clone(), options, recover::rebuild_index(&disk)?)?;
            store.index().set_lacking(store.lacking()?)?;
            store
        } else {
            store
        };
        store.tidy()?;
        Ok(store)
    }

    fn assemble(disk: Arc<dyn Disk>, options: Options, index: Index) -> Result<Store> {
        let open = |(id, state): (u64, PackState)| (id, Arc::new(Pack::open(disk.clone(), id, state.kind)));
        let packs = index.packs()?.into_iter().map(open).collect();
        let store = Store(
            Arc::new(Shared {
                disk: disk.clone(),
                options,
                index,
                catalogue: OnceLock::new(),
                gate: Arc::default(),
                pool: Pool::default(),
                packs: RwLock::new(packs),
                objects: Cache::new(options.object_cache_bytes),
                far: OnceLock::new(),
                era: AtomicU64::new(1),
            }),
            Absence::Told,
        );
        let catalogue = Catalogue::open(&disk, || store.found_snapshots())?;
        store.0.catalogue.set(catalogue).expect("set once, here");
        Ok(store)
    }

    /// Cuts off what no writer finished, and fills the pool.
    fn tidy(&self) -> Result<()> {
        let states = self.index().packs()?;
        recover::remove_strays(&self.0.disk, &states)?;
        for (id, state) in states {
            let pack = self.0.packs.read()[&id].clone();
            if state.closed || !self.has_room(state.committed) {
                continue;
            }
            match pack.len() {
                // Shorter than it should be: what is left is read, nothing is appended.
                Ok(len) if len < state.committed => {
                    tracing::warn!(pack = ?pack.display(), len, committed = state.committed, "a pack is truncated");
                }
                Ok(len) => {
                    if len > state.committed {
                        pack.cut(state.committed)?;
                    }
                    if pack.is_of_this_version()? {
                        self.0.pool.put(pack, state.committed);
                    }
                }
                Err(error) if is_not_found(&error) => {
                    tracing::warn!(pack = ?pack.display(), "a pack is missing");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The bytes of an object, checked against its digest when they come into memory. What an object is called does not
    /// depend on its kind: equal bytes are one object.
    pub fn object(&self, kind: ObjectKind, digest: Digest) -> Result<Object> {
        if let Some(object) = self.0.objects.get(digest) {
            return Ok(object);
        }
        let object = match self.find(digest, |pack, at| pack.object(digest, at)) {
            Err(Error::Missing(_)) => self.elsewhere(kind, digest, |kept| Ok(kept.object(kind, digest)))?,
            found => found?,
        };
        Ok(self.0.objects.put(digest, object))
    }

    /// Reads part of a chunk: fills `buf` from `offset` of the object, checked, with the blocks that it is in.
    pub fn read_chunk(&self, digest: Digest, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read_chunk_with(Patience::Waits, digest, offset, buf)
    }

    /// [`Store::read_chunk`]. Error: `NotNow` for one who does not wait.
    pub(crate) fn read_chunk_with(
        &self,
        patience: Patience,
        digest: Digest,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let too_short = || Error::Malformed { what: "chunk", reason: "shorter than what refers to it says" };
        let found = self.find(digest, |pack, at| {
            if end > u64::from(at.len) {
                return Err(too_short());
            }
            pack.read(digest, at, offset as usize, buf, patience)
        });
        match found {
            Err(Error::Missing(_)) => self.elsewhere(ObjectKind::Chunk, digest, |kept| {
                Ok(kept.read_chunk(patience, digest, offset, buf)?.then_some(()))
            }),
            found => found,
        }
    }

    /// Gets an object that is not in this store out of the cache, once it is there.
    fn elsewhere<T>(
        &self,
        kind: ObjectKind,
        digest: Digest,
        mut get: impl FnMut(&Kept) -> Result<Option<T>>,
    ) -> Result<T> {
        let Some(far) = self.0.far.get() else { return Err(Error::Missing(digest)) };
        for _ in 0..MOVED_RETRIES_MAX {
            if let Some(found) = get(&far.kept)? {
                far.counters.found();
                return Ok(found);
            }
            match self.1 {
                Absence::Told => return Err(Error::Absent { kind, digest }),
                Absence::Fetched => far.fetcher.fetch(kind, digest).wait().map_err(Error::of_fetch)?,
            }
        }
        // It comes, and is gone again before anybody can read it: the cache has no room.
        Err(Error::Absent { kind, digest })
    }

    /// The store for who can wait until objects of the remote store are here. Not for who holds what others need.
    pub fn fetching(&self) -> Store {
        self.with(Absence::Fetched)
    }

    pub(crate) fn with(&self, absence: Absence) -> Store {
        Store(Arc::clone(&self.0), absence)
    }

    pub(crate) fn absence(&self) -> Absence {
        self.1
    }

    /// Lets the store have what `remote` has, once it is needed, by a cache of so many bytes. At most once. Errors: the disk's.
    pub fn attach(&self, remote: Arc<dyn Remote>, cache_bytes: u64) -> Result<()> {
        let disk = self.disk();
        let mut maybe: Vec<_> = self.list()?.into_iter().map(|listed| listed.id).collect();
        maybe.truncate(MAYBE_MAX);
        let atlas = Arc::new(Atlas::open(Arc::clone(disk), Arc::clone(&remote), maybe)?);
        let kept = Kept::open(disk, cache_bytes)?;
        let counters = Arc::<Counters>::default();
        let fetcher =
            Fetcher::start(Arc::clone(&atlas), Arc::clone(&remote), kept.landing(), Arc::clone(&counters))?;
        let attached = self.0.far.set(Far { atlas, remote, kept, fetcher, counters });
        assert!(attached.is_ok(), "a store has one remote store");
        Ok(())
    }

    /// What the remote store was asked for, if there is one.
    pub fn remote_counts(&self) -> Result<Option<Counts>> {
        let Some(far) = self.0.far.get() else { return Ok(None) };
        let (cached_bytes, cache_bytes_max) = far.kept.bytes()?;
        Ok(Some(Counts { cached_bytes, cache_bytes_max, ..far.counters.counts() }))
    }

    /// Waits until all that was fetched is on disk, or the disk refused it, or so much time has passed.
    pub fn settle_cache(&self, patience: Duration) {
        if let Some(far) = self.0.far.get() {
            far.kept.settle(patience);
        }
    }

    /// Whether an object need not be fetched.
    pub(crate) fn is_here(&self, digest: Digest) -> Result<bool> {
        let is_cached = || self.0.far.get().is_some_and(|far| far.kept.object_len(digest).is_some());
        Ok(self.index().locate(digest)?.is_some() || is_cached())
    }

    /// Whether there is a remote store.
    pub fn has_remote(&self) -> bool {
        self.0.far.get().is_some()
    }

    /// Whether the remote store has an object that is not here, as far as is known: see [`Store::know_elsewhere`].
    pub(crate) fn is_elsewhere(&self, kind: ObjectKind, digest: Digest) -> bool {
        self.0.far.get().is_some_and(|far| far.atlas.has(kind, digest))
    }

    /// Brings here what tells what the remote store has, as far as it can be had, before somebody asks who cannot wait for it.
    pub(crate) fn know_elsewhere(&self) {
        if let Some(far) = self.0.far.get() {
            far.atlas.bring_all();
        }
    }

    /// Nothing is fetched from here on, and whoever waits for it is told so: before the end.
    pub fn end_fetches(&self) {
        if let Some(far) = self.0.far.get() {
            far.fetcher.end();
        }
    }

    /// Has an object brought here that a call said is [`Error::Absent`]. `None` if there is no remote store.
    pub fn fetch(&self, kind: ObjectKind, digest: Digest) -> Option<Ticket> {
        Some(self.0.far.get()?.fetcher.fetch(kind, digest))
    }

    /// Makes a snapshot of the remote store known here, by its manifest. Errors: `UnknownSnapshot`, `Remote`.
    pub fn discover(&self, id: SnapshotId) -> Result<Arc<Manifest>> {
        let far = self.0.far.get().ok_or(Error::UnknownSnapshot(id))?;
        far.atlas.manifest(id)
    }

    /// [`publish`](crate::remote::publish::publish) to the store's own remote store, on top of one of `near` if that is there and has
    /// something in common. Error:
    /// `NoRemote`, and as there.
    pub fn publish(
        &self,
        id: SnapshotId,
        near: &[SnapshotId],
        name: &(dyn Fn() -> RemoteName + Sync),
        progress: &(dyn Fn(publish::Progress) + Sync),
        is_cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Published> {
        let far = self.0.far.get().ok_or(Error::NoRemote)?;
        far.atlas.bind(known::initialize(&*far.remote, name())?)?;
        let parent = far.atlas.parent(id, near, &self.marks(id)?)?;
        let resumed = Resumed::new(far.atlas.sent());
        let sent = |pack: &_| far.atlas.add_sent(pack);
        let asked = Asked { remote: &*far.remote, resumed, sent: &sent, name, progress, is_cancelled };
        let published = publish::publish(&self.fetching(), &parent, id, &asked)?;
        far.atlas.made(&published.made)?;
        far.atlas.learn(published.manifest.clone())?;
        far.atlas.settle_sent(&published.named)?;
        Ok(published)
    }

    /// Some directories and files of a snapshot, from the root on, by which others are told that have much in common with it.
    fn marks(&self, id: SnapshotId) -> Result<Vec<(ObjectKind, Digest)>> {
        let store = self.fetching();
        let mut marks = vec![(ObjectKind::Dir, store.snapshot(id)?.dir)];
        let mut seen = 0;
        for _ in 0..MARKED_DIRS_MAX {
            let next = marks[seen..].iter().position(|(kind, _)| *kind == ObjectKind::Dir);
            let Some(next) = next else { break };
            seen += next + 1;
            let dir = Dir::open(&store, marks[seen - 1].1)?;
            for index in 0..dir.count().min(MARKS_OF_DIR_MAX) {
                match dir.entry(index)?.node {
                    Node::Dir(below) => marks.push((ObjectKind::Dir, below)),
                    Node::File(Content::Chunk(chunk)) => marks.push((ObjectKind::Chunk, chunk)),
                    Node::File(Content::List(list)) => marks.push((ObjectKind::List, list)),
                    _ => {}
                }
            }
        }
        Ok(marks)
    }

    /// The bytes of an object that is read once, and not kept in memory.
    pub(crate) fn bytes_of(&self, kind: ObjectKind, digest: Digest) -> Result<Vec<u8>> {
        if kind != ObjectKind::Chunk {
            return Ok(self.object(kind, digest)?.to_vec());
        }
        let len = match self.index().locate(digest)? {
            Some(at) => at.len,
            None => self.elsewhere(kind, digest, |kept| Ok(kept.object_len(digest)))?,
        };
        let mut bytes = vec![0; len as usize];
        self.read_chunk(digest, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Takes an object out of the index: what stands in its place is not it. It is written anew when it comes again.
    pub(crate) fn disown(&self, digest: Digest) -> Result<()> {
        let Some(from) = self.index().locate(digest)? else { return Ok(()) };
        self.index().commit(&Change { moved: vec![Move { digest, from, to: None }], ..Change::default() })
    }

    /// Forgets what is in memory: the next reader hears what the disk says.
    pub(crate) fn forget_cached(&self) {
        self.0.objects.clear();
    }

    /// Bytes of an object, without reading them; None if it is not in the store.
    pub fn object_len(&self, digest: Digest) -> Result<Option<u32>> {
        Ok(self.index().locate(digest)?.map(|at| at.len))
    }

    /// Begins to add objects. Nothing is visible to others, or durable, before `finish`. Several may be open at once.
    /// Waits while gc runs.
    pub fn writer(&self) -> Result<Writer> {
        Ok(Writer::new(self.clone()))
    }

    /// Keeps gc away: see [`Hold`]. Waits while gc runs.
    pub fn hold(&self) -> Hold {
        self.0.gate.hold()
    }

    /// How much there is.
    pub fn stats(&self) -> Result<Stats> {
        let packs = self.index().packs()?;
        Ok(Stats {
            packs: packs.len() as u64,
            pack_bytes: packs.values().map(|p| p.committed).sum(),
            objects: self.index().count()?,
            snapshots: self.catalogue().list()?.len() as u64,
        })
    }

    pub(crate) fn index(&self) -> &Index {
        &self.0.index
    }

    pub(crate) fn catalogue(&self) -> &Catalogue {
        self.0.catalogue.get().expect("set before anybody has the store")
    }

    /// What is read from here on was read later than anything before.
    pub(crate) fn begin_era(&self) {
        self.0.era.fetch_add(1, Relaxed);
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.0.disk
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// The pack of this number, if there is one.
    pub(crate) fn pack(&self, id: u64) -> Option<Arc<Pack>> {
        self.0.packs.read().get(&id).cloned()
    }

    /// Forgets a pack; who holds it goes on reading.
    pub(crate) fn remove_pack(&self, id: u64) {
        self.0.packs.write().remove(&id);
    }

    /// A pack to append to.
    pub(crate) fn take_pack(&self, kind: PackKind) -> Result<Appender> {
        self.enter(self.0.pool.take(&self.0.disk, &self.0.index, kind)?)
    }

    /// A new pack to append to.
    pub(crate) fn create_pack(&self, kind: PackKind) -> Result<Appender> {
        self.enter(self.0.pool.create(&self.0.disk, &self.0.index, kind)?)
    }

    fn enter(&self, appender: Appender) -> Result<Appender> {
        // What was just written goes no sooner than what was just read.
        appender.pack.touch(self.0.era.load(Relaxed));
        self.0.packs.write().insert(appender.pack.id, appender.pack.clone());
        Ok(appender)
    }

    /// Takes a pack back from its appender, without what is not committed. True if that was all of it.
    pub(crate) fn give_back(&self, appender: &Appender) -> Result<bool> {
        let (pack, committed) = (&appender.pack, appender.committed);
        if committed == 0 {
            self.remove_pack(pack.id);
            self.0.disk.remove(&pack.path()).map_err(Error::io(pack.display()))?;
            return Ok(true);
        }
        if pack.file()?.len().map_err(Error::io(pack.display()))? > committed {
            pack.cut(committed)?;
        }
        if self.has_room(committed) {
            self.0.pool.put(pack.clone(), committed);
        }
        Ok(false)
    }

    /// After a failed commit of `change`: it may have reached the disk all the same. What the index vouches for is
    /// kept, and where the index does not answer, everything is; the next open decides.
    pub(crate) fn settle<'a>(&self, appenders: impl Iterator<Item = &'a mut Appender>, change: &Change) {
        for appender in appenders {
            let Some(state) = change.packs.get(&appender.pack.id) else { continue };
            let known = self.index().pack(appender.pack.id);
            if known.is_err() || known.is_ok_and(|known| known == *state) {
                appender.committed = appender.len();
            }
        }
    }

    pub(crate) fn sync_packs_dir(&self) -> Result<()> {
        self.0.disk.sync_dir(PACKS_DIR).map_err(Error::io(self.0.disk.display(PACKS_DIR)))
    }

    /// Whether it is worth appending to a pack with so many bytes: the last sixteenth is left.
    fn has_room(&self, committed: u64) -> bool {
        let max = self.0.options.pack_bytes_max;
        committed + max / 16 <= max
    }

    /// Runs `read` where `digest` is, again if gc moved it in between.
    fn find<T>(&self, digest: Digest, mut read: impl FnMut(&Pack, &Location) -> Result<T>) -> Result<T> {
        let mut last = None;
        for _ in 0..MOVED_RETRIES_MAX {
            let at = self.index().locate(digest)?.ok_or(Error::Missing(digest))?;
            last = Some(at);
            let Some(pack) = self.pack(at.pack) else { continue };
            pack.touch(self.0.era.load(Relaxed));
            match read(&pack, &at) {
                Err(error) if is_not_found(&error) && self.pack(at.pack).is_none() => {}
                Err(error) if is_not_found(&error) => {
                    return Err(pack.corrupt(digest, &at, "the pack is missing"));
                }
                result => return result,
            }
        }
        let at = last.expect("at least one look-up");
        let pack = self.0.disk.display(&pack_path(at.pack, PackKind::of(at.kind)));
        Err(Error::Corrupt {
            digest,
            pack,
            offset: at.offset,
            reason: "the index names a pack that is not there",
        })
    }
}

fn make_dirs(disk: &Arc<dyn Disk>) -> Result<()> {
    disk.create_dir(PACKS_DIR).map_err(Error::io(disk.display(PACKS_DIR)))?;
    for dir in ["", "store"] {
        disk.sync_dir(dir).map_err(Error::io(disk.display(dir)))?;
    }
    Ok(())
}

fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
pub(crate) mod gc_tests;
#[cfg(test)]
pub(crate) mod tests;
