//! The inodes that a holder (the kernel, for a mount) may name by number: how often it was told of each, and where the
//! untouched ones are in the base. About 56 bytes an inode with its key, and the table's slack; forgotten when the holder
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
    /// The directory that its entry is in, and which one that is.
    place: Option<(DirName, u32)>,
    parent: u64,
    /// A directory's own object, once it was opened.
    own: Option<DirName>,
    lookups: u64,
}

type Shard = HashMap<u64, Known, KeyedHash>;

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
        let known = shard.entry(ino).or_insert(Known { place: None, parent, own: None, lookups: 0 });
        known.lookups += 1;
        known.parent = parent;
        if known.place.is_none() {
            known.place = place.map(|place| (place.dir.name(), place.index));
        }
    }

    /// The holder forgot it `count` times. True if it knows the inode no more.
    pub fn forget(&self, ino: u64, count: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(known) = shard.get_mut(&ino) else { return false };
        known.lookups = known.lookups.saturating_sub(count);
        let gone = known.lookups == 0;
        if gone {
            shard.remove(&ino);
        }
        gone
    }

    /// Whether the holder may still name it.
    pub fn contains(&self, ino: u64) -> bool {
        self.shard(ino).lock().contains_key(&ino)
    }

    /// In which directory it was found last.
    pub fn parent(&self, ino: u64) -> Option<u64> {
        self.shard(ino).lock().get(&ino).map(|known| known.parent)
    }

    /// Where it is in the base, and in which directory it was found last.
    pub fn place(&self, store: &Store, ino: u64) -> Result<Option<(Option<Place>, u64)>> {
        let found = self.shard(ino).lock().get(&ino).map(|known| (known.place.clone(), known.parent));
        let Some((place, parent)) = found else { return Ok(None) };
        let open = |(dir, index): (DirName, u32)| Ok::<_, cas::Error>(Place { dir: dir.open(store)?, index });
        Ok(Some((place.map(open).transpose()?, parent)))
    }

    /// A directory's own object, if it was opened before.
    pub fn own_dir(&self, store: &Store, ino: u64) -> Result<Option<Dir>> {
        let own = self.shard(ino).lock().get(&ino).and_then(|known| known.own.clone());
        Ok(own.map(|own| own.open(store)).transpose()?)
    }

    /// Remembers a directory's own object.
    pub fn set_own_dir(&self, ino: u64, dir: DirName) {
        if let Some(known) = self.shard(ino).lock().get_mut(&ino) {
            known.own = Some(dir);
        }
    }

    /// The base was swapped: the inode's entry is here now.
    pub fn relocate(&self, ino: u64, place: Place, parent: u64) {
        if let Some(known) = self.shard(ino).lock().get_mut(&ino) {
            let place = Some((place.dir.name(), place.index));
            *known = Known { place, parent, own: None, lookups: known.lookups };
        }
    }

    /// The inode was moved to another directory.
    pub fn set_parent(&self, ino: u64, parent: u64) {
        if let Some(known) = self.shard(ino).lock().get_mut(&ino) {
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
            for known in shard.lock().values() {
                let place = known.place.as_ref().map(|(dir, _)| dir);
                dirs.extend(place.into_iter().chain(&known.own).map(DirName::digest));
            }
        }
        dirs
    }

    /// How many inodes are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
