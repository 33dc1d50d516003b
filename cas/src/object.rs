//! The bytes of one object in memory. They were checked against its digest when they were read; nothing changes them
//! since.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use crate::Result;

/// What an object is; the numbers stand in pack records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// Bytes of a file.
    Chunk = 1,
    /// The chunks of a large file.
    List = 2,
    /// A directory.
    Dir = 3,
    /// A part of a wide directory.
    DirPage = 4,
    /// The extended attributes of an inode.
    Xattrs = 5,
    /// A snapshot record.
    Snapshot = 6,
}

/// The bytes of an object. Cheap to clone.
#[derive(Clone)]
pub struct Object(Arc<Inner>);

struct Inner {
    bytes: Vec<u8>,
    /// Kinds that these bytes were found to decode as, a bit each.
    decodes: AtomicU8,
}

/// What bytes were found to be, once they were found to be what their digest says: kinds that they decode as, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed(u8);

impl Object {
    pub(crate) fn new(bytes: Vec<u8>) -> Object {
        Object::again(bytes, Passed::default())
    }

    /// Bytes that were an object before, of which this was found then.
    pub(crate) fn again(bytes: Vec<u8>, Passed(decodes): Passed) -> Object {
        Object(Arc::new(Inner { bytes, decodes: AtomicU8::new(decodes) }))
    }

    /// What was found of it so far.
    pub(crate) fn passed(&self) -> Passed {
        Passed(self.0.decodes.load(Relaxed))
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.bytes.capacity()
    }

    /// Runs `check`, unless it passed before: whether bytes are a directory by every rule takes longer than to find a name
    /// in them.
    pub(crate) fn check_once(&self, kind: ObjectKind, check: impl FnOnce() -> Result<()>) -> Result<()> {
        let bit = 1 << kind as u8;
        if self.0.decodes.load(Relaxed) & bit == 0 {
            check()?;
            self.0.decodes.fetch_or(bit, Relaxed);
        }
        Ok(())
    }
}

impl Deref for Object {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl AsRef<[u8]> for Object {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} bytes)", self.len())
    }
}
