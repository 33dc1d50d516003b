//! What of the remote store is needed: said there, kept, and the rest given back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cas::{
    SnapshotId,
    remote::{Failure, Remote, each, gc, lease::Held},
};
use parking_lot::Mutex;

use super::{
    Fleet, FleetError, Result,
    heads::{Head, HeadError, HeadStore, Nonce, ObjectHeads, Place},
    ledger::Entry,
};
use crate::session::SessionId;

/// Where it is said in the remote store that heads are in a database.
const PLACES: &str = "places/";
/// Sessions that are asked for at a time.
const PAGE: usize = 10_000;

/// Whom a collection asks and tells.
pub struct Collecting<'a> {
    /// Only say what would be done.
    pub dry_run: bool,
    /// See [`gc::DELAY`].
    pub delay: Duration,
    /// See [`gc::LEASE`].
    pub lease: Duration,
    /// Hears how far it is.
    pub progress: &'a dyn Fn(gc::Progress),
    /// Says whether to stop.
    pub is_cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Snapshots in this host's lease, because a record names them that is the head, or may become it.
pub(super) type Holds = Mutex<BTreeMap<SessionId, Vec<Held>>>;

impl Fleet {
    /// Gives back what nobody needs in the remote store: see [`gc`]. Errors: `Doubt`, and what remote store and place of heads say.
    pub fn gc(&self, asked: &Collecting<'_>) -> Result<gc::Report> {
        self.collecting(asked, |asked| self.engine.store().gc_there(asked))
    }

    /// Why something is needed in the remote store, in lines for people: a snapshot, a session, a host, a layer or a pack. Nothing: there is no such
    /// thing. Errors: as of [`Fleet::gc`].
    pub fn why(&self, wanted: &str) -> Result<Vec<String>> {
        let asked = Collecting {
            dry_run: true,
            delay: gc::DELAY,
            lease: gc::LEASE,
            progress: &|_| {},
            is_cancelled: &|| false,
        };
        self.collecting(&asked, |asked| self.engine.store().why_there(asked, wanted))
    }

