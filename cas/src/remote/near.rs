//! Other hosts, asked before the remote store: which of them and for how long, and for how much more than somebody waits for.
//!
//! Who needs an object has the first host asked that is up, and the next one if it is not there. A host that hangs, lies or cannot be reached is left alone for a
//! while, longer each time, and after that one request at a time finds out whether it is better. An answer names what stands behind the object; some of that is asked
//! for at once, and more of it the next time if a reader comes to what was named: so a scan is few requests, and who reads here and there fetches little in vain. Of
//! what is coming nobody asks again.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Failure,
    peer::{Answer, FOLLOWING_MAX, Land, Name, Named, Patience, Peer, READ_MAX},
};
use crate::{Digest, Error, Result, record::PackKind};

/// For an object that the remote store may have as well: a reader waits no longer for each host, and so long at most for all of them.
const BESIDE_STORE: (Patience, Duration) = (of_ms(1_000, 2_000), Duration::from_secs(4));
/// For one that nobody else has.
const ALONE: (Patience, Duration) = (of_ms(5_000, 10_000), Duration::from_secs(20));
/// For what nobody waits for yet, and nobody else has.
const AHEAD: Patience = of_ms(1_000, 10_000);
/// A host that failed is left alone for so long, twice as long each time, up to so long.
const DOWN: Duration = Duration::from_secs(1);
const DOWN_MAX: Duration = Duration::from_secs(15);
/// Bytes that are asked for ahead: at first, and of a reader that goes on and on.
const WINDOW: u64 = 256 << 10;
const WINDOW_MAX: u64 = 4 << 20;
/// One more object is named for so many bytes of that, so that small ones fill it as well.
const BYTES_OF_NAMED: u64 = 4 << 10;
/// Names that were told and not asked for, by which a reader is known again: of more, all are forgotten.
const TRAILS_MAX: usize = 1 << 16;

const fn of_ms(quiet: u64, whole: u64) -> Patience {
    Patience { quiet: Duration::from_millis(quiet), whole: Duration::from_millis(whole) }
}

/// How it is found out that an object need not come.
type Has = Box<dyn Fn(Name) -> bool + Send + Sync>;

/// See the module.
pub(crate) struct Near {
    hosts: Vec<Host>,
    /// There is no remote store.
    is_alone: bool,
    has: Has,
    /// Nothing is locked inside it, and nothing waits under it.
    state: Mutex<State>,
}

impl fmt::Debug for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.hosts.iter().map(|host| host.peer.address())).finish()
    }
}

#[derive(Default)]
struct State {
    /// What is on its way before anybody waited for it, and whether somebody does by now.
    coming: HashMap<(PackKind, Digest), bool>,
    /// What was told to stand behind something and was not asked for, and how much was.
    trails: HashMap<Digest, u64>,
}

impl State {
    /// Enters that somebody waits for an object, if it is coming.
    fn joins(&mut self, name: Name) -> bool {
        self.coming.get_mut(&key(name)).is_some_and(|is_wanted| {
            *is_wanted = true;
            true
        })
    }
}

/// Where what comes goes, and who hears of it.
pub(crate) trait Arrivals {
    /// Puts an object where whoever asks for it finds it.
    fn land(&self, name: Name, bytes: &[u8]) -> Result<()>;
    /// Tells those who wait for an object that it is there.
    fn tell(&self, name: Name);
    /// Has an object asked for again, for which somebody waits by now, and which did not come as it should have.
    fn again(&self, name: Name);
}

/// What other hosts made of a wish.
#[derive(Debug)]
pub(crate) enum Sought {
    /// It is here and whoever waited was told, or it is coming with others.
    Settled,
    /// It is nowhere, or nobody can be asked: why, if there is more to it than that it is not there.
    Missed(Option<Error>),
}

/// What came from a host, and what did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Which.
    pub address: String,
    /// Objects that came.
    pub hits: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that it did not have.
    pub misses: u64,
    /// Requests that came to nothing, or brought what was not asked for.
    pub failures: u64,
    /// Why it is left alone now.
    pub down: Option<String>,
}

impl Near {
    /// Other hosts, in the order in which they are asked; `has` says what is here.
    pub(crate) fn new(peers: Vec<Arc<dyn Peer>>, is_alone: bool, has: Has) -> Near {
        let host = |peer| Host { peer, standing: Mutex::default(), counts: Counts::default() };
        Near { hosts: peers.into_iter().map(host).collect(), is_alone, has, state: Mutex::default() }
    }

