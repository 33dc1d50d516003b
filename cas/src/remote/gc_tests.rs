//! Hosts that publish, read and collect at the same time in one remote store, and stall, lose answers, die and come back meanwhile; by seed.
//!
//! A call of a host to the remote store may stall: meanwhile others do whole things, in which they may stall themselves. It may fail, before or
//! after it was carried out, or be carried out long after somebody has given it up. Whatever happens, all that a head names, that is pinned, or
//! that a host stands on is there; and when everything is quiet nothing else is left.
//!
//! `AETHERFS_GC_SEEDS` sets how many seeds are tried, `AETHERFS_GC_FIRST` where to begin, `AETHERFS_GC_TRACE` tells what happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;

use super::{
    gc::{
        Report,
        tests::{DELAY, asked},
    },
    lease::Naming,
    name::RemoteName,
    sim::SimRemote,
    tests::fresh,
    *,
};
use crate::{
    Result, SnapshotId, Store, Time,
    disk::Disk,
    sim::SimDisk,
    store::{
        Roots,
        gc_tests::{assert_tree, tree},
        tests::open,
    },
};

const HOSTS: usize = 3;
/// Sessions that have heads.
const HEADS: usize = 3;
const STEPS: usize = 25;
/// Within each other.
const STALLS_MAX: u64 = 3;

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// The store as one host sees it.
#[derive(Debug)]
struct Line {
    host: usize,
    world: Weak<World>,
    remote: SimRemote,
    /// The host is dead: nothing it asks for happens any more.
    is_cut: AtomicBool,
}

impl Line {
    /// What may happen around a call. Error: it fails before it was carried out.
    fn call(&self, name: &str) -> std::result::Result<After, Failure> {
        let lost = || Failure::Unreachable { object: name.to_owned(), reason: "lost".to_owned() };
        if self.is_cut.load(SeqCst) {
            return Err(lost());
        }
        let Some(world) = self.world.upgrade() else { return Ok(After::Told) };
        if world.is_quiet.load(SeqCst) {
            return Ok(After::Told);
        }
        if world.below(12) == 0 {
            world.meanwhile();
        }
        if self.is_cut.load(SeqCst) {
            return Err(lost());
        }
        match world.below(100) {
            0..2 => Err(lost()),
            2..4 => Ok(After::Lost),
            4..6 => Ok(After::Late),
            _ => Ok(After::Told),
        }
    }

    fn read_call<T>(
        &self,
        name: &str,
        read: impl FnOnce() -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        match self.call(name)? {
            After::Told => read(),
            After::Lost | After::Late => {
                Err(Failure::Unreachable { object: name.to_owned(), reason: "lost".to_owned() })
            }
        }
    }

    fn change<T>(
        &self,
        name: &str,
        change: impl Fn(&SimRemote) -> std::result::Result<T, Failure> + Send + 'static,
    ) -> std::result::Result<T, Failure> {
        let lost = || Failure::Unreachable { object: name.to_owned(), reason: "lost".to_owned() };
        match self.call(name)? {
            After::Told => change(&self.remote),
            After::Lost => change(&self.remote).and_then(|_| Err(lost())),
            After::Late => {
                if let Some(world) = self.world.upgrade() {
                    let late: Late = Box::new(move |remote| drop(change(remote)));
                    world.late.lock().push(late);
                }
                Err(lost())
            }
        }
    }
}

type Late = Box<dyn FnOnce(&SimRemote) + Send>;

/// What becomes of a call.
enum After {
    /// It is carried out, and answered.
    Told,
    /// It is carried out, and the answer is lost.
    Lost,
    /// It is carried out some time.
    Late,
}

impl Remote for Line {
    fn read(&self, name: &str, range: Range<u64>) -> std::result::Result<Vec<u8>, Failure> {
        // Objects on their way come by threads of their own, in any order.
        if name.starts_with(name::PACKS) && range.end - range.start > 1 && !self.is_cut.load(SeqCst) {
            return self.remote.read(name, range);
        }
        self.read_call(name, || self.remote.read(name, range))
    }

    fn read_whole(&self, name: &str, bytes_max: u64) -> std::result::Result<Vec<u8>, Failure> {
        self.read_call(name, || self.remote.read_whole(name, bytes_max))
    }

    fn write(&self, name: &str, bytes: Vec<u8>) -> std::result::Result<(), Failure> {
        let owned = name.to_owned();
        self.change(name, move |remote| remote.write(&owned, bytes.clone()))
    }

    fn create(&self, name: &str, bytes: Vec<u8>) -> std::result::Result<bool, Failure> {
        let owned = name.to_owned();
        self.change(name, move |remote| remote.create(&owned, bytes.clone()))
    }

    fn dated(&self, prefix: &str) -> std::result::Result<Vec<Dated>, Failure> {
        self.read_call(prefix, || self.remote.dated(prefix))
    }

