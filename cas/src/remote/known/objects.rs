//! Where objects are: the layer that has one, of those that are here or can be brought.
//!
//! While a layer is brought here, who needs the same one waits for it, and nobody else.

use std::{
    collections::HashSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Atlas, now};
use crate::{
    Digest, Error, ObjectKind, Result,
    record::PackKind,
    remote::{
        is_unreachable,
        layer::{Layer, Place},
        manifest::{LayerEntry, Manifest},
        name::RemoteName,
    },
};

/// For so long whoever asks for what could not be had is told so without asking again.
const REFUSED: Duration = Duration::from_secs(2);

/// Held by who brings a layer here. What became of it the last time, if nothing.
pub(super) type Loading = Mutex<Option<(Instant, Arc<Error>)>>;

impl Atlas {
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

    /// Where an object is, by a layer that is in memory.
    pub(crate) fn place_in_memory(&self, kind: ObjectKind, digest: Digest) -> Option<(Arc<Layer>, Place)> {
        self.in_memory(kind, digest, &mut HashSet::new())
    }

    /// Where an object is, by a layer that is here. Asks nobody.
    pub(crate) fn place_here(&self, kind: ObjectKind, digest: Digest) -> Option<(Arc<Layer>, Place)> {
        let mut searched = HashSet::new();
        if let Some(found) = self.in_memory(kind, digest, &mut searched) {
            return Some(found);
        }
        let manifests = self.manifests();
        let entries = manifests.iter().flat_map(|manifest| &manifest.layers);
        entries.filter(|entry| searched.insert(entry.name)).find_map(|entry| {
            let layer = self.load_layer(entry)?;
            layer.find(PackKind::of(kind), digest).map(|place| (layer, place))
        })
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
            self.load_layer(entry).is_some_and(|layer| layer.find(PackKind::of(kind), digest).is_some())
        });
        if let Some(entry) = found {
            self.state.write().needed.insert(entry.name);
        }
        found.is_some()
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

    /// A layer that is here, in memory from then on.
    fn load_layer(&self, entry: &LayerEntry) -> Option<Arc<Layer>> {
        if let Some(known) = self.state.write().layers.get(entry.name) {
            return Some(known);
        }
        let layer = self.layer_here(entry).map(Arc::new)?;
        self.state.write().layers.enter(entry.name, &layer);
        Some(layer)
    }

    /// A layer, of which a manifest says this. Errors: `Malformed`, `Remote`.
    pub(super) fn layer(&self, entry: &LayerEntry) -> Result<Arc<Layer>> {
        if let Some(known) = self.state.write().layers.get(entry.name) {
            return Ok(known);
        }
        let loading = Arc::clone(self.loading.lock().entry(entry.name).or_default());
        let mut refused = loading.lock();
        if let Some(known) = self.state.write().layers.get(entry.name) {
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
        self.state.write().layers.enter(entry.name, &layer);
        self.loading.lock().remove(&entry.name);
        Ok(layer)
    }

    fn in_memory(
        &self,
        kind: ObjectKind,
        digest: Digest,
        searched: &mut HashSet<RemoteName>,
    ) -> Option<(Arc<Layer>, Place)> {
        let state = self.state.read();
        let known: Vec<_> = state.layers.iter().map(|(name, layer)| (name, Arc::clone(layer))).collect();
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
}
