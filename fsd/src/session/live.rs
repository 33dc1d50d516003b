//! A live session: its state under a lock, the inodes its holder knows, and how a change gets from an operation into the
//! log and the state.
//!
//! Every change goes the same way: under the state's lock the operation checks, collects effects, the record is appended,
//! and only then the effects are applied. So the order of the log is the order of the changes in memory, and what cannot be
//! recorded does not happen.
//!
//! Locks, in this order: `gate`, `state`, `notes`, `cursor`, a shard of `known`, the log's own; what is read is taken down outside of all of them. Under `state` no I/O happens
//! but the log's append and look-ups in dir objects and attribute sets of the store; bytes of files never move under it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use cas::{Attrs, Kind, SnapshotId, Store, disk::Disk};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use super::{
    Clock, Error, Limits, Result, SessionId,
    accesses::Accesses,
    durability::Durability,
    inode::{ROOT, XattrSet},
    known::KnownInodes,
    linked::way_up,
    listing::Listings,
    log::Purpose,
    notes::Notes,
    record::{Meta, Record},
    segment::Cursor,
    state::{Effect, State},
    tree::{DirNode, Found, Source},
};

/// What all sessions of a host share.
#[derive(Debug)]
pub struct Shared {
    /// The base of all of them.
    pub store: Store,
    /// The log and the segments.
    pub durability: Durability,
    /// The state directory.
    pub disk: Arc<dyn Disk>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The last epoch that was given out; see [`State::epoch`].
    pub epochs: AtomicU64,
    /// Accesses that are recorded, of all sessions.
    pub accesses: Arc<AtomicUsize>,
    /// Bounds.
    pub limits: Limits,
}

impl Shared {
    /// An epoch that nobody had before.
    pub fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A live session.
#[derive(Debug)]
pub struct Session {
    /// Its identity.
    pub meta: Meta,
    pub(super) shared: Arc<Shared>,
    /// Held shared while bytes of an exclusive extent are overwritten in place, and exclusively for the moment in which a
    /// fork or a seal makes all extents shared.
    pub(super) gate: RwLock<()>,
    pub(super) state: RwLock<State>,
    /// What is attached to it. Changed with `state` held, which an anchor holds while it writes both down.
    pub(super) notes: Mutex<Notes>,
    /// Where it writes next.
    pub(super) cursor: Mutex<Cursor>,
    /// What its mount may name by number.
    pub known: KnownInodes,
    pub(super) listings: Listings,
    accesses: Accesses,
    /// The position of the log from which this session can be replayed.
    pub(super) anchor: AtomicU64,
    pub(super) sealing: Mutex<()>,
    pub(super) discarded: AtomicBool,
    /// Nothing is changed here any more, or for now; see [`Session::close`].
    closed: AtomicBool,
    /// When it changed last, on the monotonic clock, in microseconds.
    pub(super) changed_us: AtomicU64,
    /// The position behind its last record.
    pub(super) position: AtomicU64,
}

impl Session {
    /// A session that is `state`, replayable from `anchor` on.
    pub(super) fn new(shared: Arc<Shared>, meta: Meta, notes: Notes, state: State, anchor: u64) -> Session {
        let changed_us = AtomicU64::new(shared.clock.monotonic_us());
        let accesses = Accesses::new(Arc::clone(&shared.accesses));
        Session {
            meta,
            shared,
            gate: RwLock::new(()),
            state: RwLock::new(state),
            notes: Mutex::new(notes),
            cursor: Mutex::default(),
            known: KnownInodes::default(),
            listings: Listings::default(),
            accesses,
            anchor: AtomicU64::new(anchor),
            sealing: Mutex::new(()),
            discarded: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            changed_us,
            position: AtomicU64::new(anchor),
        }
    }

    /// Its ID.
    pub fn id(&self) -> SessionId {
        self.meta.id
    }

    /// The store under it.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Where those take down what they read who read for others. `None` where nobody wants to know: without a remote store all of it is here.
    pub fn accesses(&self) -> Option<&Accesses> {
        self.store().has_remote().then_some(&self.accesses)
    }

    /// What it is now, for readers that walk by path. Bytes may still be overwritten in place under it; what must not see
    /// that takes a [`Session::freeze`].
    pub fn peek(&self) -> State {
        self.state.read().clone()
    }

