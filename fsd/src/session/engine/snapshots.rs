//! Snapshots of this host: made by seals and imports, kept as long as somebody needs them, and freed by gc.

use std::{collections::HashSet, path::Path, sync::atomic::AtomicBool};

use cas::{
    SnapshotId,
    store::{GcProgress, GcReport, Roots},
};

use super::{DISCARD_SOME, Engine, naming::check_label};
use crate::session::{
    Error, Limits, Result,
    inode::{BaseDir, Body, XattrSet},
    live::Session,
    pins::Pin,
    seal::{SealProgress, Sealed},
};

/// A snapshot that stays as long as this is there.
#[derive(Debug)]
pub struct Publishing {
    /// Which.
    pub snapshot: SnapshotId,
    _stays: Pin,
}

impl Engine {
    /// Seals a session. With `keep` the snapshot is listed and stays until it is removed; without, it lives with the session.
    pub fn seal(
        &self,
        session: &Session,
        keep: bool,
        progress: &mut dyn FnMut(SealProgress),
    ) -> Result<Sealed> {
        if keep {
            self.room_for_snapshot(None)?;
        }
        let _hold = self.shared.store.hold();
        let sealed = session.seal(progress)?;
        if keep {
            self.shared.store.keep(sealed.snapshot, None, self.shared.clock.now())?;
        }
        Ok(sealed)
    }

    /// Seals a session, and keeps the snapshot at least as long as the answer is there.
    pub fn seal_to_publish(
        &self,
        session: &Session,
        keep: bool,
        progress: &mut dyn FnMut(SealProgress),
    ) -> Result<Publishing> {
        let _hold = self.shared.store.hold();
        let snapshot = self.seal(session, keep, progress)?.snapshot;
        Ok(Publishing { snapshot, _stays: self.publishing.pin(&[snapshot]) })
    }

    /// Imports a directory as a snapshot and keeps it.
    pub fn import(
        &self,
        source: &Path,
        name: Option<&str>,
        progress: &(dyn Fn(cas::import::Progress) + Sync),
        cancel: &AtomicBool,
    ) -> Result<cas::import::Imported> {
        check_label(name)?;
        self.room_for_snapshot(name)?;
        let _hold = self.shared.store.hold();
        let imported = cas::import::import(&self.shared.store, source, progress, cancel)?;
        self.shared.store.keep(imported.id, name, self.shared.clock.now())?;
        Ok(imported)
    }

    /// Takes a snapshot off the list. Error: `InUse` if a session stands on it.
    pub fn forget_snapshot(&self, id: SnapshotId) -> Result<()> {
        let _naming = self.naming.lock();
        if let Some(session) = self.sessions().iter().find(|session| session.meta.origin == id) {
            return Err(Error::InUse(id, session.meta.id));
        }
        Ok(self.shared.store.forget(id)?)
    }

    /// Frees what no snapshot and no session reaches. Waits for imports and seals that are under way.
    pub fn gc(&self, dry_run: bool, progress: &mut dyn FnMut(GcProgress)) -> Result<GcReport> {
        let mut unsettled = None;
        let roots = || {
            let roots = self.gc_roots();
            // Behind the roots: what the log may bring back after power loss must not be older than they are.
            self.shared.durability.settle().map(|()| roots).map_err(|error| {
                unsettled = Some(error);
                cas::Error::Cancelled
            })
        };
        let report = self.shared.store.gc(roots, dry_run, progress);
        match unsettled {
            Some(error) => Err(error),
            None => Ok(report?),
        }
    }

    /// What sessions refer to in the store. Asked for while no seal is under way.
    pub(in crate::session) fn gc_roots(&self) -> Roots {
        let mut roots = Roots::default();
        roots.snapshots.push(self.empty);
        roots.snapshots.extend(self.publishing.snapshots());
        // Of the others nobody says that they are here.
        let opening = self.opening.snapshots().into_iter();
        roots.snapshots.extend(opening.filter(|id| self.shared.store.hangs(*id)));
        roots.snapshots.extend(self.lent.snapshots(self.shared.clock.now().secs));
        let (mut remembered, mut hanging) = ([HashSet::new(), HashSet::new()], Box::<Roots>::default());
        for session in self.sessions() {
            let state = session.peek();
            let hangs = self.shared.store.hangs(state.base);
            remembered[usize::from(hangs)].extend(session.known.dirs());
            let roots = match hangs {
                true => &mut *hanging,
                false => &mut roots,
            };
            roots.snapshots.extend([state.base, session.meta.origin]);
            for inode in state.inodes.values() {
                match &inode.body {
                    Body::File(file) => roots.contents.extend(file.base.map(|blob| blob.content)),
                    Body::Dir(base) => roots.dirs.extend(base.as_ref().map(BaseDir::digest)),
                    Body::Symlink(_) | Body::Special => {}
                }
                if let XattrSet::Base(digest) = inode.xattrs {
                    roots.xattrs.extend(digest);
                }
            }
        }
        [roots.dir_objects, hanging.dir_objects] = remembered.map(|dirs| dirs.into_iter().collect());
        roots.hanging = Some(hanging);
        roots
    }

    /// Before anything is written for it. Those that are under way at once may all be let in.
    pub(super) fn room_for_snapshot(&self, name: Option<&str>) -> Result<()> {
        let (Limits { snapshots_max, names_max, .. }, store) = (self.shared.limits, &self.shared.store);
        let (snapshots, names) = store.kept_counts()?;
        if snapshots >= snapshots_max as u64 {
            return Err(Error::TooMany { what: "snapshots", max: snapshots_max, advice: DISCARD_SOME });
        }
        if let Some(name) = name
            && names >= names_max as u64
            && store.named(name)?.is_none()
        {
            let advice = "discard snapshots that have some, or use one again";
            return Err(Error::TooMany { what: "names of snapshots", max: names_max, advice });
        }
        Ok(())
    }
}
