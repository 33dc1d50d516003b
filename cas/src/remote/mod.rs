//! The store that hosts share: an object store, or a folder that all of them see.
//!
//! It holds [packs](pack), [layers](layer) that say where in them each object is, and for each published snapshot a [manifest] that
//! names the layers which have all of it. Names of packs and layers are random and never used twice; nothing is ever changed in place. So
//! what a host has learnt of them stays true for as long as they are there.
//!
//! [`Remote`] is how this crate sees it: six verbs that block. Who implements them knows networks; nobody here does.

mod ahead;
pub mod bring;
pub mod cache;

#[cfg(any(test, feature = "simulation"))]
pub mod contract;
pub mod counters;
pub mod fetch;
pub mod gc;
pub mod hanging;
pub mod known;
pub mod layer;
pub mod lease;
pub mod manifest;
mod marks;
pub mod name;
mod near;
mod nowhere;
pub mod pack;
pub mod peer;
pub mod publish;
#[cfg(any(test, feature = "simulation"))]
pub mod sim;

use std::{
    fmt,
    ops::{ControlFlow, Range},
    panic::resume_unwind,
    thread,
};

pub use manifest::Manifest;
pub(crate) use near::Near;
pub use near::PeerCounts;
pub(crate) use nowhere::Nowhere;

use crate::Error;

/// Objects by name, in a place that other hosts reach. Names are `/`-separated, relative to where the store begins. Every
/// implementation passes the contract suite in this module's tests. Calls try again by themselves, within a bound; an error is final.
pub trait Remote: fmt::Debug + Send + Sync + 'static {
    /// Reads a range of an object that has it. Error: `NotFound`, and `Failed` if there is less.
    fn read(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, Failure>;
    /// Reads an object of at most `bytes_max` bytes. Error: `NotFound`, and `Failed` if it is larger.
    fn read_whole(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, Failure>;
    /// Makes an object, or replaces the one of this name. When it returns, every host sees the whole of it.
    fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), Failure>;
    /// Makes an object. False: there is one of this name, which stays. Of several who try at once one succeeds.
    fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool, Failure>;
    /// The objects whose names begin with `prefix`, which ends with a `/`, sorted by name. What was written before this was asked is in it, and what
    /// was removed is not.
    fn dated(&self, prefix: &str) -> Result<Vec<Dated>, Failure>;
    /// Their names.
    fn list(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        Ok(self.dated(prefix)?.into_iter().map(|dated| dated.name).collect())
    }
    /// The first of those names, if there is any. Costs one request where names come in order.
    fn first(&self, prefix: &str) -> Result<Option<String>, Failure> {
        Ok(self.list(prefix)?.into_iter().next())
    }
    /// Shows the names that begin with `prefix`, which ends with a `/`, and are behind `after`, until `show` has seen enough. Holds no more of them than a
    /// request brings, where a store lists like that.
    fn walk(
        &self,
        prefix: &str,
        after: &str,
        show: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let names = self.list(prefix)?;
        let _ = names.iter().filter(|name| name.as_str() > after).try_for_each(|name| show(name));
        Ok(())
    }
    /// Whether [`Remote::walk`] shows names in their order.
    fn is_sorted(&self) -> bool {
        true
    }
    /// Removes an object, if it is there.
    fn remove(&self, name: &str) -> Result<(), Failure>;
    /// What a person calls the object: its whole address.
    fn display(&self, name: &str) -> String;
}

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was written, by the store's own clock: seconds since 1970. Only differences between those of one store mean anything.
    pub written_secs: i64,
}

/// Why a call of a [`Remote`] came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no such object.
    #[error("there is no {0}")]
    NotFound(String),
    /// The store does not let this host do that.
    #[error("{object}: refused: {reason}; check the credentials and what they allow")]
    Refused {
        /// Its address.
        object: String,
        /// What the store said.
        reason: String,
    },
    /// It did not answer, again and again.
    #[error("{object}: {reason}")]
    Unreachable {
        /// Its address.
        object: String,
        /// What went wrong the last time.
        reason: String,
    },
    /// It answered, and not with what was asked for.
    #[error("{object}: {reason}")]
    Failed {
        /// Its address.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Requests at a time, of who asks for many things. One in tests, which go by seed.
const AT_A_TIME: usize = if cfg!(test) { 1 } else { 8 };

/// Asks for each of some things, several at a time, and gives the answers in their order. Error: the first one's.
pub fn each<T: Sync, A: Send, E: Send>(
    all: &[T],
    ask: impl Fn(&T) -> std::result::Result<A, E> + Sync,
) -> std::result::Result<Vec<A>, E> {
    let ask = &ask;
    let part = all.len().div_ceil(AT_A_TIME).max(1);
    thread::scope(|scope| {
        let spawn = |part| {
            scope.spawn(move || <[T]>::iter(part).map(ask).collect::<std::result::Result<Vec<_>, E>>())
        };
        let parts: Vec<_> = all.chunks(part).map(spawn).collect();
        let mut answers = Vec::with_capacity(all.len());
        for part in parts {
            answers.extend(part.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(answers)
    })
}

/// Whether what was to be had of the remote store is not there, or is not what it should be. Others may have better luck with other things.
fn is_useless(error: &Error) -> bool {
    match error {
        Error::Malformed { .. } | Error::Remote(Failure::NotFound(_) | Failure::Failed { .. }) => true,
        Error::Fetch(error) => is_useless(error),
        _ => false,
    }
}

/// Whether the remote store as a whole did not answer.
fn is_unreachable(error: &Error) -> bool {
    match error {
        Error::Remote(Failure::Unreachable { .. }) => true,
        Error::Fetch(error) => is_unreachable(error),
        _ => false,
    }
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod gc_tests;
#[cfg(test)]
mod near_tests;
#[cfg(test)]
mod tests;
