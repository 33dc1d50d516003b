//! The manifest of a published snapshot: the layers that hold all of it.
//!
//! Pure: bytes in, values out. It is written last, so who reads one finds everything that it names. A layer is what its entry says it is, by
//! digest, and so is every object; who writes lies into a manifest can keep a snapshot from being read, and cannot change what is
//! read. docs/format.md is normative.

use xxhash_rust::xxh3::xxh3_64;

use super::{layer::LAYER_BYTES_MAX, name::RemoteName};
use crate::{
    Digest, Error, Result, SnapshotId,
    fields::{array, u16_at, u32_at, u64_at},
};

const MAGIC: u32 = u32::from_le_bytes(*b"AFrm");
const VERSION: u16 = 1;
const HEADER: usize = 64;
const ENTRY: usize = 56;
const SUM: usize = 8;
// magic, version and zeros; snapshot; files, bytes; layers and zeros. name; digest; bytes.
const _: () = assert!(HEADER == 8 + 32 + 16 + 8 && ENTRY == 16 + 32 + 8);
/// Layers of a snapshot: who publishes on top of so many makes one of some of them.
pub const LAYERS_MAX: usize = 64;
/// Bytes of the largest manifest.
pub const MANIFEST_BYTES_MAX: u64 = (HEADER + LAYERS_MAX * ENTRY + SUM) as u64;

/// Where everything of a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Names in its tree, but for the root.
    pub files: u64,
    /// Bytes of its regular files.
    pub bytes: u64,
    /// The layers, the oldest first.
    pub layers: Vec<LayerEntry>,
}

/// What a manifest says of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerEntry {
    /// Its name.
    pub name: RemoteName,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many those are.
    pub bytes: u64,
}

impl Manifest {
    /// The bytes of the manifest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.layers.len() * ENTRY + SUM);
        out.extend(MAGIC.to_le_bytes());
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.snapshot.0.0);
        out.extend(self.files.to_le_bytes());
        out.extend(self.bytes.to_le_bytes());
        out.extend((self.layers.len() as u32).to_le_bytes());
        out.extend([0; 4]);
        for layer in &self.layers {
            out.extend(layer.name.0);
            out.extend(layer.digest.0);
            out.extend(layer.bytes.to_le_bytes());
        }
        out.extend(xxh3_64(&out).to_le_bytes());
        out
    }

    /// The manifest of `snapshot` that `bytes` stand for, if they are what [`Manifest::encode`] gives for it.
    pub fn decode(snapshot: SnapshotId, bytes: &[u8]) -> Result<Manifest> {
        if bytes.len() < HEADER + SUM {
            return Err(malformed("shorter than a manifest can be"));
        }
        if u32_at(bytes, 0) != MAGIC || u16_at(bytes, 4) != VERSION || bytes[6..8] != [0; 2] {
            return Err(malformed("not a manifest of version 1"));
        }
        let (body, sum) = bytes.split_at(bytes.len() - SUM);
        if u64_at(sum, 0) != xxh3_64(body) {
            return Err(malformed("the checksum is wrong"));
        }
        let count = u32_at(body, 56) as usize;
        if count == 0 || count > LAYERS_MAX || body[60..64] != [0; 4] || body.len() != HEADER + count * ENTRY
        {
            return Err(malformed("another length than it says"));
        }
        if array::<32>(body, 8) != snapshot.0.0 {
            return Err(malformed("of another snapshot"));
        }
        let layer = |entry: &[u8]| LayerEntry {
            name: RemoteName(array(entry, 0)),
            digest: Digest(array(entry, 16)),
            bytes: u64_at(entry, 48),
        };
        let layers: Vec<_> = body[HEADER..].chunks_exact(ENTRY).map(layer).collect();
        if !layers.iter().all(|layer| (1..=LAYER_BYTES_MAX).contains(&layer.bytes)) {
            return Err(malformed("a layer's length out of range"));
        }
        if (1..count).any(|nth| layers[..nth].iter().any(|other| other.name == layers[nth].name)) {
            return Err(malformed("a layer that is there twice"));
        }
        Ok(Manifest { snapshot, files: u64_at(body, 40), bytes: u64_at(body, 48), layers })
    }
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: "manifest", reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::remote::tests::{flipped, flips};

    fn sample(layers: u8) -> Manifest {
        let layer = |nth| LayerEntry {
            name: RemoteName([nth; 16]),
            digest: Digest([0xf0 | nth; 32]),
            bytes: 1_000_000,
        };
        let layers = (1..=layers).map(layer).collect();
        Manifest { snapshot: SnapshotId(Digest([7; 32])), files: 80_000, bytes: 1 << 30, layers }
    }

    #[test]
    fn bytes_are_pinned() {
        let bytes = sample(1).encode();
        let expected = "4146726d01000000".to_owned()
            + &"07".repeat(32)
            + "80380100000000000000004000000000"
            + "0100000000000000"
            + &"01".repeat(16)
            + &"f1".repeat(32)
            + "40420f0000000000";
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes[..bytes.len() - 8]), expected);
    }

    #[test]
    fn it_is_of_one_snapshot() {
        let manifest = sample(3);
        assert_eq!(Manifest::decode(manifest.snapshot, &manifest.encode()).unwrap(), manifest);
        assert!(Manifest::decode(SnapshotId(Digest([8; 32])), &manifest.encode()).is_err());
    }

    proptest! {
        #[test]
        fn only_canonical_bytes_are_accepted(
            layers in 1_u8..5,
            flips in flips(),
        ) {
            let manifest = sample(layers);
            let bytes = flipped(manifest.encode(), flips);
            if let Ok(decoded) = Manifest::decode(manifest.snapshot, &bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
        }
    }
}