    fn remove(&self, name: &str) -> std::result::Result<(), Failure> {
        let owned = name.to_owned();
        self.change(name, move |remote| remote.remove(&owned))
    }

    fn display(&self, name: &str) -> String {
        self.remote.display(name)
    }
}

/// A host.
struct Host {
    name: RemoteName,
    disk: SimDisk,
    store: Store,
    line: Arc<Line>,
    /// Snapshots that it keeps.
    stands_on: BTreeSet<SnapshotId>,
}

struct World {
    me: Weak<World>,
    seed: u64,
    chance: Mutex<u64>,
    remote: SimRemote,
    /// Those that are in the middle of something are not there.
    hosts: Mutex<Vec<Option<Host>>>,
    /// Of each, the store as it sees it.
    lines: Mutex<BTreeMap<usize, Arc<Line>>>,
    heads: Mutex<BTreeMap<usize, SnapshotId>>,
    pins: Mutex<BTreeSet<SnapshotId>>,
    /// How often each was unpinned, from when that began.
    unpinned: Mutex<BTreeMap<SnapshotId, u64>>,
    trees: Mutex<BTreeMap<SnapshotId, Range<u64>>>,
    late: Mutex<Vec<Late>>,
    /// Stalls that are within each other now.
    stalls: AtomicU64,
    /// Nothing fails and nobody stalls.
    is_quiet: AtomicBool,
    tally: Mutex<BTreeMap<&'static str, u64>>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.seed);
        }
    }
}

impl World {
    fn new(seed: u64) -> Arc<World> {
        let remote = SimRemote::default();
        remote.pass(1_000_000);
        let world = Arc::new_cyclic(|me| World {
            me: Weak::clone(me),
            seed,
            chance: Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            remote,
            hosts: Mutex::default(),
            lines: Mutex::default(),
            heads: Mutex::default(),
            pins: Mutex::default(),
            unpinned: Mutex::default(),
            trees: Mutex::default(),
            late: Mutex::default(),
            stalls: AtomicU64::new(0),
            is_quiet: AtomicBool::new(false),
            tally: Mutex::default(),
        });
        for nth in 0..HOSTS {
            let host = world.open(nth, fresh(), SimDisk::new(seed ^ nth as u64), BTreeSet::new());
            world.hosts.lock().push(Some(host));
        }
        world
    }

    fn open(&self, nth: usize, name: RemoteName, disk: SimDisk, stands_on: BTreeSet<SnapshotId>) -> Host {
        let store = open(&disk);
        let line = Arc::new(Line {
            host: nth,
            world: Weak::clone(&self.me),
            remote: self.remote.clone(),
            is_cut: AtomicBool::new(false),
        });
        self.lines.lock().insert(nth, Arc::clone(&line));
        let naming = Naming { host: name, fresh: Box::new(fresh) };
        store.attach(Arc::clone(&line) as Arc<dyn Remote>, naming, 1 << 20).unwrap();
        Host { name, disk, store, line, stands_on }
    }

    /// Xorshift.
    fn below(&self, n: u64) -> u64 {
        let mut chance = self.chance.lock();
        *chance ^= *chance << 13;
        *chance ^= *chance >> 7;
        *chance ^= *chance << 17;
        (*chance >> 20) % n
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if std::env::var_os("AETHERFS_GC_TRACE").is_some() {
            println!("{:indent$}{}", "", what(), indent = 2 * self.stalls.load(SeqCst) as usize);
        }
    }

    fn count(&self, what: &'static str) {
        *self.tally.lock().entry(what).or_default() += 1;
    }

    /// Others do something while one stalls.
    fn meanwhile(&self) {
        if self.stalls.fetch_add(1, SeqCst) < STALLS_MAX {
            for _ in 0..1 + self.below(4) {
                self.step();
            }
        }
        self.stalls.fetch_sub(1, SeqCst);
    }

