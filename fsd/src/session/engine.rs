//! The engine: all sessions of a host, over one store and one log.
//!
//! Locks: `naming`, then a session's own, then `sessions`, which is only held to look up or insert. The store's hold is
//! taken around all of them by what puts objects there that nothing refers to yet (an import, a seal).

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use cas::{
    Attrs, Digest, Snapshot, SnapshotId, Store, Time,
    dir::Dir,
    disk::Disk,
    store::{GcProgress, GcReport, Roots},
};
use parking_lot::{Mutex, RwLock};

use super::{
    Boot, Clock, Difference, Entropy, Error, Limits, Result, SessionId, Side, diff,
    durability::Durability,
    inode::{BaseDir, Body, ROOT, XattrSet},
    lent::Lent,
    live::{Session, Shared},
    log::Purpose,
    notes::Notes,
    pins::{Pin, Pins},
    record::{Meta, Record, anchor},
    recover::Recovery,
    replay::{Met, Replay},
    seal::{SealProgress, Sealed},
    segment::Pool,
    sessions::Sessions,
    state::{Effect, State},
};

/// The longest label, in bytes.
pub const LABEL_BYTES_MAX: usize = 128;
const DISCARD_SOME: &str = "discard some";
/// What the engine is built on.
pub struct Parts {
    /// The state directory.
    pub disk: Arc<dyn Disk>,
    /// The store in it.
    pub store: Store,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes IDs.
    pub entropy: Arc<dyn Entropy>,
    /// Which run of the machine this is.
    pub boot: Boot,
    /// Go on with what the log still holds when part of it is damaged.
    pub accept_loss: bool,
    /// Bounds; the defaults are right for a host.
    pub limits: Limits,
}

/// All sessions of a host.
pub struct Engine {
    shared: Arc<Shared>,
    entropy: Arc<dyn Entropy>,
    empty: SnapshotId,
    sessions: RwLock<Sessions>,
    naming: Mutex<()>,
    /// Snapshots on their way to the remote store, which nothing else may refer to.
    publishing: Arc<Pins>,
    /// Snapshots that are opened, and of which those that hang go on to do so.
    pub(super) opening: Arc<Pins>,
    /// How many hung when those that nobody needs were forgotten.
    pub(super) hung: AtomicUsize,
    lent: Lent,
}

/// A snapshot that stays as long as this is there.
#[derive(Debug)]
pub struct Publishing {
    /// Which.
    pub snapshot: SnapshotId,
    _stays: Pin,
}

