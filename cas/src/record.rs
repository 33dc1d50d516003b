//! The bytes of a pack: its header and the header in front of every object. docs/format.md is normative.
//!
//! Pure: bytes in, values out. Knows nothing of files, the index, or what an object's bytes mean.

use xxhash_rust::xxh3::xxh3_64;

use crate::{Digest, ObjectKind};

/// Records, and thus payloads, begin at multiples of this.
pub(crate) const ALIGN: u64 = 64;
/// Bytes of a pack's header.
pub(crate) const PACK_HEADER: usize = 64;
/// Bytes in front of an object's payload.
pub(crate) const RECORD_HEADER: usize = 64;
/// Bytes of the largest object.
pub const OBJECT_BYTES_MAX: usize = 64 << 20;
/// Bytes of the largest pack. A pack's map reserves as much address space.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
/// The version that this code writes, and the newest that it reads.
pub(crate) const PACK_VERSION: u32 = 2;
/// The one whose chunks have no sums.
const VERSION_WITHOUT_SUMS: u32 = 1;
/// Bytes of a chunk under one sum: so much is read and checked of it at least.
pub(crate) const BLOCK_BYTES: usize = 1 << BLOCK_SHIFT;
const BLOCK_SHIFT: u8 = 14;
/// Bytes of a sum.
const SUM_BYTES: usize = 8;

const PACK_MAGIC: [u8; 8] = *b"AETHPACK";
const RECORD_MAGIC: [u8; 4] = *b"AREC";
/// Where either header's own checksum stands.
const CHECKSUM_AT: usize = 56;

const _: () = assert!(PACK_HEADER as u64 == ALIGN && RECORD_HEADER as u64 == ALIGN);
const _: () = assert!(PACK_HEADER == CHECKSUM_AT + 8 && RECORD_HEADER == CHECKSUM_AT + 8);
const _: () = assert!(PACK_BYTES_MAX >= OBJECT_BYTES_MAX as u64 + 2 * ALIGN);

/// What a pack holds. Chunks stand apart from the rest, so that a walk of the tree does not drag file data along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum PackKind {
    /// Chunks.
    Data = 1,
    /// Lists, dir objects, pages, xattrs, snapshots.
    Meta = 2,
}

impl PackKind {
    pub(crate) fn from_u8(value: u8) -> Option<PackKind> {
        Some(match value {
            1 => PackKind::Data,
            2 => PackKind::Meta,
            _ => return None,
        })
    }

    /// Where objects of this kind go.
    pub(crate) fn of(kind: ObjectKind) -> PackKind {
        match kind {
            ObjectKind::Chunk => PackKind::Data,
            ObjectKind::List
            | ObjectKind::Dir
            | ObjectKind::DirPage
            | ObjectKind::Xattrs
            | ObjectKind::Snapshot => PackKind::Meta,
        }
    }

    /// What such a pack's name ends with.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            PackKind::Data => "data",
            PackKind::Meta => "meta",
        }
    }
}

impl ObjectKind {
    /// The kind that a number stands for in pack records, and between hosts.
    pub fn from_number(number: u8) -> Option<ObjectKind> {
        ObjectKind::from_u8(number)
    }

    pub(crate) fn from_u8(value: u8) -> Option<ObjectKind> {
        Some(match value {
            1 => ObjectKind::Chunk,
            2 => ObjectKind::List,
            3 => ObjectKind::Dir,
            4 => ObjectKind::DirPage,
            5 => ObjectKind::Xattrs,
            6 => ObjectKind::Snapshot,
            _ => return None,
        })
    }
}

/// The first 64 bytes of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackHeader {
    pub(crate) kind: PackKind,
    pub(crate) id: u64,
    /// Whether chunks of more than a block have sums in front of them. Those of the first version have none.
    pub(crate) has_sums: bool,
}

/// Why the first 64 bytes of a file are not a pack's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// A later version wrote it.
    Newer(u32),
    /// It is not a header.
    Foreign(&'static str),
}

