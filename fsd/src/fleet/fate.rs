//! What becomes of records: sent, won or lost, and what that means for the copy of the session that is on this host.

use std::sync::Arc;

use super::{
    Fleet, FleetError, Result,
    heads::{Appended, Head, HeadError, Nonce},
    ledger::{Entry, Taken},
    stays,
};
use crate::session::{self, LABEL_BYTES_MAX, Session, SessionId};

/// Names that are tried for the fork of a session that another host has taken.
const NAMES_MAX: u32 = 1000;

impl Fleet {
    /// Makes a record the head, or finds out that another is.
    pub(super) fn append(&self, id: SessionId, entry: &mut Entry, head: Head) -> Result<()> {
        self.heads.check().map_err(FleetError::Heads)?;
        self.say_place(true)?;
        if let Err(error) = self.remember(id, entry, |entry| entry.pending = Some(head.clone())) {
            // It may be on the disk all the same: a write behind it could be lost at the next start, and what it names must not be.
            entry.pending = entry.pending.take().or(Some(head));
            self.hold(id, entry);
            return Err(error);
        }
        self.settle(id, entry)
    }

    /// Finds out what became of the record that is under way, if there is one.
    pub(super) fn settle(&self, id: SessionId, entry: &mut Entry) -> Result<()> {
        let Some(pending) = entry.pending.clone() else { return Ok(()) };
        let unsettled = |error| match error {
            HeadError::Unknown(_) => FleetError::Unsettled(error),
            error => FleetError::Heads(error),
        };
        match self.heads.append(&pending).map_err(unsettled)? {
            Appended::Won => self.remember(id, entry, |entry| {
                entry.head = Some(pending);
                entry.pending = None;
            }),
            Appended::Lost(newest) => self.lost(id, entry, &pending, newest.as_ref()),
        }
    }

    fn lost(&self, id: SessionId, entry: &mut Entry, pending: &Head, newest: Option<&Head>) -> Result<()> {
        if entry.is_discarded || pending.ended || (entry.head.is_none() && pending.seq > 1) {
            // It was not to stay here, or was not here yet.
            let ends = entry.is_discarded || pending.ended;
            self.discard_here(id)?;
            self.forget(id, entry)?;
            return if ends { Ok(()) } else { Err(FleetError::Lost(id)) };
        }
        if newest.is_none_or(|newest| newest.seq < pending.seq) {
            self.remember(id, entry, |entry| entry.pending = None)?;
            return Err(FleetError::Gone(id));
        }
        Err(self.taken(id, entry)?)
    }

    /// Another host has it: what is here becomes a fork. Gives what to tell whoever wanted to go on.
    pub(super) fn taken(&self, id: SessionId, entry: &mut Entry) -> Result<FleetError> {
        let Some(session) = self.engine.session_of(id) else {
            self.forget(id, entry)?;
            return Ok(FleetError::Lost(id));
        };
        session.close();
        let taken = match self.is_ahead(&session, entry.head.as_ref()) {
            true => Taken::Forked(self.fork_of_taken(&session)?.id()),
            false => Taken::Published,
        };
        // Before anything says that it is there.
        self.engine.durability().sync()?;
        self.remember(id, entry, |entry| {
            entry.pending = None;
            entry.taken = Some(taken);
        })?;
        tracing::warn!(session = %id, "another host has taken it; {taken}");
        Ok(FleetError::Taken { session: id, taken })
    }

    fn fork_of_taken(&self, session: &Session) -> Result<Arc<Session>> {
        let id = session.id().to_string();
        let name = session.meta.name.as_deref().unwrap_or(&id[SessionId::PREFIX.len()..]);
        for nth in 1..=NAMES_MAX {
            let end = if nth == 1 { "-taken".to_owned() } else { format!("-taken-{nth}") };
            let mut len = name.len().min(LABEL_BYTES_MAX - end.len());
            while !name.is_char_boundary(len) {
                len -= 1;
            }
            match self.engine.fork(session, &[Some(format!("{}{end}", &name[..len]))]) {
                Err(session::Error::NameTaken { .. }) => {}
                forked => return Ok(forked?.remove(0)),
            }
        }
        Ok(self.engine.fork(session, &[None])?.remove(0))
    }

    /// Lets go of a session that this host gave away or ended.
    pub(super) fn conclude(&self, id: SessionId, entry: &mut Entry) -> Result<()> {
        let is_other = entry.taken.is_some() || entry.follows.is_some();
        if entry.pending.is_some() || is_other || stays(entry, self.host) {
            return Ok(());
        }
        self.discard_here(id)?;
        if let Some(head) =
            entry.head.clone().filter(|head| entry.is_discarded && head.holder == Some(self.host))
        {
            return self.append(id, entry, self.ended(&head)).and_then(|()| self.conclude(id, entry));
        }
        self.forget(id, entry)
    }

    fn discard_here(&self, id: SessionId) -> Result<()> {
        match self.engine.session_of(id) {
            Some(session) => Ok(self.engine.discard(&session)?),
            None => Ok(()),
        }
    }

    /// The record behind this one that says that the session was discarded.
    pub(super) fn ended(&self, head: &Head) -> Head {
        Head { holder: None, ended: true, ..self.next(head) }
    }

    /// A record behind this one.
    pub(super) fn next(&self, head: &Head) -> Head {
        Head { seq: head.seq + 1, nonce: self.nonce(), ..head.clone() }
    }

    /// It was taken, and could not be forked: the disk was full, say.
    pub(super) fn is_closed_for_now(&self, id: SessionId, entry: &Entry) -> bool {
        stays(entry, self.host) && self.engine.session_of(id).is_some_and(|session| session.is_closed())
    }

    /// Whether somebody took a session while nobody heard of this host.
    pub(super) fn look_after(&self, id: SessionId, entry: &mut Entry) {
        let Some(ours) = entry.head.clone().filter(|_| entry.taken.is_none() && entry.follows.is_none())
        else {
            return;
        };
        let looked = match self.heads.newest(id) {
            Ok(Some(newest)) if newest.epoch > ours.epoch => self.taken(id, entry).map(drop),
            found => found.map(drop).map_err(FleetError::Heads),
        };
        if let Err(error) = looked {
            tracing::warn!(session = %id, %error, "whether another host has taken it is not known");
        }
    }

    /// Changes an entry on the disk, then here.
    pub(super) fn remember(
        &self,
        id: SessionId,
        entry: &mut Entry,
        change: impl FnOnce(&mut Entry),
    ) -> Result<()> {
        let mut changed = entry.clone();
        change(&mut changed);
        // Before anybody may see the record, and as long as somebody may.
        self.hold(id, &changed);
        if let Err(error) = self.ledger.save(id, &changed) {
            self.hold(id, entry);
            return Err(error.into());
        }
        *entry = changed;
        Ok(())
    }

    /// There is nothing to remember of a session that is not here any more. A copy that came back out of the log after power loss would be taken for
    /// one that was never published, or, when this host takes the session the next time, for what it has taken.
    pub(super) fn forget(&self, id: SessionId, entry: &mut Entry) -> Result<()> {
        self.engine.durability().sync()?;
        self.remember(id, entry, |entry| *entry = Entry::default())
    }

    pub(super) fn nonce(&self) -> Nonce {
        self.engine.entropy().remote_name().0
    }
}