/// What an ID or a name stands for.
#[derive(Clone, Debug)]
pub enum Target {
    /// A session.
    Session(Arc<Session>),
    /// A snapshot.
    Snapshot(SnapshotId),
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("sessions", &self.sessions.read().len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Replays the log. Errors: `Damaged`, `Newer`, `Io`, and what the store says.
    pub fn open(parts: Parts) -> Result<Engine> {
        let Parts { disk, store, clock, entropy, boot, accept_loss, limits } = parts;
        let pool = Pool::open(Arc::clone(&disk), limits)?;
        let mut recovery = Recovery::new(Arc::clone(&pool));
        let replay = Replay::open(Arc::clone(&disk), boot, accept_loss, &pool)?;
        replay.each(|met| match met {
            Met::Record(position, body) => recovery.replay(position, body),
            Met::Interruption => {
                recovery.interrupted();
                Ok(())
            }
        })?;
        let recovered = recovery.finish()?;
        let set_aside = replay.is_damaged();
        // Bytes, then the records that name them, then what no record needs any more.
        pool.adopt(&recovered.used)?;
        pool.sync()?;
        let log = replay.finish(boot, limits)?;
        pool.sweep(&recovered.used, set_aside)?;
        let empty = store_empty(&store)?;
        let durability = Durability::new(log, pool);
        let epochs = AtomicU64::new(recovered.epoch);
        let accesses = Arc::default();
        let shared = Arc::new(Shared { disk, store, durability, clock, epochs, accesses, limits });
        let mut sessions = Sessions::default();
        for r in recovered.sessions {
            let session = Session::new(Arc::clone(&shared), r.meta, r.notes, r.state, r.anchor);
            sessions.insert(Arc::new(session));
        }
        let (sessions, naming) = (RwLock::new(sessions), Mutex::new(()));
        let (publishing, opening, hung) = (Arc::default(), Arc::default(), AtomicUsize::new(0));
        let lent = Lent::open(Arc::clone(&shared.disk))?;
        let engine = Engine { shared, entropy, empty, sessions, naming, publishing, opening, hung, lent };
        if set_aside {
            // The place of the cut is seen once, now. What it means for sums has to be in the log.
            engine.sessions().iter().try_for_each(|session| session.write_anchor())?;
            let log = &engine.shared.durability.log;
            let first = log.start();
            log.append(Purpose::Shrink, |out| Record::Trim(first).encode(out))?;
            engine.shared.durability.sync()?;
        }
        Ok(engine)
    }

    /// Where its chance comes from.
    pub fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

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

    /// Whether so many more sessions may be made. Error: `TooMany`.
    pub fn has_room_for_sessions(&self, more: usize) -> Result<()> {
        let _naming = self.naming.lock();
        self.room_for_sessions(more)
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

    /// The session of a whole ID, if it is here.
    pub fn session_of(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.read().by_id(&id.to_string()).ok().cloned()
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The tree of sessions that begin with nothing.
    pub(super) fn empty(&self) -> SnapshotId {
        self.empty
    }

    /// The disk under the state.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.shared.disk
    }

    /// Log and segments.
    pub fn durability(&self) -> &Durability {
        &self.shared.durability
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// All sessions, oldest first.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.sessions.read().iter().cloned().collect();
        sessions.sort_by_key(|session| (session.meta.created, session.meta.id));
        sessions
    }

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
    fn begin_session(&self, meta: Meta, notes: Notes, mut state: State) -> Result<Arc<Session>> {
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

    /// Seals a session. With `keep` the snapshot is listed and stays until it is removed; without, it lives with the session.
    pub fn seal(
        &self,
        session: &Session,
        keep: bool,
        progress: &mut dyn FnMut(SealProgress),
    ) -> Result<Sealed> {
        if keep {
            self.room_for_snapshot(None)?;
        }
        let _hold = self.shared.store.hold();
        let sealed = session.seal(progress)?;
        if keep {
            self.shared.store.keep(sealed.snapshot, None, self.shared.clock.now())?;
        }
        Ok(sealed)
    }

    /// Seals a session, and keeps the snapshot at least as long as the answer is there.
    pub fn seal_to_publish(
        &self,
        session: &Session,
        keep: bool,
        progress: &mut dyn FnMut(SealProgress),
    ) -> Result<Publishing> {
        let _hold = self.shared.store.hold();
        let snapshot = self.seal(session, keep, progress)?.snapshot;
        Ok(Publishing { snapshot, _stays: self.publishing.pin(&[snapshot]) })
    }

    /// Snapshots that stay here for other hosts.
    pub fn lent(&self) -> &Lent {
        &self.lent
    }

    /// Imports a directory as a snapshot and keeps it.
    pub fn import(
        &self,
        source: &std::path::Path,
        name: Option<&str>,
        progress: &(dyn Fn(cas::import::Progress) + Sync),
        cancel: &std::sync::atomic::AtomicBool,
    ) -> Result<cas::import::Imported> {
        check_label(name)?;
        self.room_for_snapshot(name)?;
        let _hold = self.shared.store.hold();
        let imported = cas::import::import(&self.shared.store, source, progress, cancel)?;
        self.shared.store.keep(imported.id, name, self.shared.clock.now())?;
        Ok(imported)
    }

    /// Compares two trees; see [`diff`]. Error: `TooMany`, and what the store says.
    pub fn diff(&self, old: &Side, new: &Side, expand_renames: bool) -> Result<Vec<Difference>> {
        diff(&self.shared.store.fetching(), old, new, expand_renames, self.shared.limits.differences_max)
    }

    /// Takes a snapshot off the list. Error: `InUse` if a session stands on it.
    pub fn forget_snapshot(&self, id: SnapshotId) -> Result<()> {
        let _naming = self.naming.lock();
        if let Some(session) = self.sessions().iter().find(|session| session.meta.origin == id) {
            return Err(Error::InUse(id, session.meta.id));
        }
        Ok(self.shared.store.forget(id)?)
    }

    /// Frees what no snapshot and no session reaches. Waits for imports and seals that are under way.
    pub fn gc(&self, dry_run: bool, progress: &mut dyn FnMut(GcProgress)) -> Result<GcReport> {
        let mut unsettled = None;
        let roots = || {
            let roots = self.gc_roots();
            // Behind the roots: what the log may bring back after power loss must not be older than they are.
            self.shared.durability.settle().map(|()| roots).map_err(|error| {
                unsettled = Some(error);
                cas::Error::Cancelled
            })
        };
        let report = self.shared.store.gc(roots, dry_run, progress);
        match unsettled {
            Some(error) => Err(error),
            None => Ok(report?),
        }
    }

    /// What sessions refer to in the store. Asked for while no seal is under way.
    pub(super) fn gc_roots(&self) -> Roots {
        let mut roots = Roots::default();
        roots.snapshots.push(self.empty);
        roots.snapshots.extend(self.publishing.snapshots());
        // Of the others nobody says that they are here.
        let opening = self.opening.snapshots().into_iter();
        roots.snapshots.extend(opening.filter(|id| self.shared.store.hangs(*id)));
        roots.snapshots.extend(self.lent.snapshots(self.shared.clock.now().secs));
        let (mut remembered, mut hanging) = ([HashSet::new(), HashSet::new()], Box::<Roots>::default());
        for session in self.sessions() {
            let state = session.peek();
            let hangs = self.shared.store.hangs(state.base);
            remembered[usize::from(hangs)].extend(session.known.dirs());
            let roots = match hangs {
                true => &mut *hanging,
                false => &mut roots,
            };
            roots.snapshots.extend([state.base, session.meta.origin]);
            for inode in state.inodes.values() {
                match &inode.body {
                    Body::File(file) => roots.contents.extend(file.base.map(|blob| blob.content)),
                    Body::Dir(base) => roots.dirs.extend(base.as_ref().map(BaseDir::digest)),
                    Body::Symlink(_) | Body::Special => {}
                }
                if let XattrSet::Base(digest) = inode.xattrs {
                    roots.xattrs.extend(digest);
                }
            }
        }
        [roots.dir_objects, hanging.dir_objects] = remembered.map(|dirs| dirs.into_iter().collect());
        roots.hanging = Some(hanging);
        roots
    }

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

    fn check_name(&self, name: Option<&str>) -> Result<()> {
        check_label(name)?;
        let Some(name) = name else { return Ok(()) };
        match self.sessions.read().named(name) {
            Some(holder) => Err(Error::NameTaken { name: name.into(), holder: holder.meta.id }),
            None => Ok(()),
        }
    }

    /// For who holds `naming`.
    fn room_for_sessions(&self, more: usize) -> Result<()> {
        let max = self.shared.limits.sessions_max;
        if self.sessions.read().len() + more > max {
            return Err(Error::TooMany { what: "sessions", max, advice: DISCARD_SOME });
        }
        Ok(())
    }

    /// Before anything is written for it. Those that are under way at once may all be let in.
    fn room_for_snapshot(&self, name: Option<&str>) -> Result<()> {
        let (Limits { snapshots_max, names_max, .. }, store) = (self.shared.limits, &self.shared.store);
        let (snapshots, names) = store.kept_counts()?;
        if snapshots >= snapshots_max as u64 {
            return Err(Error::TooMany { what: "snapshots", max: snapshots_max, advice: DISCARD_SOME });
        }
        if let Some(name) = name
            && names >= names_max as u64
            && store.named(name)?.is_none()
        {
            let advice = "discard snapshots that have some, or use one again";
            return Err(Error::TooMany { what: "names of snapshots", max: names_max, advice });
        }
        Ok(())
    }

    fn insert(&self, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        self.sessions.write().insert(Arc::clone(&session));
        session
    }

    /// Makes everything recorded so far durable, and removes dead segments. To be called every second or so, from a thread of
    /// its own: it bounds what power loss can take, so nothing slow may hold it up. Failures are logged and tried again.
    pub fn settle(&self) {
        if let Err(error) = self.shared.durability.settle() {
            tracing::error!(%error, "cannot sync; changes since the last sync would not survive power loss");
        }
    }

    /// Seals sessions that are quiet or hold up the log, and trims the log. To be called every second or so. Failures are
    /// logged and tried again.
    pub fn tidy(&self) {
        let log = &self.shared.durability.log;
        let crowded = log.position() - log.start() > self.shared.limits.log_bytes_max;
        let old = log.position().saturating_sub(self.shared.limits.log_bytes_max / 2);
        let now = self.shared.clock.monotonic_us();
        for session in self.sessions() {
            let quiet_us = now.saturating_sub(session.changed_us.load(Ordering::Relaxed));
            let holds_log = crowded && session.anchor.load(Ordering::Acquire) < old;
            let idle = quiet_us > self.shared.limits.idle_us && session.has_changes();
            if holds_log || idle {
                self.relieve(&session, holds_log);
            }
        }
        if let Err(error) = self.trim() {
            tracing::warn!(%error, "cannot trim the log");
        }
        self.forget_hanging();
    }

    /// Seals, or at least writes an anchor if the log is to be trimmed.
    fn relieve(&self, session: &Session, holds_log: bool) {
        let Err(error) = self.seal(session, false, &mut |_| {}) else { return };
        tracing::warn!(%error, session = %session.meta.id, "cannot seal in the background");
        // Not again before it was quiet once more: what is damaged stays so, and a full disk may take hours.
        session.changed_us.store(self.shared.clock.monotonic_us(), Ordering::Relaxed);
        if holds_log && let Err(error) = session.write_anchor() {
            tracing::warn!(%error, session = %session.meta.id, "cannot write an anchor");
        }
    }

    fn trim(&self) -> Result<()> {
        // Read before the sync: what it says is durable afterwards.
        let log = &self.shared.durability.log;
        let position = log.position();
        let needed =
            self.sessions().iter().map(|s| s.anchor.load(Ordering::Acquire)).min().unwrap_or(position);
        if needed > log.start() + self.shared.limits.log_bytes_max / 4 {
            self.shared.durability.sync()?;
            log.trim(needed)?;
        }
        Ok(())
    }

    /// Makes everything durable, before the daemon ends.
    pub fn close(&self) -> Result<()> {
        self.sessions().iter().for_each(|session| session.cursor.lock().retire());
        self.shared.durability.settle()
    }
}

fn check_label(name: Option<&str>) -> Result<()> {
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

/// The snapshot of an empty tree: the base of sessions that begin with nothing.
fn store_empty(store: &Store) -> Result<SnapshotId> {
    let mut writer = store.writer()?;
    let (dir, _) = writer.put_dir(Vec::new())?;
    let zero = Time::default();
    let attrs = Attrs { mode: 0o755, uid: 0, gid: 0, nlink: 2, rdev: 0, size: 0, mtime: zero, ctime: zero };
    let xattrs: Option<Digest> = None;
    let id = writer.put_snapshot(&Snapshot { attrs, xattrs, dir })?;
    writer.finish()?;
    Ok(id)
}
