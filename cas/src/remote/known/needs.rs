//! What this host needs of the remote store, as its [lease](super::super::lease) says it there.
//!
//! A gc of this host finds it out, by a [`Census`]; who works with a snapshot holds it meanwhile. What neither names goes from the lease with the next census.

use std::{collections::BTreeSet, time::Duration};

use parking_lot::MutexGuard;

use super::{Atlas, manifests::Known, now};
use crate::{
    Digest, ObjectKind, Result, SnapshotId,
    remote::lease::{Held, Leased, absent},
};

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

impl Atlas {
    /// Says in the remote store what this host needs of it, as [gc](super::super::gc) wants to hear from time to time, and finds out whether all of that is
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
}
