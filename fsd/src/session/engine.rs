//! The engine: all sessions of a host, over one store and one log.
//!
//! Locks: `naming`, then a session's own, then `sessions`, which is only held to look up or insert. The store's hold is
//! taken around all of them by what puts objects there that nothing refers to yet (an import, a seal).

mod arriving;
mod making;
mod naming;
mod snapshots;
mod upkeep;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize},
    },
};

use cas::{Attrs, Digest, Snapshot, SnapshotId, Store, Time, disk::Disk};
use parking_lot::{Mutex, RwLock};

pub use self::{
    naming::{LABEL_BYTES_MAX, Target},
    snapshots::Publishing,
};
use super::{
    Boot, Clock, Difference, Entropy, Limits, Result, SessionId, Side, diff,
    durability::Durability,
    lent::Lent,
    live::{Session, Shared},
    log::Purpose,
    pins::Pins,
    record::Record,
    recover::Recovery,
    replay::{Met, Replay},
    segment::Pool,
    sessions::Sessions,
};

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

    /// Snapshots that stay here for other hosts.
    pub fn lent(&self) -> &Lent {
        &self.lent
    }

    /// Compares two trees; see [`diff`]. Error: `TooMany`, and what the store says.
    pub fn diff(&self, old: &Side, new: &Side, expand_renames: bool) -> Result<Vec<Difference>> {
        diff(&self.shared.store.fetching(), old, new, expand_renames, self.shared.limits.differences_max)
    }

    /// Makes everything durable, before the daemon ends.
    pub fn close(&self) -> Result<()> {
        self.sessions().iter().for_each(|session| session.cursor.lock().retire());
        self.shared.durability.settle()
    }
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
