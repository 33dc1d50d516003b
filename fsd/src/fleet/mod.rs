//! What hosts share: the remote store, and who may write which session. Below the adapters, above the engine.
//!
//! A session travels once it is published: then it has a head ([`heads`]). The host that the head names writes it, publishes by appending a record,
//! and gives it away by appending one that names nobody. Whoever appends a record with a higher epoch has taken it; the host that had it hears
//! of that by losing its next record. It closes its copy, and what nobody has seen of it becomes a fork.
//!
//! Before a record is sent it is in the ledger, and stays there until its fate is known: a host that dies in between asks again. A session of
//! which a record is under way that gives it away takes no writes.

mod error;
mod fate;
mod gc;
pub mod heads;
mod ledger;
mod overview;
pub mod peers;
mod remote;
pub mod uri;
pub mod visits;
mod watch;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use cas::{SnapshotId, disk::Disk, remote::publish};
pub use error::{FleetError, Result};
pub use gc::Collecting;
use gc::Holds;
use heads::{Head, HeadStore, HostId};
pub use ledger::Taken;
use ledger::{Entry, Ledger};
pub use overview::{Holder, Known};
use parking_lot::Mutex;
pub use remote::{ObjectRemote, OpenError};
pub use watch::Patience;

use crate::session::{self, Engine, Meta, Notes, Session, SessionId};

/// Who discards a session waits so long for a publish of it to end.
const BUSY: Duration = Duration::from_secs(5);

/// Whom a publish tells, and who may stop it.
pub struct Asked<'a> {
    /// List the snapshot, so that it stays here.
    pub keep: bool,
    /// How far it is.
    pub progress: &'a (dyn Fn(publish::Progress) + Sync),
    /// Whether to stop.
    pub is_cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Asked<'_> {
    /// By nobody who waits for it.
    pub fn in_background() -> Asked<'static> {
        Asked { keep: false, progress: &|_| {}, is_cancelled: &|| false }
    }
}

/// What is published of a session, and what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its last record that is known here. None: the first one is under way.
    pub head: Option<Head>,
    /// This host writes it.
    pub is_held: bool,
    /// There is more here than in the record's root: it is gone if this host is.
    pub is_ahead: bool,
    /// Whether another record was taken is not known yet.
    pub is_unsettled: bool,
    /// Another host has taken it.
    pub taken: Option<Taken>,
    /// It shows what is published of this one.
    pub follows: Option<SessionId>,
}

/// A host among others.
pub struct Fleet {
    engine: Arc<Engine>,
    heads: Arc<dyn HeadStore>,
    host: HostId,
    ledger: Ledger,
    /// Of each session the ledger knows, or somebody is about to: one step at a time.
    entries: Mutex<HashMap<SessionId, Arc<Mutex<Entry>>>>,
    /// The heads are nowhere but here.
    is_alone: bool,
    holds: Holds,
    /// It is said in the remote store where the heads are.
    said_place: Mutex<bool>,
    /// When it was last said there what this host needs: seconds since 1970.
    renewed: Mutex<Option<i64>>,
    patience: Patience,
    /// Signs of life that were given.
    beats: AtomicU64,
    /// So long was there none that others may have taken this host for dead, and nobody has looked yet.
    slept: AtomicBool,
    /// When the last one was, by both clocks: (monotonic microseconds, seconds since 1970).
    last_beat: Mutex<Option<(u64, i64)>>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("host", &self.host).field("heads", &self.heads).finish_non_exhaustive()
    }
}

