//! What there is beyond a store: objects that only the remote store has, and those of them that are in the cache.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Absence, MOVED_RETRIES_MAX, Store, near::near};
use crate::{
    Content, Digest, Error, Node, ObjectKind, Result, SnapshotId,
    dir::Dir,
    remote::{
        self, Manifest, Near, Nowhere, Remote,
        cache::Kept,
        counters::{Counters, Counts},
        fetch::{Fetcher, Ticket},
        known::{self, Atlas, Census},
        lease::{Held, Naming},
        name::{self, RemoteName},
        peer::Peer,
        publish::{self, Asked, Published, Resumed},
    },
};

/// Snapshots of this host that the remote store is asked about when nothing that is known has an object.
const MAYBE_MAX: usize = 64;
/// Directories that are looked into, and names in each, to tell what snapshots have in common.
const MARKED_DIRS_MAX: usize = 16;
const MARKS_OF_DIR_MAX: u32 = 256;
/// Times that a publish is begun anew because gc condemned what it is built on.
const PUBLISHES_MAX: u32 = 4;

/// The remote store and other hosts, what is known of them, and what is here of it.
pub(super) struct Far {
    atlas: Arc<Atlas>,
    pub(super) remote: Arc<dyn Remote>,
    pub(super) near: Arc<Near>,
    pub(super) kept: Kept,
    fetcher: Fetcher,
    counters: Arc<Counters>,
}

impl Store {
    /// Lets the store have what `remote` has, once it is needed, by a cache of so many bytes. At most once. Errors: the disk's.
    pub fn attach(&self, remote: Arc<dyn Remote>, host: Naming, cache_bytes: u64) -> Result<()> {
        self.attach_all(Some(remote), Vec::new(), host, cache_bytes)
    }

