//! Sessions and snapshots of elsewhere that come to this host: what they begin with is brought here, the rest when it is needed.
//!
//! Fetching is over before gc is kept away; only then are records of snapshots put into the store, and a session made.

use std::{collections::HashSet, sync::Arc};

use cas::{Snapshot, SnapshotId, dir::Dir};

use super::Engine;
use crate::session::{Error, Result, SessionId, live::Session, notes::Notes, record::Meta, state::State};

impl Engine {
    /// Snapshots that may have much in common with this one, the likeliest first: what sessions over it began with, and those that were made last.
    pub fn near(&self, id: SnapshotId) -> Result<Vec<SnapshotId>> {
        let over = |session: &Arc<Session>| session.peek().base == id;
        let mut near: Vec<_> = self.sessions().iter().filter(|s| over(s)).map(|s| s.meta.origin).collect();
        near.extend(self.shared.store.list()?.iter().map(|listed| listed.id));
        let mut met = HashSet::new();
        near.retain(|other| met.insert(*other));
        Ok(near)
    }

    /// Makes a snapshot of the remote store one of this host's: its record comes here, the rest when it is needed. Asks the remote store
    /// what it has not been asked yet. Errors: an unknown snapshot, and what the remote store says.
    pub fn adopt(&self, id: SnapshotId) -> Result<()> {
        self.room_for_snapshot(None)?;
        let _stays = self.stay(&[id]);
        let snapshot = self.bring(id)?;
        let _hold = self.shared.store.hold();
        self.put_snapshots(&[snapshot])?;
        self.shared.store.keep(id, None, self.shared.clock.now())?;
        Ok(())
    }

    /// Has what a snapshot begins with brought here: nothing has to be fetched while gc is kept away.
    fn bring(&self, id: SnapshotId) -> Result<Snapshot> {
        let store = self.shared.store.fetching();
        match store.discover(id) {
            // It was never published, and is here.
            Err(cas::Error::UnknownSnapshot(_)) if id == self.empty || store.keeps(id)? => {}
            // Another host has it, whatever the store has.
            Err(cas::Error::UnknownSnapshot(_) | cas::Error::Remote(_)) if store.hangs(id) => {}
            discovered => drop(discovered?),
        }
        let snapshot = store.snapshot(id)?;
        Dir::open(&store, snapshot.dir)?;
        Ok(snapshot)
    }

    /// For who holds gc away.
    fn put_snapshots(&self, snapshots: &[Snapshot]) -> Result<()> {
        let mut writer = self.shared.store.writer()?;
        for snapshot in snapshots {
            writer.put_snapshot(snapshot)?;
        }
        writer.finish()?;
        Ok(())
    }

    /// Opens a session of another host here: it is `root`, and has the ID and the rest that `meta` says; the label only if nobody here has it. Asks the
    /// remote store for both snapshots. Errors: `Exists` if it is here, `NoSpace`, and what the remote store says.
    pub fn open_as(&self, meta: Meta, root: SnapshotId) -> Result<Arc<Session>> {
        self.open_tree(meta, Notes::default(), root, |meta| {
            tracing::info!(session = %meta.id, name = ?meta.name, "another session here has this name: it goes without");
            meta.name = None;
            Ok(())
        })
    }

    /// A session over a snapshot that may have to come here; `taken` decides what becomes of one whose name another has.
    fn open_tree(
        &self,
        mut meta: Meta,
        notes: Notes,
        root: SnapshotId,
        taken: impl FnOnce(&mut Meta) -> Result<()>,
    ) -> Result<Arc<Session>> {
        let _stay = self.stay(&[root, meta.origin]);
        let snapshots = [self.bring(root)?, self.bring(meta.origin)?];
        let _hold = self.shared.store.hold();
        self.put_snapshots(&snapshots)?;
        let _naming = self.naming.lock();
        self.room_for_sessions(1)?;
        if self.sessions.read().by_id(&meta.id.to_string()).is_ok() {
            return Err(Error::Exists);
        }
        if self.check_name(meta.name.as_deref()).is_err() {
            taken(&mut meta)?;
        }
        self.begin_session(meta, notes, State::of_snapshot(&self.shared.store, root)?)
    }

    /// Has what a snapshot of the remote store begins with brought here, or finds out that it cannot be had.
    pub fn look_at(&self, id: SnapshotId) -> Result<()> {
        self.bring(id).map(drop)
    }

    /// A fork of a session of another host, of which `tree` is published: its root, and what it was created from. Errors: as of [`Engine::open_as`], and
    /// `NameTaken`.
    pub fn fork_of(
        &self,
        parent: SessionId,
        tree: (SnapshotId, SnapshotId),
        name: Option<String>,
        notes: Notes,
    ) -> Result<Arc<Session>> {
        self.check_name(name.as_deref())?;
        let (root, origin) = tree;
        let (id, created) = (self.entropy.session_id(), self.shared.clock.now());
        let meta = Meta { id, name, parent: Some(parent), origin, depth: 1, created };
        self.open_tree(meta, notes, root, |meta| self.check_name(meta.name.as_deref()))
    }

    /// [`Engine::fork_of`], one for each name, or none.
    pub fn forks_of(
        &self,
        parent: SessionId,
        tree: (SnapshotId, SnapshotId),
        names: &[Option<String>],
        notes: &Notes,
    ) -> Result<Vec<Arc<Session>>> {
        let mut forks = Vec::with_capacity(names.len());
        for name in names {
            match self.fork_of(parent, tree, name.clone(), notes.clone()) {
                Ok(fork) => forks.push(fork),
                Err(error) => {
                    forks.iter().try_for_each(|fork| self.discard(fork))?;
                    return Err(error);
                }
            }
        }
        Ok(forks)
    }
}
