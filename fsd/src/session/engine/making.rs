//! Sessions begun, forked and ended.
//!
//! A fork is one record and a clone of two maps' roots, whatever the parent's size; all forks that are asked for at once are of one cut, or none is made.

use std::sync::{Arc, atomic::Ordering};

use cas::{Attrs, SnapshotId};

use super::{DISCARD_SOME, Engine};
use crate::session::{
    Error, Result,
    inode::ROOT,
    live::Session,
    log::Purpose,
    notes::Notes,
    record::{Meta, Record, anchor},
    state::{Effect, State},
};

impl Engine {
    /// A new session: over `from`, or empty and owned by `owner` (user, group). Errors: `NameTaken`, `NoSpace`, and an unknown
    /// snapshot.
    pub fn create(
        &self,
        from: Option<SnapshotId>,
        name: Option<String>,
        owner: (u32, u32),
    ) -> Result<Arc<Session>> {
        self.create_noted(from, name, Notes::default(), owner)
    }

    /// [`Engine::create`], with something attached to the session from its first record on.
    pub fn create_noted(
        &self,
        from: Option<SnapshotId>,
        name: Option<String>,
        notes: Notes,
        owner: (u32, u32),
    ) -> Result<Arc<Session>> {
        let _naming = self.naming.lock();
        self.check_name(name.as_deref())?;
        self.room_for_sessions(1)?;
        let now = self.shared.clock.now();
        let base = from.unwrap_or(self.empty);
        let store = &self.shared.store;
        // Under `naming`, as is taking snapshots off the list: what is on it now cannot be collected before the session roots it.
        if from.is_some() && !store.keeps(base)? {
            return Err(cas::Error::UnknownSnapshot(base).into());
        }
        let mut state = State::of_snapshot(store, base)?;
        if from.is_none() {
            let root = state.root();
            let attrs = Attrs { uid: owner.0, gid: owner.1, mtime: now, ctime: now, ..root.attrs };
            state.apply(&Effect::Attrs(ROOT, attrs, now));
        }
        let meta =
            Meta { id: self.entropy.session_id(), name, parent: None, origin: base, depth: 0, created: now };
        self.begin_session(meta, notes, state)
    }

    /// For who holds `naming`.
    pub(super) fn begin_session(&self, meta: Meta, notes: Notes, mut state: State) -> Result<Arc<Session>> {
        state.epoch = self.shared.next_epoch();
        let log = &self.shared.durability.log;
        let position = log.position();
        for record in anchor(&meta, &notes, &state, self.shared.limits.part_bytes) {
            log.append(Purpose::Grow, |out| record.encode(out))?;
        }
        Ok(self.insert(Session::new(Arc::clone(&self.shared), meta, notes, state, position)))
    }

    /// New sessions that are what `parent` is now, one for each label, all of one cut. One record each, whatever the size,
    /// while the parent is in use; all are made or none. Errors: `NameTaken`, `NoSpace`.
    pub fn fork(&self, parent: &Session, names: &[Option<String>]) -> Result<Vec<Arc<Session>>> {
        self.fork_noted(parent, names, &Notes::default())
    }

    /// [`Engine::fork`], with something attached to each of them. What is attached to the parent stays its own.
    pub fn fork_noted(
        &self,
        parent: &Session,
        names: &[Option<String>],
        notes: &Notes,
    ) -> Result<Vec<Arc<Session>>> {
        let _naming = self.naming.lock();
        names.iter().try_for_each(|name| self.check_name(name.as_deref()))?;
        self.room_for_sessions(names.len())?;
        let created = self.shared.clock.now();
        let meta = |name: &Option<String>| Meta {
            id: self.entropy.session_id(),
            name: name.clone(),
            parent: Some(parent.meta.id),
            origin: parent.meta.origin,
            depth: parent.meta.depth.saturating_add(1),
            created,
        };
        let metas: Vec<Meta> = names.iter().map(meta).collect();
        let _gate = parent.gate.write();
        let mut state = parent.state.write();
        parent.check_alive()?;
        for (done, meta) in metas.iter().enumerate() {
            let record = Record::Fork { parent: parent.meta.id, meta: meta.clone(), notes: notes.clone() };
            let log = &self.shared.durability.log;
            if let Err(error) = log.append(Purpose::Grow, |out| record.encode(out)) {
                for made in &metas[..done] {
                    log.append(Purpose::Shrink, |out| Record::Discard(made.id).encode(out))?;
                }
                return Err(error);
            }
        }
        state.epoch = self.shared.next_epoch();
        let mut child = state.clone();
        child.drop_orphans();
        let anchor = parent.anchor.load(Ordering::Acquire);
        // Under the parent's lock: a seal that moves the parent's anchor, and a trim after it, must know of these.
        let insert = |meta| {
            let state = State { epoch: self.shared.next_epoch(), ..child.clone() };
            self.insert(Session::new(Arc::clone(&self.shared), meta, notes.clone(), state, anchor))
        };
        Ok(metas.into_iter().map(insert).collect())
    }

    /// Ends a session and lets go of its space. The caller made sure that it is not mounted.
    pub fn discard(&self, session: &Session) -> Result<()> {
        let _naming = self.naming.lock();
        let mut state = session.state.write();
        session.check_alive()?;
        let record = Record::Discard(session.meta.id);
        self.shared.durability.log.append(Purpose::Shrink, |out| record.encode(out))?;
        session.discarded.store(true, Ordering::Release);
        self.sessions.write().remove(session);
        // Whoever still has the handle must find a root.
        let root = imbl::OrdMap::unit(ROOT, Arc::clone(state.root()));
        let orphaned = std::mem::replace(&mut state.inodes, root);
        state.dirs = imbl::OrdMap::new();
        drop(state);
        session.cursor.lock().retire();
        // Outside the locks: letting go of a hundred thousand inodes takes a while.
        drop(orphaned);
        Ok(())
    }

    /// Whether so many more sessions may be made. Error: `TooMany`.
    pub fn has_room_for_sessions(&self, more: usize) -> Result<()> {
        let _naming = self.naming.lock();
        self.room_for_sessions(more)
    }

    /// For who holds `naming`.
    pub(super) fn room_for_sessions(&self, more: usize) -> Result<()> {
        let max = self.shared.limits.sessions_max;
        if self.sessions.read().len() + more > max {
            return Err(Error::TooMany { what: "sessions", max, advice: DISCARD_SOME });
        }
        Ok(())
    }

    fn insert(&self, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        self.sessions.write().insert(Arc::clone(&session));
        session
    }
}
