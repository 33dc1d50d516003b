//! A page of directory entries: a fixed-width table and a heap of names, checked once and then read in place.
//!
//! The heap holds each entry's name, followed by its symlink target if it is one, in entry order and without gaps.

use std::{cmp::Ordering, ops::Range};

use super::{
    Totals,
    header::{HEADER_LEN, Header, Shape, malformed},
};
use crate::{
    Attrs, Content, Entry, Error, Kind, Node, Result,
    blob::CHUNK_ONLY_MAX,
    fields::{digest_at, time_at, u16_at, u32_at, u64_at},
};

/// Bytes of an entry in the table.
pub(super) const ENTRY_LEN: usize = 136;
/// Bytes of a name, as the kernel's NAME_MAX.
pub(super) const NAME_LEN_MAX: usize = 255;
/// Bytes of a symlink's target: the kernel's PATH_MAX without the NUL.
const TARGET_LEN_MAX: u64 = 4095;
/// Sizes are `off_t` in the kernel.
const SIZE_MAX: u64 = i64::MAX as u64;

// Where the fields of an entry are.
pub(super) mod at {
    pub(in crate::dir) const NAME_OFF: usize = 0;
    pub(in crate::dir) const NAME_LEN: usize = 4;
    pub(in crate::dir) const KIND: usize = 6;
    pub(in crate::dir) const CONTENT: usize = 7;
    pub(in crate::dir) const INO: usize = 8;
    pub(in crate::dir) const MODE: usize = 16;
    pub(in crate::dir) const UID: usize = 20;
    pub(in crate::dir) const GID: usize = 24;
    pub(in crate::dir) const NLINK: usize = 28;
    pub(in crate::dir) const RDEV: usize = 32;
    pub(in crate::dir) const SIZE: usize = 40;
    pub(in crate::dir) const MTIME: usize = 48;
    pub(in crate::dir) const CTIME: usize = 56;
    pub(in crate::dir) const MTIME_NANOS: usize = 64;
    pub(in crate::dir) const CTIME_NANOS: usize = 68;
    pub(in crate::dir) const DIGEST: usize = 72;
    pub(in crate::dir) const XATTRS: usize = 104;
}
const _: () = assert!(at::XATTRS + 32 == ENTRY_LEN);

/// Bytes that passed [`Leaf::check`].
#[derive(Clone, Copy)]
pub(super) struct Leaf<'a> {
    bytes: &'a [u8],
    count: u32,
}

impl<'a> Leaf<'a> {
    /// Checks every rule of docs/format.md that these bytes alone can break.
    pub(super) fn check(bytes: &'a [u8], shape: Shape) -> Result<(Leaf<'a>, Header)> {
        let header = Header::read(bytes)?;
        if header.shape != shape {
            return Err(malformed("a page where a directory should be, or the reverse"));
        }
        let len = HEADER_LEN as u64 + u64::from(header.count) * ENTRY_LEN as u64 + u64::from(header.heap_len);
        if len != bytes.len() as u64 {
            return Err(malformed("length is not that of its table and heap"));
        }
        if shape == Shape::Page && header.count == 0 {
            return Err(malformed("an empty page"));
        }
        let leaf = Leaf { bytes, count: header.count };
        leaf.check_entries(&header)?;
        Ok((leaf, header))
    }

    /// `bytes` that [`Leaf::check`] has passed before.
    pub(super) fn checked(bytes: &'a [u8], count: u32) -> Leaf<'a> {
        Leaf { bytes, count }
    }

    pub(super) fn name(&self, index: u32) -> &'a [u8] {
        let record = self.record(index);
        let start = u32_at(record, at::NAME_OFF) as usize;
        &self.heap()[start..start + usize::from(u16_at(record, at::NAME_LEN))]
    }

