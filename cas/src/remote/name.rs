//! Names of what the remote store holds.

use std::fmt;

use crate::{SnapshotId, base32};

/// 128 random bits, shown as base32. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteName(pub [u8; 16]);

impl RemoteName {
    /// The name that a text shows; `None` if it shows none.
    pub fn parse(text: &str) -> Option<RemoteName> {
        let name = RemoteName(base32::decode(text)?.try_into().ok()?);
        (name.to_string() == text).then_some(name)
    }

    /// Where the pack of this name is.
    pub fn pack(self) -> String {
        format!("packs/{self}")
    }

    /// Where the layer of this name is.
    pub fn layer(self) -> String {
        format!("layers/{self}")
    }
}

/// Where the manifest of a snapshot is.
pub fn manifest(id: SnapshotId) -> String {
    format!("snapshots/{id}")
}

/// What tells one remote store from another.
pub const STORE_ID: &str = "store-id";

impl fmt::Display for RemoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.0))
    }
}

impl fmt::Debug for RemoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