    /// The same, with other hosts that are asked first, in this order; or with those alone.
    pub fn attach_all(
        &self,
        remote: Option<Arc<dyn Remote>>,
        peers: Vec<Arc<dyn Peer>>,
        host: Naming,
        cache_bytes: u64,
    ) -> Result<()> {
        let near = near(self, peers, remote.is_none());
        let remote = remote.unwrap_or_else(|| Arc::new(Nowhere));
        let disk = self.disk();
        let mut maybe: Vec<_> = self.list()?.into_iter().map(|listed| listed.id).collect();
        maybe.truncate(MAYBE_MAX);
        let atlas = Arc::new(Atlas::open(Arc::clone(disk), Arc::clone(&remote), host, maybe)?);
        let kept = Kept::open(disk, Arc::clone(&atlas), cache_bytes)?;
        let counters = Arc::<Counters>::default();
        let asked = (Arc::clone(&atlas), Arc::clone(&remote), Arc::clone(&near));
        let fetcher = Fetcher::start(asked.0, asked.1, asked.2, kept.landing(), Arc::clone(&counters))?;
        let attached = self.0.far.set(Far { atlas, remote, near, kept, fetcher, counters });
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
    pub(crate) fn is_here(&self, kind: ObjectKind, digest: Digest) -> Result<bool> {
        let is_cached = || self.0.far.get().is_some_and(|far| far.kept.has(kind, digest));
        Ok(self.index().locate(digest)?.is_some() || is_cached())
    }

    /// Takes note that an object is needed, if all that is here of it is in the cache, which lets go of it.
    pub(crate) fn note_far(&self, kind: ObjectKind, digest: Digest) -> Result<()> {
        if let Some(far) = self.0.far.get()
            && self.index().locate(digest)?.is_none()
        {
            far.atlas.note(kind, digest);
        }
        Ok(())
    }

    /// The remote store, if there is one.
    pub fn remote(&self) -> Option<Arc<dyn Remote>> {
        self.0.far.get().map(|far| Arc::clone(&far.remote))
    }

    /// Whether there is a remote store, or there are other hosts that are asked.
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

    /// Has an object brought here that a call said is [`Error::Absent`]. `None` if there is nobody to ask.
    pub fn fetch(&self, kind: ObjectKind, digest: Digest) -> Option<Ticket> {
        Some(self.0.far.get()?.fetcher.fetch(kind, digest))
    }

    /// What came until now was brought for who will read it, and tells nothing of readers.
    pub(crate) fn forget_readers(&self) {
        if let Some(far) = self.0.far.get() {
            far.fetcher.forget_readers();
        }
    }

    /// The same for many that are needed: those that lie side by side come together, and no others. A ticket for each, in their order. Waits until it is
    /// known where they are.
    pub fn fetch_together(&self, kind: ObjectKind, digests: &[Digest]) -> Option<Vec<Ticket>> {
        Some(self.0.far.get()?.fetcher.fetch_together(kind, digests))
    }

    /// Makes a snapshot of the remote store known here, by its manifest, and has it stay there as long as this host needs it. Errors: `UnknownSnapshot`,
    /// `Remote`.
    pub fn discover(&self, id: SnapshotId) -> Result<Arc<Manifest>> {
        self.discover_root(id, &|| Ok(false))
    }

    /// The same for a snapshot that a head named, if `is_root` says that it still does. Errors: as of [`Store::discover`], and those of `is_root`.
    pub fn discover_root(&self, id: SnapshotId, is_root: &dyn Fn() -> Result<bool>) -> Result<Arc<Manifest>> {
        let far = self.0.far.get().ok_or(Error::UnknownSnapshot(id))?;
        far.atlas.manifest(id, is_root)
    }

    /// [`publish`](crate::remote::publish::publish) to the store's own remote store, on top of one of `near` if that is there and has
    /// something in common. Error: `NoRemote`, and as there.
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
        let marks = self.marks(id)?;
        let sent = |pack: &_| far.atlas.add_sent(pack);
        let (mut before, mut avoided) = ((0, 0, 0, 0), BTreeSet::new());
        for _ in 0..PUBLISHES_MAX {
            let parent = far.atlas.parent(id, near, &marks, &avoided)?;
            let resumed = Resumed::new(far.atlas.sent());
            let asked = Asked { remote: &*far.remote, resumed, sent: &sent, name, progress, is_cancelled };
            let mut published = publish::publish(&self.fetching(), &parent, id, &asked)?;
            let Published { objects, object_bytes, packs, pack_bytes, .. } = &mut published;
            before =
                (before.0 + *objects, before.1 + *object_bytes, before.2 + *packs, before.3 + *pack_bytes);
            (*objects, *object_bytes, *packs, *pack_bytes) = before;
            let manifest = &published.manifest;
            let (held, unfit) = far.atlas.claim(manifest, published.name, &published.made)?;
            if unfit.is_empty() {
                let new = || {
                    let name = name();
                    far.remote.write(&name::manifest(id, name), manifest.encode()).map(|()| name)
                };
                let name = published.name.map_or_else(new, Ok)?;
                far.atlas.made(&published.made)?;
                far.atlas.published(name, manifest)?;
                far.atlas.settle_sent(&published.named)?;
                far.atlas.condemn(id, &parent.useless)?;
                return Ok(Published { held: Some(Arc::new(held)), ..published });
            }
            tracing::warn!(snapshot = %id, objects = ?unfit, "condemned by gc or gone; published without them");
            far.atlas.avoid(&unfit)?;
            avoided.extend(unfit);
        }
        Err(Error::Condemned(id))
    }

    /// Keeps a snapshot in the remote store meanwhile, if it is there: one that a head may name which is under way.
    pub fn hold_there(&self, id: SnapshotId) -> Option<Held> {
        self.0.far.get().map(|far| far.atlas.hold(id))
    }

