//! An engine's inode as the kernel wants it.

use std::time::{Duration, SystemTime};

use cas::{Content, Kind, Node, Time};
use fuser::{FileAttr, FileType, INodeNo};

use crate::session::{Found, Session, Source, has_few_extents};

/// How long the kernel may keep names and attributes. Only the daemon changes a session, and it says so when it does.
pub(super) const TTL: Duration = Duration::from_secs(365 * 24 * 3600);
/// The size that st_blksize suggests; the kernel's page size, so that small files are not read-modified-written.
const BLOCK_BYTES: u32 = 4096;

/// Its type.
pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// Its attributes.
pub(super) fn attr(session: &Session, found: &Found) -> FileAttr {
    let a = &found.attrs;
    let size = if found.kind == Kind::Dir { u64::from(BLOCK_BYTES) } else { a.size };
    FileAttr {
        ino: INodeNo(found.ino),
        size,
        blocks: blocks(session, found),
        atime: system_time(found.atime),
        mtime: system_time(a.mtime),
        ctime: system_time(a.ctime),
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(found.kind),
        perm: a.mode as u16,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev as u32,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// 512-byte blocks in use. Exact where it is cheap to know; a file in very many pieces counts as dense.
fn blocks(session: &Session, found: &Found) -> u64 {
    let size = found.attrs.size;
    let dense = match &found.source {
        _ if found.kind != Kind::File => return 0,
        Source::Base(place) => {
            !matches!(place.dir.entry(place.index), Ok(e) if matches!(e.node, Node::File(Content::List(_))))
        }
        Source::Changed(inode) => !has_few_extents(inode),
    };
    let bytes = if dense { size } else { session.data_bytes(found).unwrap_or(size) };
    bytes.div_ceil(512)
}

fn system_time(time: Time) -> SystemTime {
    let base = if time.secs >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.secs.unsigned_abs()))
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(time.secs.unsigned_abs()))
    };
    base.and_then(|base| base.checked_add(Duration::from_nanos(time.nanos.into())))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A time as the kernel sends it. `fuser` takes both the seconds and the nanoseconds of a time before 1970 for parts of the
/// distance to it, while the kernel's nanoseconds count forward (0.18: `system_time_from_time`).
pub(super) fn time(time: SystemTime) -> Time {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Time { secs: since.as_secs() as i64, nanos: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Time { secs: -(before.as_secs() as i64), nanos: before.subsec_nanos() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_what_the_kernel_meant() {
        // What fuser makes of the kernel's (secs, nanos), and what it takes back for the same moment.
        for (secs, nanos) in [(-5, 0), (-5, 1), (-1, 999_999_999), (-1, 0), (0, 0), (0, 1), (1 << 33, 5)] {
            let t = Time { secs, nanos };
            let distance = Duration::new(secs.unsigned_abs(), nanos);
            let from_fuser = match secs < 0 {
                true => SystemTime::UNIX_EPOCH - distance,
                false => SystemTime::UNIX_EPOCH + distance,
            };
            assert_eq!(time(from_fuser), t);
            let to_fuser = match SystemTime::UNIX_EPOCH.duration_since(system_time(t)) {
                Ok(before) => -(before.as_nanos() as i128),
                Err(after) => after.duration().as_nanos() as i128,
            };
            assert_eq!(to_fuser, i128::from(secs) * 1_000_000_000 + i128::from(nanos));
        }
    }
}