    pub(super) fn entry(&self, index: u32) -> Entry<'a> {
        let record = self.record(index);
        let name = self.name(index);
        let attrs = attrs(record);
        let digest = digest_at(record, at::DIGEST);
        let kind = Kind::from_u8(record[at::KIND]).expect("kinds are checked when a page is opened");
        let node = match kind {
            Kind::File => Node::File(match (record[at::CONTENT], digest) {
                (1, Some(digest)) => Content::Chunk(digest),
                (2, Some(digest)) => Content::List(digest),
                _ => Content::Empty,
            }),
            Kind::Dir => Node::Dir(digest.expect("dir digests are checked when a page is opened")),
            Kind::Symlink => {
                let start = u32_at(record, at::NAME_OFF) as usize + name.len();
                Node::Symlink(&self.heap()[start..start + attrs.size as usize])
            }
            Kind::Fifo => Node::Fifo,
            Kind::Socket => Node::Socket,
            Kind::CharDevice => Node::CharDevice,
            Kind::BlockDevice => Node::BlockDevice,
        };
        Entry { name, ino: u64_at(record, at::INO), attrs, node, xattrs: digest_at(record, at::XATTRS) }
    }

    /// `Ok`: where `name` is; `Err`: where it would be.
    pub(super) fn search(&self, name: &[u8]) -> std::result::Result<u32, u32> {
        binary_search(0..self.count, |index| self.name(index).cmp(name))
    }

    fn record(&self, index: u32) -> &'a [u8] {
        assert!(index < self.count, "entry {index} of {}", self.count);
        let start = HEADER_LEN + index as usize * ENTRY_LEN;
        &self.bytes[start..start + ENTRY_LEN]
    }

    fn heap(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN + self.count as usize * ENTRY_LEN..]
    }

    fn check_entries(&self, header: &Header) -> Result<()> {
        let heap = self.heap();
        let (mut heap_used, mut previous) = (0usize, None);
        let (mut sums, mut has_dirs) = (Totals::default(), false);
        for index in 0..self.count {
            let record = self.record(index);
            let (kind, attrs) = check_record(record)?;
            if u32_at(record, at::NAME_OFF) as usize != heap_used {
                return Err(malformed("a gap in the heap"));
            }
            let name_end = heap_used + usize::from(u16_at(record, at::NAME_LEN));
            let name = heap.get(heap_used..name_end).ok_or(malformed("a name beyond the heap"))?;
            check_name(name)?;
            if previous.is_some_and(|previous| previous >= name) {
                return Err(malformed("names out of order or twice"));
            }
            if previous.is_some() && starts_page(name) {
                return Err(malformed("a page that should have been cut"));
            }
            heap_used = name_end;
            if kind == Kind::Symlink {
                heap_used += attrs.size as usize;
                let target = heap.get(name_end..heap_used).ok_or(malformed("a target beyond the heap"))?;
                if target.contains(&0) {
                    return Err(malformed("a NUL in a symlink's target"));
                }
            }
            previous = Some(name);
            has_dirs |= kind == Kind::Dir;
            sums = sums.plus(&Totals::of_name(kind, &attrs, u64_at(record, at::INO)));
        }
        if heap_used != heap.len() {
            return Err(malformed("unused bytes in the heap"));
        }
        check_totals(&header.totals, &sums, has_dirs)
    }
}

/// Whether a wide directory's page begins at `name`: one name in 512, whatever its neighbours and attributes are, so that
/// a change reshapes one page or two.
pub(super) fn starts_page(name: &[u8]) -> bool {
    xxhash_rust::xxh3::xxh3_64(name) & 511 == 0
}

/// What a name in a directory may be.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    let valid = matches!(name.len(), 1..=NAME_LEN_MAX)
        && name != b"."
        && name != b".."
        && !name.iter().any(|&byte| byte == b'/' || byte == 0);
    if valid { Ok(()) } else { Err(malformed("not a file name")) }
}

/// The first index in `range` whose order is not `Less`: `Ok` if it is `Equal`.
pub(super) fn binary_search(
    range: Range<u32>,
    order: impl Fn(u32) -> Ordering,
) -> std::result::Result<u32, u32> {
    let Range { mut start, mut end } = range;
    while start < end {
        let middle = start + (end - start) / 2;
        match order(middle) {
            Ordering::Less => start = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => end = middle,
        }
    }
    Err(start)
}

fn attrs(record: &[u8]) -> Attrs {
    Attrs {
        mode: u32_at(record, at::MODE),
        uid: u32_at(record, at::UID),
        gid: u32_at(record, at::GID),
        nlink: u32_at(record, at::NLINK),
        rdev: u64_at(record, at::RDEV),
        size: u64_at(record, at::SIZE),
        mtime: time_at(record, at::MTIME, at::MTIME_NANOS),
        ctime: time_at(record, at::CTIME, at::CTIME_NANOS),
    }
}

fn check_record(record: &[u8]) -> Result<(Kind, Attrs)> {
    let kind = Kind::from_u8(record[at::KIND]).ok_or(malformed("unknown kind"))?;
    let attrs = attrs(record);
    if attrs.mode > 0o7777 || !attrs.mtime.is_valid() || !attrs.ctime.is_valid() {
        return Err(malformed("mode or time out of range"));
    }
    if attrs.nlink < if kind == Kind::Dir { 2 } else { 1 } {
        return Err(malformed("too few links"));
    }
    if !(2..1 << 63).contains(&u64_at(record, at::INO)) {
        return Err(malformed("inode number out of range"));
    }
    if attrs.rdev != 0 && !matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        return Err(malformed("a device number on what is no device"));
    }
    let content = (record[at::CONTENT], digest_at(record, at::DIGEST).is_some());
    let fits = match (kind, content) {
        (Kind::File, (0, false)) => attrs.size == 0,
        (Kind::File, (1, true)) => matches!(attrs.size, 1..=CHUNK_ONLY_MAX),
        (Kind::File, (2, true)) => attrs.size > CHUNK_ONLY_MAX && attrs.size <= SIZE_MAX,
        (Kind::Dir, (0, true)) => attrs.size == 0,
        (Kind::Symlink, (0, false)) => matches!(attrs.size, 1..=TARGET_LEN_MAX),
        (Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice, (0, false)) => attrs.size == 0,
        _ => false,
    };
    if fits { Ok((kind, attrs)) } else { Err(malformed("content does not match kind and size")) }
}

/// Sums of a page with subdirectories can only be checked from below: what those add stands in their own objects.
fn check_totals(totals: &Totals, sums: &Totals, has_dirs: bool) -> std::result::Result<(), Error> {
    let at_least = totals.files >= sums.files
        && totals.bytes >= sums.bytes
        && totals.links >= sums.links
        && totals.ino_max >= sums.ino_max;
    let fits = if has_dirs { at_least } else { totals == sums };
    if fits { Ok(()) } else { Err(malformed("totals are not those of its entries")) }
}
