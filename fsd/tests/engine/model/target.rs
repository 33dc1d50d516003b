//! What the model is compared with: a file system with sessions, its nodes named by inode number as a kernel names them.

use cas::{Attrs, Kind};
use fsd::session::{Allocate, New, Rename, Seek, SetAttrs, SetXattr};

use super::{notes::Attached, picture::Picture};

/// Why an operation failed, by kind; the words around it do not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// ENOENT.
    NotFound,
    /// EEXIST.
    Exists,
    /// ENOTDIR.
    NotADirectory,
    /// EISDIR.
    IsADirectory,
    /// ENOTEMPTY.
    NotEmpty,
    /// EINVAL.
    Invalid,
    /// EPERM.
    NotPermitted,
    /// E2BIG, ENAMETOOLONG.
    TooLarge,
    /// EFBIG.
    FileTooBig,
    /// ENODATA.
    NoAttribute,
    /// ENXIO.
    NoData,
    /// ESTALE.
    Stale,
    /// ENOSPC.
    NoSpace,
    /// One more than there may be.
    TooMany,
    /// The disk failed: nothing is known about the operation.
    Disk,
    /// Anything else; the model never expects it.
    Other,
}

/// The result of an operation.
pub type Answer<T> = Result<T, Fail>;

/// A node as an operation reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub ino: u64,
    /// Its kind.
    pub kind: Kind,
    /// Its attributes.
    pub attrs: Attrs,
}

/// One entry of a listing: name, number, and the cookie behind it.
pub type Listed = (Vec<u8>, u64, u64);

/// One difference, by its letter: paths and the numbers of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only new.
    Added(Vec<u8>),
    /// Only old.
    Deleted(Vec<u8>),
    /// Differs.
    Modified(Vec<u8>),
    /// Another kind.
    Type(Vec<u8>),
    /// Old path, number there, new path, number there.
    Renamed(Vec<u8>, u64, Vec<u8>, u64),
}

/// What a diff compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// What the session, or the one that its forks go back to, was created from.
    Origin,
    /// Another session, as the old side.
    Session(usize),
}

/// A file system with sessions. Sessions are numbered by the caller, nodes by inode number; a node is only named while it
/// has been looked up more often than forgotten. A lookup, a `make`, a `make_unnamed`, a `link` and an entry of a `list` with `plus`
/// count as one look-up each.
pub trait Target {
    fn lookup(&mut self, s: usize, dir: u64, name: &[u8]) -> Answer<Seen>;
    fn forget(&mut self, s: usize, ino: u64, lookups: u64);
    fn stat(&mut self, s: usize, ino: u64) -> Answer<Seen>;
    fn make(&mut self, s: usize, dir: u64, name: &[u8], new: New) -> Answer<Seen>;
    fn make_unnamed(&mut self, s: usize, dir: u64, new: New) -> Answer<Seen>;
    fn link(&mut self, s: usize, ino: u64, dir: u64, name: &[u8]) -> Answer<Seen>;
    fn unlink(&mut self, s: usize, dir: u64, name: &[u8]) -> Answer<()>;
    fn rmdir(&mut self, s: usize, dir: u64, name: &[u8]) -> Answer<()>;
    fn rename(&mut self, s: usize, from: (u64, &[u8]), to: (u64, &[u8]), how: Rename) -> Answer<()>;
    fn read(&mut self, s: usize, ino: u64, offset: u64, len: usize) -> Answer<Vec<u8>>;
    fn write(&mut self, s: usize, ino: u64, offset: u64, data: &[u8]) -> Answer<()>;
    fn allocate(&mut self, s: usize, ino: u64, offset: u64, len: u64, how: Allocate) -> Answer<()>;
    fn copy(&mut self, s: usize, from: (u64, u64), to: (u64, u64), len: u64) -> Answer<u64>;
    fn seek(&mut self, s: usize, ino: u64, offset: u64, what: Seek) -> Answer<u64>;
    fn set_attrs(&mut self, s: usize, ino: u64, set: SetAttrs) -> Answer<Seen>;
    fn xattrs(&mut self, s: usize, ino: u64) -> Answer<Vec<(Vec<u8>, Vec<u8>)>>;
    fn set_xattr(&mut self, s: usize, ino: u64, name: &[u8], value: &[u8], how: SetXattr) -> Answer<()>;
    fn remove_xattr(&mut self, s: usize, ino: u64, name: &[u8]) -> Answer<()>;
    /// Up to `max` entries from `cookie` on.
    fn list(&mut self, s: usize, dir: u64, cookie: u64, max: usize, plus: bool) -> Answer<Vec<Listed>>;

    /// The new session gets the next number.
    fn fork(&mut self, s: usize) -> Answer<()> {
        self.fork_noted(s, &Attached::default())
    }

    /// The same with something attached.
    fn fork_noted(&mut self, s: usize, attached: &Attached) -> Answer<()>;
    fn discard(&mut self, s: usize) -> Answer<()>;
    /// Has it end so many seconds from now, or never.
    fn expire(&mut self, s: usize, seconds: Option<u64>) -> Answer<()>;
    /// Attaches a label, or takes it off.
    fn label(&mut self, s: usize, key: &str, value: Option<&str>) -> Answer<()>;
    /// What is attached to a session.
    fn attached(&self, s: usize) -> Attached;
    /// Seals, and calls `during` once after the cut was made; returns what was sealed.
    fn seal(&mut self, s: usize, during: &mut dyn FnMut(&mut Self)) -> Answer<Picture>;
    /// Writes the session into the log anew.
    fn anchor(&mut self, s: usize) -> Answer<()>;
    fn diff(&mut self, s: usize, against: Against) -> Answer<Vec<Change>>;
    /// Makes everything so far survive power loss.
    fn sync(&mut self) -> Answer<()>;
    fn gc(&mut self) -> Answer<()>;
    /// What happens by itself every second.
    fn tick(&mut self) -> Answer<()>;
    /// The process dies and starts again: everything looked up is forgotten.
    fn reopen(&mut self);
    /// The whole tree of a session.
    fn picture(&mut self, s: usize) -> Answer<Picture>;
    /// Checks what must be true of the inside of a session; `held` are the numbers that are looked up.
    fn check(&mut self, s: usize, held: &[u64]) -> Result<(), String>;
    /// Whether it refuses what needs room, for want of a reserve.
    fn is_low(&self) -> bool;
    /// The next operation happens at this time, if that can be set.
    fn set_time(&mut self) -> cas::Time;
}