impl Fleet {
    /// A host that keeps heads there. Closes the sessions that are, or may be, no longer its own. Errors: the state's.
    pub fn open(
        engine: Arc<Engine>,
        heads: Arc<dyn HeadStore>,
        patience: Patience,
    ) -> session::Result<Fleet> {
        let fresh = || HostId(engine.entropy().remote_name().0);
        let (ledger, host) = Ledger::open(Arc::clone(engine.disk()), fresh)?;
        let (mut entries, mut gone) = (HashMap::new(), Vec::new());
        for (id, entry) in ledger.entries()? {
            match engine.session_of(id) {
                // Its mount went with the daemon.
                Some(session) if entry.follows.is_some() => {
                    engine.discard(&session)?;
                    gone.push(id);
                    continue;
                }
                Some(session) if !stays(&entry, host) => session.close(),
                // The copy was discarded, and then this host died.
                None if entry.taken.is_some() || entry.follows.is_some() => {
                    gone.push(id);
                    continue;
                }
                _ => {}
            }
            entries.insert(id, Arc::new(Mutex::new(entry)));
        }
        if !gone.is_empty() {
            // As in `forget`: a copy that comes back out of the log must find its entry.
            engine.durability().sync()?;
        }
        gone.into_iter().try_for_each(|id| ledger.save(id, &Entry::default()))?;
        let (beats, slept, last_beat) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(None));
        let is_alone = heads.is_alone();
        let (holds, said_place, renewed) = (Mutex::default(), Mutex::new(false), Mutex::new(None));
        let entries = Mutex::new(entries);
        let fleet = Fleet {
            engine,
            heads,
            host,
            ledger,
            entries,
            is_alone,
            holds,
            said_place,
            renewed,
            patience,
            beats,
            slept,
            last_beat,
        };
        for (id, entry) in fleet.known() {
            fleet.hold(id, &entry.lock());
        }
        if let Err(error) = fleet.hold_all() {
            tracing::warn!(%error, "what is published from here may not stay in the remote store");
        }
        Ok(fleet)
    }

    /// Who a host is, by the state on its disk; `fresh` decides at the first start. Errors: the disk's, `Damaged`.
    pub fn host_of(disk: &Arc<dyn Disk>, fresh: impl FnOnce() -> HostId) -> session::Result<HostId> {
        Ok(Ledger::open(Arc::clone(disk), fresh)?.1)
    }

    /// Closes the sessions that are, or may be, another host's, on one that does not ask the others today. Errors: the state's.
    pub fn close_those_of_others(engine: &Engine) -> session::Result<()> {
        for (id, entry, host) in Ledger::peek(engine.disk())? {
            if let Some(session) = engine.session_of(id)
                && !stays(&entry, host)
            {
                session.close();
            }
        }
        Ok(())
    }

    /// Who this is.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The head of a session that is not here, for who wants to look at it. Errors: `Unknown`, `Ended`, `Heads`.
    pub fn head(&self, session: SessionId) -> Result<Head> {
        match self.heads.newest(session).map_err(FleetError::Heads)? {
            Some(head) if head.ended => Err(FleetError::Ended(session)),
            found => found.ok_or(FleetError::Unknown(session)),
        }
    }

    /// What is published of a session that is here; `None` if it does not travel.
    pub fn standing(&self, session: &Session) -> Option<Standing> {
        let entry = self.entries.lock().get(&session.id()).cloned()?;
        // While something is sent, what was known before is true.
        let entry = match entry.try_lock() {
            Some(entry) => entry.clone(),
            None => self.ledger.entry(session.id()).ok().flatten()?,
        };
        let is_ahead = self.is_ahead(session, entry.head.as_ref());
        (!entry.is_empty()).then(|| Standing {
            is_held: stays(&entry, self.host),
            is_ahead: is_ahead && entry.taken.is_none() && entry.follows.is_none(),
            is_unsettled: entry.pending.is_some(),
            taken: entry.taken,
            follows: entry.follows,
            head: entry.head,
        })
    }

    /// Whether a session that is here may be looked at: a closed one only if it stays, as a look at another host's or as what is left of one that was
    /// taken. A copy that is being given away goes, and would go under the mount. Errors: `Leaving`.
    pub fn may_look_at(&self, session: &Session) -> Result<()> {
        let stays = |standing: Standing| standing.taken.is_some() || standing.follows.is_some();
        match !session.is_closed() || self.standing(session).is_some_and(stays) {
            true => Ok(()),
            false => Err(FleetError::Leaving(session.id())),
        }
    }

    /// Why a session that is here is closed.
    pub fn why_closed(&self, id: SessionId) -> FleetError {
        let entry = self.entries.lock().get(&id).cloned();
        // Whoever found out that it was taken may still be at it.
        match entry.as_ref().and_then(|entry| entry.try_lock_for(BUSY)).and_then(|entry| entry.taken) {
            Some(taken) => FleetError::Taken { session: id, taken },
            None => FleetError::Leaving(id),
        }
    }

    /// Brings what a session is now to the remote store, and says so in its head. Errors: `Taken`, `Unsettled`, and what the remote store says.
    pub fn publish(&self, session: &Session, asked: &Asked<'_>) -> Result<(publish::Published, Head)> {
        let entry = self.entry(session.id());
        let mut entry = entry.lock();
        self.settle(session.id(), &mut entry)?;
        self.check_ours(session.id(), &entry)?;
        if session.is_closed() {
            return Err(FleetError::Leaving(session.id()));
        }
        self.publish_as(&mut entry, session, Some(self.host), asked)
    }

    /// Publishes a session and gives it to whoever comes first; it is no longer here then. The caller made sure that it is not mounted, and closed
    /// it; when this fails before another host can have it, it is open again. Errors: as of [`Fleet::publish`].
    pub fn hand_off(&self, session: &Session, asked: &Asked<'_>) -> Result<(publish::Published, Head)> {
        let entry = self.entry(session.id());
        let mut entry = entry.lock();
        if !session.is_closed() {
            // Another hand-off of it failed meanwhile, and opened it: it may be mounted by now.
            return Err(FleetError::Busy(session.id()));
        }
        let hand_off = |entry: &mut Entry| {
            self.settle(session.id(), entry)?;
            self.check_ours(session.id(), entry)?;
            match entry.head.clone() {
                // An earlier try did, and its answer was lost. Somebody may have it by now.
                Some(given) if given.holder.is_none() => Ok((self.send(given.root, &[], asked)?, given)),
                _ => self.publish_as(entry, session, None, asked),
            }
        };
        let handed = hand_off(&mut entry);
        if handed.is_err() && stays(&entry, self.host) {
            session.reopen();
        }
        let handed = handed?;
        self.conclude(session.id(), &mut entry)?;
        Ok(handed)
    }

    /// Opens a session of another host here, to be written: one that nobody holds, or that this host does, or, to `take_over`, one of a host that gives no
    /// sign of life. Errors: `Unknown`, `Ended`, `Held`, `Alive`, `Lost`, `Unsettled`, and what the remote store says.
    pub fn open_here(&self, id: SessionId, take_over: bool) -> Result<Arc<Session>> {
        let entry = self.entry(id);
        let mut entry = entry.lock();
        self.settle(id, &mut entry)?;
        self.conclude(id, &mut entry)?;
        if let Some(session) = self.engine.session_of(id) {
            return Ok(session);
        }
        if entry.taken.is_some() {
            // The copy was discarded, and then something failed.
            self.forget(id, &mut entry)?;
        }
        let head = self.head(id)?;
        // This host may have died between taking it and opening it.
        let is_new = entry.head.as_ref().is_none_or(|ours| ours.nonce != head.nonce);
        if is_new {
            self.may_take(&head, take_over)?;
        }
        let meta = Meta {
            id,
            name: head.name.clone(),
            parent: head.parent,
            origin: head.origin,
            depth: u32::from(head.parent.is_some()),
            created: head.created,
        };
        self.discover(&head, &[head.root, head.origin])?;
        if is_new {
            // What cannot be opened is not taken.
            self.engine.has_room_for_sessions(1)?;
            self.engine.look_at(head.root)?;
            self.engine.look_at(head.origin)?;
            let taken = Head { epoch: head.epoch + 1, holder: Some(self.host), ..self.next(&head) };
            self.append(id, &mut entry, taken)?;
        }
        Ok(self.engine.open_as(meta, head.root)?)
    }

    /// A look at what is published of a session of another host, to be mounted: it takes no writes, and stays as it is when more is published. Errors:
    /// `Unknown`, `Ended`, `Heads`, and what engine and remote store say.
    pub fn follow(&self, id: SessionId) -> Result<Arc<Session>> {
        let head = self.head(id)?;
        self.discover(&head, &[head.root, head.origin])?;
        let session = self.engine.fork_of(id, (head.root, head.origin), None, Notes::default())?;
        session.close();
        let entry = self.entry(session.id());
        let mut entry = entry.lock();
        match self.remember(session.id(), &mut entry, |entry| entry.follows = Some(id)) {
            Ok(()) => Ok(session),
            Err(error) => {
                self.engine.discard(&session)?;
                Err(error)
            }
        }
    }

    /// The session that this one follows, and whether more is published of it than this one shows. Errors: as of [`Fleet::follow`].
    pub fn followed(&self, session: &Session) -> Result<Option<(SessionId, bool)>> {
        let follows = self.standing(session).and_then(|standing| standing.follows);
        let Some(id) = follows else { return Ok(None) };
        Ok(Some((id, self.head(id)?.root != session.peek().base)))
    }

    /// Makes forks of what is published of a session that is not here. Errors: `Unknown`, `Ended`, `Heads`, and what engine and remote store say.
    pub fn fork(&self, id: SessionId, names: &[Option<String>], notes: &Notes) -> Result<Vec<Arc<Session>>> {
        let head = self.head(id)?;
        self.discover(&head, &[head.root, head.origin])?;
        Ok(self.engine.forks_of(id, (head.root, head.origin), names, notes)?)
    }

    /// Ends a session: here, and, if this host holds it, everywhere, of which the others hear soon. The caller made sure that it is not mounted.
    /// Errors: `Busy`, and those of the engine.
    pub fn discard(&self, session: &Session) -> Result<()> {
        let id = session.id();
        let entry = self.entry(id);
        let mut entry = entry.try_lock_for(BUSY).ok_or(FleetError::Busy(id))?;
        if entry.is_empty() {
            return Ok(self.engine.discard(session)?);
        }
        if entry.taken.is_some() || entry.follows.is_some() {
            self.engine.discard(session)?;
            return self.forget(id, &mut entry);
        }
        match self.remember(id, &mut entry, |entry| entry.is_discarded = true) {
            Err(FleetError::Engine(session::Error::NoSpace)) => {
                // Room comes of it.
                self.engine.discard(session)?;
                self.engine.durability().settle()?;
                self.remember(id, &mut entry, |entry| entry.is_discarded = true)
            }
            remembered => {
                remembered?;
                Ok(self.engine.discard(session)?)
            }
        }
    }

    /// Ends a session that is not here, if this host or nobody holds it. Errors: `Unknown`, `Ended`, `Held`, `Unsettled`.
    pub fn discard_elsewhere(&self, id: SessionId) -> Result<()> {
        let entry = self.entry(id);
        let mut entry = entry.try_lock_for(BUSY).ok_or(FleetError::Busy(id))?;
        self.settle(id, &mut entry)?;
        let head = self.head(id)?;
        self.may_take(&head, false)?;
        self.append(id, &mut entry, self.ended(&head))?;
        if entry.head.as_ref().is_none_or(|head| !head.ended) {
            return Err(FleetError::Lost(id));
        }
        self.conclude(id, &mut entry)
    }

    /// Again and again, from a thread of its own that may wait for the network: finds out what became of records, and hears of sessions that were
    /// taken while this host slept.
    pub fn tick(&self) {
        let slept = self.slept.swap(false, Relaxed);
        for (id, entry) in self.known() {
            // Whoever has it finds out himself.
            let Some(mut entry) = entry.try_lock() else { continue };
            if let Err(error) = self.settle(id, &mut entry).and_then(|()| self.conclude(id, &mut entry)) {
                tracing::debug!(session = %id, %error, "its head is not settled");
            } else if slept || self.is_closed_for_now(id, &entry) {
                self.look_after(id, &mut entry);
            }
        }
    }

    /// All entries.
    fn known(&self) -> Vec<(SessionId, Arc<Mutex<Entry>>)> {
        let mut entries = self.entries.lock();
        // Nobody is at it, and there is nothing to remember.
        entries.retain(|_, entry| Arc::strong_count(entry) > 1 || !entry.lock().is_empty());
        entries.iter().map(|(id, entry)| (*id, Arc::clone(entry))).collect()
    }

    /// Publishes the sessions of this host of which there is more than is published.
    pub fn publish_all(&self) {
        for session in self.engine.sessions() {
            let is_behind = self.standing(&session).is_some_and(|s| s.is_held && s.is_ahead);
            if is_behind && let Err(error) = self.publish(&session, &Asked::in_background()) {
                tracing::warn!(session = %session.id(), %error, "cannot be published in the background");
            }
        }
    }

    fn publish_as(
        &self,
        entry: &mut Entry,
        session: &Session,
        holder: Option<HostId>,
        asked: &Asked<'_>,
    ) -> Result<(publish::Published, Head)> {
        let (id, meta) = (session.id(), &session.meta);
        let publishing = self.engine.seal_to_publish(session, asked.keep, &mut |_| {})?;
        let root = publishing.snapshot;
        let last = entry.head.clone();
        let first = match last {
            // Elsewhere a diff compares with it.
            None if meta.origin != root => {
                Some(self.send(meta.origin, &self.engine.near(meta.origin)?, asked)?)
            }
            _ => None,
        };
        let mut near: Vec<_> = last.iter().map(|head| head.root).chain([meta.origin]).collect();
        near.extend(self.engine.near(root)?);
        let mut published = self.send(root, &near, asked)?;
        // Both stay claimed until a record names them.
        if let Some(first) = &first {
            published.objects += first.objects;
            published.object_bytes += first.object_bytes;
            published.packs += first.packs;
            published.pack_bytes += first.pack_bytes;
        }
        if let Some(last) = last.as_ref().filter(|last| (last.root, last.holder) == (root, holder)) {
            // It may not be the head any more.
            return match self.heads.newest(id).map_err(FleetError::Heads)? {
                Some(newest) if newest.nonce == last.nonce => Ok((published, newest)),
                Some(newest) if newest.seq > last.seq => Err(self.taken(id, entry)?),
                _ => Err(FleetError::Gone(id)),
            };
        }
        // What others build on must not be behind what this host goes on with after power loss.
        self.engine.durability().sync()?;
        let head = Head {
            session: id,
            seq: last.as_ref().map_or(1, |last| last.seq + 1),
            epoch: last.as_ref().map_or(1, |last| last.epoch),
            holder,
            root,
            origin: meta.origin,
            parent: meta.parent,
            name: last.map_or(meta.name.clone(), |last| last.name),
            created: meta.created,
            ended: false,
            nonce: self.nonce(),
        };
        self.append(id, entry, head.clone())?;
        Ok((published, head))
    }

    fn send(&self, root: SnapshotId, near: &[SnapshotId], asked: &Asked<'_>) -> Result<publish::Published> {
        let name = || self.engine.entropy().remote_name();
        Ok(self.engine.store().publish(root, near, &name, asked.progress, asked.is_cancelled)?)
    }

    /// Whether there is more in a session than is published. Any doubt says so.
    fn is_ahead(&self, session: &Session, head: Option<&Head>) -> bool {
        head.is_none_or(|head| !session.is_snapshot(head.root).unwrap_or(false))
    }

    fn check_ours(&self, id: SessionId, entry: &Entry) -> Result<()> {
        match (&entry.head, entry.taken) {
            (_, Some(taken)) => Err(FleetError::Taken { session: id, taken }),
            (Some(head), None) if head.ended => Err(FleetError::Ended(id)),
            _ => Ok(()),
        }
    }

    fn entry(&self, id: SessionId) -> Arc<Mutex<Entry>> {
        Arc::clone(self.entries.lock().entry(id).or_default())
    }
}

/// Whether a session is this host's to write, whatever becomes of the record that is under way.
fn stays(entry: &Entry, host: HostId) -> bool {
    let keeps =
        |head: &Option<Head>| head.as_ref().is_none_or(|head| head.holder == Some(host) && !head.ended);
    entry.taken.is_none()
        && !entry.is_discarded
        && entry.follows.is_none()
        && keeps(&entry.head)
        && keeps(&entry.pending)
}
