//! What people and scripts call sessions and snapshots: IDs, prefixes of them, names; and which names may be given.

use std::sync::Arc;

use cas::SnapshotId;

use super::Engine;
use crate::session::{Error, Result, SessionId, live::Session};

/// The longest label, in bytes.
pub const LABEL_BYTES_MAX: usize = 128;

/// What an ID or a name stands for.
#[derive(Clone, Debug)]
pub enum Target {
    /// A session.
    Session(Arc<Session>),
    /// A snapshot.
    Snapshot(SnapshotId),
}

impl Engine {
    /// What a person or a script typed: a whole ID, a unique prefix of one, or a name. Errors: `Unknown`, `Ambiguous`,
    /// `MalformedId`.
    pub fn resolve(&self, text: &str) -> Result<Target> {
        if text.starts_with(SessionId::PREFIX) {
            return self.sessions.read().by_id(text).cloned().map(Target::Session);
        }
        if text.starts_with(SnapshotId::PREFIX) {
            return Ok(Target::Snapshot(self.shared.store.unique_snapshot(text)?));
        }
        let named = self.sessions.read().named(text).cloned();
        match (named, self.shared.store.named(text)?) {
            (Some(session), None) => Ok(Target::Session(session)),
            (None, Some(snapshot)) => Ok(Target::Snapshot(snapshot)),
            (Some(session), Some(snapshot)) => Err(Error::Ambiguous {
                text: text.into(),
                candidates: vec![session.meta.id.to_string(), snapshot.to_string()],
            }),
            (None, None) => Err(Error::Unknown(text.into())),
        }
    }

    /// Like [`Engine::resolve`] where only a session will do; a snapshot of the same name does not make it ambiguous.
    pub fn session(&self, text: &str) -> Result<Arc<Session>> {
        if text.starts_with(SessionId::PREFIX) {
            return self.sessions.read().by_id(text).cloned();
        }
        self.sessions.read().named(text).cloned().ok_or_else(|| Error::Unknown(text.into()))
    }

    /// Like [`Engine::resolve`] where only a snapshot will do.
    pub fn snapshot(&self, text: &str) -> Result<SnapshotId> {
        if text.starts_with(SnapshotId::PREFIX) {
            return Ok(self.shared.store.unique_snapshot(text)?);
        }
        self.shared.store.named(text)?.ok_or_else(|| Error::Unknown(text.into()))
    }

    /// Error: `NameTaken`, or it is none.
    pub(super) fn check_name(&self, name: Option<&str>) -> Result<()> {
        check_label(name)?;
        let Some(name) = name else { return Ok(()) };
        match self.sessions.read().named(name) {
            Some(holder) => Err(Error::NameTaken { name: name.into(), holder: holder.meta.id }),
            None => Ok(()),
        }
    }
}

pub(super) fn check_label(name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    let malformed = |reason| Err(Error::MalformedId { text: name.into(), reason });
    if name.is_empty() || name.len() > LABEL_BYTES_MAX {
        return malformed("a name has 1 to 128 bytes");
    }
    if name.starts_with(SessionId::PREFIX) || name.starts_with(SnapshotId::PREFIX) {
        return malformed("a name must not look like an ID");
    }
    if name.chars().any(|c| c.is_control() || c == '/' || c == ':' || c.is_whitespace()) {
        return malformed("a name has no slashes, colons, spaces or control characters");
    }
    Ok(())
}
