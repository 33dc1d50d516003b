//! Snapshots that stay for as long as somebody works on them: on their way to the remote store, or from another host, and in no session yet.

use std::sync::Arc;

use cas::SnapshotId;
use parking_lot::Mutex;

/// All of them; one that several work on is there several times.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<Vec<SnapshotId>>);

/// Snapshots that stay as long as this is there.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    ids: Vec<SnapshotId>,
}

impl Pins {
    /// The caller keeps gc away: one that runs has its roots already.
    pub(super) fn pin(self: &Arc<Pins>, ids: &[SnapshotId]) -> Pin {
        self.0.lock().extend(ids);
        Pin { pins: Arc::clone(self), ids: ids.to_vec() }
    }

    pub(super) fn snapshots(&self) -> Vec<SnapshotId> {
        self.0.lock().clone()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock();
        for id in &self.ids {
            if let Some(at) = pins.iter().position(|other| other == id) {
                pins.swap_remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cas::Digest;

    use super::*;

    #[test]
    fn a_snapshot_stays_until_the_last_one_is_done_with_it() {
        let (pins, a, b) = (Arc::<Pins>::default(), SnapshotId(Digest([1; 32])), SnapshotId(Digest([2; 32])));
        let (both, one) = (pins.pin(&[a, b]), pins.pin(&[a]));
        drop(both);
        assert_eq!(pins.snapshots(), [a]);
        drop(one);
        assert!(pins.snapshots().is_empty());
    }
}