    fn collecting<T>(
        &self,
        asked: &Collecting<'_>,
        work: impl FnOnce(&gc::Asked<'_>) -> cas::Result<T>,
    ) -> Result<T> {
        let Collecting { dry_run, delay, lease, progress, is_cancelled } = *asked;
        let name = || self.engine.entropy().remote_name();
        let heads = || self.roots();
        let asked = gc::Asked { delay, lease, dry_run, name: &name, heads: &heads, progress, is_cancelled };
        Ok(work(&asked)?)
    }

    /// Has what is published stay in the remote store, whoever else needs it. Errors: `UnknownSnapshot`, and what the remote store says.
    pub fn pin(&self, id: SnapshotId) -> Result<()> {
        Ok(self.engine.store().pin(id, self.engine.entropy().remote_name())?)
    }

    /// Takes [`Fleet::pin`] back. False: it was not pinned. Error: what the remote store says.
    pub fn unpin(&self, id: SnapshotId) -> Result<bool> {
        Ok(self.engine.store().unpin(id)?)
    }

    /// Says in the remote store what this host needs, if it is time. Again and again, from a thread of its own that may wait for the network.
    pub fn renew(&self) {
        let now = self.engine.clock().now().secs;
        let mut renewed = self.renewed.lock();
        let due = gc::LEASE_RENEWED.as_secs();
        // The clock may have been set back.
        if renewed.is_some_and(|renewed| now.abs_diff(renewed) < due) {
            return;
        }
        if let Err(error) = self.hold_all() {
            // The lease of an earlier life may have what cannot be read now.
            tracing::warn!(%error, "this host's lease is not renewed: what it has to name is not known");
            return;
        }
        *self.said_place.lock() = false;
        match self.say_place(false).and_then(|()| Ok(self.engine.store().renew_lease()?)) {
            Ok(lost) => {
                *renewed = Some(now);
                for id in lost {
                    tracing::error!(
                        snapshot = %id,
                        "this host stands on it, and it is gone from the remote store or about to go: this host gave no sign of life for too long"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "cannot say in the remote store what this host needs of it"),
        }
    }

    /// Makes snapshots that a head names known here, and has them stay in the remote store as long as this host needs them. Errors: `UnknownSnapshot` if the head names
    /// something else by now, and what remote store and place of heads say.
    pub fn discover(&self, head: &Head, snapshots: &[SnapshotId]) -> Result<()> {
        for id in snapshots.iter().copied() {
            let is_root = || {
                let newest = self.heads.newest(head.session).map_err(|error| self.unknown(error))?;
                Ok(newest.is_some_and(|newest| !newest.ended && [newest.root, newest.origin].contains(&id)))
            };
            self.engine.store().discover_root(id, &is_root)?;
        }
        Ok(())
    }

    /// Keeps what a record names that may become the head; and of a host alone, of which nobody else can read the heads, what the head names.
    pub(super) fn hold(&self, id: SessionId, entry: &Entry) {
        if self.is_alone && entry.is_empty() {
            // Given away, to whoever comes first: that is this host.
            return;
        }
        let head = entry.head.iter().filter(|_| self.is_alone);
        let held = self.held(entry.pending.iter().chain(head));
        let mut holds = self.holds.lock();
        if held.is_empty() {
            holds.remove(&id)
        } else {
            holds.insert(id, held)
        };
    }

    fn held<'a>(&self, heads: impl Iterator<Item = &'a Head>) -> Vec<Held> {
        let snapshots = heads.filter(|head| !head.ended).flat_map(|head| [head.root, head.origin]);
        snapshots.filter_map(|id| self.engine.store().hold_there(id)).collect()
    }

    /// Keeps what all heads name, on a host alone. Those that can be read are kept although others cannot.
    pub(super) fn hold_all(&self) -> std::result::Result<(), HeadError> {
        if !self.is_alone {
            return Ok(());
        }
        let mut last = None;
        for session in self.heads.sessions(None, usize::MAX)? {
            match self.heads.newest(session) {
                Ok(head) => {
                    let held = self.held(head.iter());
                    self.holds.lock().entry(session).or_insert(held);
                }
                Err(error) => last = Some(error),
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// Says in the remote store where the heads are that are not in it, if there are any or there is about to be the first one.
    pub(super) fn say_place(&self, is_first: bool) -> Result<()> {
        let mut said = self.said_place.lock();
        if !*said
            && let Place::Database(database) = self.heads.place().map_err(FleetError::Heads)?
            && (is_first || !self.heads.sessions(None, 1).map_err(FleetError::Heads)?.is_empty())
        {
            let remote = self.remote()?;
            remote.create(&place(database), Vec::new()).map_err(cas::Error::from)?;
        }
        *said = is_first;
        Ok(())
    }

    fn remote(&self) -> Result<Arc<dyn Remote>> {
        Ok(self.engine.store().remote().ok_or(cas::Error::NoRemote)?)
    }

    fn unknown(&self, error: HeadError) -> cas::Error {
        let (object, reason) = (format!("{:?}", self.heads), error.to_string());
        match error {
            HeadError::Unknown(_) => Failure::Unreachable { object, reason }.into(),
            HeadError::Refused(_) | HeadError::Malformed { .. } => cas::Error::Doubt { object, reason },
        }
    }

    /// The snapshots that heads name, wherever those are. Error: some cannot be read from here.
    fn roots(&self) -> cas::Result<Vec<(String, SnapshotId)>> {
        let remote = self.engine.store().remote().ok_or(cas::Error::NoRemote)?;
        let unknown = |error: HeadError| self.unknown(error);
        let own = self.heads.place().map_err(unknown)?;
        for there in remote.list(PLACES)? {
            if !matches!(own, Place::Database(database) if place(database) == there) {
                let reason = "says that heads are in a database which is not the one that this host was started with (--heads); run gc where it is, or remove this object if there is no such database any more";
                return Err(cas::Error::Doubt { object: remote.display(&there), reason: reason.to_owned() });
            }
        }
        let mut heads = heads_in(&*self.heads).map_err(unknown)?;
        if !matches!(own, Place::Store) {
            let in_store = ObjectHeads::new(Arc::clone(&remote), self.nonce());
            heads.extend(heads_in(&in_store).map_err(unknown)?);
        }
        let named = heads.into_iter().filter(|head| !head.ended);
        let roots = named.flat_map(|head| {
            let session = head.session.to_string();
            [(session.clone(), head.root), (session, head.origin)]
        });
        Ok(roots.collect())
    }
}

fn place(database: Nonce) -> String {
    format!("{PLACES}{}", cas::base32::encode(&database))
}

/// All heads of a place.
fn heads_in(place: &dyn HeadStore) -> std::result::Result<Vec<Head>, HeadError> {
    let (mut heads, mut last) = (Vec::new(), None);
    loop {
        let page = place.sessions(last, PAGE)?;
        let newest = each(&page, |session| place.newest(*session))?;
        heads.extend(newest.into_iter().flatten());
        last = page.last().copied();
        if page.len() < PAGE {
            return Ok(heads);
        }
    }
}
