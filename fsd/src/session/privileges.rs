//! Set-ID bits and capabilities of a file whose bytes or owner somebody changes. Pure.
//!
//! The rule is Linux's: a change takes the file's capabilities away, and of one who may not keep them also the set-user-ID
//! bit and, where the group may execute, the set-group-ID bit (without that it once meant mandatory locking).

use cas::xattrs::Xattrs;

/// The attribute that holds a file's capabilities (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// Who changes a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writer {
    /// One who may keep set-ID bits (`CAP_FSETID`).
    #[default]
    Privileged,
    /// Anybody else.
    Ordinary,
}

impl Writer {
    /// The permission bits that a file is left with.
    pub(super) fn leaves(self, mode: u32) -> u32 {
        let gid = if mode & S_IXGRP != 0 { S_ISGID } else { 0 };
        match self {
            Writer::Privileged => mode,
            Writer::Ordinary => mode & !(S_ISUID | gid),
        }
    }
}

/// Takes a file's capabilities away. True if it had any.
pub(super) fn drop_capabilities(xattrs: &mut Xattrs) -> bool {
    xattrs.remove(CAPABILITY).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_group_id_goes_only_where_the_group_may_execute() {
        for (mode, left) in
            [(0o6755, 0o0755), (0o6745, 0o2745), (0o2010, 0o0010), (0o1777, 0o1777), (0o644, 0o644)]
        {
            assert_eq!(Writer::Ordinary.leaves(mode), left, "{mode:o}");
            assert_eq!(Writer::Privileged.leaves(mode), mode);
        }
    }
}
