//! Operations on attributes: get, set, extended attributes.

use std::sync::Arc;

use cas::{Attrs, Time, xattrs::Xattrs};

use super::{
    Error, Result,
    acl::{self, Acl},
    live::{Change, Session},
    log::Purpose,
    privileges::{self, Writer},
    state::Effect,
    tree::Found,
};

/// The longest name of an extended attribute, in bytes (XATTR_NAME_MAX).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// The longest value, in bytes (XATTR_SIZE_MAX).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// All names and values of one inode, in bytes. Half of what the store accepts of one encoded set, so that what is set can
/// always be sealed, whatever the encoding adds.
const XATTRS_BYTES_MAX: usize = cas::xattrs::TOTAL_LEN_MAX / 2;
/// What the encoding adds for each attribute, at most.
const XATTR_OVERHEAD_BYTES: usize = 16;

/// What to set; the rest stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttrs {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes, of a regular file.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
    /// Who sets the size or the owner. Given permission bits stay as given.
    pub by: Writer,
}

/// A time to set.
#[derive(Clone, Copy, Debug)]
pub enum SetTime {
    /// The present.
    Now,
    /// This one.
    At(Time),
}

/// Whether an extended attribute must, or must not, be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetXattr {
    /// Either.
    Any,
    /// It must be new.
    Create,
    /// It must exist.
    Replace,
}

impl SetXattr {
    fn check(self, is_there: bool) -> Result<()> {
        match (self, is_there) {
            (SetXattr::Create, true) => Err(Error::Exists),
            (SetXattr::Replace, false) => Err(Error::NoAttribute),
            _ => Ok(()),
        }
    }
}

impl Session {
    /// The inode as it is now. Error: `Stale`.
    pub fn stat(&self, ino: u64) -> Result<Found> {
        self.found(&self.state.read(), ino)
    }

