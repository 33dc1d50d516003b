//! What a POSIX access control list has to do with an inode's permission bits. Pure.
//!
//! An access list and the nine bits are two views of one thing: a change of either changes the other (acl(5)). The kernel
//! leaves that to the file system. Whom a list lets in is the kernel's to decide, and not known here.
//!
//! The bytes are Linux's, `struct posix_acl_xattr_header` and `_entry` of include/uapi/linux/posix_acl_xattr.h.

use super::{Error, Result};

/// The attribute that holds an inode's access list.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute that holds what new names in a directory get.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// A valid list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    bits: u16,
    id: u32,
}

impl Acl {
    /// The list of an attribute's value; `None` for one without entries, which stands for no list. Error: `Invalid`, by the
    /// rules of the kernel's posix_acl_valid.
    pub(super) fn parse(value: &[u8]) -> Result<Option<Acl>> {
        if value.is_empty() {
            return Ok(None);
        }
        let invalid = || Error::Invalid("not an access control list");
        let (version, entries) = value.split_at_checked(HEADER_BYTES).ok_or_else(invalid)?;
        if version != VERSION.to_le_bytes() || entries.len() % ENTRY_BYTES != 0 {
            return Err(invalid());
        }
        let acl = Acl(entries.chunks_exact(ENTRY_BYTES).map(Entry::parse).collect());
        match acl.0.is_empty() {
            true => Ok(None),
            false if acl.is_valid() => Ok(Some(acl)),
            false => Err(invalid()),
        }
    }

    /// In order, with one entry each for owner, group and others, and with a mask where it names users or groups.
    fn is_valid(&self) -> bool {
        let one = |tag| self.0.iter().filter(|entry| entry.tag == tag).count() == 1;
        let masks = self.0.iter().filter(|entry| entry.tag == MASK).count();
        let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];
        self.0.iter().all(|entry| known.contains(&entry.tag) && entry.bits <= 7)
            && self.0.is_sorted_by_key(|entry| entry.tag)
            && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(one)
            && masks == usize::from(masks > 0 || self.0.iter().any(|entry| matches!(entry.tag, USER | GROUP)))
    }

    /// The nine bits that show this list: the group's are the mask's where there is one.
    pub(super) fn mode(&self) -> u32 {
        let bits = |tag| self.0.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.bits));
        let group = bits(MASK).or(bits(GROUP_OBJ));
        bits(USER_OBJ).unwrap_or(0) << 6 | group.unwrap_or(0) << 3 | bits(OTHER).unwrap_or(0)
    }

    /// Whether the nine bits say all that it says. Such a list is not stored.
    pub(super) fn is_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The list after a chmod.
    pub(super) fn with_mode(mut self, mode: u32) -> Acl {
        let group = if self.0.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP_OBJ };
        for entry in &mut self.0 {
            let shift = match entry.tag {
                USER_OBJ => 6,
                OTHER => 0,
                tag if tag == group => 3,
                _ => continue,
            };
            entry.bits = (mode >> shift & 7) as u16;
        }
        self
    }

    /// The attribute's value.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend(entry.tag.to_le_bytes());
            value.extend(entry.bits.to_le_bytes());
            value.extend(entry.id.to_le_bytes());
        }
        value
    }
}

impl Entry {
    /// `bytes` are [`ENTRY_BYTES`].
    fn parse(bytes: &[u8]) -> Entry {
        let field = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Entry { tag: field(0), bits: field(2), id: u32::from(field(4)) | u32::from(field(6)) << 16 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]
    use super::*;

    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        Acl(entries.iter().map(|&(tag, bits, id)| Entry { tag, bits, id }).collect()).encode()
    }

    #[test]
    fn a_list_shows_as_nine_bits_and_a_chmod_goes_through_its_mask() {
        let plain = [(USER_OBJ, 6, u32::MAX), (GROUP_OBJ, 4, u32::MAX), (OTHER, 0, u32::MAX)];
        let acl = Acl::parse(&value(&plain)).unwrap().unwrap();
        assert_eq!((acl.mode(), acl.is_mode()), (0o640, true));
        let named = [
            (USER_OBJ, 6, u32::MAX),
            (USER, 7, 12),
            (GROUP_OBJ, 4, u32::MAX),
            (MASK, 6, u32::MAX),
            (OTHER, 1, 0),
        ];
        let acl = Acl::parse(&value(&named)).unwrap().unwrap();
        assert_eq!((acl.mode(), acl.is_mode()), (0o661, false));
        assert_eq!(acl.encode(), value(&named));
        let changed = acl.with_mode(0o4750);
        assert_eq!(changed.mode(), 0o750);
        assert_eq!(changed.0[2].bits, 4, "the group's own entry stays, the mask changed");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert!(Acl::parse(b"").unwrap().is_none());
        assert!(Acl::parse(&value(&[])).unwrap().is_none());
        let (user, group, other) = ((USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 0, 0));
        let wrong: [&[(u16, u16, u32)]; 7] = [
            &[user, group],
            &[user, other, group],
            &[user, user, group, other],
            &[user, (USER, 6, 12), group, other],
            &[user, group, (MASK, 7, 0), (MASK, 7, 0), other],
            &[user, group, (OTHER, 8, 0)],
            &[user, group, other, (0x40, 0, 0)],
        ];
        for entries in wrong {
            assert!(Acl::parse(&value(entries)).is_err(), "{entries:?}");
        }
        assert!(Acl::parse(&value(&[user, group, other])[..20]).is_err());
        assert!(Acl::parse(&[1, 0, 0, 0]).is_err(), "another version");
    }
}
