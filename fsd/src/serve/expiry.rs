//! Sessions whose time is up: discarded as if somebody had asked for it, once they are not mounted.

use std::sync::Arc;

use super::{Answer, Host, Service};
use crate::session::{Overdue, Session, SessionId};

impl Service {
    /// Discards what `overdue` finds to be due. To be called every second or so, by one thread. Failures are logged and tried again a minute later.
    pub fn discard_expired(&self, overdue: &mut Overdue) {
        let host = self.host();
        let (clock, sessions) = (host.engine.clock(), host.engine.sessions());
        let expire = sessions.iter().filter_map(|session| Some((session.id(), session.expires()?)));
        for id in overdue.look(clock.now(), clock.monotonic_us(), expire) {
            if let Err(status) = host.discard_due(id) {
                let error = status.message();
                tracing::warn!(session = %id, error, "its time is up, and it cannot be discarded; tried again in a minute");
                overdue.put_off(id);
            }
        }
    }
}

impl Host {
    /// Discards a session that is due, unless it is mounted or was given more time meanwhile.
    fn discard_due(&self, id: SessionId) -> Answer<()> {
        let _mounting = self.mounting.lock();
        let Some(session) = self.engine.session_of(id) else { return Ok(()) };
        let now = self.engine.clock().now();
        if session.expires().is_none_or(|at| at > now) || !self.mounts_of(&session).is_empty() {
            return Ok(());
        }
        self.end(&session)?;
        let (name, labels) = (session.meta.name.as_deref().unwrap_or_default(), session.notes());
        tracing::info!(session = %id, name, labels = ?labels.labels(), "discarded: its time was up");
        Ok(())
    }

    /// Discards a session that is not mounted, here or, if it is this host's, everywhere. For who holds `mounting`.
    pub(super) fn end(&self, session: &Arc<Session>) -> Answer<()> {
        match &self.fleet {
            Some(fleet) => Ok(fleet.discard(session)?),
            None => Ok(self.engine.discard(session)?),
        }
    }
}
