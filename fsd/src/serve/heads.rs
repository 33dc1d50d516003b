//! Sessions of all hosts, as the heads have them.

use proto::v1::{self, remote_session};

use super::{Answer, Host, convert::time_ns, elsewhere::session_of_head, stream::Sink};
use crate::{
    fleet::{Holder, Known, heads::Head},
    session::SessionId,
};

impl Host {
    pub(super) fn list_remote(&self, _: v1::ListRemoteRequest, sink: &Sink<v1::RemoteSession>) -> Answer<()> {
        self.fleet()?.overview(|id| self.may_have_by_id(id), |known| sink.send(remote_session(known)))
    }

    /// Whether who asks may have a session, which may be another host's.
    fn may_have_by_id(&self, id: SessionId) -> bool {
        match self.engine.session_of(id) {
            Some(session) => self.may_have(&session),
            None => self.access.names(id),
        }
    }
}

fn remote_session((id, head): Known) -> v1::RemoteSession {
    match head {
        Ok((head, holder)) => of_head(&head, holder),
        Err(error) => v1::RemoteSession {
            session: Some(v1::SessionInfo { id: id.to_string(), ..v1::SessionInfo::default() }),
            damage: error.to_string(),
            ..v1::RemoteSession::default()
        },
    }
}

fn of_head(head: &Head, holder: Holder) -> v1::RemoteSession {
    let mut session = session_of_head(head);
    if let Some(travel) = &mut session.travel {
        travel.held_here = holder == Holder::Here;
    }
    let (state, seen_secs) = match holder {
        Holder::Here => (remote_session::State::Here, None),
        Holder::Nobody => (remote_session::State::Free, None),
        Holder::Other { seen_secs, is_stale: false } => (remote_session::State::Held, seen_secs),
        Holder::Other { seen_secs, is_stale: true } => (remote_session::State::Stale, seen_secs),
    };
    let seen = seen_secs.map(|secs| cas::Time { secs, nanos: 0 });
    v1::RemoteSession {
        session: Some(session),
        state: state.into(),
        holder_seen_ns: seen.map_or(0, time_ns),
        damage: String::new(),
    }
}
