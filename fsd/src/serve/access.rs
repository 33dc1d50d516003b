//! Who calls, as far as the calls have to know: somebody at the socket, who may do everything, or somebody far away with a token.
//!
//! Whether the token allows the method has been decided before (`gate`). Which sessions it holds for is decided here, where the sessions of a request
//! are looked up: a lookup gives who asks what he may have, or an error that does not say whether there is anything.

use std::{collections::BTreeSet, sync::Arc};

use cas::SnapshotId;
use tonic::{Code, Status};

use super::{Answer, Host, bounds::quoted};
use crate::session::{Session, SessionId, Target};

/// How many forks may lie between a session and one that a token names.
const ANCESTORS_MAX: usize = 1024;

/// Who calls, and what for.
#[derive(Clone, Debug)]
pub struct Access {
    /// Not at the socket.
    is_remote: bool,
    /// The right that is made use of, for messages.
    right: &'static str,
    /// He may write as well.
    writes: bool,
    /// What is asked for has to be in each of them, or a fork of what is. None: no limits.
    sessions: Arc<[BTreeSet<SessionId>]>,
}

impl Access {
    /// Of who is at the socket.
    pub fn owner() -> Access {
        Access { is_remote: false, right: "", writes: true, sessions: Arc::new([]) }
    }

    /// Of who has a token, and makes use of a right that it allows. `None` for sessions that this version cannot read.
    pub(super) fn of_token(token: &token::Grant, right: token::Right) -> Option<Access> {
        let set = |set: &BTreeSet<token::SessionRef>| {
            set.iter().map(|session| session.as_str().parse().ok()).collect::<Option<BTreeSet<SessionId>>>()
        };
        let sessions = token.sessions.iter().map(set).collect::<Option<Vec<_>>>()?;
        let writes = token.rights.contains(&token::Right::Write);
        Some(Access { is_remote: true, right: right.name(), writes, sessions: sessions.into() })
    }

    /// Of who has none, and asks nothing that needs one.
    pub(super) fn stranger() -> Access {
        // In an empty set there is nobody.
        Access { is_remote: true, right: "", writes: false, sessions: Arc::new([BTreeSet::new()]) }
    }

    /// Whether what a call is for may be written, too.
    pub(super) fn writes(&self) -> bool {
        self.writes
    }

    /// There are sessions that it does not hold for.
    pub(super) fn is_limited(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// It names this session itself, or has no limits.
    pub(super) fn names(&self, id: SessionId) -> bool {
        self.sessions.iter().all(|set| set.contains(&id))
    }

    /// Paths of this host are for who is on it. Error: PERMISSION_DENIED.
    pub(super) fn check_local(&self, what: &str) -> Answer<()> {
        if self.is_remote {
            let message = format!("{what}: that is for callers on the daemon's host, through its socket");
            return Err(Status::permission_denied(message));
        }
        Ok(())
    }

    /// Says the same whether it is there or not.
    fn refused(&self, asked: &str) -> Status {
        let (right, asked) = (self.right, quoted(asked.as_bytes()));
        Status::permission_denied(format!(
            "the token does not allow {right} of {asked}: it holds for other sessions; ask for one that holds for this"
        ))
    }
}

impl Host {
    /// What was found, for who may have it. Error: PERMISSION_DENIED.
    pub(super) fn granted(&self, asked: &str, found: Answer<Target>) -> Answer<Target> {
        if !self.access.is_limited() {
            return found;
        }
        match found {
            Ok(Target::Session(session)) if self.may_have(&session) => Ok(Target::Session(session)),
            Ok(Target::Snapshot(id)) if self.may_have_snapshot(id) => Ok(Target::Snapshot(id)),
            Err(status) if !matches!(status.code(), Code::NotFound | Code::InvalidArgument) => Err(status),
            Ok(_) | Err(_) => Err(self.access.refused(asked)),
        }
    }

    /// Whether who asks may have a session: himself named, or a fork of what is.
    pub(super) fn may_have(&self, session: &Session) -> bool {
        if !self.access.is_limited() {
            return true;
        }
        let mut line = BTreeSet::from([session.id()]);
        let mut parent = session.meta.parent;
        while let Some(id) = parent.filter(|_| line.len() < ANCESTORS_MAX) {
            line.insert(id);
            // Behind one that was discarded nothing is known, and nothing allowed.
            parent = self.engine.session_of(id).and_then(|session| session.meta.parent);
        }
        self.access.sessions.iter().all(|set| !set.is_disjoint(&line))
    }

    /// Whether who asks may have a snapshot: one that a session of his stands on.
    pub(super) fn may_have_snapshot(&self, id: SnapshotId) -> bool {
        !self.access.is_limited() || self.snapshots_granted().contains(&id)
    }

    /// Snapshots that sessions stand on which who asks may have.
    pub(super) fn snapshots_granted(&self) -> BTreeSet<SnapshotId> {
        let sessions = self.engine.sessions().into_iter().filter(|session| self.may_have(session));
        sessions.flat_map(|session| [session.meta.origin, session.peek().base]).collect()
    }

    /// For what concerns more than sessions that a token names. Error: PERMISSION_DENIED.
    pub(super) fn check_unlimited(&self, asked: &str) -> Answer<()> {
        if self.access.is_limited() { Err(self.access.refused(asked)) } else { Ok(()) }
    }
}
