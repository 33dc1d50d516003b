//! Extended attributes of one inode as canonical bytes. Equal sets are one object, however many inodes have them.

use std::collections::BTreeMap;

use crate::{
    Digest, Error, ObjectKind, Result, Store,
    fields::{u16_at, u32_at},
    store::Writer,
};

/// Name (with namespace, e.g. `user.k`) to value.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Bytes of a name: XATTR_NAME_MAX in linux/limits.h.
pub const NAME_LEN_MAX: usize = 255;
/// Bytes of a value: XATTR_SIZE_MAX in linux/limits.h.
pub const VALUE_LEN_MAX: usize = 64 << 10;
/// Bytes of an encoded set. The kernel lists at most 64 KiB of names (XATTR_LIST_MAX); common file systems hold less in all.
pub const TOTAL_LEN_MAX: usize = 1 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"AFxa");
const VERSION: u16 = 1;
/// magic u32, version u16, zero u16, count u32, heap_len u32.
const HEADER_LEN: usize = 16;
/// name_len u16, zero u16, value_len u32.
const RECORD_LEN: usize = 8;

impl Store {
    /// Reads the set `digest`.
    pub fn xattrs(&self, digest: Digest) -> Result<Xattrs> {
        decode(&self.object(ObjectKind::Xattrs, digest)?)
    }
}

impl Writer {
    /// Stores a set. None for an empty one.
    pub fn put_xattrs(&mut self, xattrs: &Xattrs) -> Result<Option<Digest>> {
        if xattrs.is_empty() {
            return Ok(None);
        }
        let bytes = encode(xattrs)?;
        let digest = Digest::of(&bytes);
        self.put_object(ObjectKind::Xattrs, digest, &bytes)?;
        Ok(Some(digest))
    }
}

/// The bytes of a set that is not empty. Fails if it is beyond the bounds.
pub fn encode(xattrs: &Xattrs) -> Result<Vec<u8>> {
    let heap_len: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    let len = HEADER_LEN + xattrs.len() * RECORD_LEN + heap_len;
    if xattrs.is_empty() || len > TOTAL_LEN_MAX {
        return Err(malformed("an empty or too large set"));
    }
    let mut out = Vec::with_capacity(len);
    out.extend(MAGIC.to_le_bytes());
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 2]);
    out.extend((xattrs.len() as u32).to_le_bytes());
    out.extend((heap_len as u32).to_le_bytes());
    for (name, value) in xattrs {
        check_pair(name, value.len())?;
        out.extend((name.len() as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in xattrs {
        out.extend(name);
        out.extend(value);
    }
    Ok(out)
}

/// The set that `bytes` stand for, if they are what [`encode`] gives for it.
pub fn decode(bytes: &[u8]) -> Result<Xattrs> {
    if !(HEADER_LEN..=TOTAL_LEN_MAX).contains(&bytes.len()) {
        return Err(malformed("length out of range"));
    }
    if u32_at(bytes, 0) != MAGIC || u16_at(bytes, 4) != VERSION || u16_at(bytes, 6) != 0 {
        return Err(malformed("not a set of version 1"));
    }
    let (count, heap_len) = (u32_at(bytes, 8), u32_at(bytes, 12));
    let table_len = u64::from(count) * RECORD_LEN as u64;
    if count == 0 || HEADER_LEN as u64 + table_len + u64::from(heap_len) != bytes.len() as u64 {
        return Err(malformed("length is not that of its table and heap"));
    }
    let (table, mut heap) = bytes[HEADER_LEN..].split_at(table_len as usize);
    let mut xattrs = Xattrs::new();
    for record in table.chunks_exact(RECORD_LEN) {
        if u16_at(record, 2) != 0 {
            return Err(malformed("a field that must be zero"));
        }
        let name = take(&mut heap, usize::from(u16_at(record, 0)))?;
        let value = take(&mut heap, u32_at(record, 4) as usize)?;
        check_pair(name, value.len())?;
        if xattrs.last_key_value().is_some_and(|(previous, _)| previous.as_slice() >= name) {
            return Err(malformed("names out of order or twice"));
        }
        xattrs.insert(name.to_vec(), value.to_vec());
    }
    if heap.is_empty() { Ok(xattrs) } else { Err(malformed("unused bytes in the heap")) }
}

fn take<'a>(heap: &mut &'a [u8], len: usize) -> Result<&'a [u8]> {
    heap.split_off(..len).ok_or(malformed("a name or value beyond the heap"))
}

fn check_pair(name: &[u8], value_len: usize) -> Result<()> {
    if !(1..=NAME_LEN_MAX).contains(&name.len()) || name.contains(&0) || value_len > VALUE_LEN_MAX {
        return Err(malformed("a name or value out of bounds"));
    }
    Ok(())
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: "extended attributes", reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(pairs: &[(&str, &str)]) -> Xattrs {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn bytes_are_pinned() {
        let bytes = encode(&set(&[("user.b", ""), ("user.a", "xyz")])).unwrap();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&bytes),
            "4146786101000000020000000f000000".to_owned()
                + "0600000003000000"
                + "0600000000000000"
                + "757365722e61"
                + "78797a"
                + "757365722e62"
        );
    }

    #[test]
    fn bounds_are_kept() {
        assert!(encode(&Xattrs::new()).is_err());
        let long = |name: usize, value: usize| Xattrs::from([(vec![b'n'; name], vec![0; value])]);
        assert!(encode(&long(NAME_LEN_MAX, VALUE_LEN_MAX)).is_ok());
        assert!(encode(&long(NAME_LEN_MAX + 1, 0)).is_err());
        assert!(encode(&long(1, VALUE_LEN_MAX + 1)).is_err());
        let many: Xattrs = (0..17).map(|n| (vec![n + 1], vec![0; VALUE_LEN_MAX])).collect();
        assert!(encode(&many).is_err());
    }

    proptest! {
        #[test]
        fn sets_survive_a_round_trip(
            xattrs in prop::collection::btree_map(
                prop::collection::vec(1u8.., 1..20),
                prop::collection::vec(any::<u8>(), 0..50),
                1..8,
            ),
            flip in any::<(prop::sample::Index, u8)>(),
        ) {
            let mut bytes = encode(&xattrs).unwrap();
            prop_assert_eq!(&decode(&bytes).unwrap(), &xattrs);
            let at = flip.0.index(bytes.len());
            bytes[at] ^= flip.1;
            if let Ok(other) = decode(&bytes) {
                prop_assert_eq!(encode(&other).unwrap(), bytes);
            }
        }

        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
