//! The snapshot record: the root's own attributes and its dir object. Its digest is the snapshot's ID.

use crate::{
    Attrs, Digest, Error, ObjectKind, Result, SnapshotId, Store,
    fields::{digest_at, digest_bytes, time_at, u16_at, u32_at},
    store::Writer,
};

const MAGIC: u32 = u32::from_le_bytes(*b"AFsn");
const VERSION: u16 = 1;
/// Bytes of a record.
const LEN: usize = 112;
// magic, version and zero; mode, uid, gid, nlink; seconds; nanoseconds; digests.
const _: () = assert!(8 + 16 + 16 + 8 + 64 == LEN);

/// An immutable tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Attributes of the root directory (its inode number is always 1).
    pub attrs: Attrs,
    /// Extended attributes of the root.
    pub xattrs: Option<Digest>,
    /// The root's dir object.
    pub dir: Digest,
}

impl Store {
    /// Reads the snapshot `id`.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Snapshot> {
        let object = self.object(ObjectKind::Snapshot, id.0).map_err(|error| match error {
            Error::Missing(_) => Error::UnknownSnapshot(id),
            error => error,
        })?;
        Snapshot::decode(&object)
    }
}

impl Writer {
    /// Stores a snapshot's record. What it refers to must have been put before.
    pub fn put_snapshot(&mut self, snapshot: &Snapshot) -> Result<SnapshotId> {
        let bytes = snapshot.encode()?;
        let digest = Digest::of(&bytes);
        self.put_object(ObjectKind::Snapshot, digest, &bytes)?;
        Ok(SnapshotId(digest))
    }
}

impl Snapshot {
    /// The bytes of the record. Fails if the attributes are not those of a directory.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let attrs = &self.attrs;
        if attrs.size != 0 || attrs.rdev != 0 {
            return Err(malformed("a root with a size or a device number"));
        }
        let mut out = Vec::with_capacity(LEN);
        out.extend(MAGIC.to_le_bytes());
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 2]);
        for field in [attrs.mode, attrs.uid, attrs.gid, attrs.nlink] {
            out.extend(field.to_le_bytes());
        }
        out.extend(attrs.mtime.secs.to_le_bytes());
        out.extend(attrs.ctime.secs.to_le_bytes());
        out.extend(attrs.mtime.nanos.to_le_bytes());
        out.extend(attrs.ctime.nanos.to_le_bytes());
        out.extend(digest_bytes(self.xattrs));
        out.extend(self.dir.0);
        Snapshot::decode(&out)?;
        Ok(out)
    }

    /// The snapshot that `bytes` stand for, if they are what [`Snapshot::encode`] gives for it.
    pub fn decode(bytes: &[u8]) -> Result<Snapshot> {
        if bytes.len() != LEN {
            return Err(malformed("length out of range"));
        }
        if u32_at(bytes, 0) != MAGIC || u16_at(bytes, 4) != VERSION || u16_at(bytes, 6) != 0 {
            return Err(malformed("not a snapshot of version 1"));
        }
        let attrs = Attrs {
            mode: u32_at(bytes, 8),
            uid: u32_at(bytes, 12),
            gid: u32_at(bytes, 16),
            nlink: u32_at(bytes, 20),
            rdev: 0,
            size: 0,
            mtime: time_at(bytes, 24, 40),
            ctime: time_at(bytes, 32, 44),
        };
        if attrs.mode > 0o7777 || attrs.nlink < 2 || !attrs.mtime.is_valid() || !attrs.ctime.is_valid() {
            return Err(malformed("attributes out of range"));
        }
        let dir = digest_at(bytes, 80).ok_or(malformed("no dir object"))?;
        Ok(Snapshot { attrs, xattrs: digest_at(bytes, 48), dir })
    }
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: "snapshot", reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;
    use proptest::prelude::*;

    fn sample() -> Snapshot {
        let attrs = Attrs {
            mode: 0o755,
            uid: 1000,
            gid: 100,
            nlink: 3,
            rdev: 0,
            size: 0,
            mtime: Time { secs: 1_700_000_000, nanos: 123_456_789 },
            ctime: Time { secs: -1, nanos: 999_999_999 },
        };
        Snapshot { attrs, xattrs: None, dir: Digest([0xab; 32]) }
    }

    #[test]
    fn bytes_are_pinned() {
        let expected = "4146736e01000000".to_owned()
            + "ed010000e80300006400000003000000"
            + "00f1536500000000ffffffffffffffff"
            + "15cd5b07ffc99a3b"
            + &"00".repeat(32)
            + &"ab".repeat(32);
        assert_eq!(data_encoding::HEXLOWER.encode(&sample().encode().unwrap()), expected);
    }

    #[test]
    fn a_root_is_a_directory() {
        let mut snapshot = sample();
        snapshot.attrs.size = 1;
        assert!(snapshot.encode().is_err());
        snapshot.attrs.size = 0;
        snapshot.attrs.mtime.nanos = 1_000_000_000;
        assert!(snapshot.encode().is_err());
    }

    proptest! {
        #[test]
        fn only_canonical_bytes_are_accepted(flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4)) {
            let mut bytes = sample().encode().unwrap();
            for (at, flip) in flips {
                let at = at.index(LEN);
                bytes[at] ^= flip;
            }
            if let Ok(snapshot) = Snapshot::decode(&bytes) {
                prop_assert_eq!(snapshot.encode().unwrap(), bytes);
            }
        }
    }
}
