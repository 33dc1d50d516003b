//! Replaying the log into the sessions that it describes. The same [`State::apply`] that made the changes makes them again.

use std::{collections::HashMap, sync::Arc};

use super::{
    Error, Result, SessionId,
    extent::Data,
    inode::Body,
    invariants,
    notes::Notes,
    record::{Meta, Record},
    segment::Pool,
    state::{Effect, State},
};

/// A session as the log describes it.
#[derive(Debug)]
pub struct Recovered {
    /// Its identity.
    pub meta: Meta,
    /// What is attached to it.
    pub notes: Notes,
    /// Its content.
    pub state: State,
    /// The position from which the log describes it.
    pub anchor: u64,
    /// Extents of this epoch and later ones may have been the session's own when the last record was written: a live
    /// session's anchor shares nothing.
    own_from: u64,
}

/// All that the log describes.
#[derive(Debug)]
pub struct Outcome {
    /// The sessions.
    pub sessions: Vec<Recovered>,
    /// The highest epoch among them.
    pub epoch: u64,
    /// Segments that they refer to, and where the last byte in use ends.
    pub used: HashMap<u64, u64>,
}

/// A replay under way.
pub struct Recovery {
    pool: Arc<Pool>,
    sessions: HashMap<SessionId, Recovered>,
    /// Parts of anchors whose last record was not met yet, with the position of the first.
    parts: HashMap<SessionId, (u64, u32, Vec<Effect>)>,
    epoch: u64,
}

impl Recovery {
    /// Nothing replayed yet.
    pub fn new(pool: Arc<Pool>) -> Recovery {
        Recovery { pool, sessions: HashMap::new(), parts: HashMap::new(), epoch: 0 }
    }

    /// Replays one record. A session of which no anchor was met yet is skipped: its own comes later in the log, or it was
    /// discarded.
    pub fn replay(&mut self, position: u64, body: &[u8]) -> Result<()> {
        let record = Record::decode(body, &self.pool).ok_or_else(|| Error::Damaged {
            path: "log".into(),
            position,
            reason: "a record with a good checksum is malformed; it was not written by this program".into(),
        })?;
        match record {
            Record::Part { id, index, effects } => {
                let parts = self.parts.entry(id).or_insert((position, 0, Vec::new()));
                if index == 0 {
                    *parts = (position, 0, Vec::new());
                }
                parts.1 = index.saturating_add(1);
                parts.2.extend(effects);
            }
            Record::Anchor { meta, notes, base, next_ino, parts, effects } => {
                let (anchor, count, mut all) = match parts {
                    0 => (position, 0, Vec::new()),
                    _ => self.parts.remove(&meta.id).unwrap_or((position, 0, Vec::new())),
                };
                if count == parts {
                    all.extend(effects);
                    let own_from = self.epoch + 1;
                    let state = self.sum_up(base, next_ino, &all);
                    self.sessions.insert(meta.id, Recovered { meta, notes, state, anchor, own_from });
                }
            }
            Record::Fork { parent, meta, notes } => {
                let (epoch, child_epoch) = (self.next_epoch(), self.next_epoch());
                if let Some(parent) = self.sessions.get_mut(&parent) {
                    parent.state.epoch = epoch;
                    parent.own_from = epoch;
                    let mut state = State { epoch: child_epoch, ..parent.state.clone() };
                    state.drop_orphans();
                    let anchor = parent.anchor;
                    let own_from = child_epoch;
                    self.sessions.insert(meta.id, Recovered { meta, notes, state, anchor, own_from });
                }
            }
            Record::Discard(id) => {
                self.sessions.remove(&id);
                self.parts.remove(&id);
            }
            Record::Trim(_) => {}
            Record::Notes(id, notes) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.notes = notes;
                }
            }
            Record::Apply(id, effects) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    effects.iter().for_each(|effect| session.state.apply(effect));
                }
            }
        }
        Ok(())
    }

    /// What follows was written after the machine went down, or after part of the log was lost. Bytes that a session owned
    /// may have been overwritten in place, and the record that said so gone: nothing is known of them any more.
    pub fn interrupted(&mut self) {
        for session in self.sessions.values() {
            for inode in session.state.inodes.values() {
                let Body::File(file) = &inode.body else { continue };
                for (_, extent) in file.extents.iter() {
                    if let Data::Segment { segment, offset, epoch } = &extent.data
                        && *epoch >= session.own_from
                    {
                        segment.clear_sums(*offset..offset + extent.len);
                    }
                }
            }
        }
    }

    fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    fn sum_up(&mut self, base: cas::SnapshotId, next_ino: u64, effects: &[Effect]) -> State {
        let mut state = State {
            base,
            inodes: imbl::OrdMap::new(),
            dirs: imbl::OrdMap::new(),
            orphans: imbl::OrdSet::new(),
            next_ino,
            epoch: self.next_epoch(),
        };
        effects.iter().for_each(|effect| state.apply(effect));
        // Another session's anchor may name the same extents.
        state.epoch = self.next_epoch();
        state
    }

    /// What the log describes in the end, without what nobody can hold any more.
    pub fn finish(mut self) -> Result<Outcome> {
        self.parts.clear();
        let mut used: HashMap<u64, u64> = HashMap::new();
        for session in self.sessions.values_mut() {
            session.state.drop_orphans();
            let adrift = invariants::mend(&mut session.state).map_err(|reason| Error::Damaged {
                path: "log".into(),
                position: session.anchor,
                reason: format!("what it says of {} cannot be: {reason}", session.meta.id),
            })?;
            if !adrift.is_empty() {
                let (session, dirs) = (session.meta.id, adrift.len());
                tracing::error!(%session, dirs, "no path leads to changed directories: they are left out");
            }
            for inode in session.state.inodes.values() {
                let Body::File(file) = &inode.body else { continue };
                for (_, extent) in file.extents.iter() {
                    if let Data::Segment { segment, offset, .. } = &extent.data {
                        let end = offset + extent.len;
                        // What is checked together is kept together.
                        let sum = segment.sums(end - 1..end).last().map_or(end, |sum| sum.range().end);
                        let used = used.entry(segment.id()).or_default();
                        *used = (*used).max(sum);
                    }
                }
            }
        }
        Ok(Outcome { sessions: self.sessions.into_values().collect(), epoch: self.epoch, used })
    }
}