    /// One thing happens.
    fn step(&self) {
        self.remote.pass(self.below(DELAY as u64 / 3) as i64);
        if self.below(6) == 0
            && let Some(late) = self.late.lock().pop()
        {
            late(&self.remote);
        }
        let nth = self.below(HOSTS as u64) as usize;
        let Some(mut host) = self.hosts.lock()[nth].take() else {
            if self.below(10) == 0 {
                // It dies in the middle of something.
                self.say(|| format!("host {nth} is cut off"));
                self.lines.lock()[&nth].is_cut.store(true, SeqCst);
            }
            return;
        };
        let done = match self.below(100) {
            0..30 => self.publish(&mut host),
            30..50 => self.adopt(&mut host),
            50..58 => self.let_go(&mut host),
            58..63 => self.pin(&host),
            63..68 => self.unpin(&host),
            68..90 => self.collect(&host).map(drop),
            90..95 => {
                self.say(|| format!("host {nth} renews its lease"));
                let lost = host.store.renew_lease();
                self.say(|| format!("host {nth} has: {lost:?}"));
                lost.map(|lost| assert_eq!(lost, [], "seed {}", self.seed))
            }
            _ => {
                host = self.die(host);
                Ok(())
            }
        };
        if let Err(error) = done {
            let is_expected = matches!(
                &error,
                Error::Remote(Failure::Unreachable { .. })
                    | Error::Fetch(_)
                    | Error::Condemned(_)
                    | Error::Cancelled
            );
            assert!(is_expected, "seed {}: {error}", self.seed);
            self.say(|| format!("host {nth}: {error}"));
            self.count("failed");
        }
        // While it was at it others may have taken it for dead.
        if host.line.is_cut.load(SeqCst) {
            host = self.reopen(host);
        }
        self.hosts.lock()[nth] = Some(host);
    }

    /// Publishes a tree, and makes it a head.
    fn publish(&self, host: &mut Host) -> Result<()> {
        let first = self.below(20);
        let seeds = first..first + 1 + self.below(6);
        let id = tree(&host.store, seeds.clone())?;
        self.trees.lock().insert(id, seeds);
        host.stands_on.insert(id);
        let near: Vec<_> = host.stands_on.iter().copied().collect();
        self.say(|| format!("host {} publishes {id}", host.line.host));
        let published = host.store.publish(id, &near, &fresh, &|_| {}, &|| false)?;
        if self.below(3) == 0 {
            self.meanwhile();
        }
        let head = self.below(HEADS as u64) as usize;
        self.say(|| format!("host {} makes {id} head {head}", host.line.host));
        self.heads.lock().insert(head, id);
        self.count("published");
        drop(published);
        Ok(())
    }

    /// Makes what a head names one's own.
    fn adopt(&self, host: &mut Host) -> Result<()> {
        let head = self.below(HEADS as u64) as usize;
        let Some(id) = self.heads.lock().get(&head).copied() else { return Ok(()) };
        if self.below(3) == 0 {
            self.meanwhile();
        }
        self.say(|| format!("host {} adopts {id}", host.line.host));
        let was_root = AtomicBool::new(false);
        let is_root = || {
            was_root.store(self.heads.lock().values().any(|other| *other == id), SeqCst);
            Ok(was_root.load(SeqCst))
        };
        match host.store.discover_root(id, &is_root) {
            Err(Error::UnknownSnapshot(_)) => {
                assert!(!was_root.load(SeqCst), "seed {}: {id} is a head", self.seed);
                self.count("gone before it was adopted");
                return Ok(());
            }
            discovered => drop(discovered?),
        }
        let snapshot = host.store.fetching().snapshot(id)?;
        let mut writer = host.store.writer()?;
        writer.put_snapshot(&snapshot)?;
        let _hold = host.store.hold();
        writer.finish()?;
        host.store.keep(id, None, Time::default())?;
        host.stands_on.insert(id);
        self.count("adopted");
        Ok(())
    }

    fn let_go(&self, host: &mut Host) -> Result<()> {
        let all: Vec<_> = host.stands_on.iter().copied().collect();
        for id in all.into_iter().filter(|_| self.below(2) == 0) {
            host.store.forget(id)?;
            host.stands_on.remove(&id);
        }
        self.say(|| format!("host {} keeps {:?}", host.line.host, host.stands_on));
        let report = host.store.gc(|| Ok(Roots::default()), false, &mut |_| {})?;
        assert!(!report.refused || !self.is_quiet.load(SeqCst), "seed {}: {:?}", self.seed, report.problems);
        Ok(())
    }

    fn pin(&self, host: &Host) -> Result<()> {
        let Some(id) = self.heads.lock().get(&0).copied() else { return Ok(()) };
        self.say(|| format!("host {} pins {id}", host.line.host));
        let unpinned = || self.unpinned.lock().get(&id).copied();
        let before = unpinned();
        match host.store.pin(id, fresh()) {
            Err(Error::UnknownSnapshot(_)) => return Ok(()),
            pinned => pinned?,
        }
        // Who unpins meanwhile takes this pin back, too, or does not.
        if unpinned() == before {
            self.pins.lock().insert(id);
        }
        self.count("pinned");
        Ok(())
    }

    fn unpin(&self, host: &Host) -> Result<()> {
        let Some(id) = self.pins.lock().pop_first() else { return Ok(()) };
        self.say(|| format!("host {} unpins {id}", host.line.host));
        *self.unpinned.lock().entry(id).or_default() += 1;
        let unpinned = host.store.unpin(id);
        // One who pinned it meanwhile came before this, or after it.
        self.pins.lock().remove(&id);
        unpinned.map(drop)
    }

