//! The store: file bytes as chunks, directories as Merkle objects, both in append-only packs behind an index.
//!
//! Knows nothing of sessions, FUSE or gRPC. Everything in it is named by the BLAKE3 of its bytes and never changes;
//! `docs/format.md` is the normative description of every byte it writes.

pub mod blob;
mod cache;
mod catalogue;
mod database;
mod digest;
pub mod dir;
pub mod disk;
mod entry;
mod error;
mod evict;
mod fields;
mod fsck;
#[cfg(any(test, feature = "simulation"))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod gc;
pub mod hash;
mod id;
pub mod import;
mod index;
mod kept;
mod object;
mod pack;
mod pool;
mod reach;
mod record;
mod recover;
pub mod remote;
mod salvage;
mod scan;
#[cfg(any(test, feature = "simulation"))]
pub mod sim;
mod snapshot;
pub mod store;
pub mod sys;
mod writer;
pub mod xattrs;

pub use digest::Digest;
pub use entry::{Attrs, Content, Entry, Kind, Node, Time};
pub use error::{Error, Result};
pub use id::{SnapshotId, base32};
pub use snapshot::Snapshot;
pub use store::{Object, ObjectKind, Store};
