//! Objects that came ahead of their reader, one of each frame: when one is read, the reader has come that far.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::layer::{Layer, Place};
use crate::Digest;

/// Frames that have come and were not read: of more, all are forgotten, and their readers ask when they find nothing.
const MARKS_MAX: usize = 4096;

/// See the module. Keeps no layer in memory: one that went is known anew when somebody misses something. Costs those nothing who read what did not come ahead, while there is none.
#[derive(Default)]
pub(super) struct Marks {
    count: AtomicUsize,
    /// Nothing is locked inside it.
    places: Mutex<HashMap<Digest, (Weak<Layer>, Place)>>,
}

impl Marks {
    /// Notes that an object stands for its frame.
    pub fn put(&self, digest: Digest, layer: &Arc<Layer>, place: Place) {
        let mut places = self.places.lock();
        if places.len() == MARKS_MAX {
            places.clear();
        }
        places.insert(digest, (Arc::downgrade(layer), place));
        self.count.store(places.len(), Relaxed);
    }

    /// Nothing that came until now stands for its frame any more.
    pub fn forget(&self) {
        let mut places = self.places.lock();
        places.clear();
        self.count.store(0, Relaxed);
    }

    /// An object is read. Returns its frame, if it stands for one: once.
    pub fn take(&self, digest: Digest) -> Option<(Arc<Layer>, Place)> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let mut places = self.places.lock();
        let found = places.remove(&digest);
        self.count.store(places.len(), Relaxed);
        let (layer, place) = found?;
        Some((layer.upgrade()?, place))
    }
}
