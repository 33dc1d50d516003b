//! Which directories the kernel had better list anew. Policy alone: who tells it is [`notices`](super::notices).
//!
//! After a READ the kernel doubts the file's access time (`fuse_invalidate_atime`), so the next stat of the file asks the daemon,
//! a message for each file, although reading changes no access time here. A listing with attributes would answer for a whole
//! directory, but the kernel has kept that, too. So once enough files of a directory were read since it was listed, its listing
//! is worth less than a new one.

use std::collections::HashMap;

use parking_lot::Mutex;

/// A listing is dropped when at least one in so many of its files were read: an entry of a listing takes about a tenth of a
/// message's time.
const ENTRIES_A_READ: u32 = 8;
/// Directories that are remembered, of one mount; beyond that all are forgotten, and some stats will ask.
const DIRS_MAX: usize = 32_768;

/// The directories that the kernel has listed, by number.
#[derive(Debug, Default)]
pub(super) struct Relisting(Mutex<HashMap<u64, Listed>>);

#[derive(Debug, Default)]
struct Listed {
    entries: u32,
    /// Files in it that were read since.
    read: u32,
}

impl Relisting {
    /// The kernel was told of so many entries of a directory, from `offset` on.
    pub fn listed(&self, dir: u64, offset: u64, entries: u32) {
        let mut dirs = self.0.lock();
        if dirs.len() >= DIRS_MAX && !dirs.contains_key(&dir) {
            dirs.clear();
        }
        let listed = dirs.entry(dir).or_default();
        if offset == 0 {
            *listed = Listed::default();
        }
        listed.entries = listed.entries.saturating_add(entries);
    }

    /// The kernel has begun to read a file in a directory. True, once a listing: it should be dropped.
    pub fn read(&self, dir: u64) -> bool {
        let mut dirs = self.0.lock();
        let Some(listed) = dirs.get_mut(&dir) else { return false };
        listed.read += 1;
        let is_worn = listed.read * ENTRIES_A_READ >= listed.entries;
        if is_worn {
            dirs.remove(&dir);
        }
        is_worn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_dropped_once_when_enough_was_read() {
        let relisting = Relisting::default();
        assert!(!relisting.read(1), "it was never listed");
        relisting.listed(1, 0, 10);
        relisting.listed(1, 10, 7);
        relisting.listed(2, 0, 100);
        assert_eq!([1, 1, 2, 1].map(|dir| relisting.read(dir)), [false, false, false, true]);
        assert!(!relisting.read(1));
        relisting.listed(1, 0, 1);
        assert!(relisting.read(1));
    }

    #[test]
    fn there_is_a_bound() {
        let relisting = Relisting::default();
        (0..3 * DIRS_MAX as u64).for_each(|dir| relisting.listed(dir, 0, 1));
        assert!(relisting.0.lock().len() <= DIRS_MAX);
        assert!(relisting.read(3 * DIRS_MAX as u64 - 1));
    }
}
