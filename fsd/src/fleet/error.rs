//! Why a session does not travel.

use cas::SnapshotId;

use super::{
    heads::{HeadError, HostId},
    ledger::Taken,
};
use crate::session::{self, SessionId};

/// Why a session does not travel.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// What the engine says.
    #[error(transparent)]
    Engine(#[from] session::Error),
    /// The place of the heads does not answer, or what is there is none.
    #[error(
        "{0}; whether the last step was taken is not known yet, and found out by itself: `aetherctl show` tells"
    )]
    Unsettled(HeadError),
    /// It cannot be asked, and nothing was begun.
    #[error(transparent)]
    Heads(HeadError),
    /// Nobody has ever published it.
    #[error("no session {0} here, and none that any host has published")]
    Unknown(SessionId),
    /// Another host writes it.
    #[error(
        "{session} is held by {holder}, which has published it up to {root}; `aetherctl handoff {session}` there gives it away. Here it can be forked, or, if that host is dead, mounted with --take-over"
    )]
    Held {
        /// Which.
        session: SessionId,
        /// By whom.
        holder: HostId,
        /// What others may see of it.
        root: SnapshotId,
    },
    /// The holder is alive.
    #[error(
        "{session} is held by {holder}, which gives signs of life; `aetherctl handoff {session}` there gives it away"
    )]
    Alive {
        /// Which.
        session: SessionId,
        /// By whom.
        holder: HostId,
    },
    /// Somebody was faster.
    #[error("another host published or took {0} in this moment; try again")]
    Lost(SessionId),
    /// It was discarded.
    #[error("{0} was discarded")]
    Ended(SessionId),
    /// Another host has taken it.
    #[error(
        "{session} was taken by another host; {taken}. `aetherctl discard {session}` lets go of the copy that is left here"
    )]
    Taken {
        /// Which.
        session: SessionId,
        /// Where its changes are.
        taken: Taken,
    },
    /// Its records are gone from where they should be.
    #[error(
        "the head of {0} is gone from where heads are kept; nothing is published of it until it is back, but of a fork"
    )]
    Gone(SessionId),
    /// It is being given away, or was taken and could not be forked yet.
    #[error(
        "{0} takes no writes for now: it is being handed off, or another host has taken it; `aetherctl show {0}` tells"
    )]
    Leaving(SessionId),
    /// Somebody else is at it.
    #[error("{0} is being published or handed off; try again when that is done")]
    Busy(SessionId),
}

impl From<cas::Error> for FleetError {
    fn from(error: cas::Error) -> FleetError {
        FleetError::Engine(error.into())
    }
}

/// The result of what has to do with other hosts.
pub type Result<T> = std::result::Result<T, FleetError>;
