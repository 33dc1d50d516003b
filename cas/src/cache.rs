//! Objects in memory: the directories, lists and attribute sets that were asked for lately. Bounded in bytes.
//!
//! What is here was checked when it was read from its pack (docs/decisions/0011), and an object never changes, so nothing here
//! can be out of date. An object that somebody holds outlives its eviction.
//!
//! Of those that went it is known for a while what was checked of them. When one is read again, its record's checksum says that the bytes are
//! the same.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::{Digest, Object, hash::KeyedHash, object::Passed};

/// What an entry costs beside its bytes: table, queue, counts, allocator.
const ENTRY_BYTES: usize = 160;
/// Objects that went of which it is known what was checked: less than 1 MiB, and directories of 500 MiB if they are wide.
const PASSED_MAX: usize = 8192;

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
    /// Of objects that are not here any more, each once in the queue beside it, oldest first.
    passed: HashMap<Digest, Passed, KeyedHash>,
    gone: VecDeque<Digest>,
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

    /// What was found of an object that is not here any more.
    pub(crate) fn passed(&self, digest: Digest) -> Option<Passed> {
        self.table.lock().passed.get(&digest).copied()
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
            let passed = slot.object.passed();
            self.objects.remove(&digest);
            return self.note(digest, passed);
        }
    }

    fn note(&mut self, digest: Digest, passed: Passed) {
        if self.passed.insert(digest, passed).is_some() {
            return;
        }
        self.gone.push_back(digest);
        if self.gone.len() > PASSED_MAX
            && let Some(oldest) = self.gone.pop_front()
        {
            self.passed.remove(&oldest);
        }
    }
}

fn cost(object: &Object) -> usize {
    object.memory_bytes() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectKind;

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
    fn what_was_found_of_an_object_that_went_is_known_for_a_while() {
        let cache = Cache::new(0);
        let (first, bytes) = object(0, 10);
        bytes.check_once(ObjectKind::Dir, || Ok(())).unwrap();
        let passed = bytes.passed();
        assert_ne!(passed, Passed::default());
        cache.put(first, bytes);
        assert_eq!(cache.passed(first), None, "it is here");
        for n in 1..=PASSED_MAX as u32 {
            let (digest, bytes) = object(n, 10);
            cache.put(digest, bytes);
            assert_eq!(cache.passed(first), Some(passed), "{n}");
        }
        for n in 0..2 {
            let (digest, bytes) = object(PASSED_MAX as u32 + 1 + n, 10);
            cache.put(digest, bytes);
        }
        assert_eq!(cache.passed(first), None);
        let table = cache.table.lock();
        assert_eq!((table.passed.len(), table.gone.len()), (PASSED_MAX, PASSED_MAX));
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
