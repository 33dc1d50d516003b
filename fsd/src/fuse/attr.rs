//! An engine's inode as the kernel wants it.

use cas::{Content, Kind, Node};

use super::abi::{Attr, AttrOut, EntryOut};
use crate::session::{Found, Session, Source, has_few_extents};

/// How long the kernel may keep names and attributes, in seconds: a year. Only the daemon changes a session, and it says so
/// when it does.
const TTL_SECS: u64 = 365 * 24 * 3600;
/// The size that st_blksize suggests; the kernel's page size, so that small files are not read-modified-written.
const BLOCK_BYTES: u32 = 4096;

/// The entry that stands for a name that does not exist: inode 0 with a lifetime, so that the kernel remembers it. An error
/// it would not remember.
pub(super) fn nothing() -> EntryOut {
    EntryOut { entry_valid: TTL_SECS, ..EntryOut::default() }
}

/// A name's inode, as LOOKUP and its like tell it.
pub(super) fn entry(session: &Session, found: &Found) -> EntryOut {
    let attr = attr(session, found);
    EntryOut { nodeid: found.ino, entry_valid: TTL_SECS, attr_valid: TTL_SECS, attr, ..EntryOut::default() }
}

/// Attributes alone.
pub(super) fn attr_out(session: &Session, found: &Found) -> AttrOut {
    AttrOut { valid: TTL_SECS, attr: attr(session, found), ..AttrOut::default() }
}

fn attr(session: &Session, found: &Found) -> Attr {
    let a = &found.attrs;
    Attr {
        ino: found.ino,
        size: if found.kind == Kind::Dir { u64::from(BLOCK_BYTES) } else { a.size },
        blocks: blocks(session, found),
        atime: found.atime.secs,
        mtime: a.mtime.secs,
        ctime: a.ctime.secs,
        atime_nanos: found.atime.nanos,
        mtime_nanos: a.mtime.nanos,
        ctime_nanos: a.ctime.nanos,
        mode: found.kind.mode_bits() | a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev as u32,
        block_bytes: BLOCK_BYTES,
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
