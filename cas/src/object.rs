//! The bytes of one object, in place in the map of its pack.

use std::{fmt, ops::Deref, ops::Range, sync::Arc};

use crate::disk::Map;

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

/// The bytes of an object, in place; keeps what they stand in alive. Cheap to clone.
#[derive(Clone)]
pub struct Object {
    map: Arc<Map>,
    range: Range<usize>,
}

impl Object {
    pub(crate) fn new(map: Arc<Map>, range: Range<usize>) -> Object {
        Object { map, range }
    }

    /// The whole pack, of which only what is below its checked length may be read.
    pub(crate) fn whole(&self) -> &[u8] {
        &self.map
    }
}

impl Deref for Object {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
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
