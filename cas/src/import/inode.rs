//! Inode numbers of imported files: derived from their paths, so that a tree gets the same ones on every host and again
//! when it is imported anew, and what git remembers of a checkout stays true.

use std::collections::HashSet;

use crate::Digest;

/// Numbers are drawn from 2 up to 2^61 + 1. Sessions count theirs from 2^62 on.
const MASK: u64 = (1 << 61) - 1;

/// Numbers given so far in one import.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    used: HashSet<u64>,
    #[cfg(test)]
    pub(super) mask: Option<u64>,
}

impl Numbers {
    /// The number of the file at `path` (relative to the root, without a leading slash). Two paths in one tree never share
    /// one: a path whose number is taken is hashed again with a counter. In tree order this is deterministic.
    pub(super) fn assign(&mut self, path: &[u8]) -> u64 {
        let mut number = self.number(path);
        let mut salted = path.to_vec();
        for round in 1u32.. {
            if self.used.insert(number) {
                break;
            }
            salted.truncate(path.len());
            salted.push(0); // No path has a NUL, so no other path is hashed like this.
            salted.extend(round.to_le_bytes());
            number = self.number(&salted);
        }
        number
    }

    fn number(&self, bytes: &[u8]) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = Digest::of(bytes).0;
        let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        #[cfg(test)]
        let hash = hash & self.mask.unwrap_or(u64::MAX);
        (hash & MASK) + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pinned() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.assign(b"a/b"), 719_089_369_080_636_175);
        assert_eq!(numbers.assign(b"a/b"), 143_365_712_633_811_738);
    }

    #[test]
    fn numbers_never_collide() {
        let mut numbers = Numbers { mask: Some(0x3ff), ..Numbers::default() };
        let mut again = Numbers { mask: Some(0x3ff), ..Numbers::default() };
        let mut seen = HashSet::new();
        for n in 0..700 {
            let path = format!("dir/{n}");
            let number = numbers.assign(path.as_bytes());
            assert!(seen.insert(number) && (2..1 << 62).contains(&number));
            assert_eq!(again.assign(path.as_bytes()), number);
        }
    }
}
