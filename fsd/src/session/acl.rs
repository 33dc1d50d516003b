//! POSIX access control lists, as extended attributes carry them: how they and permission bits follow each other, and what
//! a new file inherits. Pure. Who may do what is the kernel's business.
//!
//! Source of the format: `include/uapi/linux/posix_acl_xattr.h`; of the rules: acl(5).

use cas::xattrs::Xattrs;

/// The attribute of the list that decides about access.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of a directory's list that files made in it inherit.
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

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

impl Acl {
    /// The list that an attribute holds; `None` for what the kernel would not take either: another version, unknown tags or
    /// permissions, not exactly one entry each for owner, group and others, or named entries without a mask.
    pub fn parse(value: &[u8]) -> Option<Acl> {
        let (version, entries) = value.split_at_checked(HEADER_BYTES)?;
        if version != VERSION.to_le_bytes() || entries.len() % ENTRY_BYTES != 0 {
            return None;
        }
        let entries = entries.chunks_exact(ENTRY_BYTES).map(|e| Entry {
            tag: u16::from_le_bytes([e[0], e[1]]),
            perm: u16::from_le_bytes([e[2], e[3]]),
            id: u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
        });
        let acl = Acl(entries.collect());
        let count = |tags: u16| acl.0.iter().filter(|e| e.tag & tags != 0).count();
        let known = acl.0.iter().all(|e| e.perm <= 7 && e.tag.count_ones() == 1 && e.tag <= OTHER);
        let once = [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|tag| count(*tag) == 1);
        let masked = count(MASK) == 1 || count(MASK) == 0 && count(USER | GROUP) == 0;
        let ordered = acl.0.is_sorted_by_key(|e| e.tag);
        (known && once && masked && ordered).then_some(acl)
    }

    /// As an attribute.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            out.extend_from_slice(&entry.tag.to_le_bytes());
            out.extend_from_slice(&entry.perm.to_le_bytes());
            out.extend_from_slice(&entry.id.to_le_bytes());
        }
        out
    }

    /// The nine permission bits that it amounts to; the group's are the mask's if there is one.
    pub fn mode(&self) -> u32 {
        let perm = |tag: u16| self.0.iter().find(|e| e.tag == tag).map(|e| u32::from(e.perm));
        let group = perm(MASK).or(perm(GROUP_OBJ)).unwrap_or(0);
        perm(USER_OBJ).unwrap_or(0) << 6 | group << 3 | perm(OTHER).unwrap_or(0)
    }

    /// Whether the permission bits say all that it says.
    pub fn is_minimal(&self) -> bool {
        self.0.iter().all(|e| e.tag & (USER_OBJ | GROUP_OBJ | OTHER) != 0)
    }

    /// After a chmod: the entries that the permission bits stand for are what those are.
    fn set_mode(&mut self, mode: u32) {
        self.edit_class(|perm, bits| *perm = bits, mode);
    }

    /// What a new file gets whose maker asked for `mode`: no more than that.
    fn limit(&mut self, mode: u32) {
        self.edit_class(|perm, bits| *perm &= bits, mode);
    }

    fn edit_class(&mut self, edit: impl Fn(&mut u16, u16), mode: u32) {
        let group = if self.0.iter().any(|e| e.tag == MASK) { MASK } else { GROUP_OBJ };
        for entry in &mut self.0 {
            let shift = match entry.tag {
                USER_OBJ => 6,
                tag if tag == group => 3,
                OTHER => 0,
                _ => continue,
            };
            edit(&mut entry.perm, (mode >> shift & 7) as u16);
        }
    }
}

/// What a new file's permission bits become, and which lists it gets from the directory it is made in. Without a default
/// list there the umask decides.
pub(super) fn inherit(dir: &Xattrs, is_dir: bool, mode: u32, umask: u32) -> (u32, Xattrs) {
    let mut xattrs = Xattrs::new();
    let Some(default) = dir.get(DEFAULT) else { return (mode & !umask, xattrs) };
    let Some(mut acl) = Acl::parse(default) else { return (mode & !umask, xattrs) };
    acl.limit(mode);
    if !acl.is_minimal() {
        xattrs.insert(ACCESS.to_vec(), acl.encode());
    }
    if is_dir {
        xattrs.insert(DEFAULT.to_vec(), default.clone());
    }
    (mode & !0o777 | acl.mode(), xattrs)
}

/// After a chmod: the access list follows. True if there is one.
pub(super) fn follow_mode(xattrs: &mut Xattrs, mode: u32) -> bool {
    let acl = xattrs.get(ACCESS).and_then(|value| Acl::parse(value));
    let Some(mut acl) = acl else { return false };
    acl.set_mode(mode);
    xattrs.insert(ACCESS.to_vec(), acl.encode());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        Acl(entries.iter().map(|&(tag, perm, id)| Entry { tag, perm, id }).collect()).encode()
    }

    const NONE: u32 = u32::MAX;

    fn named() -> Vec<u8> {
        acl(&[(USER_OBJ, 7, NONE), (USER, 6, 10), (GROUP_OBJ, 5, NONE), (MASK, 6, NONE), (OTHER, 4, NONE)])
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!(Acl::parse(&named()).unwrap().encode(), named());
        let minimal = [(USER_OBJ, 7, NONE), (GROUP_OBJ, 5, NONE), (OTHER, 4, NONE)];
        assert!(Acl::parse(&acl(&minimal)).unwrap().is_minimal());
        assert_eq!(Acl::parse(&acl(&minimal[..2])), None);
        let maskless = [minimal[0], (USER, 7, 1), minimal[1], minimal[2]];
        assert_eq!(Acl::parse(&acl(&maskless)), None);
        assert_eq!(Acl::parse(&acl(&[minimal[1], minimal[0], minimal[2]])), None, "another order");
        assert_eq!(Acl::parse(&acl(&[&minimal[..], &[(OTHER, 7, 1)]].concat())), None);
        assert_eq!(Acl::parse(&acl(&[&minimal[..], &[(0x40, 7, 1)]].concat())), None);
        assert_eq!(Acl::parse(&acl(&[(USER_OBJ, 8, NONE), minimal[1], minimal[2]])), None);
        assert_eq!(Acl::parse(&named()[..named().len() - 1]), None);
        assert_eq!(Acl::parse(b""), None);
    }

    #[test]
    fn the_mask_stands_for_the_group() {
        assert_eq!(Acl::parse(&named()).unwrap().mode(), 0o764);
        let mut xattrs = Xattrs::from([(ACCESS.to_vec(), named())]);
        assert!(follow_mode(&mut xattrs, 0o4651));
        let after = Acl::parse(&xattrs[ACCESS]).unwrap();
        assert_eq!(after.mode(), 0o651);
        assert_eq!(
            after.0.iter().find(|e| e.tag == GROUP_OBJ).unwrap().perm,
            5,
            "the group's own entry stays"
        );
    }

    #[test]
    fn a_new_file_gets_the_default_list_but_no_more_than_asked_for() {
        let dir = Xattrs::from([(DEFAULT.to_vec(), named())]);
        let (mode, xattrs) = inherit(&dir, false, 0o2640, 0o777);
        assert_eq!(mode, 0o2640);
        assert_eq!(Acl::parse(&xattrs[ACCESS]).unwrap().mode(), 0o640);
        assert_eq!(xattrs.get(DEFAULT), None);
        let (mode, xattrs) = inherit(&dir, true, 0o777, 0o022);
        assert_eq!((mode, &xattrs[DEFAULT]), (0o764, &named()));
        assert_eq!(inherit(&Xattrs::new(), true, 0o777, 0o022), (0o755, Xattrs::new()));
    }
}
