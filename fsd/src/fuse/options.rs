//! How to mount: what can be asked for, and what goes together.

use nix::unistd::geteuid;

use super::{mountpoint::Flags, mounts::MountError, transport::TransportChoice};

/// How to mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountOptions {
    /// Refuse changes.
    pub read_only: bool,
    /// Let other users in, with their permissions checked by the kernel.
    pub allow_other: bool,
    /// Access control lists are checked by the kernel.
    pub acl: bool,
    /// Extended attributes are neither shown nor taken.
    pub no_xattrs: bool,
    /// What is to carry its requests; the daemon's own choice if nothing is said.
    pub transport: Option<TransportChoice>,
    /// Who reads files.
    pub io: FileIo,
}

/// Who reads the files of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileIo {
    /// The daemon, into the kernel's cache of the mount.
    #[default]
    Cached,
    /// Of large sealed files the kernel, from copies that mounts share; of others the daemon. For read-only mounts of root's.
    Passthrough,
}

impl MountOptions {
    /// Whether they go together. Errors: `NoAttributes`, `NoPassthrough`.
    pub(super) fn check(self) -> Result<(), MountError> {
        if self.acl && self.no_xattrs {
            return Err(MountError::NoAttributes);
        }
        match self.io {
            FileIo::Passthrough if !self.read_only => {
                Err(MountError::NoPassthrough("it is for read-only mounts alone; add --read-only"))
            }
            FileIo::Passthrough if !geteuid().is_root() => {
                Err(MountError::NoPassthrough("the kernel lets only root's daemon have it"))
            }
            FileIo::Passthrough | FileIo::Cached => Ok(()),
        }
    }

    pub(super) fn flags(self) -> Flags {
        Flags {
            read_only: self.read_only,
            allow_other: self.allow_other,
            // Root alone passes every check but the one for execution, which the kernel makes in any case. Everybody else is
            // checked.
            default_permissions: self.allow_other || !geteuid().is_root(),
        }
    }
}
