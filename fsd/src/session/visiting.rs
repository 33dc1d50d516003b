//! What the engine has to do with snapshots that hang on other hosts: which do, for how long, and which are this host's own.

use std::sync::atomic::Ordering;

use cas::{SnapshotId, remote::hanging::Origin};

use super::{Engine, Result, pins::Pin};

/// So many more than there were after the last time, and those that nobody needs are forgotten: each seal of a session that hangs adds one, and writes all of them.
pub(super) const HANGING_STEP: usize = 1024;

impl Engine {
    /// Has what was opened on another host hang on it, but for what is this host's own, whoever says that it is his. It stays so as long as the answer is
    /// there, and no gc takes it for nobody's. Errors: the disk's, and that too many hang.
    pub fn visit(&self, ids: &[SnapshotId], place: &str) -> Result<Pin> {
        let store = self.store();
        let _hold = store.hold();
        for &snapshot in ids {
            if !self.is_own(snapshot)? {
                store.hang(&[snapshot], &Origin { place: place.to_owned(), snapshot })?;
            }
        }
        Ok(self.opening.pin(ids))
    }

    /// Whether a snapshot is one of this host's that hangs on nobody: then all of it is here, or in the remote store. For who keeps gc away.
    fn is_own(&self, id: SnapshotId) -> Result<bool> {
        let store = self.store();
        if store.hangs(id) {
            return Ok(false);
        }
        let stands = self.sessions().iter().any(|s| s.meta.origin == id || s.peek().base == id);
        let is_lent = || self.lent().has(id, self.clock().now().secs);
        Ok(stands || id == self.empty() || is_lent() || store.keeps(id)?)
    }

    /// What hangs goes on to do so as long as the answer is there.
    pub(super) fn stay(&self, ids: &[SnapshotId]) -> Pin {
        let _hold = self.store().hold();
        self.opening.pin(ids)
    }

    /// Forgets what hangs and is nobody's, now and then, without a gc. Nothing is waited for: what runs may take an hour.
    pub(super) fn forget_hanging(&self) {
        let store = self.store();
        if store.hanging_count() < self.hung.load(Ordering::Relaxed) + HANGING_STEP {
            return;
        }
        let live = || {
            let roots = self.gc_roots();
            let hanging = roots.hanging.map(|hanging| hanging.snapshots).unwrap_or_default();
            // As in a gc: what the log may bring back after power loss must not be older.
            self.durability().settle().ok()?;
            Some(roots.snapshots.into_iter().chain(hanging).collect())
        };
        match store.forget_hanging(live) {
            Ok(true) => self.hung.store(store.hanging_count(), Ordering::Relaxed),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "cannot forget what hangs on peers and is not needed"),
        }
    }
}
