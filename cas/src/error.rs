//! What can go wrong in the store. Facts are in the fields; `Display` is a sentence for a person.

use std::{io, path::PathBuf};

use crate::{Digest, ObjectKind, SnapshotId, remote::Failure};

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused. `NoSpace` is told apart by [`Error::is_no_space`].
    #[error("{}: {source}", path.display())]
    Io {
        /// The file it was about.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk would have to be waited for, and whoever asked does not wait.
    #[error("not in memory")]
    NotNow,
    /// Stored bytes are not what was written.
    #[error("{digest} in {} at byte {offset} is damaged: {reason}; run `aetherctl fsck`", pack.display())]
    Corrupt {
        /// The object.
        digest: Digest,
        /// The pack it stands in.
        pack: PathBuf,
        /// Bytes from the start of the pack.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The bytes of an object do not decode. Wrapped into `Corrupt` by whoever knows the pack.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// The structure, as docs/format.md calls it.
        what: &'static str,
        /// The rule that is broken.
        reason: &'static str,
    },
    /// The object is not here; the remote store may have it. Whoever can wait has it fetched, and asks again.
    #[error("{digest} is not on this host yet")]
    Absent {
        /// What it is.
        kind: ObjectKind,
        /// The object.
        digest: Digest,
    },
    /// The remote store did not do what it was asked for.
    #[error(transparent)]
    Remote(#[from] Failure),
    /// The object was asked for by others, too, and did not come.
    #[error(transparent)]
    Fetch(std::sync::Arc<Error>),
    /// Something was to be done in the remote store.
    #[error("this host has no remote store; start aetherfsd with --remote")]
    NoRemote,
    /// A referenced object is nowhere in the store.
    #[error("{0} is missing from the store; run `aetherctl fsck`")]
    Missing(Digest),
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
    /// A file does not begin as the format says.
    #[error("{}: not a file of this store ({reason})", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The index or the catalogue refused.
    #[error("{}: {source}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What redb said.
        #[source]
        source: Box<redb::Error>,
    },
    /// It is not certain what is needed, so nothing was removed.
    #[error(
        "nothing was removed from the remote store, because it is not certain what is needed: {object}: {reason}"
    )]
    Doubt {
        /// Its address.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was to be published was condemned each time.
    #[error(
        "gc of the remote store condemns what {0} is built on as fast as it is published; try again later"
    )]
    Condemned(SnapshotId),
    /// No more snapshots may hang on other hosts.
    #[error(
        "{max} snapshots hang on other hosts, and no more may; `aetherctl gc` forgets those that nobody needs, and `aetherctl fetch SESSION` brings one here whole"
    )]
    HangingFull {
        /// How many may.
        max: usize,
    },
    /// No snapshot has this ID.
    #[error("no snapshot {0} in this store")]
    UnknownSnapshot(SnapshotId),
    /// No snapshot of the catalogue has an ID that begins so.
    #[error("no snapshot in this store begins with {0}")]
    NoSuchSnapshot(String),
    /// Several snapshots have IDs that begin so.
    #[error("{prefix} could be any of {}; give more characters", ids(candidates))]
    AmbiguousSnapshot {
        /// What was given.
        prefix: String,
        /// What it could be.
        candidates: Vec<SnapshotId>,
    },
    /// Too little of an ID to go by.
    #[error("{0} is too short; give at least 8 characters behind `snp_`")]
    ShortSnapshot(String),
    /// Not an ID, nor the beginning of one.
    #[error("{0:?} is not a snapshot ID; those are `snp_` and up to 52 letters and digits")]
    NotASnapshot(String),
    /// The import's source is not a directory.
    #[error("{}: not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Part of the import's source cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The import's source changed while it was read, again and again. Nothing was imported.
    #[error("changed while being read: {}; import a tree that is at rest", list(.0))]
    SourceChanged(Vec<PathBuf>),
    /// An import's source holds what a snapshot cannot.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        reason: &'static str,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// For `map_err`: an I/O error about `path`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }

    /// What several who asked for an object are told.
    pub(crate) fn of_fetch(error: std::sync::Arc<Error>) -> Error {
        match &*error {
            Error::Missing(digest) => Error::Missing(*digest),
            _ => Error::Fetch(error),
        }
    }

    /// The disk (or a quota on it) is full.
    pub fn is_no_space(&self) -> bool {
        let full =
            |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Error::Io { source, .. } => full(source),
            Error::Database { source, .. } => matches!(&**source, redb::Error::Io(e) if full(e)),
            _ => false,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The first few; nobody reads a hundred.
fn ids(candidates: &[SnapshotId]) -> String {
    let mut shown: Vec<String> = candidates.iter().take(5).map(SnapshotId::to_string).collect();
    if candidates.len() > shown.len() {
        shown.push(format!("{} more", candidates.len() - shown.len()));
    }
    shown.join(", ")
}
