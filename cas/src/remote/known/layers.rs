//! Layers that are on this host: in memory, bounded, and in files.
//!
//! Which of them has an object is not decided here, nor who waits for whom: see [`objects`](super::objects).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Atlas,
    files::{is_layer_file, layer_file},
};
use crate::{
    Digest, Error, Result,
    remote::{layer::Layer, manifest::LayerEntry, name::RemoteName},
};

/// Bytes of layers in memory, but for the one that was read last: those of some ten million objects.
const LAYERS_BYTES_MAX: usize = 256 << 20;
/// Bytes of a layer that are asked for at a time.
const LAYER_PART: u64 = 4 << 20;

/// Those that are in memory.
#[derive(Debug, Default)]
pub(super) struct Layers {
    loaded: HashMap<RemoteName, Loaded>,
    /// Counts uses of them.
    uses: u64,
}

#[derive(Debug)]
struct Loaded {
    layer: Arc<Layer>,
    used: u64,
}

impl Layers {
    /// One of them, which is used by that.
    pub(super) fn get(&mut self, name: RemoteName) -> Option<Arc<Layer>> {
        self.uses += 1;
        let loaded = self.loaded.get_mut(&name)?;
        loaded.used = self.uses;
        Some(Arc::clone(&loaded.layer))
    }

    /// One more. If all have too many bytes, those go that were asked for longest ago.
    pub(super) fn enter(&mut self, name: RemoteName, layer: &Arc<Layer>) {
        self.uses += 1;
        self.loaded.insert(name, Loaded { layer: Arc::clone(layer), used: self.uses });
        let mut bytes: usize = self.loaded.values().map(|loaded| loaded.layer.bytes().len()).sum();
        while bytes > LAYERS_BYTES_MAX && self.loaded.len() > 1 {
            let oldest = self.loaded.iter().min_by_key(|(_, loaded)| loaded.used).map(|(name, _)| *name);
            let gone = oldest.and_then(|name| self.loaded.remove(&name));
            bytes -= gone.map_or(0, |loaded| loaded.layer.bytes().len());
        }
    }

    /// All, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RemoteName, &Arc<Layer>)> {
        self.loaded.iter().map(|(name, loaded)| (*name, &loaded.layer))
    }
}

impl Atlas {
    /// Remembers layers that this host has made.
    pub(crate) fn made(&self, layers: &[(LayerEntry, Arc<Layer>)]) -> Result<()> {
        for (entry, layer) in layers {
            self.files.write(&layer_file(entry.name), layer.bytes())?;
            self.state.write().layers.enter(entry.name, layer);
        }
        Ok(())
    }

    /// A layer, if its file is as it should be.
    pub(super) fn layer_here(&self, entry: &LayerEntry) -> Option<Layer> {
        let bytes = self.files.read(&layer_file(entry.name), entry.bytes).ok()?;
        decode_layer(entry, bytes).ok()
    }

    /// A layer of the remote store, which has a file here from now on. Errors: `Malformed`, `Remote`, the disk's.
    pub(super) fn bring_layer(&self, entry: &LayerEntry) -> Result<Layer> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < entry.bytes {
            let at = bytes.len() as u64;
            bytes.extend(self.remote.read(&entry.name.layer(), at..(at + LAYER_PART).min(entry.bytes))?);
        }
        let layer = decode_layer(entry, bytes)?;
        self.files.write(&layer_file(entry.name), layer.bytes())?;
        Ok(layer)
    }

    /// Removes layers that no manifest names any more.
    pub(super) fn drop_layers(&self) -> Result<()> {
        let state = self.state.read();
        let entries = state.manifests.values().flat_map(|known| &known.manifest.layers);
        let named: HashSet<_> = entries.map(|entry| layer_file(entry.name)).collect();
        drop(state);
        let names = self.files.list()?;
        let is_dropped = |name: &&String| is_layer_file(name) && !named.contains(*name);
        names.iter().filter(is_dropped).try_for_each(|name| self.files.remove(name))
    }
}

fn decode_layer(entry: &LayerEntry, bytes: Vec<u8>) -> Result<Layer> {
    if Digest::of(&bytes) != entry.digest {
        return Err(Error::Malformed { what: "layer", reason: "not the one of its manifest" });
    }
    Layer::decode(bytes)
}