    /// Whether there is anybody to ask.
    pub(crate) fn has_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Asks for an object, and for some of what stands behind it.
    pub(crate) fn seek(&self, name: Name, arrivals: &dyn Arrivals) -> Sought {
        if self.hosts.is_empty() {
            return Sought::Missed(None);
        }
        if self.state.lock().joins(name) {
            return Sought::Settled;
        }
        // It is here before it is not coming any more: so it may have come since somebody looked.
        if (self.has)(name) {
            arrivals.tell(name);
            return Sought::Settled;
        }
        let window = {
            let mut state = self.state.lock();
            state.trails.remove(&name.1).map_or(WINDOW, |window| (2 * window).min(WINDOW_MAX))
        };
        let (patience, all) = if self.is_alone { ALONE } else { BESIDE_STORE };
        let named_max = ((window / BYTES_OF_NAMED) as usize).min(FOLLOWING_MAX);
        let (begun, mut missed) = (now(), None);
        for host in &self.hosts {
            if now().duration_since(begun) >= all {
                break;
            }
            match host.ask(&[name], &[], named_max, patience, &mut |name, bytes| arrivals.land(name, bytes)) {
                Ok((1.., following)) => {
                    let batch = self.choose(window, following);
                    // Not before: the next thing that a reader wants is known to be coming then.
                    arrivals.tell(name);
                    self.go_on(host, &batch, arrivals);
                    return Sought::Settled;
                }
                Ok((0, _)) => {}
                Err(error) => missed = Some(error),
            }
        }
        if missed.is_none() && self.is_alone {
            let hosts: Vec<_> = self.hosts.iter().map(|host| host.peer.address()).collect();
            missed = Some(Failure::NotFound(format!("{} at {}", name.1, hosts.join(", "))).into());
        }
        Sought::Missed(missed)
    }

    /// Asks for what was chosen, because a reader may come to it.
    fn go_on(&self, host: &Host, batch: &[Named], arrivals: &dyn Arrivals) {
        if batch.is_empty() {
            return;
        }
        let (names, lens): (Vec<_>, Vec<_>) = batch.iter().map(|Named { name, len }| (*name, *len)).unzip();
        // Whatever happens, what does not come is not waited for.
        let coming = Coming { near: self, batch: &names, arrivals };
        let land = &mut |name: Name, bytes: &[u8]| {
            arrivals.land(name, bytes)?;
            self.state.lock().coming.remove(&key(name));
            arrivals.tell(name);
            Ok(())
        };
        // What went wrong is counted, and nobody waited for it.
        let patience = if self.is_alone { AHEAD } else { BESIDE_STORE.0 };
        let _ = host.ask(&names, &lens, 0, patience, land);
        drop(coming);
    }

    /// What of that is not here and fits: from here on it is coming. The rest is remembered, to know the reader again.
    fn choose(&self, window: u64, following: Vec<Named>) -> Vec<Named> {
        let lacking: Vec<Named> = following.into_iter().filter(|named| !(self.has)(named.name)).collect();
        let (mut batch, mut bytes, mut met) = (Vec::new(), 0, HashSet::new());
        let mut state = self.state.lock();
        if state.trails.len() + lacking.len() > TRAILS_MAX {
            state.trails.clear();
        }
        for Named { name, len } in lacking.into_iter().filter(|named| named.len > 0) {
            bytes += u64::from(len);
            if batch.len() == READ_MAX || bytes > window {
                state.trails.insert(name.1, window);
            } else if !state.coming.contains_key(&key(name)) && met.insert(key(name)) {
                batch.push(Named { name, len });
            }
        }
        state.coming.extend(batch.iter().map(|named| (key(named.name), false)));
        batch
    }

    /// Of each host.
    pub(crate) fn counts(&self) -> Vec<PeerCounts> {
        self.hosts.iter().map(Host::counts).collect()
    }
}

fn key((kind, digest): Name) -> (PackKind, Digest) {
    (PackKind::of(kind), digest)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long hosts are waited for: it decides nothing that is kept"
)]
fn now() -> Instant {
    Instant::now()
}

/// Objects that are on their way, until this is dropped.
struct Coming<'a> {
    near: &'a Near,
    batch: &'a [Name],
    arrivals: &'a dyn Arrivals,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        for name in self.batch {
            let is_wanted = self.near.state.lock().coming.remove(&key(*name));
            if is_wanted == Some(true) {
                self.arrivals.again(*name);
            }
        }
    }
}

