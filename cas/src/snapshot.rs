//! SKELETON - the snapshot record: root attributes and dir object digest.
#![expect(missing_docs, unused_variables, clippy::todo, reason = "skeleton")]
use crate::{Attrs, Digest, Result, SnapshotId, Store, store::Writer};
/// An immutable tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Attributes of the root directory (its inode number is always 1).
    pub attrs: Attrs,
    /// Extended attributes of the root.
    pub xattrs: Option<Digest>,
    /// The root's dir object.
    pub dir: Digest,
}
impl Store { pub fn snapshot(&self, id: SnapshotId) -> Result<Snapshot> { todo!() } }
impl Writer {
    pub fn put_snapshot(&mut self, snapshot: &Snapshot) -> Result<SnapshotId> { todo!() }
}
