//! What this host knows of the remote store: manifests, layers, and packs that it has sent and that are in no layer yet.
//!
//! Nothing of it changes but by going, so it is kept in files beside the store, each written whole, and read again at the next start.
//! What is missing or damaged there is fetched again. All of it is of one remote store, which has an ID of its own: what is known of
//! another one (a new address, a bucket that was emptied) is forgotten, and asked for again.
//!
//! What sessions and snapshots of this host stand on is in its [lease](super::lease), so that gc of the remote store keeps it. What was only published
//! from here is not: whoever relies on it later asks anew.
//!
//! Nothing is locked while the remote store is asked, but what keeps others from asking for the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::{
    Failure, Remote, is_unreachable, is_useless,
    layer::{LAYER_BYTES_MAX, Layer, Place},
    lease::{Held, Lease, Leased, Naming, Unfit, absent},
    manifest::{LayerEntry, MANIFEST_BYTES_MAX, Manifest},
    name::{self, RemoteName, STORE_ID},
    publish::Parent,
};
use crate::{
    Digest, Error, ObjectKind, Result, SnapshotId,
    disk::{Disk, Open, put_whole},
    record::PackKind,
};

/// Where it is kept.
const DIR: &str = "store/remote";
const NEW: &str = "store/remote/new";
/// What files of manifests end with that are in the lease, and of those that are not.
const KEPT: &str = "manifest";
const OWN: &str = "own";
/// Bytes of layers in memory, but for the one that was read last: those of some ten million objects.
const LAYERS_BYTES_MAX: usize = 256 << 20;
/// Bytes of a layer that are asked for at a time.
const LAYER_PART: u64 = 4 << 20;
/// Snapshots that are looked at for one to publish on top of.
const CANDIDATES: usize = 16;
/// Bytes of a remote store's ID, as text.
const STORE_ID_BYTES: u64 = 26;
/// For so long the remote store is not asked again for a manifest that it has not.
const UNKNOWN: Duration = Duration::from_secs(60);
/// For so long whoever asks for what could not be had is told so without asking again.
const REFUSED: Duration = Duration::from_secs(2);
/// What was published from here is remembered to be published on top of: so many, the newest.
const OWN_MAX: usize = 64;

/// All that is known.
#[derive(Debug)]
pub struct Atlas {
    disk: Arc<dyn Disk>,
    remote: Arc<dyn Remote>,
    lease: Arc<Lease>,
    state: RwLock<State>,
    /// Held by who writes a file.
    writing: Mutex<()>,
    /// Held by who changes which manifests are known: on the disk, here and in the lease.
    learning: Mutex<()>,
    /// Held by the gc that counts what is needed.
    counting: Mutex<()>,
    /// Layers that somebody is bringing here.
    loading: Mutex<HashMap<RemoteName, Arc<Loading>>>,
}

/// A gc of this host is looking for what is needed. While it does, no other begins.
#[derive(Debug)]
pub(crate) struct Census<'a> {
    atlas: &'a Atlas,
    _alone: MutexGuard<'a, ()>,
}

impl Census<'_> {
    /// See [`Atlas::end_census`].
    pub(crate) fn end(self, unused: Duration) -> Result<()> {
        self.atlas.end_census(unused)
    }
}

/// Held by who brings a layer here. What became of it the last time, if nothing.
type Loading = Mutex<Option<(Instant, Arc<Error>)>>;

#[derive(Debug, Default)]
struct State {
    /// What the remote store is called that all this is of, once it was asked.
    bound: Option<Vec<u8>>,
    manifests: HashMap<SnapshotId, Known>,
    /// Those that are in no lease, the oldest first.
    own: VecDeque<SnapshotId>,
    /// Layers that have something which is not here and is needed, as far as somebody has asked since this was last emptied.
    needed: HashSet<RemoteName>,
    /// Something is needed, is not in the store here, and no layer that is here has it.
    is_missing: bool,
    layers: HashMap<RemoteName, Loaded>,
    /// Counts uses of layers.
    uses: u64,
    sent: BTreeMap<RemoteName, Arc<Layer>>,
    /// Snapshots whose manifests are not here and may be in the remote store.
    wanted: BTreeMap<SnapshotId, Wanted>,
}

#[derive(Clone, Debug)]
struct Known {
    manifest: Arc<Manifest>,
    /// What it is called there.
    name: RemoteName,
    /// It is in the lease.
    is_kept: bool,
    /// Something that it names is condemned, so that nothing is published on top of it. It is there all the same.
    is_avoided: bool,
    /// Something that it names is not there.
    is_gone: bool,
    /// When somebody last asked for it.
    used: Instant,
}

