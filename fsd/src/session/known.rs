//! The inodes that a holder (the kernel, for a mount) may name by number: how often it was told of each, and where the
//! untouched ones are in the base. 33 bytes an inode with its key, and the table's slack; forgotten when the holder
//! forgets. Directories are kept by name alone, so that hundreds of thousands of known inodes do not keep the bytes of
//! their directories in memory.
//!
//! Locks: taken inside the session's state lock, never around it, and one shard at a time.

use std::collections::{HashMap, HashSet};

use cas::{
    Digest, Store,
    dir::{Dir, DirName},
    hash::KeyedHash,
};
use parking_lot::Mutex;

use super::{Result, tree::Place};

const SHARDS: usize = 16;

/// One known inode.
#[derive(Debug)]
struct Known {
    /// The directory that its entry is in; none for a changed inode.
    dir: Option<DirName>,
    /// Which of the directory's entries.
    index: u32,
    /// How often the holder was told of it. At its largest value it stays, and the inode is known until the holder is gone.
    lookups: u32,
    parent: u64,
}

// There are hundreds of thousands.
const _: () = assert!(size_of::<(u64, Known)>() <= 32);

impl Known {
    fn of(place: Option<Place>, parent: u64, lookups: u32) -> Known {
        let mut known = Known { dir: None, index: 0, lookups, parent };
        known.set_place(place);
        known
    }

    fn set_place(&mut self, place: Option<Place>) {
        self.index = place.as_ref().map_or(0, |place| place.index);
        self.dir = place.map(|place| place.dir.name());
    }

    /// The holder forgot it `count` times. True if it knows it no more.
    fn forget(&mut self, count: u64) -> bool {
        if self.lookups < u32::MAX {
            self.lookups = self.lookups.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        }
        self.lookups == 0
    }
}

#[derive(Debug, Default)]
struct Shard {
    inodes: HashMap<u64, Known, KeyedHash>,
    /// Of directories that were opened, their own objects. Known inodes all, and few of them.
    own: HashMap<u64, DirName, KeyedHash>,
}

/// The table.
#[derive(Debug, Default)]
pub struct KnownInodes {
    shards: [Mutex<Shard>; SHARDS],
}

impl KnownInodes {
    fn shard(&self, ino: u64) -> &Mutex<Shard> {
        // Fibonacci hashing: created numbers are consecutive, derived ones random; both spread.
        &self.shards[(ino.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize % SHARDS]
    }

    /// The holder is told once more of this inode.
    pub fn remember(&self, ino: u64, place: Option<Place>, parent: u64) {
        let mut shard = self.shard(ino).lock();
        let known = shard.inodes.entry(ino).or_insert(Known::of(None, parent, 0));
        known.lookups = known.lookups.saturating_add(1);
        known.parent = parent;
        if known.dir.is_none() {
            known.set_place(place);
        }
    }

    /// The holder forgot it `count` times. True if it knows the inode no more.
    pub fn forget(&self, ino: u64, count: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let gone = shard.inodes.get_mut(&ino).is_some_and(|known| known.forget(count));
        if gone {
            shard.inodes.remove(&ino);
            shard.own.remove(&ino);
        }
        gone
    }

    /// Whether the holder may still name it.
    pub fn contains(&self, ino: u64) -> bool {
        self.shard(ino).lock().inodes.contains_key(&ino)
    }

    /// In which directory it was found last.
    pub fn parent(&self, ino: u64) -> Option<u64> {
        self.shard(ino).lock().inodes.get(&ino).map(|known| known.parent)
    }

    /// Where it is in the base, and in which directory it was found last.
    pub fn place(&self, store: &Store, ino: u64) -> Result<Option<(Option<Place>, u64)>> {
        let found = self
            .shard(ino)
            .lock()
            .inodes
            .get(&ino)
            .map(|known| (known.dir.clone(), known.index, known.parent));
        let Some((dir, index, parent)) = found else { return Ok(None) };
        let open = |dir: DirName| Ok::<_, cas::Error>(Place { dir: dir.open(store)?, index });
        Ok(Some((dir.map(open).transpose()?, parent)))
    }

    /// A directory's own object, if it was opened before.
    pub fn own_dir(&self, store: &Store, ino: u64) -> Result<Option<Dir>> {
        let own = self.shard(ino).lock().own.get(&ino).cloned();
        Ok(own.map(|own| own.open(store)).transpose()?)
    }

    /// Remembers a directory's own object.
    pub fn set_own_dir(&self, ino: u64, dir: DirName) {
        let mut shard = self.shard(ino).lock();
        if shard.inodes.contains_key(&ino) {
            shard.own.insert(ino, dir);
        }
    }

    /// The base was swapped: the inode's entry is here now.
    pub fn relocate(&self, ino: u64, place: Place, parent: u64) {
        let mut shard = self.shard(ino).lock();
        if let Some(known) = shard.inodes.get_mut(&ino) {
            *known = Known::of(Some(place), parent, known.lookups);
            shard.own.remove(&ino);
        }
    }

    /// The inode was moved to another directory.
    pub fn set_parent(&self, ino: u64, parent: u64) {
        if let Some(known) = self.shard(ino).lock().inodes.get_mut(&ino) {
            known.parent = parent;
        }
    }

    /// The holder is gone.
    pub fn clear(&self) {
        self.shards.iter().for_each(|shard| *shard.lock() = Shard::default());
    }

    /// Every directory that is remembered here: those of bases that a seal replaced are nowhere else.
    pub fn dirs(&self) -> HashSet<Digest> {
        let mut dirs = HashSet::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let places = shard.inodes.values().filter_map(|known| known.dir.as_ref());
            dirs.extend(places.chain(shard.own.values()).map(DirName::digest));
        }
        dirs
    }

    /// How many inodes are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().inodes.len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFTEN: u64 = u32::MAX as u64;

    #[test]
    fn an_inode_is_known_until_it_was_forgotten_as_often_as_it_was_told() {
        let known = KnownInodes::default();
        (0..3).for_each(|_| known.remember(7, None, 1));
        assert!(!known.forget(7, 2) && known.contains(7));
        assert!(known.forget(7, 1) && !known.contains(7));
        assert!(!known.forget(7, 1), "nobody knows it");
        known.remember(7, None, 1);
        assert!(known.forget(7, OFTEN + 5), "more often than it was told");
    }

    #[test]
    fn a_full_count_stays() {
        let known = KnownInodes::default();
        known.remember(7, None, 1);
        known.shard(7).lock().inodes.get_mut(&7).unwrap().lookups = u32::MAX - 1;
        (0..2).for_each(|_| known.remember(7, None, 1));
        assert!(!known.forget(7, OFTEN + 1) && known.contains(7));
        known.clear();
        assert!(known.is_empty());
    }
}
