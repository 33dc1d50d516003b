//! The store: packs, their index and the catalogue behind one handle.
//!
//! Owns the folder `store/` of a disk. An object that is in it never changes; a reader never waits for a writer or for
//! gc. Knows nothing of what objects mean beyond where they go.

mod far;
mod near;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use far::Far;
use parking_lot::RwLock;

use crate::{
    Digest, Error, Result,
    cache::Cache,
    catalogue::Catalogue,
    disk::{Disk, Patience},
    gate::Gate,
    hash::KeyedHash,
    index::{Change, Index, Move, PackState},
    pack::{Location, PACKS_DIR, Pack, pack_path},
    pool::{Appender, Pool},
    record::PackKind,
    recover,
    remote::hanging::Hanging,
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
pub use near::Whole;

/// Look-ups of one object before its pack is taken to be gone for good. Each failed one means that gc has just moved
/// the object, and gc runs once at a time.
const MOVED_RETRIES_MAX: u32 = 16;

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
    /// Snapshots that hang on other hosts, whether or not those are asked now.
    hanging: Hanging,
    /// Counts evictions: what a pack's last use is told by.
    era: AtomicU64,
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
    /// What gc finds that nothing here stands on stays in this host's lease of the remote store for so long after somebody asked for it: he may be about
    /// to.
    pub unused: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            pack_bytes_max: PACK_BYTES_MAX,
            batch_bytes: 2 << 20,
            // The directories of 100,000 files: a source tree that is in use stays, a larger one is read again.
            object_cache_bytes: 16 << 20,
            unused: Duration::from_secs(3600),
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
                hanging: Hanging::open(disk.clone())?,
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
        let passed = self.0.objects.passed(digest);
        let found = self.find(digest, |pack, at| pack.object(digest, at, passed));
        let object = self.or_elsewhere(kind, digest, found, |kept| Ok(kept.object(kind, digest)))?;
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
        self.or_elsewhere(ObjectKind::Chunk, digest, found, |kept| {
            Ok(kept.read_chunk(patience, digest, offset, buf)?.then_some(()))
        })
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
