//! What this host knows of the remote store: manifests, layers, and packs that it has sent and that are in no layer yet.
//!
//! Nothing of it changes but by going, so it is kept in files beside the store, each written whole, and read again at the next start.
//! What is missing or damaged there is fetched again. All of it is of one remote store, which has an ID of its own: what is known of
//! another one (a new address, a bucket that was emptied) is forgotten, and asked for again.
//!
//! Nothing is locked while the remote store is asked, but what keeps others from asking for the same.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};

use super::{
    Failure, Remote, is_unreachable, is_useless,
    layer::{LAYER_BYTES_MAX, Layer, Place},
    manifest::{LayerEntry, MANIFEST_BYTES_MAX, Manifest},
    name::{self, RemoteName, STORE_ID},
    publish::Parent,
};
use crate::{
    Digest, Error, ObjectKind, Result, SnapshotId,
    disk::{Disk, Open},
    record::PackKind,
};

/// Where it is kept.
const DIR: &str = "store/remote";
const NEW: &str = "store/remote/new";
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

/// All that is known.
#[derive(Debug)]
pub struct Atlas {
    disk: Arc<dyn Disk>,
    remote: Arc<dyn Remote>,
    state: RwLock<State>,
    /// Held by who writes a file.
    writing: Mutex<()>,
    /// Layers that somebody is bringing here.
    loading: Mutex<HashMap<RemoteName, Arc<Loading>>>,
}

/// Held by who brings a layer here. What became of it the last time, if nothing.
type Loading = Mutex<Option<(Instant, Arc<Error>)>>;