impl PackHeader {
    pub(crate) fn encode(&self) -> [u8; PACK_HEADER] {
        let mut bytes = [0; PACK_HEADER];
        bytes[..8].copy_from_slice(&PACK_MAGIC);
        let version = if self.has_sums { PACK_VERSION } else { VERSION_WITHOUT_SUMS };
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[12] = self.kind as u8;
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; PACK_HEADER]) -> Result<PackHeader, BadHeader> {
        if bytes[..8] != PACK_MAGIC {
            return Err(BadHeader::Foreign("no pack magic"));
        }
        if !sealed(bytes) {
            return Err(BadHeader::Foreign("the header's checksum is wrong"));
        }
        let version = u32_at(bytes, 8);
        if version > PACK_VERSION {
            return Err(BadHeader::Newer(version));
        }
        let kind = PackKind::from_u8(bytes[12]).ok_or(BadHeader::Foreign("unknown kind of pack"))?;
        let header =
            PackHeader { kind, id: u64_at(bytes, 16), has_sums: u32_at(bytes, 8) != VERSION_WITHOUT_SUMS };
        if header.encode() == *bytes { Ok(header) } else { Err(BadHeader::Foreign("reserved bytes are set")) }
    }
}

/// The 64 bytes in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) kind: ObjectKind,
    /// Bytes of the payload.
    pub(crate) len: u32,
    pub(crate) digest: Digest,
    /// Whether sums of the payload's blocks stand in front of it.
    pub(crate) has_sums: bool,
    /// xxh3 of the sums, else of the payload.
    pub(crate) checksum: u64,
}

impl RecordHeader {
    /// The header for `payload`, whose digest is `digest`, behind `sums` if it has any.
    pub(crate) fn of(kind: ObjectKind, digest: Digest, sums: &[u8], payload: &[u8]) -> RecordHeader {
        assert!(payload.len() <= OBJECT_BYTES_MAX, "the writer checks the size");
        let has_sums = !sums.is_empty();
        let checksum = xxh3_64(if has_sums { sums } else { payload });
        RecordHeader { kind, len: payload.len() as u32, digest, has_sums, checksum }
    }

    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER] {
        let mut bytes = [0; RECORD_HEADER];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4] = self.kind as u8;
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12] = if self.has_sums { BLOCK_SHIFT } else { 0 };
        bytes[16..48].copy_from_slice(&self.digest.0);
        bytes[48..56].copy_from_slice(&self.checksum.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; RECORD_HEADER]) -> Result<RecordHeader, &'static str> {
        if bytes[..4] != RECORD_MAGIC {
            return Err("no record begins here");
        }
        if !sealed(bytes) {
            return Err("the record header's checksum is wrong");
        }
        let kind = ObjectKind::from_u8(bytes[4]).ok_or("unknown kind of object")?;
        let mut digest = [0; 32];
        digest.copy_from_slice(&bytes[16..48]);
        let header = RecordHeader {
            kind,
            len: u32_at(bytes, 8),
            digest: Digest(digest),
            has_sums: bytes[12] != 0,
            checksum: u64_at(bytes, 48),
        };
        if header.len as usize > OBJECT_BYTES_MAX {
            return Err("the record is longer than any object");
        }
        if header.has_sums && sums_bytes(kind, header.len) == 0 {
            return Err("the record has sums that it cannot have");
        }
        if header.encode() == *bytes {
            Ok(header)
        } else {
            Err("reserved bytes of the record header are set")
        }
    }

    /// Whether `payload`, behind `sums` if there are any, is what was written.
    pub(crate) fn matches(&self, sums: &[u8], payload: &[u8]) -> bool {
        let is_whole = payload.len() == self.len as usize && sums.len() == self.sums_bytes();
        is_whole
            && match self.has_sums {
                true => self.matches_sums(sums) && sums == sums_of(self.kind, payload),
                false => xxh3_64(payload) == self.checksum,
            }
    }

    /// Whether `sums`, of a record that has some, are what was written.
    pub(crate) fn matches_sums(&self, sums: &[u8]) -> bool {
        xxh3_64(sums) == self.checksum
    }

    /// Bytes of the sums between this header and the payload.
    pub(crate) fn sums_bytes(&self) -> usize {
        if self.has_sums { sums_bytes(self.kind, self.len) } else { 0 }
    }

    /// Bytes from this record to the next one.
    pub(crate) fn span(&self) -> u64 {
        span(self.sums_bytes(), self.len)
    }
}

