//! SKELETON - packs + index + catalogue, and the Writer that appends.
#![expect(missing_docs, unused_variables, clippy::todo, reason = "skeleton")]
use crate::{disk::Disk, *};
use std::sync::Arc;

/// A handle to the store; clones share it.
#[derive(Clone, Debug)]
pub struct Store(Arc<()>);

/// A snapshot as the catalogue lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed { pub id: SnapshotId, pub names: Vec<String>, pub created: Time, pub files: u64, pub bytes: u64 }

/// What an object is; the numbers stand in pack records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind { Chunk = 1, List = 2, Dir = 3, DirPage = 4, Xattrs = 5, Snapshot = 6 }

/// The bytes of an object, in place; keeps what they stand in alive. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Object(());
impl std::ops::Deref for Object { type Target = [u8]; fn deref(&self) -> &[u8] { todo!() } }

impl Store {
    /// Opens the store in the folder `store/` of `disk`, or makes an empty one. Rebuilds a missing or broken index from packs.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Store> { todo!() }
    /// The bytes of an object, verified when they are first touched by this process.
    pub fn object(&self, kind: ObjectKind, digest: Digest) -> Result<Object> { todo!() }
    /// Copies part of a chunk: fills `buf` from `offset` of the object. For file data: pread, never a map.
    pub fn read_chunk(&self, digest: Digest, offset: u64, buf: &mut [u8]) -> Result<()> { todo!() }
    /// Begins to add objects. Nothing is visible to others, or durable, before `finish`. Several may be open at once.
    pub fn writer(&self) -> Result<Writer> { todo!() }

    // catalogue
    pub fn list(&self) -> Result<Vec<Listed>> { todo!() }
    /// Puts `id` in the catalogue (kept by gc until removed), with a name if given; a name moves from where it was.
    pub fn keep(&self, id: SnapshotId, name: Option<&str>, created: Time) -> Result<()> { todo!() }
    pub fn named(&self, name: &str) -> Result<Option<SnapshotId>> { todo!() }
    /// Takes a snapshot and its names out of the catalogue; its space comes back with the next gc.
    pub fn forget(&self, id: SnapshotId) -> Result<()> { todo!() }
    pub fn stats(&self) -> Result<Stats> { todo!() }
}

#[derive(Clone, Debug, Default)]
pub struct Stats { pub packs: u64, pub pack_bytes: u64, pub objects: u64, pub snapshots: u64 }

/// Appends objects to packs of its own. Dropped without `finish`: what it wrote is cut off again.
#[derive(Debug)]
pub struct Writer(());
impl Writer {
    /// Adds an object unless the store (or this writer) has it. `digest` must be that of `bytes`. True if it was new.
    pub fn put_object(&mut self, kind: ObjectKind, digest: Digest, bytes: &[u8]) -> Result<bool> { todo!() }
    /// Whether the store or this writer has it already.
    pub fn has(&self, digest: Digest) -> Result<bool> { todo!() }
    /// The store this writer adds to. Objects put by the writer are readable through the writer alone.
    pub fn store(&self) -> &Store { todo!() }
    /// Syncs the packs, then commits the index: from here on everything put is durable and visible.
    pub fn finish(self) -> Result<Written> { todo!() }
}
/// What a writer added (new) and what it found there already (known).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written { pub new_objects: u64, pub new_bytes: u64, pub known_objects: u64, pub known_bytes: u64 }