    fn collect(&self, host: &Host) -> Result<Report> {
        self.say(|| format!("host {} collects", host.line.host));
        let heads = || {
            let heads = self.heads.lock();
            Ok(heads.iter().map(|(head, id)| (head.to_string(), *id)).collect())
        };
        let report = host.store.gc_there(&asked(&heads))?;
        self.say(|| format!("host {} has collected: {report:?}", host.line.host));
        self.count("collected");
        *self.tally.lock().entry("removed").or_default() += report.removed.objects;
        Ok(report)
    }

    /// A host is killed, or loses power; perhaps another one, in the middle of something.
    fn die(&self, host: Host) -> Host {
        self.say(|| format!("host {} dies", host.line.host));
        self.count("died");
        self.reopen(host)
    }

    fn reopen(&self, host: Host) -> Host {
        let Host { name, disk, store, line, stands_on } = host;
        line.is_cut.store(true, SeqCst);
        drop(store);
        let disk = if self.below(2) == 0 { disk.crash(&mut || self.below(2)) } else { disk };
        self.open(line.host, name, disk, stands_on)
    }

    /// All that is needed is there.
    fn check(&self) {
        let remote = self.remote.copy();
        for host in self.hosts.lock().iter().flatten() {
            // What is in the cache may go.
            let disk = host.disk.copied();
            super::tests::cache_files(&disk).iter().for_each(|file| disk.remove(file).unwrap());
            let store = open(&disk);
            let naming = Naming { host: fresh(), fresh: Box::new(fresh) };
            store.attach(Arc::new(remote.clone()), naming, 1 << 20).unwrap();
            for id in &host.stands_on {
                let seeds = self.trees.lock()[id].clone();
                self.say(|| format!("is {id} there for host {}?", host.line.host));
                assert_tree(&store.fetching(), *id, seeds);
            }
        }
        let stranger = open(&SimDisk::new(99));
        let naming = Naming { host: fresh(), fresh: Box::new(fresh) };
        stranger.attach(Arc::new(remote), naming, 1 << 20).unwrap();
        for id in self.heads.lock().values().chain(&*self.pins.lock()) {
            self.say(|| format!("is {id} there for all?"));
            let discovered = stranger.discover_root(*id, &|| Ok(true));
            discovered.unwrap_or_else(|error| panic!("seed {}: {id}: {error}", self.seed));
            assert_tree(&stranger.fetching(), *id, self.trees.lock()[id].clone());
        }
    }

    /// When everybody is done, what is needed is all that is left.
    fn settle(&self) {
        self.is_quiet.store(true, SeqCst);
        for late in std::mem::take(&mut *self.late.lock()) {
            late(&self.remote);
        }
        let nobody = self.pins.lock().clone();
        let mut hosts = std::mem::take(&mut *self.hosts.lock());
        for host in hosts.iter_mut().flatten() {
            self.let_go(host).unwrap();
            host.store.renew_lease().unwrap();
        }
        // Pins of which nobody heard that they are there.
        for path in self.remote.list(name::PINS).unwrap() {
            let id: SnapshotId = path.split('/').nth(1).unwrap().parse().unwrap();
            if !nobody.contains(&id) {
                self.remote.remove(&path).unwrap();
            }
        }
        let host = hosts.iter().flatten().next().unwrap();
        for _ in 0..3 {
            self.remote.pass(DELAY);
            self.collect(host).unwrap();
        }
        let report = self.collect(host).unwrap();
        let rest = [report.young, report.condemned, report.waiting, report.removed];
        assert!(rest.iter().all(|sum| sum.objects == 0), "seed {}: {report:?}", self.seed);
        let count = |prefix: &str| self.remote.list(prefix).unwrap().len() as u64;
        let objects = count(name::MANIFESTS) + count(name::LAYERS) + count(name::PACKS);
        assert_eq!(objects, report.needed.objects, "seed {}", self.seed);
        // Marks of what was needed again stay with it.
        assert!(count(name::MARKS) <= objects && count(name::PROBES) <= 1, "seed {}", self.seed);
        *self.hosts.lock() = hosts;
        self.check();
    }
}

#[test]
fn nothing_that_is_needed_goes_and_nothing_else_stays() {
    let first = env("AETHERFS_GC_FIRST", 1);
    let mut total = BTreeMap::<_, u64>::new();
    for seed in first..first + env("AETHERFS_GC_SEEDS", 60) {
        let world = World::new(seed);
        for step in 1..=STEPS {
            world.step();
            if step % 5 == 0 {
                world.check();
            }
        }
        world.settle();
        for (what, count) in &*world.tally.lock() {
            *total.entry(*what).or_default() += count;
        }
    }
    println!("{total:?}");
    assert!(total["removed"] > 100 && total["published"] > 100 && total["adopted"] > 20, "{total:?}");
}
