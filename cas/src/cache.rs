//! Objects in memory: the directories, lists and attribute sets that were asked for lately, and, in another one, chunks. Bounded in
//! bytes.
//!
//! What is here was checked when it was read from its pack (docs/decisions/0011), and an object never changes, so nothing here
//! can be out of date. An object that somebody holds outlives its eviction.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::{Digest, Object, hash::KeyedHash};

/// What an entry costs beside its bytes: table, queue, counts, allocator.
const ENTRY_BYTES: usize = 160;
/// Memory of evicted objects from this size on is used again, if nobody holds it: the heap would give it back, and every page
/// of the next object would be a fault (a third of the time that a chunk takes).
const SPARE_BYTES_MIN: usize = 64 << 10;

/// The objects that were asked for lately.
#[derive(Debug)]
pub(crate) struct Cache {
    bytes_max: usize,
    spares_max: usize,
    /// Held for look-ups and insertions, never across I/O.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    objects: HashMap<Digest, Slot, KeyedHash>,
    /// Every object once, in the order in which they are looked at for eviction.
    queue: VecDeque<Digest>,
    bytes: usize,
    /// Memory for the next objects, beyond the bound, the oldest first.
    spares: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct Slot {
    object: Object,
    /// Asked for since it was last looked at: it gets a second round.
    used: bool,
}

impl Cache {
    /// Nothing yet. Keeps memory of at most `spares_max` evicted objects for others.
    pub(crate) fn new(bytes_max: usize, spares_max: usize) -> Cache {
        Cache { bytes_max, spares_max, table: Mutex::default() }
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
            let memory = table.evict();
            table.keep(memory, self.spares_max);
        }
        object
    }

    /// Memory that an evicted object had, with what stood there, for one of `len` bytes that is to be put in; empty if there is none
    /// that is large enough, and not twice as large: the cache would be full of what nobody asked for.
    pub(crate) fn spare(&self, len: usize) -> Vec<u8> {
        let spares = &mut self.table.lock().spares;
        let fits = |memory: &Vec<u8>| (len..=2 * len).contains(&memory.capacity());
        spares.iter().position(fits).and_then(|at| spares.remove(at)).unwrap_or_default()
    }

    /// Takes memory back that was not used.
    pub(crate) fn give_back(&self, memory: Vec<u8>) {
        self.table.lock().keep(Some(memory), self.spares_max);
    }

    /// Forgets everything: fsck wants to know what the disk says.
    pub(crate) fn clear(&self) {
        *self.table.lock() = Table::default();
    }
}

impl Table {
    /// Removes the first object that was not asked for since it was last looked at; gives its memory, if nobody holds that.
    fn evict(&mut self) -> Option<Vec<u8>> {
        while let Some(digest) = self.queue.pop_front() {
            let Some(slot) = self.objects.get_mut(&digest) else { continue };
            if std::mem::take(&mut slot.used) {
                self.queue.push_back(digest);
                continue;
            }
            self.bytes -= cost(&slot.object);
            return self.objects.remove(&digest).and_then(|slot| slot.object.into_memory());
        }
        None
    }

    fn keep(&mut self, memory: Option<Vec<u8>>, spares_max: usize) {
        self.spares.extend(memory.filter(|memory| memory.capacity() >= SPARE_BYTES_MIN));
        if self.spares.len() > spares_max {
            self.spares.pop_front();
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
        (Digest::of(&n.to_le_bytes()), Object::new(vec![n as u8; len].into()))
    }

    #[test]
    fn what_is_asked_for_stays_and_the_bound_holds() {
        let cache = Cache::new(100 * (1000 + ENTRY_BYTES), 0);
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
    fn memory_that_nobody_holds_is_used_again() {
        const LEN: usize = SPARE_BYTES_MIN;
        let cache = Cache::new(2 * LEN + 2 * ENTRY_BYTES, 3);
        let objects = [1, 2, 3, 4].map(|n| object(n, LEN));
        let held = objects[1].1.clone();
        let first = objects[0].1.as_ptr();
        for (digest, bytes) in objects {
            cache.put(digest, bytes);
        }
        assert_eq!(held[0], 2);
        assert!(cache.spare(LEN + 1).is_empty() && cache.spare(LEN / 2 - 1).is_empty());
        let spare = cache.spare(LEN - 10);
        assert_eq!((spare.as_ptr(), spare.len()), (first, LEN));
        assert!(cache.spare(LEN).is_empty(), "the second is held, the others are not evicted");
        cache.give_back(spare);
        let again = cache.spare(LEN);
        assert_eq!(again.as_ptr(), first);
        (5..50).for_each(|n| drop(cache.put(object(n, LEN).0, object(n, LEN).1)));
        assert_eq!(cache.table.lock().spares.len(), 3);
    }

    #[test]
    fn an_object_beyond_the_bound_stays_until_the_next() {
        let cache = Cache::new(1000, 0);
        let ((large, bytes), (small, few)) = (object(1, 5000), object(2, 10));
        cache.put(large, bytes.clone());
        assert_eq!(cache.get(large).as_deref(), Some(&bytes[..]));
        cache.put(small, few);
        // It was asked for, so it had a second round; the small one goes first, and then there is one.
        assert_eq!(cache.table.lock().objects.len(), 1);
    }
}
