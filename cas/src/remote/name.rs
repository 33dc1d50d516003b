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
        format!("{PACKS}{self}")
    }

    /// Where the layer of this name is.
    pub fn layer(self) -> String {
        format!("{LAYERS}{self}")
    }
}

/// Where the manifests of a snapshot are: one of everybody who published it without knowing of the others.
pub fn manifests(id: SnapshotId) -> String {
    format!("snapshots/{id}/")
}

/// Where a manifest of a snapshot is.
pub fn manifest(id: SnapshotId, name: RemoteName) -> String {
    format!("{}{name}", manifests(id))
}

/// The snapshot and the name of a manifest that is here.
pub fn parse_manifest(path: &str) -> Option<(SnapshotId, RemoteName)> {
    let (id, name) = path.strip_prefix("snapshots/")?.split_once('/')?;
    Some((id.parse().ok()?, RemoteName::parse(name)?))
}

/// Where it is said of an object that it is condemned.
pub fn mark(path: &str) -> String {
    format!("{MARKS}{path}")
}

/// Where it is said that a snapshot stays: by everybody who wants it to.
pub fn pins(id: SnapshotId) -> String {
    format!("{PINS}{id}/")
}

/// Where manifests are.
pub const MANIFESTS: &str = "snapshots/";
/// Where layers are.
pub const LAYERS: &str = "layers/";
/// Where packs are.
pub const PACKS: &str = "packs/";
/// Where it is said of objects that they are condemned.
pub const MARKS: &str = "condemned/";
/// Where hosts say what they read.
pub const LEASES: &str = "leases/";
/// Where it is said of snapshots that they stay.
pub const PINS: &str = "pins/";
/// Where gc asks what time it is.
pub const PROBES: &str = "clock/";

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
