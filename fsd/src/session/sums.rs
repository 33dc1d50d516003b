//! Checksums of a segment's bytes: what was written where. Pure: no I/O.
//!
//! A sum is of bytes that stay as they were written. Before a place is overwritten in place its sums go, and the log says
//! so first: bytes may be newer than what a replay knows of them, never older. docs/decisions/0011 says what that leaves.

use std::{collections::BTreeMap, ops::Range};

use xxhash_rust::xxh3::xxh3_64;

/// Bytes under one sum, at most: what must be read to check one of them.
pub const SUM_BYTES_MAX: u64 = 64 << 10;

/// The checksum of a range of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The first byte, in the segment.
    pub offset: u64,
    /// Bytes, 1 to [`SUM_BYTES_MAX`].
    pub len: u64,
    /// Their XXH3-64.
    pub check: u64,
}

impl Sum {
    /// The sums of `data`, which stands at `offset`.
    pub fn of(data: &[u8], offset: u64) -> Vec<Sum> {
        let blocks = data.chunks(SUM_BYTES_MAX as usize).zip((offset..).step_by(SUM_BYTES_MAX as usize));
        blocks.map(|(block, offset)| Sum { offset, len: block.len() as u64, check: xxh3_64(block) }).collect()
    }

    /// Whether `bytes` are those that were summed up.
    pub fn fits(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.len && xxh3_64(bytes) == self.check
    }

    /// The place.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.len
    }
}

/// The sums of a segment; none of them overlap.
#[derive(Debug, Default)]
pub struct Sums(BTreeMap<u64, (u64, u64)>);

impl Sums {
    /// Adds a sum, in place of those that it overlaps.
    pub fn insert(&mut self, sum: Sum) {
        self.clear(sum.range());
        self.0.insert(sum.offset, (sum.len, sum.check));
    }

    /// Forgets every sum of which a byte is in `range`.
    pub fn clear(&mut self, range: Range<u64>) {
        // Most of what is written lies behind all that was.
        if self.0.last_key_value().is_none_or(|(offset, (len, _))| offset + len <= range.start) {
            return;
        }
        let touched: Vec<u64> = self.touching(range).map(|sum| sum.offset).collect();
        for offset in touched {
            self.0.remove(&offset);
        }
    }

    /// The sums of which a byte is in `range`, in order.
    pub fn touching(&self, range: Range<u64>) -> impl Iterator<Item = Sum> + '_ {
        // Of those that begin before it only the last can reach into it, however small they are.
        let before = self.0.range(..range.start).next_back();
        let before = before.filter(|(offset, (len, _))| *offset + len > range.start);
        let within = self.0.range(range.start..range.end.max(range.start));
        before.into_iter().chain(within).map(|(&offset, &(len, check))| Sum { offset, len, check })
    }

    /// Whether this very sum is still here.
    pub fn holds(&self, sum: &Sum) -> bool {
        self.0.get(&sum.offset) == Some(&(sum.len, sum.check))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn large_writes_have_a_sum_for_each_block() {
        let data = vec![7; SUM_BYTES_MAX as usize * 2 + 5];
        let sums = Sum::of(&data, 100);
        let ends: Vec<u64> = sums.iter().map(|sum| sum.range().end - 100).collect();
        assert_eq!(ends, [SUM_BYTES_MAX, 2 * SUM_BYTES_MAX, 2 * SUM_BYTES_MAX + 5]);
        assert!(sums[2].fits(&data[..5]) && !sums[2].fits(&data[..4]) && !sums[2].fits(&[7, 7, 6, 7, 7]));
    }

    proptest! {
        #[test]
        fn sums_are_found_by_any_byte_and_go_with_any(
            steps in prop::collection::vec((any::<bool>(), 0u64..300, 1u64..40), 0..60),
        ) {
            // Which sum each byte is under, by the number of its insertion.
            let (mut sums, mut bytes) = (Sums::default(), [0u64; 400]);
            for (n, (add, offset, len)) in (1u64..).zip(steps) {
                let hit: Vec<u64> = (offset..offset + len).map(|at| bytes[at as usize]).collect();
                bytes.iter_mut().filter(|byte| hit.contains(byte)).for_each(|byte| *byte = 0);
                if add {
                    sums.insert(Sum { offset, len, check: n });
                    bytes[offset as usize..(offset + len) as usize].fill(n);
                } else {
                    sums.clear(offset..offset + len);
                }
                for at in 0..400 {
                    let found = sums.touching(at..at + 1).next().map_or(0, |sum| sum.check);
                    prop_assert_eq!(found, bytes[at as usize]);
                }
            }
        }
    }
}