#[derive(Debug, Default)]
struct State {
    /// What the remote store is called that all this is of, once it was asked.
    bound: Option<Vec<u8>>,
    manifests: HashMap<SnapshotId, Arc<Manifest>>,
    layers: HashMap<RemoteName, Loaded>,
    /// Counts uses of layers.
    uses: u64,
    sent: BTreeMap<RemoteName, Arc<Layer>>,
    /// Snapshots whose manifests are not here and may be in the remote store.
    wanted: BTreeMap<SnapshotId, Wanted>,
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
    /// Reads what is known in the folder `store/remote` of a disk. `maybe` are snapshots that the remote store may have. Error: the disk's.
    pub fn open(disk: Arc<dyn Disk>, remote: Arc<dyn Remote>, maybe: Vec<SnapshotId>) -> Result<Atlas> {
        disk.create_dir(DIR).map_err(Error::io(disk.display(DIR)))?;
        let names = disk.list(DIR).map_err(Error::io(disk.display(DIR)))?;
        let atlas = Atlas {
            disk,
            remote,
            state: RwLock::default(),
            writing: Mutex::new(()),
            loading: Mutex::default(),
        };
        let mut state = State::default();
        for file in &names {
            let Some((stem, kind)) = file.split_once('.') else { continue };
            match kind {
                "manifest" if let Ok(id) = stem.parse::<SnapshotId>() => {
                    let read = atlas.read_file(file, MANIFEST_BYTES_MAX);
                    match read.and_then(|bytes| Manifest::decode(id, &bytes)) {
                        Ok(manifest) => drop(state.manifests.insert(id, Arc::new(manifest))),
                        Err(error) => {
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

    /// The manifest of a published snapshot. Errors: `UnknownSnapshot`, `Malformed`, `Remote`.
    pub fn manifest(&self, id: SnapshotId) -> Result<Arc<Manifest>> {
        if !self.is_bound()? {
            return Err(Error::UnknownSnapshot(id));
        }
        if let Some(known) = self.state.read().manifests.get(&id) {
            return Ok(Arc::clone(known));
        }
        let bytes =
            self.remote.read_whole(&name::manifest(id), MANIFEST_BYTES_MAX).map_err(
                |failure| match failure {
                    Failure::NotFound(_) => Error::UnknownSnapshot(id),
                    failure => failure.into(),
                },
            )?;
        self.learn(Manifest::decode(id, &bytes)?)
    }

    /// Remembers a manifest that is in the remote store.
    pub fn learn(&self, manifest: Manifest) -> Result<Arc<Manifest>> {
        self.keep(&format!("{}.manifest", manifest.snapshot), &manifest.encode())?;
        let manifest = Arc::new(manifest);
        let mut state = self.state.write();
        state.wanted.remove(&manifest.snapshot);
        state.manifests.insert(manifest.snapshot, Arc::clone(&manifest));
        Ok(manifest)
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
        let manifests: Vec<_> = self.state.read().manifests.values().cloned().collect();
        for manifest in manifests {
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
        if self.in_memory(kind, digest, &mut searched).is_some() {
            return true;
        }
        let manifests: Vec<_> = self.state.read().manifests.values().cloned().collect();
        let entries = manifests.iter().flat_map(|manifest| &manifest.layers);
        entries.filter(|entry| searched.insert(entry.name)).any(|entry| {
            let layer = self.layer_here(entry).map(Arc::new);
            if let Some(layer) = &layer {
                self.state.write().enter(entry.name, layer);
            }
            layer.is_some_and(|layer| layer.find(PackKind::of(kind), digest).is_some())
        })
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
        let manifests: Vec<_> = self.state.read().manifests.values().cloned().collect();
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
        match self.manifest(id) {
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
    /// snapshot, those of `near` before others; else nothing. Error: it cannot be said whether it is there.
    pub fn parent(
        &self,
        id: SnapshotId,
        near: &[SnapshotId],
        marks: &[(ObjectKind, Digest)],
    ) -> Result<Parent> {
        let replaces = match self.manifest(id).and_then(|manifest| self.parent_of(&manifest)) {
            Ok(parent) => return Ok(parent),
            Err(Error::UnknownSnapshot(_)) => false,
            // One that cannot be read, or that names what is not there, is replaced.
            Err(error) if is_useless(&error) => {
                tracing::warn!(snapshot = %id, %error, "what was published of it cannot be read; it is published anew");
                true
            }
            Err(error) => return Err(error),
        };
        let mut candidates = near.to_vec();
        let mut others: Vec<_> = self.state.read().manifests.keys().copied().collect();
        others.sort_unstable();
        candidates.extend(others.into_iter().filter(|id| !near.contains(id)));
        let known = candidates.iter().filter_map(|id| self.state.read().manifests.get(id).cloned());
        let mut best = (0, Parent { replaces, ..Parent::default() });
        for manifest in known.filter(|manifest| manifest.snapshot != id).take(CANDIDATES) {
            let parent = match self.parent_of(&manifest) {
                Ok(parent) => parent,
                Err(error) if !is_useless(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(snapshot = %manifest.snapshot, %error, "nothing is published on top of it");
                    continue;
                }
            };
            let common = marks.iter().filter(|(kind, digest)| parent.has(*kind, *digest)).count();
            if common > best.0 {
                best = (common, Parent { replaces, ..parent });
            }
        }
        Ok(best.1)
    }

    fn parent_of(&self, manifest: &Manifest) -> Result<Parent> {
        let layers = manifest.layers.iter().map(|entry| self.layer(entry)).collect::<Result<Vec<_>>>()?;
        // They are known here, and may be gone there.
        for LayerEntry { name, bytes, .. } in &manifest.layers {
            self.remote.read(&name.layer(), bytes - 1..*bytes)?;
        }
        let mut met = HashSet::new();
        if !layers.iter().flat_map(|layer| layer.packs()).all(|pack| met.insert(pack.name)) {
            return Err(Error::Malformed { what: "manifest", reason: "layers that name one pack" });
        }
        Ok(Parent { entries: manifest.layers.clone(), layers, replaces: false })
    }

    /// Remembers layers that this host has made.
    pub(crate) fn made(&self, layers: &[(LayerEntry, Arc<Layer>)]) -> Result<()> {
        for (entry, layer) in layers {
            self.keep(&layer_file(entry), layer.bytes())?;
            self.state.write().enter(entry.name, layer);
        }
        Ok(())
    }

    /// Packs of files that were sent, by a publish that did not come to its end, if they still are there.
    pub(crate) fn sent(&self) -> Vec<Arc<Layer>> {
        let sent: Vec<_> = self.state.read().sent.values().cloned().collect();
        let is_there = |layer: &Arc<Layer>| {
            let end = layer.range(0, 0..layer.frame_count(0)).end;
            self.remote.read(&layer.packs()[0].name.pack(), end - 1..end).is_ok()
        };
        // What cannot be said to be there is sent again.
        sent.into_iter().filter(is_there).collect()
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
        let io = |error| Error::io(self.disk.display(&path))(error);
        self.remove_file("new")?;
        let file = self.disk.open(NEW, Open::Create).map_err(io)?;
        file.write_at(bytes, 0).and_then(|()| file.sync()).map_err(io)?;
        self.disk.rename(NEW, &path).and_then(|()| self.disk.sync_dir(DIR)).map_err(io)
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

fn layer_file(entry: &LayerEntry) -> String {
    format!("{}.layer", entry.name)
}

fn decode_layer(entry: &LayerEntry, bytes: Vec<u8>) -> Result<Layer> {
    if Digest::of(&bytes) != entry.digest {
        return Err(Error::Malformed { what: "layer", reason: "not the one of its manifest" });
    }
    Layer::decode(bytes)
}
