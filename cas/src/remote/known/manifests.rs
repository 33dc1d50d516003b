//! Manifests: those that are known, those that may be in the remote store, and how one becomes known.
//!
//! One that is kept is in this host's lease: that is said first, and then looked whether it was in time.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Atlas, files::manifest_file, now};
use crate::{
    Error, Result, SnapshotId,
    remote::{
        Failure,
        lease::{Unfit, absent},
        manifest::{MANIFEST_BYTES_MAX, Manifest},
        name::{self, RemoteName},
    },
};

/// For so long the remote store is not asked again for a manifest that it has not.
const UNKNOWN: Duration = Duration::from_secs(60);
/// What was published from here is remembered to be published on top of: so many, the newest.
const OWN_MAX: usize = 64;

/// A manifest that is known.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) manifest: Arc<Manifest>,
    /// What it is called there.
    pub(super) name: RemoteName,
    /// It is in the lease.
    pub(super) is_kept: bool,
    /// Something that it names is condemned, so that nothing is published on top of it. It is there all the same.
    pub(super) is_avoided: bool,
    /// Something that it names is not there.
    pub(super) is_gone: bool,
    /// When somebody last asked for it.
    pub(super) used: Instant,
}

impl Known {
    pub(super) fn new(manifest: Arc<Manifest>, name: RemoteName, is_kept: bool) -> Known {
        Known { manifest, name, is_kept, is_avoided: false, is_gone: false, used: now() }
    }

    /// All that has to be there for it to be of use, but for packs: those go after their layers.
    pub(super) fn objects(&self) -> BTreeSet<String> {
        objects(self.name, &self.manifest)
    }
}

/// A snapshot whose manifest is not here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// It was there once.
    pub(super) was_there: bool,
    /// When the remote store said that it has none.
    pub(super) unknown: Option<Instant>,
}

impl Atlas {
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
    pub(super) fn look_up(&self, id: SnapshotId) -> Result<Vec<(RemoteName, Manifest)>> {
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
        self.files.write(&file, &manifest.encode())?;
        let before = before.map(|before| manifest_file(id, before.name, before.is_kept));
        if let Some(before) = before.filter(|before| *before != file) {
            self.files.remove(&before)?;
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
    pub(super) fn drop_manifest(&self, id: SnapshotId, is_right: impl FnOnce(&Known) -> bool) -> Result<()> {
        let _learning = self.learning.lock();
        let mut state = self.state.write();
        let Some(known) = state.manifests.get(&id).filter(|known| is_right(known)) else { return Ok(()) };
        let file = manifest_file(id, known.name, known.is_kept);
        // From here on whoever asks for it has it be in the lease anew, and waits to learn it.
        state.manifests.remove(&id);
        state.own.retain(|own| *own != id);
        drop(state);
        // It must not come back with power loss: what it names may be gone by then.
        self.files.remove(&file)?;
        self.files.sync()?;
        self.lease.let_go(id);
        Ok(())
    }

    /// All manifests, those first that can be relied on.
    pub(super) fn manifests(&self) -> Vec<Arc<Manifest>> {
        let mut known: Vec<_> = self.state.read().manifests.values().cloned().collect();
        known.sort_by_key(|known| (known.is_gone, !known.is_kept, known.manifest.snapshot));
        known.into_iter().map(|known| known.manifest).collect()
    }

    /// Snapshots whose manifests the remote store may have, those first that it had; not those of which it said lately that it has none.
    pub(super) fn wanted(&self) -> Vec<SnapshotId> {
        let now = now();
        let is_due = |wanted: &Wanted| wanted.unknown.is_none_or(|when| now.duration_since(when) > UNKNOWN);
        let state = self.state.read();
        let mut due: Vec<_> = state.wanted.iter().filter(|(_, wanted)| is_due(wanted)).collect();
        due.sort_by_key(|(_, wanted)| !wanted.was_there);
        due.into_iter().map(|(id, _)| *id).collect()
    }

    /// A manifest, if the remote store has it now.
    pub(super) fn want(&self, id: SnapshotId) -> Result<Option<Arc<Manifest>>> {
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
}

/// What a manifest of this name and the layers that it names are called there.
pub(super) fn objects(name: RemoteName, manifest: &Manifest) -> BTreeSet<String> {
    let layers = manifest.layers.iter().map(|entry| entry.name.layer());
    layers.chain([name::manifest(manifest.snapshot, name)]).collect()
}
