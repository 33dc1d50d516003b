//! The engine's values as messages.

use cas::{Kind, Time, store::Listed};
use nix::sys::stat::{major, minor};
use proto::v1;

use super::Answer;
use crate::{
    fuse::{FileIo, MountInfo, Transport, TransportChoice},
    session::{Found, Session},
};
use std::os::unix::ffi::OsStrExt;

/// Nanoseconds since 1970; what 64 bits cannot hold (after the year 2262) stays at their end.
pub(super) fn time_ns(time: Time) -> i64 {
    time.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos))
}

pub(super) fn file_kind(kind: Kind) -> v1::FileKind {
    match kind {
        Kind::File => v1::FileKind::Regular,
        Kind::Dir => v1::FileKind::Directory,
        Kind::Symlink => v1::FileKind::Symlink,
        Kind::Fifo => v1::FileKind::Fifo,
        Kind::CharDevice => v1::FileKind::CharDevice,
        Kind::BlockDevice => v1::FileKind::BlockDevice,
        Kind::Socket => v1::FileKind::Socket,
    }
}

/// What a person calls it.
pub(super) fn kind_words(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "a regular file",
        Kind::Dir => "a directory",
        Kind::Symlink => "a symbolic link",
        Kind::Fifo => "a fifo",
        Kind::CharDevice => "a character device",
        Kind::BlockDevice => "a block device",
        Kind::Socket => "a socket",
    }
}

/// An entry of a directory.
pub(super) fn dir_entry(name: &[u8], found: &Found) -> Answer<v1::DirEntry> {
    let attrs = &found.attrs;
    let target = if found.kind == Kind::Symlink { found.target()? } else { Vec::new() };
    Ok(v1::DirEntry {
        name: name.to_vec(),
        kind: file_kind(found.kind).into(),
        mode: attrs.mode & 0o7777,
        uid: attrs.uid,
        gid: attrs.gid,
        size: attrs.size,
        mtime_ns: time_ns(attrs.mtime),
        nlink: attrs.nlink,
        ino: found.ino,
        target,
        rdev_major: major(attrs.rdev) as u32,
        rdev_minor: minor(attrs.rdev) as u32,
    })
}

pub(super) fn mount_info(mount: &MountInfo) -> v1::MountInfo {
    v1::MountInfo {
        dir: mount.dir.as_os_str().as_bytes().to_vec(),
        read_only: mount.read_only,
        allow_other: mount.allow_other,
        acl: mount.acl,
        no_xattrs: mount.no_xattrs,
        io: file_io(mount.io).into(),
        transport: transport(mount.transport).into(),
        transport_note: mount.transport_note.as_deref().unwrap_or_default().to_owned(),
    }
}

fn file_io(io: FileIo) -> v1::FileIo {
    match io {
        FileIo::Cached => v1::FileIo::Cached,
        FileIo::Passthrough => v1::FileIo::Passthrough,
    }
}

/// What a request asks for.
pub(super) fn file_io_choice(asked: v1::FileIo) -> FileIo {
    match asked {
        v1::FileIo::Unspecified | v1::FileIo::Cached => FileIo::Cached,
        v1::FileIo::Passthrough => FileIo::Passthrough,
    }
}

fn transport(transport: Transport) -> v1::Transport {
    match transport {
        Transport::DevFuse => v1::Transport::DevFuse,
        Transport::IoUring => v1::Transport::IoUring,
    }
}

/// What a request asks for; `None` leaves it to the daemon.
pub(super) fn transport_choice(asked: v1::Transport) -> Option<TransportChoice> {
    match asked {
        v1::Transport::Unspecified => None,
        v1::Transport::Auto => Some(TransportChoice::Auto),
        v1::Transport::DevFuse => Some(TransportChoice::DevFuse),
        v1::Transport::IoUring => Some(TransportChoice::IoUring),
    }
}

pub(super) fn snapshot_info(listed: Listed) -> v1::SnapshotInfo {
    let mut names = listed.names;
    names.sort();
    v1::SnapshotInfo {
        id: listed.id.to_string(),
        names,
        created_ns: time_ns(listed.created),
        files: listed.files,
        bytes: listed.bytes,
    }
}

fn label((key, value): (&String, &String)) -> v1::Label {
    v1::Label { key: key.clone(), value: value.clone() }
}

/// How much of a session is its own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// Files with changes of their own, and directories with changed names.
    pub(super) inodes: u64,
    /// Bytes of files that are not in the base.
    pub(super) bytes: u64,
}

impl Changes {
    /// Counts them; as long as there are many.
    pub(super) fn of(session: &Session) -> Changes {
        let state = session.peek();
        let mut changes = Changes::default();
        for (ino, inode) in &state.inodes {
            // The directories above a change are there for the way down.
            let counts = inode.kind != Kind::Dir || state.dirs.contains_key(ino);
            changes.inodes += u64::from(counts && !state.orphans.contains(ino));
            changes.bytes = changes.bytes.saturating_add(inode.changed_bytes().0);
        }
        changes
    }
}

/// A session, with those of `mounts` that are its own.
pub(super) fn session_info(
    session: &Session,
    changes: Changes,
    mounts: &[MountInfo],
    now: Time,
) -> v1::SessionInfo {
    let (meta, notes) = (&session.meta, session.notes());
    let top = session.peek().base;
    let sealed = if top == meta.origin { String::new() } else { top.to_string() };
    v1::SessionInfo {
        id: meta.id.to_string(),
        name: meta.name.clone().unwrap_or_default(),
        base: meta.origin.to_string(),
        parent: meta.parent.map(|id| id.to_string()).unwrap_or_default(),
        created_ns: time_ns(meta.created),
        fork_depth: meta.depth,
        mounts: mounts.iter().filter(|mount| mount.session == meta.id).map(mount_info).collect(),
        changed_inodes: changes.inodes,
        changed_bytes: changes.bytes,
        log_position: session.position(),
        sealed,
        travel: None,
        labels: notes.labels().iter().map(label).collect(),
        expires_ns: notes.expires().map_or(0, time_ns),
        expires_in_s: notes
            .expires()
            .map_or(0, |at| at.secs.saturating_sub(now.secs).try_into().unwrap_or(0)),
    }
}
