//! What a publish asks of what is known, and adds to it: what it can be built on, and what it has sent.
//!
//! Nothing here is sure to be there still: [`Atlas::claim`] finds that out, once the lease names it.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{
    Atlas,
    files::sent_file,
    manifests::{Known, objects},
};
use crate::{
    Digest, Error, ObjectKind, Result, SnapshotId,
    remote::{
        is_useless,
        layer::Layer,
        lease::{Held, Leased, Unfit},
        manifest::{LayerEntry, Manifest},
        name::{self, RemoteName},
        publish::Parent,
    },
};

/// Snapshots that are looked at for one to publish on top of.
const CANDIDATES: usize = 16;

impl Atlas {
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

    /// Packs of files that were sent, by a publish that did not come to its end. They may be gone: see [`Atlas::claim`].
    pub(crate) fn sent(&self) -> Vec<Arc<Layer>> {
        self.state.read().sent.values().cloned().collect()
    }

    /// One more. Durable when it returns.
    pub(crate) fn add_sent(&self, pack: &Arc<Layer>) -> Result<()> {
        let name = pack.packs()[0].name;
        self.files.write(&sent_file(name), pack.bytes())?;
        self.state.write().sent.insert(name, Arc::clone(pack));
        Ok(())
    }

    /// Forgets packs that were sent: they are in a layer now.
    pub(crate) fn settle_sent(&self, packs: &[RemoteName]) -> Result<()> {
        for name in packs {
            if self.state.write().sent.remove(name).is_some() {
                self.files.remove(&sent_file(*name))?;
            }
        }
        Ok(())
    }
}