/// Bytes that a record with a payload of `len` bytes takes, padding included.
pub(crate) fn record_span(kind: ObjectKind, len: u32) -> u64 {
    span(sums_bytes(kind, len), len)
}

fn span(sums_bytes: usize, len: u32) -> u64 {
    ((RECORD_HEADER + sums_bytes) as u64 + u64::from(len)).next_multiple_of(ALIGN)
}

/// Bytes of the sums in front of a payload: none but of a chunk that has more than one block.
pub(crate) fn sums_bytes(kind: ObjectKind, len: u32) -> usize {
    match kind == ObjectKind::Chunk && len as usize > BLOCK_BYTES {
        true => ((len as usize).div_ceil(BLOCK_BYTES) * SUM_BYTES).next_multiple_of(ALIGN as usize),
        false => 0,
    }
}

/// The sums of a payload's blocks, as they stand in front of it.
pub(crate) fn sums_of(kind: ObjectKind, payload: &[u8]) -> Vec<u8> {
    let mut sums = vec![0; sums_bytes(kind, payload.len() as u32)];
    for (place, block) in sums.chunks_exact_mut(SUM_BYTES).zip(payload.chunks(BLOCK_BYTES)) {
        place.copy_from_slice(&xxh3_64(block).to_le_bytes());
    }
    sums
}

/// The sum of one block.
pub(crate) fn sum_at(sums: &[u8], block: usize) -> u64 {
    u64_at(sums, block * SUM_BYTES)
}

fn seal(bytes: &mut [u8; 64]) {
    let checksum = xxh3_64(&bytes[..CHECKSUM_AT]);
    bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
}

