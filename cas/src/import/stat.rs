//! What the system says of a file, in the words of this crate.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

use crate::{Attrs, Kind, Time};

/// The part of a `stat` that an import needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) kind: Kind,
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u64,
    pub(super) rdev: u64,
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
}

impl Stat {
    /// `None` if the type of the file is none that Linux has.
    pub(super) fn new(metadata: &Metadata) -> Option<Stat> {
        let time = |secs, nanos| Time { secs, nanos: nanos as u32 };
        Some(Stat {
            kind: Kind::from_mode(metadata.mode())?,
            dev: metadata.dev(),
            ino: metadata.ino(),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            nlink: metadata.nlink(),
            rdev: metadata.rdev(),
            size: metadata.size(),
            blocks: metadata.blocks(),
            mtime: time(metadata.mtime(), metadata.mtime_nsec()),
            ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether both are of one file, and nobody wrote to it or changed its attributes in between.
    pub(super) fn is_unchanged(&self, later: &Stat) -> bool {
        self.is_same_file(later)
            && (self.size, self.mtime, self.ctime) == (later.size, later.mtime, later.ctime)
    }

    pub(super) fn is_same_file(&self, later: &Stat) -> bool {
        (self.dev, self.ino, self.kind) == (later.dev, later.ino, later.kind)
    }

    /// Whether it has no holes worth a seek. Compressed files look sparse, which costs two seeks and nothing else.
    pub(super) fn is_dense(&self) -> bool {
        self.blocks.saturating_mul(512) >= self.size
    }

    /// The attributes to store. The time of the last change of the inode is no property of a tree (a copy cannot have it), so
    /// that of the content stands in for it.
    pub(super) fn attrs(&self, nlink: u32) -> Attrs {
        let device = matches!(self.kind, Kind::CharDevice | Kind::BlockDevice);
        let sized = matches!(self.kind, Kind::File | Kind::Symlink);
        Attrs {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink,
            rdev: if device { self.rdev } else { 0 },
            size: if sized { self.size } else { 0 },
            mtime: self.mtime,
            ctime: self.mtime,
        }
    }
}
