//! Heads: of each session that travels, the small shared record that says what is published of it and who may write it.
//!
//! A head is the newest of a sequence of records, each of which is put behind the one before it, once: of several who try at the same time one
//! succeeds, and the others hear of the winner. Nothing else is asked of a place that keeps heads, so a redb file, an object store with
//! create-only writes and a database all do. Who holds a session is in the record, with an epoch that grows with every change of hands: the
//! record is the fence. Clocks only decide when somebody tries.
//!
//! Whoever implements [`HeadStore`] is held to the [contract].

pub mod contract;
mod local;
mod objects;
mod postgres;
mod record;

use std::fmt;

pub use local::LocalHeads;
pub use objects::ObjectHeads;
pub use postgres::PostgresHeads;
pub use record::{HEAD_BYTES_MAX, Head, HostId, Nonce};

use crate::session::SessionId;

/// Records that are kept behind the head: whose answer was lost finds his own among them.
const KEPT: u64 = 256;

/// What became of a record that was to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is the head.
    Won,
    /// Another one is; none if there is no head at all. This one never was, or so many others followed it that nobody can tell any more.
    Lost(Option<Head>),
}

/// Why a place of heads does not answer.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// It cannot be reached, or its answer was lost. What was asked for may have happened, may not have, and may still happen: who appended
    /// asks again **with the same record**, until the answer is [`Appended`].
    #[error("{0}")]
    Unknown(String),
    /// It does not let this host do that.
    #[error("{0}")]
    Refused(String),
    /// A record in it is none.
    #[error(
        "the head of {session} in {place} is damaged: {reason}; only the host that holds the session can go on from it, by a publish"
    )]
    Malformed {
        /// Whose.
        session: SessionId,
        /// Where.
        place: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Where a place of heads is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the remote store itself.
    Store,
    /// On a host alone.
    Host,
    /// In a database, which was called so when it was first used.
    Database(Nonce),
}

/// Sessions and their heads.
pub type Page = Vec<(SessionId, Result<Head, HeadError>)>;

/// Where heads are kept. Calls block, and try again by themselves within a bound.
pub trait HeadStore: fmt::Debug + Send + Sync + 'static {
    /// Where it is.
    fn place(&self) -> Result<Place, HeadError>;

    /// Whether no other host can read it.
    fn is_alone(&self) -> bool {
        false
    }

    /// Whether it can keep heads at all: before the first record is made.
    fn check(&self) -> Result<(), HeadError> {
        Ok(())
    }

    /// The head of a session, if it has one.
    fn newest(&self, session: SessionId) -> Result<Option<Head>, HeadError>;

    /// Makes a record the head. It must be numbered behind the head that there is: 1 if there is none. Of all that are appended with one number
    /// one wins, whatever is lost on the way, and however late a request arrives.
    fn append(&self, head: &Head) -> Result<Appended, HeadError>;

    /// Sessions that have a head, at most so many, sorted, behind `after`.
    fn sessions(&self, after: Option<SessionId>, max: usize) -> Result<Vec<SessionId>, HeadError>;

    /// The heads of sessions that have one, at most so many, sorted by session, behind `after`: of one that is damaged what is wrong. Fewer than `max`: there
    /// are no more. Holds no more of them than those.
    fn page(&self, after: Option<SessionId>, max: usize) -> Result<Page, HeadError>;

    /// A sign of life of a host: replaces the one before.
    fn beat(&self, host: HostId, beat: u64) -> Result<(), HeadError>;

    /// The last sign of life of a host. Whether it goes on, only who asks twice can tell: by his own clock.
    fn last_beat(&self, host: HostId) -> Result<Option<u64>, HeadError>;
}
