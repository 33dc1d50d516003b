//! Hosts that share a store and die, by seed: sessions are written, published, handed off, taken and discarded by several hosts, of which each
//! may take any other for dead at any time, while the store fails, disks fail, and hosts are killed and lose power. Nothing that
//! was called published is lost, no two hosts are told that they published on top of the same state, and whatever one host wrote and nobody published
//! is in a fork on that host.
//!
//! `AETHERFS_TRAVEL_SEEDS` sets how many seeds are tried, `AETHERFS_TRAVEL_FIRST` where to begin, `AETHERFS_TRAVEL_TRACE` tells what happens; a failure names its seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cas::{Kind, remote::sim::SimRemote, sim::SimDisk};
use fsd::{
    fleet::{Asked, Collecting, Fleet, FleetError, Patience, heads::ObjectHeads},
    session::{Engine, Error, Name, New, ROOT, Session, SessionId},
};

use crate::common::{host::Opening, random, setting};

const HOSTS: usize = 3;
const STEPS: usize = 60;

/// A number that was written, unlike any other. It stands for all that was written before it.
type Value = u64;

/// A host, as long as it runs.
struct Host {
    opening: Opening,
    disk: SimDisk,
    engine: Arc<Engine>,
    fleet: Fleet,
}

impl Host {
    fn open(opening: Opening, disk: SimDisk) -> Host {
        let engine = Arc::new(opening.open_sim(&disk).unwrap());
        let remote = Arc::new(opening.remote.clone().unwrap());
        // Nobody waits, so anybody may take any session at any time.
        let patience = Patience { beat: Duration::from_secs(10), dead: Duration::ZERO };
        let fleet = Fleet::open(
            Arc::clone(&engine),
            Arc::new(ObjectHeads::new(remote, [opening.boot; 16])),
            patience,
        )
        .unwrap();
        Host { opening, disk, engine, fleet }
    }
}

/// All hosts, and what is known to be true.
struct World {
    seed: u64,
    chance: u64,
    remote: SimRemote,
    hosts: Vec<Host>,
    sessions: Vec<SessionId>,
    /// What was written before each value, in order.
    before: BTreeMap<Value, Vec<Value>>,
    last: Value,
    /// The last value of each session that a host was told is published.
    published: BTreeMap<SessionId, Value>,
    /// What each host has written, of which session.
    written: Vec<BTreeSet<(SessionId, Value)>>,
    /// Those that somebody has discarded, or tried to.
    discarded: BTreeSet<SessionId>,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    published: u64,
    handed_off: u64,
    opened: u64,
    taken: u64,
    failed: u64,
    died: u64,
    removed: u64,
}

fn name() -> Name {
    Name::parse(b"value").unwrap()
}

fn new() -> New {
    New { kind: Kind::File, mode: 0o644, umask: 0, uid: 0, gid: 0, rdev: 0, target: None }
}