fn sealed(bytes: &[u8; 64]) -> bool {
    xxh3_64(&bytes[..CHECKSUM_AT]) == u64_at(bytes, CHECKSUM_AT)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    #[test]
    fn headers_have_the_bytes_that_the_format_says() {
        let pack = PackHeader { kind: PackKind::Meta, id: 0x1234, has_sums: true };
        let first_version = PackHeader { has_sums: false, ..pack };
        let record = RecordHeader::of(ObjectKind::Dir, Digest::of(b"abc"), &[], b"abc");
        pinned("pack", &pack.encode(), PACK_GOLDEN);
        pinned("pack of the first version", &first_version.encode(), PACK_1_GOLDEN);
        pinned("record", &record.encode(), RECORD_GOLDEN);
        assert_eq!(PackHeader::decode(&first_version.encode()), Ok(first_version));
        assert_eq!(PackHeader::decode(&pack.encode()), Ok(pack));
        assert_eq!(RecordHeader::decode(&record.encode()), Ok(record));
        let matches = |payload: &[u8]| record.matches(&[], payload);
        assert!(matches(b"abc") && !matches(b"abd") && !matches(b"ab") && !record.matches(&[0; 64], b"abc"));
        let spans = [0, 1, 64, 65].map(|len| record_span(ObjectKind::Chunk, len));
        assert_eq!(spans, [64, 128, 128, 192]);
    }

    #[test]
    fn large_chunks_have_a_sum_for_each_block() {
        const BLOCK: u32 = BLOCK_BYTES as u32;
        let sizes = |kind| [BLOCK, BLOCK + 1, 8 * BLOCK, 8 * BLOCK + 1].map(|len| sums_bytes(kind, len));
        assert_eq!(sizes(ObjectKind::Chunk), [0, 64, 64, 128]);
        assert_eq!(sizes(ObjectKind::Dir), [0; 4]);
        assert_eq!(record_span(ObjectKind::Chunk, BLOCK + 1), 64 + 64 + u64::from(BLOCK) + 64);

        let payload: Vec<u8> = (0..BLOCK + 5).map(|n| (n % 251) as u8).collect();
        let sums = sums_of(ObjectKind::Chunk, &payload);
        assert_eq!(sum_at(&sums, 0), xxh3_64(&payload[..BLOCK_BYTES]));
        assert_eq!(sum_at(&sums, 1), xxh3_64(&payload[BLOCK_BYTES..]));
        assert_eq!(sums[16..], [0; 48]);
        let header = RecordHeader::of(ObjectKind::Chunk, Digest::of(&payload), &sums, &payload);
        pinned("record with sums", &header.encode(), SUMS_GOLDEN);
        assert_eq!(RecordHeader::decode(&header.encode()), Ok(header));
        assert!(header.matches(&sums, &payload) && !header.matches(&[], &payload));
        for at in [0, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 4] {
            let mut other = payload.clone();
            other[at] ^= 1;
            assert!(!header.matches(&sums, &other), "{at}");
        }
        for at in 0..64 {
            let mut other = sums.clone();
            other[at] ^= 1;
            assert!(!header.matches(&other, &payload) && !header.matches_sums(&other), "{at}");
        }
        // What cannot have sums says that it has none.
        let mut small = RecordHeader::of(ObjectKind::Chunk, Digest::of(b"abc"), &[], b"abc").encode();
        small[12] = BLOCK_SHIFT;
        seal(&mut small);
        assert!(RecordHeader::decode(&small).is_err());
        let mut other_blocks = header.encode();
        other_blocks[12] += 1;
        seal(&mut other_blocks);
        assert!(RecordHeader::decode(&other_blocks).is_err());
    }

    const SUMS_GOLDEN: &str = "\
        41524543 01 000000 05400000 0e 000000 \
        8da782e3297676f304ce830ffde92687fac52676b71ea93277ee70cd4aebac55 e21dd3427b00dc9d 9a4fa76b146e264d";
    const PACK_GOLDEN: &str = "\
        414554485041434b 02000000 02 000000 3412000000000000 \
        0000000000000000000000000000000000000000000000000000000000000000 994937c7e3272969";
    const PACK_1_GOLDEN: &str = "\
        414554485041434b 01000000 02 000000 3412000000000000 \
        0000000000000000000000000000000000000000000000000000000000000000 cf6b16c81d57f102";
    const RECORD_GOLDEN: &str = "\
        41524543 03 000000 03000000 00000000 \
        6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85 50392f89945faf78 9624994cff044e82";

    fn pinned(what: &str, bytes: &[u8], golden: &str) {
        assert_eq!(HEXLOWER.encode(bytes), golden.replace(' ', ""), "{what}");
    }

    #[test]
    fn no_flipped_bit_passes_for_a_header() {
        let pack = PackHeader { kind: PackKind::Data, id: 7, has_sums: true }.encode();
        let record = RecordHeader::of(ObjectKind::Chunk, Digest::of(b"x"), &[], b"x").encode();
        for bit in 0..512 {
            let flip = |mut bytes: [u8; 64]| {
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            };
            assert!(PackHeader::decode(&flip(pack)).is_err(), "pack bit {bit}");
            assert!(RecordHeader::decode(&flip(record)).is_err(), "record bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_told_apart() {
        let mut bytes = PackHeader { kind: PackKind::Data, id: 7, has_sums: true }.encode();
        bytes[8] = 3;
        seal(&mut bytes);
        assert_eq!(PackHeader::decode(&bytes), Err(BadHeader::Newer(3)));
    }
}