    /// What it is now and stays: extents become shared, so later writes go elsewhere.
    pub fn freeze(&self) -> State {
        let _gate = self.gate.write();
        let mut state = self.state.write();
        state.epoch = self.shared.next_epoch();
        state.clone()
    }

    /// From here on it is only read: another host writes it, or is about to. What was acknowledged before is in every later seal and fork. Not in
    /// the log: who closes a session knows at the next start whether it stays so.
    pub fn close(&self) {
        let _gate = self.gate.write();
        let mut state = self.state.write();
        // What may be overwritten in place passes by `begin`.
        state.epoch = self.shared.next_epoch();
        self.closed.store(true, Ordering::Release);
    }

    /// Takes [`Session::close`] back.
    pub fn reopen(&self) {
        self.closed.store(false, Ordering::Release);
    }

    /// See [`Session::close`].
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Room on the disk that holds the state.
    pub fn space(&self) -> Result<cas::disk::Space> {
        let disk = &self.shared.disk;
        disk.space().map_err(Error::io(disk.display("")))
    }

    /// Returns when everything done so far survives power loss.
    pub fn sync(&self) -> Result<()> {
        self.shared.durability.sync()
    }

    /// Finds an inode by number. Error: `Stale` for one that nobody was told of.
    pub(super) fn found(&self, state: &State, ino: u64) -> Result<Found> {
        if let Some(inode) = state.inodes.get(&ino) {
            return Ok(Found::changed(ino, inode));
        }
        match self.known.place(&self.shared.store, ino)? {
            Some((Some(place), parent)) => Found::base(place, parent),
            _ => Err(Error::Stale(ino)),
        }
    }

    /// Finds a directory by number. Errors: `Stale`, `NotADirectory`.
    pub(super) fn dir(&self, state: &State, ino: u64) -> Result<DirNode> {
        if !state.inodes.contains_key(&ino)
            && let Some(own) = self.known.own_dir(&self.shared.store, ino)?
        {
            return Ok(DirNode { ino, base: Some(own) });
        }
        let found = self.found(state, ino)?;
        let dir = state.open_dir(&self.shared.store, &found)?;
        if let Some(base) = &dir.base {
            self.known.set_own_dir(ino, base.name());
        }
        Ok(dir)
    }

    /// Whether anything differs from the base, other than what only orphans hold.
    pub fn has_changes(&self) -> bool {
        let state = self.state.read();
        let named = |dir: &u64| !state.orphans.contains(dir);
        state.inodes.len() > state.orphans.len() + 1 || state.dirs.keys().any(named)
    }

    /// Whether it is this snapshot, the root's own attributes among it, but for what only orphans hold. Error: the store's.
    pub fn is_snapshot(&self, id: SnapshotId) -> Result<bool> {
        let state = self.peek();
        let named = |dir: &u64| !state.orphans.contains(dir);
        if state.base != id || state.inodes.len() > state.orphans.len() + 1 || state.dirs.keys().any(named) {
            return Ok(false);
        }
        let (root, snapshot) = (state.root(), self.shared.store.snapshot(id)?);
        let same_xattrs = matches!(root.xattrs, XattrSet::Base(xattrs) if xattrs == snapshot.xattrs);
        Ok(same_xattrs && root.attrs == snapshot.attrs)
    }

    /// The position of the log from which this session can be replayed.
    pub fn anchor(&self) -> u64 {
        self.anchor.load(Ordering::Acquire)
    }

    /// The position of the log behind its last change, or where it begins there.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// A discarded session takes no more records: a replay would bring it back. Called with the state's lock held.
    pub(super) fn check_alive(&self) -> Result<()> {
        match self.discarded.load(Ordering::Acquire) {
            true => Err(Error::Unknown(self.meta.id.to_string())),
            false => Ok(()),
        }
    }

    /// Begins a change.
    pub(super) fn begin(&self) -> Result<Change<'_>> {
        let state = self.state.write();
        self.check_alive()?;
        if self.is_closed() {
            return Err(Error::Closed(self.meta.id));
        }
        Ok(Change { session: self, state, effects: Vec::with_capacity(6) })
    }
}

/// With more effects than this the directories above a change are recorded before it: in a tree that deep they would not fit
/// into one record.
const EFFECTS_MAX: usize = 4096;

