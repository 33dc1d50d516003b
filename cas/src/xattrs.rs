//! SKELETON - extended attributes of one inode as canonical bytes.
#![expect(missing_docs, unused_variables, clippy::todo, reason = "skeleton")]
use crate::{Digest, Result, Store, store::Writer};
use std::collections::BTreeMap;
/// Name (with namespace, e.g. `user.k`) to value.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;
impl Store { pub fn xattrs(&self, digest: Digest) -> Result<Xattrs> { todo!() } }
impl Writer {
    /// None for an empty set.
    pub fn put_xattrs(&mut self, xattrs: &Xattrs) -> Result<Option<Digest>> { todo!() }
}
