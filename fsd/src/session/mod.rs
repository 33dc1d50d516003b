//! The engine: sessions over a store, forked in one record, recovered from a log.
//!
//! Synchronous, and pure but for what it is given: clock, randomness and disk arrive as arguments. It has never heard of
//! errno, FUSE, tokio or protobuf. `docs/ARCHITECTURE.md` says how the parts work together.

mod accesses;
mod acl;
mod ambient;
mod attributes;
mod check;
pub(crate) mod codec;
mod data;
mod diff;
mod durability;
mod engine;
mod error;
mod extent;
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod inode;
mod invariants;
mod known;
mod lent;
mod limits;
mod linked;
mod listing;
mod live;
mod log;
mod log_file;
mod name;
mod names;
mod notes;
mod overdue;
mod pins;
mod privileges;
mod profile;
mod rebase;
mod record;
mod recover;
mod replay;
mod seal;
mod segment;
mod sessions;
mod state;
mod sums;
mod tree;
mod visiting;

pub use accesses::{ACCESSES_ALL_MAX, ACCESSES_MAX, Accesses};
pub use ambient::{Boot, Clock, Entropy};
pub use attributes::{SetAttrs, SetTime, SetXattr, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
pub use check::{CheckProgress, Checked, Flaw};
pub use data::{Allocate, FILE_BYTES_MAX, Seek, data_bytes};
pub use diff::{Difference, Side, diff};
pub use durability::Durability;
pub use engine::{Engine, LABEL_BYTES_MAX, Parts, Publishing, Target};
pub use error::{Error, Result};
pub use id::SessionId;
pub use inode::{INODES_MAX, ROOT, has_few_extents};
pub use lent::{Lent, STAYS, STAYS_FIRST};
pub use limits::Limits;
pub use live::Session;
pub use log::{DamagedFile, Log};
pub use name::{NAME_BYTES_MAX, Name, parse_path};
pub use names::{New, Rename};
pub use notes::{
    KEY_BYTES_MAX, LABELS_MAX, LIFETIME_S_MAX, LIFETIME_S_MIN, Notes, VALUE_BYTES_MAX, check_key,
};
pub use overdue::Overdue;
pub use pins::Pin;
pub use privileges::Writer;
pub use profile::{ENTRY_PATH_BYTES_MAX, Profile, ProfileEntry};
pub use record::Meta;
pub use seal::{SealProgress, Sealed};
pub use segment::Pool;
pub use state::State;
pub use tree::{DirNode, Found, Source};