/// A host, and how it is doing.
struct Host {
    peer: Arc<dyn Peer>,
    standing: Mutex<Standing>,
    counts: Counts,
}

#[derive(Default)]
struct Standing {
    /// One after the other.
    failures: u32,
    /// Nobody asks before.
    until: Option<Instant>,
    reason: String,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    bytes: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
}

impl Host {
    /// Asks, unless the host is left alone. How many came, and what stands behind.
    fn ask(
        &self,
        wanted: &[Name],
        lens: &[u32],
        following_max: usize,
        patience: Patience,
        land: &mut Land<'_>,
    ) -> Result<(usize, Vec<Named>)> {
        let failures = self.turn(wanted, patience)?;
        let mut land = |name: Name, bytes: &[u8]| {
            // Before a reader has it.
            self.counts.hits.fetch_add(1, Relaxed);
            self.counts.bytes.fetch_add(bytes.len() as u64, Relaxed);
            land(name, bytes)
        };
        let (answered, read) = Answer::of(&*self.peer, (wanted, lens), following_max, patience, &mut land);
        self.counts.misses.fetch_add(answered.absent as u64, Relaxed);
        match read {
            Ok(()) => {
                self.up();
                Ok((answered.here, answered.following))
            }
            Err(Error::Remote(failure)) => {
                let failure = self.about(wanted.get(answered.here + answered.absent), failure);
                self.down(failures, &failure);
                // What was waited for came, and then it broke.
                if answered.here == wanted.len() {
                    Ok((answered.here, Vec::new()))
                } else {
                    Err(failure.into())
                }
            }
            // Ours: the cache takes nothing, or this is the end.
            Err(own) => Err(own),
        }
    }

    /// Whether it may be asked; how often it has failed. Error: `Unreachable`, with what was wrong the last time.
    fn turn(&self, wanted: &[Name], patience: Patience) -> Result<u32, Failure> {
        let mut standing = self.standing.lock();
        let Some(until) = standing.until else { return Ok(0) };
        if now() < until {
            let reason = format!("left alone for a while, because of this: {}", standing.reason);
            return Err(self.about(wanted.first(), Failure::Unreachable { object: String::new(), reason }));
        }
        // One finds out; the others do not wait for that.
        standing.until = Some(now() + patience.whole);
        Ok(standing.failures)
    }

    /// The failure, with what it is about in it: an object, and where.
    fn about(&self, name: Option<&Name>, failure: Failure) -> Failure {
        let address = self.peer.address();
        let object = name.map_or(address.to_owned(), |(_, digest)| format!("{digest} at {address}"));
        match failure {
            Failure::NotFound(_) => Failure::NotFound(object),
            Failure::Refused { reason, .. } => Failure::Refused { object, reason },
            Failure::Unreachable { reason, .. } => Failure::Unreachable { object, reason },
            Failure::Failed { reason, .. } => Failure::Failed { object, reason },
        }
    }

    fn up(&self) {
        let mut standing = self.standing.lock();
        if standing.failures > 0 {
            tracing::info!(peer = self.peer.address(), "answers again");
        }
        *standing = Standing::default();
    }

    /// Leaves it alone, if it had failed so often when it was asked: of many who were asking when it went, one counts.
    fn down(&self, failures: u32, failure: &Failure) {
        self.counts.failures.fetch_add(1, Relaxed);
        let mut standing = self.standing.lock();
        if standing.failures != failures {
            return;
        }
        let pause = DOWN.saturating_mul(1 << failures.min(8)).min(DOWN_MAX);
        standing.failures = failures.saturating_add(1);
        standing.until = Some(now() + pause);
        standing.reason = match failure {
            Failure::NotFound(object) => object.clone(),
            Failure::Refused { reason, .. }
            | Failure::Unreachable { reason, .. }
            | Failure::Failed { reason, .. } => reason.clone(),
        };
        tracing::warn!(%failure, ?pause, "a peer is left alone for a while");
    }

    fn counts(&self) -> PeerCounts {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let Counts { hits, bytes, misses, failures } = &self.counts;
        let standing = self.standing.lock();
        PeerCounts {
            address: self.peer.address().to_owned(),
            hits: of(hits),
            bytes: of(bytes),
            misses: of(misses),
            failures: of(failures),
            down: standing.until.map(|_| standing.reason.clone()),
        }
    }
}
