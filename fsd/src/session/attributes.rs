//! Operations on attributes: get, set, extended attributes.

use std::sync::Arc;

use cas::{Attrs, Time, xattrs::Xattrs};

use super::{
    Error, Result,
    acl::{self, Acl},
    live::{Change, Session},
    log::Purpose,
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
            mode: set.mode.map_or(old.mode, |mode| mode & 0o7777),
            uid: set.uid.unwrap_or(old.uid),
            gid: set.gid.unwrap_or(old.gid),
            size: set.size.unwrap_or(old.size),
            mtime: set.mtime.map(time).or(set.size.map(|_| now)).unwrap_or(old.mtime),
            ctime: now,
            ..old
        };
        let atime = set.atime.map_or(found.atime, time);
        if set.mode.is_some() {
            self.carry_into_acl(&mut change, &found, attrs.mode)?;
        }
        change.push(Effect::Attrs(ino, attrs, atime));
        let grows = set.size.is_none_or(|size| size > old.size);
        change.commit(if grows { Purpose::Grow } else { Purpose::Shrink })?;
        self.stat(ino)
    }

    /// All extended attributes. Errors: `Stale`, and what the store says.
    pub fn xattrs(&self, ino: u64) -> Result<Xattrs> {
        let found = self.found(&self.state.read(), ino)?;
        found.xattrs(&self.shared.store)
    }

    /// A chmod of an inode with an access list changes the list.
    fn carry_into_acl(&self, change: &mut Change<'_>, found: &Found, mode: u32) -> Result<()> {
        let mut xattrs = found.xattrs(&self.shared.store)?;
        let Some(value) = xattrs.get_mut(acl::ACCESS) else { return Ok(()) };
        // One that came from elsewhere and is none stays as it is.
        if let Ok(Some(list)) = Acl::parse(value) {
            *value = list.with_mode(mode).encode();
            change.push(Effect::Xattrs(found.ino, Arc::new(xattrs)));
        }
        Ok(())
    }

    /// Sets one extended attribute. An access control list sets the permission bits too, and is stored only where it says
    /// more than they do. Errors: `Exists`, `NoAttribute`, `TooLarge`, `Invalid` for a name with a zero byte and for what
    /// should be an access control list.
    pub fn set_xattr(&self, ino: u64, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
            return Err(Error::TooLarge(XATTR_NAME_BYTES_MAX as u64));
        }
        if name.contains(&0) {
            return Err(Error::Invalid("the name of an attribute has no zero bytes"));
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Error::TooLarge(XATTR_VALUE_BYTES_MAX as u64));
        }
        let list = if [acl::ACCESS, acl::DEFAULT].contains(&name) { Acl::parse(value)? } else { None };
        if list.is_none() && [acl::ACCESS, acl::DEFAULT].contains(&name) {
            return self.remove_xattr(ino, name);
        }
        let mode = list.as_ref().filter(|_| name == acl::ACCESS).map(Acl::mode);
        let stored = name != acl::ACCESS || list.is_none_or(|list| !list.is_mode());
        self.change_xattrs(ino, Purpose::Grow, mode, |xattrs| {
            match (how, xattrs.contains_key(name)) {
                (SetXattr::Create, true) => return Err(Error::Exists),
                (SetXattr::Replace, false) => return Err(Error::NoAttribute),
                _ => {}
            }
            match stored {
                true => xattrs.insert(name.to_vec(), value.to_vec()),
                false => xattrs.remove(name),
            };
            let bytes: usize =
                xattrs.iter().map(|(name, value)| XATTR_OVERHEAD_BYTES + name.len() + value.len()).sum();
            if bytes > XATTRS_BYTES_MAX { Err(Error::TooLarge(XATTRS_BYTES_MAX as u64)) } else { Ok(()) }
        })
    }

    /// Removes one extended attribute. Error: `NoAttribute`, but not for an access control list: every inode has one, if only
    /// in its permission bits.
    pub fn remove_xattr(&self, ino: u64, name: &[u8]) -> Result<()> {
        let may_lack = [acl::ACCESS, acl::DEFAULT].contains(&name);
        self.change_xattrs(ino, Purpose::Shrink, None, |xattrs| match xattrs.remove(name) {
            None if !may_lack => Err(Error::NoAttribute),
            _ => Ok(()),
        })
    }

    /// Changes the extended attributes, and the nine permission bits where `mode` says so.
    fn change_xattrs(
        &self,
        ino: u64,
        purpose: Purpose,
        mode: Option<u32>,
        edit: impl FnOnce(&mut Xattrs) -> Result<()>,
    ) -> Result<()> {
        let now = self.shared.clock.now();
        let mut change = self.begin()?;
        let found = change.found(ino)?;
        let mut xattrs = found.xattrs(&self.shared.store)?;
        edit(&mut xattrs)?;
        change.adopt(&found)?;
        change.push(Effect::Xattrs(ino, Arc::new(xattrs)));
        let mode = mode.map_or(found.attrs.mode, |mode| found.attrs.mode & !0o777 | mode);
        change.set_attrs(&found, Attrs { mode, ctime: now, ..found.attrs });
        change.commit(purpose)
    }

    /// Bytes of a regular file that take space (what `st_blocks` counts, in bytes); 0 for other kinds.
    pub fn data_bytes(&self, found: &Found) -> Result<u64> {
        super::data::data_bytes(&self.shared.store, found)
    }
}