    /// Has a snapshot that is published stay in the remote store until it is [unpinned](Store::unpin). Errors: `NoRemote`, `UnknownSnapshot`, `Remote`.
    pub fn pin(&self, id: SnapshotId, name: RemoteName) -> Result<()> {
        let far = self.0.far.get().ok_or(Error::NoRemote)?;
        // Until the pin is there the lease holds it.
        let _held = far.atlas.hold(id);
        far.atlas.manifest(id, &|| Ok(false))?;
        Ok(far.remote.write(&format!("{}{name}", name::pins(id)), Vec::new())?)
    }

    /// Takes [`Store::pin`] back, whoever said so. False: it was not pinned. Errors: `NoRemote`, `Remote`.
    pub fn unpin(&self, id: SnapshotId) -> Result<bool> {
        let far = self.0.far.get().ok_or(Error::NoRemote)?;
        let pins = far.remote.list(&name::pins(id))?;
        pins.iter().try_for_each(|pin| far.remote.remove(pin))?;
        Ok(!pins.is_empty())
    }

    /// [Collects](crate::remote::gc::collect) what nobody needs in the remote store. Errors: `NoRemote`, and as there.
    pub fn gc_there(&self, asked: &remote::gc::Asked<'_>) -> Result<remote::gc::Report> {
        remote::gc::collect(&*self.0.far.get().ok_or(Error::NoRemote)?.remote, asked)
    }

    /// [Why](crate::remote::gc::why) something is needed in the remote store. Errors: `NoRemote`, and as there.
    pub fn why_there(&self, asked: &remote::gc::Asked<'_>, wanted: &str) -> Result<Vec<String>> {
        remote::gc::why(&*self.0.far.get().ok_or(Error::NoRemote)?.remote, asked, wanted)
    }

    /// Says in the remote store that this host is there, and what it needs. Once in [`LEASE_RENEWED`](crate::remote::gc::LEASE_RENEWED) at least. Gives
    /// the snapshots that this host stands on and that are not there as they should be. Error: `Remote`.
    pub fn renew_lease(&self) -> Result<Vec<SnapshotId>> {
        self.0.far.get().map_or(Ok(Vec::new()), |far| far.atlas.renew())
    }

    /// From here on it is noted what of the remote store is needed: by one gc at a time, which ends it.
    pub(crate) fn begin_census(&self) -> Option<Census<'_>> {
        self.0.far.get().map(|far| far.atlas.begin_census())
    }

    /// Lets the remote store have what this host does not need any more.
    pub(crate) fn end_census(&self, census: Option<Census<'_>>) -> Result<()> {
        census.map_or(Ok(()), |census| census.end(self.options().unused))
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
            None => self.elsewhere(kind, digest, |kept| Ok(kept.object_len(kind, digest)))?,
        };
        let mut bytes = vec![0; len as usize];
        self.read_chunk(digest, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// What was found of an object in this store; or out of the cache, if it is not here, or is damaged here and the remote store has it. Damaged
    /// bytes then count as not here from now on: what comes in their place is needed of the remote store, and gc has to hear of that.
    pub(super) fn or_elsewhere<T>(
        &self,
        kind: ObjectKind,
        digest: Digest,
        found: Result<T>,
        get: impl FnMut(&Kept) -> Result<Option<T>>,
    ) -> Result<T> {
        match found {
            Err(Error::Missing(_)) => self.elsewhere(kind, digest, get),
            Err(damage @ Error::Corrupt { .. }) if self.is_elsewhere(kind, digest) => {
                let whole = self.elsewhere(kind, digest, get).inspect_err(|error| {
                    if !matches!(error, Error::NotNow) {
                        tracing::warn!(%damage, %error, "the remote store is asked for it");
                    }
                })?;
                tracing::warn!(%damage, "read from the remote store instead");
                if let Err(error) = self.disown(digest) {
                    tracing::warn!(%error, "the index takes nothing");
                }
                Ok(whole)
            }
            found => found,
        }
    }

    /// Gets an object out of the cache, once it is there.
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
                far.fetcher.passed(digest);
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
}
