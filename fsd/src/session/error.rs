//! What an operation on a session can answer other than success. Adapters map this to errno, gRPC codes and HTTP statuses,
//! each in one exhaustive match; nothing here knows of them.

use std::{io, path::PathBuf};

use cas::SnapshotId;

use super::SessionId;

/// The result of a session operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What an operation on a session can answer other than success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("already exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// Anything but a directory was needed.
    #[error("is a directory")]
    IsADirectory,
    /// A directory to be removed or replaced still has names.
    #[error("directory not empty")]
    NotEmpty,
    /// A name of more than 255 bytes.
    #[error("name longer than 255 bytes")]
    NameTooLong,
    /// An argument that no state of the session would make right.
    #[error("{0}")]
    Invalid(&'static str),
    /// The kind of file has no such operation (a hard link to a directory, say).
    #[error("not permitted on this kind of file")]
    NotPermitted,
    /// A symlink's target or an extended attribute beyond what is stored.
    #[error("larger than the limit of {0} bytes")]
    TooLarge(u64),
    /// A file offset beyond 2^63 - 1.
    #[error("file too large")]
    FileTooBig,
    /// One more name would overflow the link count.
    #[error("too many links")]
    TooManyLinks,
    /// No extended attribute of this name.
    #[error("no such attribute")]
    NoAttribute,
    /// No data or hole at or behind this offset.
    #[error("offset is behind the last byte")]
    NoData,
    /// An inode number that the session does not know (any more).
    #[error("inode {0} is not known")]
    Stale(u64),
    /// The disk under the state directory is full.
    #[error("the disk that holds the state is full; delete files, discard sessions or run `aetherctl gc`")]
    NoSpace,
    /// More than the daemon takes of something that clients make.
    #[error("the limit of {max} {what} is reached; {advice}")]
    TooMany {
        /// What there would be too many of.
        what: &'static str,
        /// How many there may be.
        max: usize,
        /// What to do.
        advice: &'static str,
    },
    /// An earlier sync failed, and what it was to make durable may be lost.
    #[error(
        "an earlier sync of the state failed, so nothing since then is known to be safe; see the log, check the disk, and restart aetherfsd"
    )]
    SyncFailed,
    /// The operating system failed under the log or a segment.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file it was about.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(cas::Error),
    /// A record of the log or a segment is not what was written.
    #[error("{} at byte {position}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Bytes from the start of the log, or of the segment.
        position: u64,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A file was written by a later version.
    #[error("{}: format {found}, and this version reads up to {supported}; use the newer aetherfsd", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this code reads.
        supported: u32,
    },
    /// No session (or snapshot) answers to this ID or name.
    #[error("no session or snapshot {0:?}; `aetherctl list` shows what there is")]
    Unknown(String),
    /// A prefix or name that fits several.
    #[error("{text:?} is ambiguous: {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// What it could mean, at most 8 of them.
        candidates: Vec<String>,
    },
    /// Text that can be no ID and no name.
    #[error("{text:?} is not an ID: {reason}")]
    MalformedId {
        /// What was asked for.
        text: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A label that another session has.
    #[error("the name {name:?} is taken by {holder}")]
    NameTaken {
        /// The label.
        name: String,
        /// Who has it.
        holder: SessionId,
    },
    /// The session is mounted, and what was asked would pull it away.
    #[error("{0} is mounted; unmount it first or use --force")]
    Mounted(SessionId),
    /// Another host writes the session, or is about to.
    #[error(
        "{0} is not written on this host any more; `aetherctl show {0}` says where it is, and where its changes are"
    )]
    Closed(SessionId),
    /// A snapshot cannot be removed, because sessions stand on it.
    #[error("{0} is the base of {1}; discard that first")]
    InUse(SnapshotId, SessionId),
}

impl From<cas::Error> for Error {
    fn from(error: cas::Error) -> Error {
        if error.is_no_space() { Error::NoSpace } else { Error::Store(error) }
    }
}

impl Error {
    /// For `map_err`: an I/O error about `path`, a full disk told apart.
    pub(crate) fn io(path: PathBuf) -> impl FnOnce(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace,
            _ => Error::Io { path, source },
        }
    }
}