impl Known {
    fn new(manifest: Arc<Manifest>, name: RemoteName, is_kept: bool) -> Known {
        Known { manifest, name, is_kept, is_avoided: false, is_gone: false, used: now() }
    }

    /// All that has to be there for it to be of use, but for packs: those go after their layers.
    fn objects(&self) -> BTreeSet<String> {
        objects(self.name, &self.manifest)
    }
}

fn objects(name: RemoteName, manifest: &Manifest) -> BTreeSet<String> {
    let layers = manifest.layers.iter().map(|entry| entry.name.layer());
    layers.chain([name::manifest(manifest.snapshot, name)]).collect()
}

#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    /// It was there once.
    was_there: bool,
    /// When the remote store said that it has none.
    unknown: Option<Instant>,
}

#[derive(Debug)]
struct Loaded {
    layer: Arc<Layer>,
    used: u64,
}

impl State {
    fn layer(&mut self, name: RemoteName) -> Option<Arc<Layer>> {
        self.uses += 1;
        let loaded = self.layers.get_mut(&name)?;
        loaded.used = self.uses;
        Some(Arc::clone(&loaded.layer))
    }

    fn enter(&mut self, name: RemoteName, layer: &Arc<Layer>) {
        self.uses += 1;
        self.layers.insert(name, Loaded { layer: Arc::clone(layer), used: self.uses });
        let mut bytes: usize = self.layers.values().map(|loaded| loaded.layer.bytes().len()).sum();
        while bytes > LAYERS_BYTES_MAX && self.layers.len() > 1 {
            let oldest = self.layers.iter().min_by_key(|(_, loaded)| loaded.used).map(|(name, _)| *name);
            let gone = oldest.and_then(|name| self.layers.remove(&name));
            bytes -= gone.map_or(0, |loaded| loaded.layer.bytes().len());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long nobody asks again: it decides nothing that is kept")]
fn now() -> Instant {
    Instant::now()
}

impl Atlas {
    /// Reads what is known in the folder `store/remote` of a disk. `maybe` are snapshots that the remote store may have; `host` names this
    /// host's lease. Error: the disk's.
    pub fn open(
        disk: Arc<dyn Disk>,
        remote: Arc<dyn Remote>,
        host: Naming,
        maybe: Vec<SnapshotId>,
    ) -> Result<Atlas> {
        disk.create_dir(DIR).map_err(Error::io(disk.display(DIR)))?;
        let names = disk.list(DIR).map_err(Error::io(disk.display(DIR)))?;
        let atlas = Atlas {
            disk,
            lease: Lease::new(Arc::clone(&remote), host),
            remote,
            state: RwLock::default(),
            writing: Mutex::new(()),
            learning: Mutex::new(()),
            counting: Mutex::new(()),
            loading: Mutex::default(),
        };
        let mut state = State::default();
        for file in &names {
            let Some((stem, kind)) = file.rsplit_once('.') else { continue };
            match kind {
                KEPT | OWN if let Some((id, name)) = parse_manifest_file(stem) => {
                    let (read, is_kept) = (atlas.read_file(file, MANIFEST_BYTES_MAX), kind == KEPT);
                    match read.and_then(|bytes| Manifest::decode(id, &bytes)) {
                        // One that was not kept before may be here as well.
                        Ok(_) if !is_kept && state.manifests.contains_key(&id) => {}
                        Ok(manifest) => {
                            state.own.retain(|own| *own != id);
                            if is_kept {
                                atlas.lease.keep(id);
                            } else {
                                state.own.push_back(id);
                            }
                            state.manifests.insert(id, Known::new(Arc::new(manifest), name, is_kept));
                        }
                        Err(_) if !is_kept => {}
                        Err(error) => {
                            atlas.lease.keep(id);
                            tracing::warn!(file, %error, "a manifest is damaged here; it is fetched again");
                            state.wanted.insert(id, Wanted { was_there: true, unknown: None });
                        }
                    }
                }
                // Else it is sent once more.
                "sent" if let Ok(layer) = atlas.read_file(file, LAYER_BYTES_MAX).and_then(Layer::decode) => {
                    drop(state.sent.insert(layer.packs()[0].name, Arc::new(layer)));
                }
                _ => {}
            }
        }
        for id in maybe.into_iter().filter(|id| !state.manifests.contains_key(id)) {
            state.wanted.entry(id).or_default();
        }
        *atlas.state.write() = state;
        Ok(atlas)
    }

    /// The manifest of a published snapshot, which from here on stays in the remote store as long as this host needs it. `is_root` says, when it is
    /// asked, whether somebody's head names the snapshot: then it stays even if it was condemned once. Errors: `UnknownSnapshot`,
    /// `Malformed`, `Remote`, and those of `is_root`.
    pub fn manifest(&self, id: SnapshotId, is_root: &dyn Fn() -> Result<bool>) -> Result<Arc<Manifest>> {
        if !self.is_bound()? {
            return Err(Error::UnknownSnapshot(id));
        }
        if let Some(known) = self.state.write().manifests.get_mut(&id)
            && known.is_kept
            && !known.is_gone
        {
            known.used = now();
            return Ok(Arc::clone(&known.manifest));
        }
        let found = self.look_up(id)?;
        // First it is said, then looked whether it was in time.
        let _held = self.hold(id);
        self.lease.say()?;
        let (is_only, mut condemned) = (found.len() == 1, None);
        for (name, manifest) in found {
            let unfit = Unfit::of(&*self.remote, &objects(name, &manifest))?;
            if unfit.is_empty() {
                return self.learn(name, manifest, true);
            }
            // What is needed again may have a mark, which nobody takes away.
            if unfit.absent.is_empty() && absent(&*self.remote, &unfit.condemned)?.is_empty() {
                condemned = Some((name, manifest));
            }
        }
        // Whoever made it a root looked before he did, and it has been one since. Of several it may have been another.
        if let Some((name, manifest)) = condemned
            && is_only
            && (!self.remote.list(&name::pins(id))?.is_empty() || is_root()?)
        {
            return self.learn(name, manifest, true);
        }
        Err(Error::UnknownSnapshot(id))
    }

    /// The manifests of a snapshot that can be read, the one that is known here first. Errors: `Malformed` if there are others, and `Remote`.
    fn look_up(&self, id: SnapshotId) -> Result<Vec<(RemoteName, Manifest)>> {
        let own = self.state.read().manifests.get(&id).filter(|known| !known.is_gone).cloned();
        let own = own.map(|known| (known.name, Manifest::clone(&known.manifest)));
        let (mut found, mut malformed) = (Vec::from_iter(own), None);
        for path in self.remote.list(&name::manifests(id))? {
            let Some((_, name)) = name::parse_manifest(&path) else { continue };
            if found.iter().any(|(known, _)| *known == name) {
                continue;
            }
            match self.remote.read_whole(&path, MANIFEST_BYTES_MAX) {
                Ok(bytes) => match Manifest::decode(id, &bytes) {
                    Ok(manifest) => found.push((name, manifest)),
                    Err(error) => malformed = Some(error),
                },
                // Gone since it was listed.
                Err(Failure::NotFound(_)) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        malformed.filter(|_| found.is_empty()).map_or(Ok(found), Err)
    }

    /// Remembers a manifest that is in the remote store. It is kept there if this host's lease says so.
    fn learn(&self, name: RemoteName, manifest: Manifest, is_kept: bool) -> Result<Arc<Manifest>> {
        let learning = self.learning.lock();
        let id = manifest.snapshot;
        let before = self.state.read().manifests.get(&id).cloned();
        // What is kept stays so.
        let is_kept = is_kept || before.as_ref().is_some_and(|before| before.is_kept);
        let file = manifest_file(id, name, is_kept);
        self.keep(&file, &manifest.encode())?;
        let before = before.map(|before| manifest_file(id, before.name, before.is_kept));
        if let Some(before) = before.filter(|before| *before != file) {
            self.remove_file(&before)?;
        }
        let manifest = Arc::new(manifest);
        let known = Known::new(Arc::clone(&manifest), name, is_kept);
        let mut state = self.state.write();
        state.wanted.remove(&id);
        state.own.retain(|own| *own != id);
        if is_kept {
            self.lease.keep(id);
        } else {
            state.own.push_back(id);
        }
        state.manifests.insert(id, known);
        let oldest = state.own.front().copied().filter(|_| state.own.len() > OWN_MAX);
        drop(state);
        drop(learning);
        oldest.map_or(Ok(()), |oldest| self.drop_manifest(oldest, |known| !known.is_kept))?;
        Ok(manifest)
    }

    /// Remembers what this host has published: it is there as long as somebody's head or lease names it.
    pub(crate) fn published(&self, name: RemoteName, manifest: &Manifest) -> Result<()> {
        self.learn(name, manifest.clone(), false).map(drop)
    }

    /// Forgets a manifest, if that is still right.
    fn drop_manifest(&self, id: SnapshotId, is_right: impl FnOnce(&Known) -> bool) -> Result<()> {
        let _learning = self.learning.lock();
        let mut state = self.state.write();
        let Some(known) = state.manifests.get(&id).filter(|known| is_right(known)) else { return Ok(()) };
        let file = manifest_file(id, known.name, known.is_kept);
        // From here on whoever asks for it has it be in the lease anew, and waits to learn it.
        state.manifests.remove(&id);
        state.own.retain(|own| *own != id);
        drop(state);
        // It must not come back with power loss: what it names may be gone by then.
        self.remove_file(&file)?;
        self.disk.sync_dir(DIR).map_err(Error::io(self.disk.display(DIR)))?;
        self.lease.let_go(id);
        Ok(())
    }

    /// Has this host's lease name a snapshot that is being published, and finds out whether all of it stays: its layers, the packs that those of them
    /// name which were `made` for it, and the manifest if there is one. Gives what does not. Without a manifest nobody else can rely on any of it; who
    /// writes one when nothing is missing spares those who find it a look at the packs.
    pub(crate) fn claim(
        &self,
        manifest: &Manifest,
        name: Option<RemoteName>,
        made: &[(LayerEntry, Arc<Layer>)],
    ) -> Result<(Held, BTreeSet<String>)> {
        let layers = || manifest.layers.iter().map(|entry| entry.name);
        let snapshot = Leased::Snapshot(manifest.snapshot);
        let held = self.lease.hold(layers().map(Leased::Layer).chain([snapshot]).collect());
        self.lease.say()?;
        let mut objects: BTreeSet<String> = layers().map(RemoteName::layer).collect();
        objects.extend(name.map(|name| name::manifest(manifest.snapshot, name)));
        let packs = made.iter().flat_map(|(_, layer)| layer.packs());
        objects.extend(packs.map(|pack| pack.name.pack()));
        Ok((held, Unfit::of(&*self.remote, &objects)?.all()))
    }

    /// Has nobody take a manifest of which the layers cannot be read, once there is a better one of its snapshot.
    pub(crate) fn condemn(&self, id: SnapshotId, manifests: &[RemoteName]) -> Result<()> {
        for name in manifests {
            self.remote.create(&name::mark(&name::manifest(id, *name)), Vec::new())?;
        }
        Ok(())
    }

    /// Nothing is built on these any more.
    pub(crate) fn avoid(&self, unfit: &BTreeSet<String>) -> Result<()> {
        let mut state = self.state.write();
        let (mut gone, mut sent) = (Vec::new(), Vec::new());
        for (id, known) in &mut state.manifests {
            if known.objects().is_disjoint(unfit) {
                continue;
            }
            known.is_avoided = true;
            if !known.is_kept {
                gone.push(*id);
            }
        }
        sent.extend(state.sent.keys().filter(|name| unfit.contains(&name.pack())).copied());
        drop(state);
        gone.into_iter().try_for_each(|id| self.drop_manifest(id, |known| !known.is_kept))?;
        self.settle_sent(&sent)
    }

    /// Says in the remote store what this host needs of it, as [gc](super::gc) wants to hear from time to time, and finds out whether all of that is
    /// there. Gives the snapshots of which something is not.
    pub(crate) fn renew(&self) -> Result<Vec<SnapshotId>> {
        if !self.is_bound()? {
            return Ok(Vec::new());
        }
        self.lease.renew()?;
        let kept: Vec<_> =
            self.state.read().manifests.values().filter(|known| known.is_kept).cloned().collect();
        let objects: BTreeSet<String> = kept.iter().flat_map(Known::objects).collect();
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let absent = absent(&*self.remote, &objects)?;
        let is_gone = |known: &&Known| !known.objects().is_disjoint(&absent);
        let gone: Vec<_> = kept.iter().filter(is_gone).map(|known| known.manifest.snapshot).collect();
        let mut state = self.state.write();
        for id in &gone {
            if let Some(known) = state.manifests.get_mut(id) {
                known.is_gone = true;
            }
        }
        Ok(gone)
    }

    /// Keeps a snapshot in this host's lease meanwhile.
    pub(crate) fn hold(&self, id: SnapshotId) -> Held {
        self.lease.hold(vec![Leased::Snapshot(id)])
    }

    /// From here on [`Atlas::has`] remembers what it found.
    pub(crate) fn begin_census(&self) -> Census<'_> {
        let alone = self.counting.lock();
        let mut state = self.state.write();
        state.needed.clear();
        state.is_missing = false;
        Census { atlas: self, _alone: alone }
    }

    /// Takes note that an object is needed, of which all that is here may go.
    pub(crate) fn note(&self, kind: ObjectKind, digest: Digest) {
        if !self.has(kind, digest) {
            self.state.write().is_missing = true;
        }
    }

    /// Lets go of the manifests of which nothing was found since [`Atlas::begin_census`], and nobody has asked for in so long; and keeps those that were not
    /// kept and turn out to be needed. If it is not known where something is, it may be in any of them.
    fn end_census(&self, unused: Duration) -> Result<()> {
        let (mut needed, manifests) = {
            let state = self.state.read();
            if state.is_missing {
                return Ok(());
            }
            let mut manifests: Vec<_> = state.manifests.values().cloned().collect();
            manifests.sort_by_key(|known| (!known.is_kept, known.manifest.snapshot));
            (state.needed.clone(), manifests)
        };
        let now = now();
        for known in manifests {
            let id = known.manifest.snapshot;
            let layers = || known.manifest.layers.iter().map(|entry| entry.name);
            if layers().any(|name| needed.contains(&name)) {
                needed.retain(|needed| layers().all(|name| name != *needed));
                if !known.is_kept {
                    self.manifest(id, &|| Ok(false))?;
                }
            } else if known.is_kept {
                // Somebody may have asked for it since.
                self.drop_manifest(id, |known| now.saturating_duration_since(known.used) >= unused)?;
            }
        }
        self.drop_layers()
    }

    /// Removes layers that no manifest names any more.
    fn drop_layers(&self) -> Result<()> {
        let state = self.state.read();
        let entries = state.manifests.values().flat_map(|known| &known.manifest.layers);
        let named: HashSet<_> = entries.map(layer_file).collect();
        drop(state);
        let names = self.disk.list(DIR).map_err(Error::io(self.disk.display(DIR)))?;
        let is_dropped = |name: &&String| name.ends_with(".layer") && !named.contains(*name);
        names.iter().filter(is_dropped).try_for_each(|name| self.remove_file(name))
    }

    /// A layer, of which a manifest says this. Errors: `Malformed`, `Remote`.
    fn layer(&self, entry: &LayerEntry) -> Result<Arc<Layer>> {
        if let Some(known) = self.state.write().layer(entry.name) {
            return Ok(known);
        }
        let loading = Arc::clone(self.loading.lock().entry(entry.name).or_default());
        let mut refused = loading.lock();
        if let Some(known) = self.state.write().layer(entry.name) {
            return Ok(known);
        }
        if let Some((when, error)) = &*refused
            && now().duration_since(*when) < REFUSED
        {
            return Err(Error::Fetch(Arc::clone(error)));
        }
        let layer = match self.layer_here(entry) {
            Some(layer) => layer,
            None => match self.bring_layer(entry) {
                Ok(layer) => layer,
                Err(error) => {
                    let error = Arc::new(error);
                    *refused = Some((now(), Arc::clone(&error)));
                    return Err(Error::Fetch(error));
                }
            },
        };
        let layer = Arc::new(layer);
        self.state.write().enter(entry.name, &layer);
        self.loading.lock().remove(&entry.name);
        Ok(layer)
    }

    /// A layer, if its file is as it should be.
    fn layer_here(&self, entry: &LayerEntry) -> Option<Layer> {
        let bytes = self.read_file(&layer_file(entry), entry.bytes).ok()?;
        decode_layer(entry, bytes).ok()
    }

    fn bring_layer(&self, entry: &LayerEntry) -> Result<Layer> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < entry.bytes {
            let at = bytes.len() as u64;
            bytes.extend(self.remote.read(&entry.name.layer(), at..(at + LAYER_PART).min(entry.bytes))?);
        }
        let layer = decode_layer(entry, bytes)?;
        self.keep(&layer_file(entry), layer.bytes())?;
        Ok(layer)
    }

    /// The layer that has an object of this kind, and where it is. May ask the remote store for layers and manifests; what cannot be had does not
    /// keep others from being looked at. Error: nothing that can be had has it, and something cannot.
    pub(crate) fn locate(&self, kind: ObjectKind, digest: Digest) -> Result<Option<(Arc<Layer>, Place)>> {
        // What is known may be of another store.
        if !self.is_bound()? {
            return Ok(None);
        }
        let mut searched = HashSet::new();
        if let Some(found) = self.in_memory(kind, digest, &mut searched) {
            return Ok(Some(found));
        }
        let mut first_error = None;
        for manifest in self.manifests() {
            if let Some(found) = self.in_manifest(&manifest, kind, digest, &mut searched, &mut first_error) {
                return Ok(Some(found));
            }
        }
        for id in self.wanted() {
            match self.want(id) {
                Ok(Some(manifest)) => {
                    if let Some(found) =
                        self.in_manifest(&manifest, kind, digest, &mut searched, &mut first_error)
                    {
                        return Ok(Some(found));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    let is_over = is_unreachable(&error);
                    first_error.get_or_insert(error);
                    // The others cannot be had either.
                    if is_over {
                        break;
                    }
                }
            }
        }
        first_error.map_or(Ok(None), Err)
    }

    /// Whether an object is in a layer that is here. Asks nobody: see [`Atlas::bring_all`].
    pub(crate) fn has(&self, kind: ObjectKind, digest: Digest) -> bool {
        let mut searched = HashSet::new();
        let mut known: Vec<_> = self.state.read().manifests.values().cloned().collect();
        // Whoever lets go of an object because it is there must find it there.
        known.retain(|known| !known.is_gone);
        known.sort_by_key(|known| (!known.is_kept, known.manifest.snapshot));
        let entries = known.iter().flat_map(|known| &known.manifest.layers);
        let found = entries.filter(|entry| searched.insert(entry.name)).find(|entry| {
            let known = self.state.write().layer(entry.name);
            let layer = known.or_else(|| {
                let layer = self.layer_here(entry).map(Arc::new)?;
                self.state.write().enter(entry.name, &layer);
                Some(layer)
            });
            layer.is_some_and(|layer| layer.find(PackKind::of(kind), digest).is_some())
        });
        if let Some(entry) = found {
            self.state.write().needed.insert(entry.name);
        }
        found.is_some()
    }

    /// All manifests, those first that can be relied on.
    fn manifests(&self) -> Vec<Arc<Manifest>> {
        let mut known: Vec<_> = self.state.read().manifests.values().cloned().collect();
        known.sort_by_key(|known| (known.is_gone, !known.is_kept, known.manifest.snapshot));
        known.into_iter().map(|known| known.manifest).collect()
    }

    /// Brings layers here, and the manifests that are wanted, as far as they can be had. What cannot be is not known to be there.
    pub(crate) fn bring_all(&self) {
        let told = |what: &dyn fmt::Display, error: &Error| {
            tracing::warn!(%what, %error, "cannot be had; what it has counts as not there");
            is_unreachable(error)
        };
        for id in self.wanted() {
            if let Err(error) = self.want(id)
                && told(&id, &error)
            {
                return;
            }
        }
        let manifests = self.manifests();
        let mut met = HashSet::new();
        for entry in manifests.iter().flat_map(|manifest| &manifest.layers) {
            if met.insert(entry.name)
                && let Err(error) = self.layer(entry)
                && told(&entry.name.layer(), &error)
            {
                return;
            }
        }
    }

    /// Snapshots whose manifests the remote store may have, those first that it had; not those of which it said lately that it has none.
    fn wanted(&self) -> Vec<SnapshotId> {
        let now = now();
        let is_due = |wanted: &Wanted| wanted.unknown.is_none_or(|when| now.duration_since(when) > UNKNOWN);
        let state = self.state.read();
        let mut due: Vec<_> = state.wanted.iter().filter(|(_, wanted)| is_due(wanted)).collect();
        due.sort_by_key(|(_, wanted)| !wanted.was_there);
        due.into_iter().map(|(id, _)| *id).collect()
    }

    /// A manifest, if the remote store has it now.
    fn want(&self, id: SnapshotId) -> Result<Option<Arc<Manifest>>> {
        match self.manifest(id, &|| Ok(false)) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(Error::UnknownSnapshot(_)) => {
                if let Some(wanted) = self.state.write().wanted.get_mut(&id) {
                    wanted.unknown = Some(now());
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn in_memory(
        &self,
        kind: ObjectKind,
        digest: Digest,
        searched: &mut HashSet<RemoteName>,
    ) -> Option<(Arc<Layer>, Place)> {
        let state = self.state.read();
        let known: Vec<_> =
            state.layers.iter().map(|(name, loaded)| (*name, Arc::clone(&loaded.layer))).collect();
        drop(state);
        known.into_iter().find_map(|(name, layer)| {
            searched.insert(name);
            layer.find(PackKind::of(kind), digest).map(|place| (layer, place))
        })
    }

    fn in_manifest(
        &self,
        manifest: &Manifest,
        kind: ObjectKind,
        digest: Digest,
        searched: &mut HashSet<RemoteName>,
        first_error: &mut Option<Error>,
    ) -> Option<(Arc<Layer>, Place)> {
        let entries = manifest.layers.iter().filter(|entry| searched.insert(entry.name)).collect::<Vec<_>>();
        entries.into_iter().find_map(|entry| match self.layer(entry) {
            Ok(layer) => layer.find(PackKind::of(kind), digest).map(|place| (layer, place)),
            Err(error) => {
                first_error.get_or_insert(error);
                None
            }
        })
    }

    /// What to publish a snapshot on top of: itself if it is there; else a known one that has most of `marks`, objects of the
    /// snapshot, those of `near` before others; else nothing. Nothing that names an object of `avoided`. What it names may be gone all the same: see
    /// `Atlas::claim`. Error: it cannot be said whether the snapshot is there.
    pub fn parent(
        &self,
        id: SnapshotId,
        near: &[SnapshotId],
        marks: &[(ObjectKind, Digest)],
        avoided: &BTreeSet<String>,
    ) -> Result<Parent> {
        let there = match self.is_bound()? {
            true => self.look_up(id),
            false => Ok(Vec::new()),
        };
        // One that cannot be read is as good as none.
        let there = there.or_else(|error| if is_useless(&error) { Ok(Vec::new()) } else { Err(error) })?;
        let mut useless = Vec::new();
        for (name, manifest) in there {
            if !objects(name, &manifest).is_disjoint(avoided) {
                continue;
            }
            match self.parent_of(&manifest) {
                Ok(parent) => return Ok(Parent { itself: Some((name, manifest)), ..parent }),
                Err(error) if !is_useless(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(snapshot = %id, %error, "what was published of it cannot be read; it is published anew");
                    useless.push(name);
                }
            }
        }
        let mut candidates = near.to_vec();
        let mut others: Vec<_> = self.state.read().manifests.keys().copied().collect();
        others.sort_unstable();
        candidates.extend(others.into_iter().filter(|id| !near.contains(id)));
        let known = candidates.iter().filter_map(|id| self.state.read().manifests.get(id).cloned());
        let is_fit =
            |known: &Known| !known.is_avoided && !known.is_gone && known.objects().is_disjoint(avoided);
        let mut best = (0, Parent::default());
        for known in known.filter(|known| known.manifest.snapshot != id && is_fit(known)).take(CANDIDATES) {
            let parent = match self.parent_of(&known.manifest) {
                Ok(parent) => parent,
                Err(error) if !is_useless(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(snapshot = %known.manifest.snapshot, %error, "nothing is published on top of it");
                    continue;
                }
            };
            let common = marks.iter().filter(|(kind, digest)| parent.has(*kind, *digest)).count();
            if common > best.0 {
                best = (common, parent);
            }
        }
        Ok(Parent { useless, ..best.1 })
    }

    fn parent_of(&self, manifest: &Manifest) -> Result<Parent> {
        let layers = manifest.layers.iter().map(|entry| self.layer(entry)).collect::<Result<Vec<_>>>()?;
        let mut met = HashSet::new();
        if !layers.iter().flat_map(|layer| layer.packs()).all(|pack| met.insert(pack.name)) {
            return Err(Error::Malformed { what: "manifest", reason: "layers that name one pack" });
        }
        Ok(Parent { entries: manifest.layers.clone(), layers, ..Parent::default() })
    }

    /// Remembers layers that this host has made.
    pub(crate) fn made(&self, layers: &[(LayerEntry, Arc<Layer>)]) -> Result<()> {
        for (entry, layer) in layers {
            self.keep(&layer_file(entry), layer.bytes())?;
            self.state.write().enter(entry.name, layer);
        }
        Ok(())
    }

    /// Packs of files that were sent, by a publish that did not come to its end. They may be gone: see [`Atlas::claim`].
    pub(crate) fn sent(&self) -> Vec<Arc<Layer>> {
        self.state.read().sent.values().cloned().collect()
    }

    /// One more. Durable when it returns.
    pub(crate) fn add_sent(&self, pack: &Arc<Layer>) -> Result<()> {
        let name = pack.packs()[0].name;
        self.keep(&format!("{name}.sent"), pack.bytes())?;
        self.state.write().sent.insert(name, Arc::clone(pack));
        Ok(())
    }

    /// Forgets packs that were sent: they are in a layer now.
    pub(crate) fn settle_sent(&self, packs: &[RemoteName]) -> Result<()> {
        for name in packs {
            if self.state.write().sent.remove(name).is_some() {
                self.remove_file(&format!("{name}.sent"))?;
            }
        }
        Ok(())
    }

    /// Whether what is known is of this remote store; asks it once. False: nobody has published to it yet.
    fn is_bound(&self) -> Result<bool> {
        if self.state.read().bound.is_some() {
            return Ok(true);
        }
        match self.remote.read_whole(STORE_ID, STORE_ID_BYTES) {
            Err(Failure::NotFound(_)) => Ok(false),
            theirs => self.bind(theirs?).map(|()| true),
        }
    }

    /// Forgets what is known of a remote store that is called otherwise; but not which snapshots were asked for.
    pub(crate) fn bind(&self, theirs: Vec<u8>) -> Result<()> {
        let writing = self.writing.lock();
        if self.state.read().bound.as_ref() == Some(&theirs) {
            return Ok(());
        }
        let ours = match self.read_file(STORE_ID, STORE_ID_BYTES) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            ours => ours?,
        };
        if ours != theirs {
            if !ours.is_empty() {
                tracing::warn!(
                    "this is another remote store than before; what is known of it is asked for again"
                );
            }
            let names = self.disk.list(DIR).map_err(Error::io(self.disk.display(DIR)))?;
            names.iter().try_for_each(|name| self.remove_file(name))?;
            let mut state = self.state.write();
            let mut wanted = std::mem::take(&mut state.wanted);
            let was_there = Wanted { was_there: true, unknown: None };
            wanted.extend(state.manifests.keys().map(|id| (*id, was_there)));
            *state = State { wanted, ..State::default() };
        }
        drop(writing);
        if ours != theirs {
            self.lease.forget();
        }
        self.keep(STORE_ID, &theirs)?;
        self.state.write().bound = Some(theirs);
        Ok(())
    }

    /// A file of at most so many bytes.
    fn read_file(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
        let path = format!("{DIR}/{name}");
        let io = |error| Error::io(self.disk.display(&path))(error);
        let file = self.disk.open(&path, Open::Read).map_err(io)?;
        let len = file.len().map_err(io)?;
        if len > bytes_max {
            return Err(Error::Malformed {
                what: "file of the remote store",
                reason: "larger than it can be",
            });
        }
        let mut bytes = vec![0; len as usize];
        let read = file.read_at(&mut bytes, 0).map_err(io)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Whole or not at all.
    fn keep(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let _writing = self.writing.lock();
        let path = format!("{DIR}/{name}");
        put_whole(&*self.disk, DIR, NEW, &path, bytes).map_err(Error::io(self.disk.display(&path)))
    }

    fn remove_file(&self, name: &str) -> Result<()> {
        let path = format!("{DIR}/{name}");
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(self.disk.display(&path))(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// What a remote store is called; `name` is for one that nobody has published to.
pub(crate) fn initialize(remote: &dyn Remote, name: RemoteName) -> Result<Vec<u8>> {
    match remote.read_whole(STORE_ID, STORE_ID_BYTES) {
        Err(Failure::NotFound(_)) => {
            remote.create(STORE_ID, name.to_string().into_bytes())?;
            // Somebody else may have been faster.
            Ok(remote.read_whole(STORE_ID, STORE_ID_BYTES)?)
        }
        there => Ok(there?),
    }
}

fn manifest_file(id: SnapshotId, name: RemoteName, is_kept: bool) -> String {
    format!("{id}.{name}.{}", if is_kept { KEPT } else { OWN })
}

fn parse_manifest_file(stem: &str) -> Option<(SnapshotId, RemoteName)> {
    let (id, name) = stem.split_once('.')?;
    Some((id.parse().ok()?, RemoteName::parse(name)?))
}

fn layer_file(entry: &LayerEntry) -> String {
    format!("{}.layer", entry.name)
}

fn decode_layer(entry: &LayerEntry, bytes: Vec<u8>) -> Result<Layer> {
    if Digest::of(&bytes) != entry.digest {
        return Err(Error::Malformed { what: "layer", reason: "not the one of its manifest" });
    }
    Layer::decode(bytes)
}
