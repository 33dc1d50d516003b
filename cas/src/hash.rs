//! Hashing for tables whose keys are digests or numbers: a multiplication for each eight bytes, where the standard library's
//! takes a hundred instructions. Keyed by chance, so that nobody can choose names that meet in a table.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers of one table.
#[derive(Clone, Debug)]
pub struct KeyedHash(u64);

impl Default for KeyedHash {
    fn default() -> KeyedHash {
        KeyedHash(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

/// What was hashed so far.
#[derive(Clone, Debug)]
pub struct Folded(u64);

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // Both halves of the product depend on all bits of both factors; 2^64 divided by the golden ratio is one without
        // a pattern.
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write_usize(&mut self, length: usize) {
        self.write_u64(length as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_bit_of_a_key_counts_and_tables_differ() {
        let (one, other) = (KeyedHash(1), KeyedHash(2));
        let digests = (0..256).map(|bit| {
            let mut digest = [0u8; 32];
            digest[bit / 8] ^= 1 << (bit % 8);
            digest
        });
        let hashes: HashSet<u64> = digests.map(|digest| one.hash_one(digest)).collect();
        assert_eq!(hashes.len(), 256);
        assert_ne!(one.hash_one(7u64), other.hash_one(7u64));
        assert_ne!(one.hash_one([1u8, 2, 3].as_slice()), one.hash_one([1u8, 2, 3, 0].as_slice()));
        let low: HashSet<u64> = (0..1000u64).map(|n| one.hash_one(n << 40) & 0xfff).collect();
        assert!(low.len() > 700, "{} of 1000 in 4096 places", low.len());
    }
}
