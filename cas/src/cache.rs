//! Objects in memory: the directories, lists and attribute sets that were asked for lately. Bounded in bytes.
//!
//! What is here was checked when it was read from its pack (docs/decisions/0011), and an object never changes, so nothing here
//! can be out of date. An object that somebody holds outlives its eviction.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::{Digest, Object, hash::KeyedHash};

/// What an entry costs beside its bytes: table, queue, counts, allocator.
const ENTRY_BYTES: usize = 160;

/// The objects that were asked for lately.
#[derive(Debug)]
pub(crate) struct Cache {
    bytes_max: usize,
    /// Held for look-ups and insertions, never across I/O.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    objects: HashMap<Digest, Slot, KeyedHash>,
    /// Every object once, in the order in which they are looked at for eviction.
    queue: VecDeque<Digest>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    object: Object,
    /// Asked for since it was last looked at: it gets a second round.
    used: bool,
}

impl Cache {
    /// Nothing yet.
    pub(crate) fn new(bytes_max: usize) -> Cache {
        Cache { bytes_max, table: Mutex::default() }
    }

    /// The object, if it is here.
    pub(crate) fn get(&self, digest: Digest) -> Option<Object> {
        let mut table = self.table.lock();
        let slot = table.objects.get_mut(&digest)?;
        slot.used = true;
        Some(slot.object.clone())
    }

    /// Puts a checked object in. Gives back the one to use: all who ask for a digest share its bytes.
    pub(crate) fn put(&self, digest: Digest, object: Object) -> Object {
        let mut table = self.table.lock();
        if let Some(first) = table.objects.get(&digest) {
            return first.object.clone();
        }
        table.bytes += cost(&object);
        table.queue.push_back(digest);
        table.objects.insert(digest, Slot { object: object.clone(), used: false });
        // One object stays however large it is: whoever reads a file of terabytes asks for its list again and again.
        while table.bytes > self.bytes_max && table.queue.len() > 1 {
            table.evict();
        }
        object
    }

    /// Forgets everything: fsck wants to know what the disk says.
    pub(crate) fn clear(&self) {
        *self.table.lock() = Table::default();
    }
}

impl Table {
    /// Removes the first object that was not asked for since it was last looked at.
    fn evict(&mut self) {
        while let Some(digest) = self.queue.pop_front() {
            let Some(slot) = self.objects.get_mut(&digest) else { continue };
            if std::mem::take(&mut slot.used) {
                self.queue.push_back(digest);
                continue;
            }
            self.bytes -= cost(&slot.object);
            self.objects.remove(&digest);
            return;
        }
    }
}

fn cost(object: &Object) -> usize {
    object.memory_bytes() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(n: u32, len: usize) -> (Digest, Object) {
        (Digest::of(&n.to_le_bytes()), Object::new(vec![n as u8; len]))
    }

    #[test]
    fn what_is_asked_for_stays_and_the_bound_holds() {
        let cache = Cache::new(100 * (1000 + ENTRY_BYTES));
        let (hot, bytes) = object(0, 1000);
        cache.put(hot, bytes);
        for n in 1..1000 {
            let (digest, bytes) = object(n, 1000);
            cache.put(digest, bytes);
            assert!(cache.get(hot).is_some(), "{n}");
            let table = cache.table.lock();
            assert!(table.bytes <= cache.bytes_max && table.queue.len() == table.objects.len());
        }
        assert_eq!(cache.table.lock().objects.len(), 100);
        assert!(cache.get(object(1, 0).0).is_none() && cache.get(object(999, 0).0).is_some());
    }

    #[test]
    fn an_object_beyond_the_bound_stays_until_the_next() {
        let cache = Cache::new(1000);
        let ((large, bytes), (small, few)) = (object(1, 5000), object(2, 10));
        cache.put(large, bytes.clone());
        assert_eq!(cache.get(large).as_deref(), Some(&bytes[..]));
        cache.put(small, few);
        // It was asked for, so it had a second round; the small one goes first, and then there is one.
        assert_eq!(cache.table.lock().objects.len(), 1);
    }
}