    /// Sets attributes and returns what they are now. Errors: `IsADirectory`, `FileTooBig`, `NoSpace`.
    pub fn set_attrs(&self, ino: u64, set: SetAttrs) -> Result<Found> {
        let now = self.shared.clock.now();
        let time = |set: SetTime| match set {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        let mut change = self.begin()?;
        let found = change.found(ino)?;
        change.adopt(&found)?;
        if let Some(size) = set.size {
            change.resize(&found, size)?;
        }
        let old = found.attrs;
        let attrs = Attrs {
            mode: set.mode.map_or(set.by.leaves(old.mode), |mode| mode & 0o7777),
            uid: set.uid.unwrap_or(old.uid),
            gid: set.gid.unwrap_or(old.gid),
            size: set.size.unwrap_or(old.size),
            mtime: set.mtime.map(time).or(set.size.map(|_| now)).unwrap_or(old.mtime),
            ctime: now,
            ..old
        };
        let atime = set.atime.map_or(found.atime, time);
        let takes_privileges = set.size.is_some() || set.uid.is_some() || set.gid.is_some();
        if takes_privileges || set.mode.is_some() {
            change.edit_xattrs(&found, |xattrs| {
                let dropped = takes_privileges && privileges::drop_capabilities(xattrs);
                let followed = set.mode.is_some() && acl::follow_mode(xattrs, attrs.mode);
                dropped || followed
            })?;
        }
        change.set_attrs(Found { atime, ..found }, attrs);
        let grows = set.size.is_none_or(|size| size > old.size);
        change.commit_found(if grows { Purpose::Grow } else { Purpose::Shrink }, ino)
    }

    /// Sets the list that decides about access, and the permission bits with it. A list that says no more than they do is
    /// not kept.
    fn set_access_list(&self, by: Writer, ino: u64, value: &[u8], how: SetXattr) -> Result<()> {
        let acl = parse_acl(value)?;
        let taken = if by == Writer::Ordinary { 0o2777 } else { 0o777 };
        let mode = |old: u32| old & !taken | acl.mode();
        self.change_xattrs(ino, Purpose::Grow, mode, |xattrs| {
            how.check(xattrs.contains_key(acl::ACCESS))?;
            if acl.is_minimal() {
                xattrs.remove(acl::ACCESS);
            } else {
                xattrs.insert(acl::ACCESS.to_vec(), value.to_vec());
            }
            check_size(xattrs)
        })
    }

    /// All extended attributes. Errors: `Stale`, and what the store says.
    pub fn xattrs(&self, ino: u64) -> Result<Xattrs> {
        let found = self.found(&self.state.read(), ino)?;
        found.xattrs(&self.shared.store)
    }

    /// [`Session::set_xattr_as`] by one who may keep set-ID bits.
    pub fn set_xattr(&self, ino: u64, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        self.set_xattr_as(Writer::Privileged, ino, name, value, how)
    }

    /// Sets one extended attribute. An access control list sets the permission bits, too, and by an ordinary writer takes the
    /// set-group-ID bit away. Errors: `Exists`, `NoAttribute`, `TooLarge`, `Invalid` for a name with a zero byte and for
    /// what is no access control list where one should be.
    pub fn set_xattr_as(&self, by: Writer, ino: u64, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
            return Err(Error::TooLarge(XATTR_NAME_BYTES_MAX as u64));
        }
        if name.contains(&0) {
            return Err(Error::Invalid("the name of an attribute has no zero bytes"));
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Error::TooLarge(XATTR_VALUE_BYTES_MAX as u64));
        }
        match name {
            acl::ACCESS => return self.set_access_list(by, ino, value, how),
            acl::DEFAULT => drop(parse_acl(value)?),
            _ => {}
        }
        self.change_xattrs(
            ino,
            Purpose::Grow,
            |mode| mode,
            |xattrs| {
                how.check(xattrs.contains_key(name))?;
                xattrs.insert(name.to_vec(), value.to_vec());
                check_size(xattrs)
            },
        )
    }

    /// Removes one extended attribute. Error: `NoAttribute`, but not for access control lists: without one the permission bits
    /// are the list.
    pub fn remove_xattr(&self, ino: u64, name: &[u8]) -> Result<()> {
        self.change_xattrs(
            ino,
            Purpose::Shrink,
            |mode| mode,
            |xattrs| {
                let is_list = matches!(name, acl::ACCESS | acl::DEFAULT);
                let was_there = xattrs.remove(name).is_some();
                if was_there || is_list { Ok(()) } else { Err(Error::NoAttribute) }
            },
        )
    }

    fn change_xattrs(
        &self,
        ino: u64,
        purpose: Purpose,
        mode: impl FnOnce(u32) -> u32,
        edit: impl FnOnce(&mut Xattrs) -> Result<()>,
    ) -> Result<()> {
        let now = self.shared.clock.now();
        let mut change = self.begin()?;
        let found = change.found(ino)?;
        let mut xattrs = found.xattrs(&self.shared.store)?;
        edit(&mut xattrs)?;
        change.adopt(&found)?;
        change.push(Effect::Xattrs(ino, Arc::new(xattrs)));
        let attrs = Attrs { mode: mode(found.attrs.mode), ctime: now, ..found.attrs };
        change.set_attrs(found, attrs);
        change.commit(purpose)
    }

    /// Bytes of a regular file that take space (what `st_blocks` counts, in bytes); 0 for other kinds.
    pub fn data_bytes(&self, found: &Found) -> Result<u64> {
        super::data::data_bytes(&self.shared.store, found)
    }
}

impl Change<'_> {
    /// Changes the extended attributes of an inode, if it has any and `edit` says that it did something.
    pub(super) fn edit_xattrs(
        &mut self,
        found: &Found,
        edit: impl FnOnce(&mut Xattrs) -> bool,
    ) -> Result<()> {
        if !found.has_xattrs() {
            return Ok(());
        }
        let mut xattrs = found.xattrs(&self.session.shared.store)?;
        if edit(&mut xattrs) {
            self.push(Effect::Xattrs(found.ino, Arc::new(xattrs)));
        }
        Ok(())
    }
}

fn check_size(xattrs: &Xattrs) -> Result<()> {
    let bytes: usize =
        xattrs.iter().map(|(name, value)| XATTR_OVERHEAD_BYTES + name.len() + value.len()).sum();
    if bytes > XATTRS_BYTES_MAX { Err(Error::TooLarge(XATTRS_BYTES_MAX as u64)) } else { Ok(()) }
}

fn parse_acl(value: &[u8]) -> Result<Acl> {
    Acl::parse(value).ok_or(Error::Invalid("not an access control list"))
}
