//! The one place where an engine error becomes an errno.

use nix::errno::Errno;

use crate::session::Error;

/// The errno that a system call on the mount fails with.
pub(super) fn errno(error: &Error) -> Errno {
    match error {
        Error::NotFound => Errno::ENOENT,
        Error::Exists => Errno::EEXIST,
        Error::NotADirectory => Errno::ENOTDIR,
        Error::IsADirectory => Errno::EISDIR,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::Invalid(_) | Error::MalformedId { .. } | Error::Ambiguous { .. } => Errno::EINVAL,
        Error::NotPermitted => Errno::EPERM,
        Error::TooLarge(_) => Errno::E2BIG,
        Error::FileTooBig => Errno::EFBIG,
        Error::TooManyLinks => Errno::EMLINK,
        Error::NoAttribute => Errno::ENODATA,
        Error::NoData => Errno::ENXIO,
        Error::Stale(_) | Error::Unknown(_) => Errno::ESTALE,
        Error::NoSpace | Error::TooMany { .. } => Errno::ENOSPC,
        Error::NameTaken { .. } | Error::Mounted(_) | Error::InUse(..) => Errno::EBUSY,
        Error::Closed(_) => Errno::EROFS,
        Error::Io { .. }
        | Error::SyncFailed
        | Error::Store(_)
        | Error::Damaged { .. }
        | Error::Newer { .. } => Errno::EIO,
    }
}

/// Like [`errno`], and logs what a person should know of: damage and failing disks, which the errno alone does not name.
pub(super) fn report(operation: &'static str, ino: u64, error: &Error) -> Errno {
    let errno = errno(error);
    if errno == Errno::EIO {
        tracing::error!(operation, ino, %error, "answered EIO");
    }
    errno
}