impl World {
    fn new(seed: u64) -> World {
        let remote = SimRemote::default();
        let opening = Opening { remote: Some(remote.clone()), ..Opening::first(seed) };
        let host = |nth: usize| Host::open(opening.clone(), SimDisk::new(seed ^ nth as u64));
        World {
            seed,
            chance: seed,
            remote,
            hosts: (0..HOSTS).map(host).collect(),
            sessions: Vec::new(),
            before: BTreeMap::new(),
            last: 0,
            published: BTreeMap::new(),
            written: vec![BTreeSet::new(); HOSTS],
            discarded: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    /// What happens, if somebody wants to see it.
    fn say(&self, what: impl FnOnce() -> String) {
        if std::env::var_os("AETHERFS_TRAVEL_TRACE").is_some() {
            println!("{}", what());
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        random(&mut self.chance) % n
    }

    /// What a session that is on a host says; 0 if nothing was written. Error: store or disk fail just now.
    fn read(&self, host: usize, session: &Session) -> Result<Value, Error> {
        let mut bytes = [0; 8];
        let read = self.fetching(host, || {
            let found = session.lookup(ROOT, &name())?;
            session.read(found.ino, 0, &mut bytes)
        });
        match read {
            // It was made, and then something failed.
            Ok(0) | Err(Error::NotFound) => return Ok(0),
            Ok(read) => assert_eq!(read, bytes.len()),
            Err(error) => return Err(error),
        }
        Ok(Value::from_le_bytes(bytes))
    }

    /// Does what a shell does: has brought here what an operation needs.
    fn fetching<T>(&self, host: usize, mut operation: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        loop {
            match operation() {
                Err(Error::Store(cas::Error::Absent { kind, digest })) => {
                    self.hosts[host]
                        .engine
                        .store()
                        .fetch(kind, digest)
                        .unwrap()
                        .wait()
                        .map_err(cas::Error::Fetch)?;
                }
                done => return done,
            }
        }
    }

    /// All values that stand behind this one, and it.
    fn chain(&self, value: Value) -> Vec<Value> {
        if value == 0 {
            return Vec::new();
        }
        let mut chain = self.before[&value].clone();
        chain.push(value);
        chain
    }

    /// A state of a session that others can see has all that was called published before.
    fn check_public(&self, session: SessionId, value: Value) {
        let last = self.chain(self.published.get(&session).copied().unwrap_or(0));
        assert!(
            self.chain(value).starts_with(&last),
            "seed {}: {session}: {value} does not stand on what was published: {last:?}",
            self.seed
        );
    }

    fn write(&mut self, host: usize, session: &Session) -> Result<(), Error> {
        let before = self.chain(self.read(host, session)?);
        // It may be there although something fails.
        self.last += 1;
        let value = self.last;
        self.before.insert(value, before);
        self.fetching(host, || {
            let found = match session.lookup(ROOT, &name()) {
                Err(Error::NotFound) => session.make(ROOT, &name(), new())?,
                found => found?,
            };
            session.write(found.ino, 0, &value.to_le_bytes())
        })?;
        let synced = self.below(2) == 0;
        self.say(|| format!("  wrote {value}, synced: {synced}"));
        if !synced {
            // Gone with the next loss of power, unless it is published.
            return Ok(());
        }
        self.hosts[host].engine.durability().sync()?;
        self.written[host].insert((session.id(), value));
        Ok(())
    }

    fn publish(&mut self, host: usize, session: &Session, leaves: bool) {
        let Ok(value) = self.read(host, session) else { return };
        let asked = Asked::in_background();
        let fleet = &self.hosts[host].fleet;
        let published = if leaves {
            session.close();
            fleet.hand_off(session, &asked)
        } else {
            fleet.publish(session, &asked)
        };
        self.say(|| {
            format!("  published {value}: {:?}", published.as_ref().map(|(_, head)| (head.seq, head.epoch)))
        });
        match published {
            Ok(_) => {
                self.check_public(session.id(), value);
                self.published.insert(session.id(), value);
                *(if leaves { &mut self.tally.handed_off } else { &mut self.tally.published }) += 1;
            }
            Err(FleetError::Taken { .. }) => self.tally.taken += 1,
            Err(_) => self.tally.failed += 1,
        }
    }

    fn open(&mut self, host: usize, id: SessionId, take_over: bool) {
        let opened = self.hosts[host].fleet.open_here(id, take_over);
        self.say(|| format!("  opened: {:?}", opened.as_ref().map(|session| session.is_closed())));
        match opened {
            Ok(session) if !session.is_closed() => self.tally.opened += 1,
            Err(FleetError::Ended(_)) => {
                assert!(self.discarded.contains(&id), "seed {}: {id} was never discarded", self.seed);
            }
            _ => self.tally.failed += 1,
        }
    }

    /// A host collects in the remote store, where nothing is too young for it.
    fn collect(&mut self, host: usize) {
        let asked = Collecting {
            dry_run: false,
            delay: Duration::ZERO,
            lease: Duration::from_secs(1 << 40),
            progress: &|_| {},
            is_cancelled: &|| false,
        };
        let collected = self.hosts[host].fleet.gc(&asked);
        self.say(|| format!("  collected: {collected:?}"));
        match collected {
            Ok(report) => self.tally.removed += report.removed.objects,
            Err(FleetError::Engine(Error::Store(cas::Error::Doubt { object, reason }))) => {
                panic!("seed {}: {object}: {reason}", self.seed)
            }
            Err(_) => self.tally.failed += 1,
        }
    }

    /// A host dies, and comes back.
    fn restart(&mut self, host: usize) {
        let power = self.below(2) == 0;
        self.say(|| format!("  host {host} dies, power: {power}"));
        let Host { opening, disk, engine, fleet } = self.hosts.swap_remove(host);
        engine.store().end_fetches();
        drop((fleet, engine));
        let mut chance = random(&mut self.chance);
        let disk = if power { disk.crash(&mut || random(&mut chance)) } else { disk.kill() };
        let opening = if power { opening.rebooted() } else { opening };
        self.hosts.push(Host::open(opening, disk));
        let last = self.hosts.len() - 1;
        self.hosts.swap(host, last);
        self.tally.died += 1;
    }

    fn step(&mut self) {
        self.remote.pass(30);
        let secs = self.below(20);
        self.hosts[0].opening.clock.advance(secs * 1_000_000_000);
        let host = self.below(HOSTS as u64) as usize;
        if self.sessions.len() < 2 {
            let session = self.hosts[host].engine.create(None, None, (0, 0)).unwrap();
            self.hosts[host].engine.durability().sync().unwrap();
            self.sessions.push(session.id());
            return;
        }
        let nth = self.below(self.sessions.len() as u64) as usize;
        let id = self.sessions[nth];
        let session = self.hosts[host].engine.session_of(id);
        let act = self.below(22);
        self.say(|| format!("host {host}, {id}, here: {}: {act}", session.is_some()));
        let (store_fails, disk_fails) = (self.below(4) == 0, self.below(8) == 0);
        if store_fails {
            let calls = self.below(25);
            self.say(|| format!("the store fails after {calls} calls"));
            self.remote.fail_after(calls);
        }
        if disk_fails {
            let calls = self.below(60);
            self.say(|| format!("the disk fails after {calls} calls"));
            self.hosts[host].disk.crash_after(calls);
        }
        match (act, session) {
            (0..7, Some(session)) => drop(self.write(host, &session)),
            (7..11, Some(session)) => self.publish(host, &session, false),
            (11..13, Some(session)) if !session.is_closed() => self.publish(host, &session, true),
            (0..13, None) => {
                let take_over = self.below(2) == 0;
                self.open(host, id, take_over);
            }
            (13..16, _) => {
                self.hosts[host].fleet.beat();
                self.hosts[host].fleet.tick();
            }
            (16, _) => drop(self.hosts[host].engine.gc(false, &mut |_| {})),
            (17, Some(session)) if self.below(4) == 0 => {
                self.discarded.insert(id);
                drop(self.hosts[host].fleet.discard(&session));
            }
            (18..20, _) => self.restart(host),
            (20, _) => {
                // What the first condemns the second removes.
                self.collect(host);
                self.remote.pass(60);
                self.collect(host);
            }
            (21, _) => self.hosts[host].fleet.renew(),
            _ => {}
        }
        if disk_fails {
            self.restart(host);
        }
        if store_fails && self.below(3) > 0 {
            self.remote.heal();
        }
    }

    /// The store is back, and every host has found out what became of what it began.
    fn settle(&mut self) {
        self.remote.heal();
        for host in 0..HOSTS {
            self.restart(host);
            self.hosts[host].opening.clock.advance(60_000_000_000);
            self.hosts[host].fleet.beat();
            self.hosts[host].fleet.tick();
        }
    }

    fn judge(&mut self) {
        self.settle();
        // Each host tries to publish what it has, and so hears whether it may.
        for host in 0..HOSTS {
            for session in self.hosts[host].engine.sessions() {
                if !session.is_closed() {
                    self.publish(host, &session, false);
                }
            }
        }
        let mut public = BTreeMap::new();
        for id in self.sessions.clone() {
            let (host, open) = (0, |fleet: &Fleet| fleet.open_here(id, true));
            // A closed copy of one that was taken is in the way.
            for host in &self.hosts {
                if let Some(session) = host.engine.session_of(id).filter(|session| session.is_closed()) {
                    host.fleet.discard(&session).unwrap();
                }
            }
            match open(&self.hosts[host].fleet) {
                Ok(session) => {
                    let value = self.read(host, &session).unwrap();
                    self.check_public(id, value);
                    public.insert(id, self.chain(value));
                }
                Err(FleetError::Ended(_)) => assert!(self.discarded.contains(&id)),
                Err(FleetError::Unknown(_)) => assert!(!self.published.contains_key(&id)),
                Err(error) => panic!("seed {}: {id} cannot be opened: {error}", self.seed),
            }
        }
        for host in 0..HOSTS {
            let sessions = self.hosts[host].engine.sessions();
            let kept: BTreeSet<Value> =
                sessions.iter().flat_map(|session| self.chain(self.read(host, session).unwrap())).collect();
            for (id, value) in &self.written[host] {
                let is_public = public.get(id).is_some_and(|chain| chain.contains(value));
                assert!(
                    is_public || kept.contains(value) || self.discarded.contains(id),
                    "seed {}: {value}, written to {id} on host {host}, is neither published nor there",
                    self.seed
                );
            }
        }
    }
}

fn run(seed: u64) -> Tally {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.judge();
    world.tally
}

#[test]
fn nothing_published_is_lost_and_nobody_writes_twice() {
    let mut all = Tally::default();
    let first = setting("AETHERFS_TRAVEL_FIRST", 0);
    for seed in first..first + setting("AETHERFS_TRAVEL_SEEDS", 150) {
        let tally = run(seed);
        all.published += tally.published;
        all.handed_off += tally.handed_off;
        all.opened += tally.opened;
        all.taken += tally.taken;
        all.failed += tally.failed;
        all.died += tally.died;
        all.removed += tally.removed;
    }
    println!("{all:?}");
    let enough = [all.published, all.handed_off, all.opened, all.taken, all.failed, all.died, all.removed];
    assert!(enough.iter().all(|count| *count > 20), "too little happened: {all:?}");
}