/// An operation under way: it holds the state's lock and collects effects.
pub(super) struct Change<'a> {
    pub(super) session: &'a Session,
    pub(super) state: RwLockWriteGuard<'a, State>,
    pub(super) effects: Vec<Effect>,
}

impl<'a> Change<'a> {
    /// Finds an inode by number, as it was when the change began.
    pub(super) fn found(&self, ino: u64) -> Result<Found> {
        self.session.found(&self.state, ino)
    }

    /// Finds a directory that names can still be put into: one that is not removed.
    pub(super) fn dir(&self, ino: u64) -> Result<DirNode> {
        if self.state.orphans.contains(&ino) {
            return Err(Error::NotFound);
        }
        self.session.dir(&self.state, ino)
    }

    /// Makes sure that the inode and its ancestors are among the changed ones, so that effects on it have something to work
    /// on, and so that whoever walks down from the root finds it.
    pub(super) fn adopt(&mut self, found: &Found) -> Result<()> {
        if matches!(found.source, Source::Changed(_)) {
            return Ok(());
        }
        let mut chain = Vec::new();
        let mut next = found.clone();
        while !self.is_adopted(next.ino) {
            let parent = next.parent;
            chain.push(Effect::Inode(next.ino, next.inode()?));
            if self.is_adopted(parent) {
                break;
            }
            next = match self.found(parent) {
                // Its other names may be all that the holder still knows. A seal looks for it under all of them.
                Err(Error::Stale(_)) if next.kind != Kind::Dir && next.attrs.nlink > 1 => break,
                // The name that the holder knew it by is gone, and it was never told of the directory of the one that is left.
                Err(Error::Stale(_)) if next.kind != Kind::Dir => {
                    let way = way_up(&self.session.shared.store, &self.state, parent)?;
                    for dir in way.ok_or(Error::Stale(parent))? {
                        chain.push(Effect::Inode(dir.ino, dir.inode()?));
                    }
                    break;
                }
                found => found?,
            };
        }
        self.effects.extend(chain.into_iter().rev());
        Ok(())
    }

    fn is_adopted(&self, ino: u64) -> bool {
        ino == ROOT
            || self.state.inodes.contains_key(&ino)
            || self.effects.iter().any(|effect| matches!(effect, Effect::Inode(i, _) if *i == ino))
    }

    /// Collects an effect.
    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// New attributes for an inode; its access time stays. Takes what was found: an inode that somebody else holds when the
    /// effects are carried out has to be copied.
    pub(super) fn set_attrs(&mut self, found: Found, attrs: Attrs) {
        self.push(Effect::Attrs(found.ino, attrs, found.atime));
    }

    /// Records the effects and carries them out. Nothing has happened when this fails.
    pub(super) fn commit(mut self, purpose: Purpose) -> Result<()> {
        self.carry_out(purpose)
    }

    /// [`Change::commit`]; gives an inode as it is then.
    pub(super) fn commit_found(mut self, purpose: Purpose, ino: u64) -> Result<Found> {
        self.carry_out(purpose)?;
        self.found(ino)
    }

    fn carry_out(&mut self, purpose: Purpose) -> Result<()> {
        let mut effects = std::mem::take(&mut self.effects);
        if effects.is_empty() {
            return Ok(());
        }
        while effects.len() > EFFECTS_MAX
            && effects[..EFFECTS_MAX].iter().all(|effect| self.is_adoption(effect))
        {
            let rest = effects.split_off(EFFECTS_MAX);
            self.record(purpose, std::mem::replace(&mut effects, rest))?;
        }
        self.record(purpose, effects)
    }

    /// An untouched inode joins the changed ones: nobody can tell whether it did.
    fn is_adoption(&self, effect: &Effect) -> bool {
        matches!(effect, Effect::Inode(ino, _) if *ino < self.state.next_ino)
    }

    fn record(&mut self, purpose: Purpose, effects: Vec<Effect>) -> Result<()> {
        let record = Record::Apply(self.session.meta.id, effects);
        let position = self.session.shared.durability.log.append(purpose, |out| record.encode(out))?;
        let Record::Apply(_, effects) = record else { unreachable!("made above") };
        effects.iter().for_each(|effect| self.state.apply(effect));
        let shared = &self.session.shared;
        self.session.changed_us.store(shared.clock.monotonic_us(), Ordering::Relaxed);
        self.session.position.store(position, Ordering::Relaxed);
        Ok(())
    }
}
