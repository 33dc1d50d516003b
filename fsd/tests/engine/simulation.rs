//! Engine, log and store on a simulated disk that loses, tears and reorders what no sync covered, fails in the middle of
//! calls and fills up; driven by a seed, judged by the model and by what docs/semantics.md promises.
//!
//! A seed is one to three lives of a daemon. In each, operations on sessions and snapshots (imports, seals, gc, forks and
//! discards among them) run until the process is killed, the power goes, or neither; a call may fail with EIO halfway, and the disk may
//! fill up at any moment. Then it starts again, and the start may be cut, fail or meet a full disk as well. Whatever
//! happens:
//!
//! - a kill loses nothing acknowledged, power loss nothing synced, and of the rest the latest;
//! - a call that fails has changed nothing, and the next one works; on a full disk removals go on;
//! - a kept snapshot stays, byte for byte; one that was taken off the list does not come back;
//! - once no session is left, so is none of their bytes.
//!
//! The long form: `AETHERFS_SIMULATION_SEEDS=1000000 cargo test --release -p aether-fsd --test engine simulation::seeds --
//! --nocapture`. `AETHERFS_SIMULATION_FIRST` is the first seed (0), `AETHERFS_SIMULATION_THREADS` how many run at once (one
//! for each CPU). A failure names its seed; `AETHERFS_SIMULATION_TRACE=1` then tells what happens in it.

mod life;
mod script;
mod snapshots;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use life::{Lives, Planted, Stage, Tally};

use crate::common::{faulty::Fault, setting};

/// Seeds of the short form.
const SEEDS: u64 = 3000;
/// Seeds in which a planted fault has to be found.
const PLANTED_SEEDS: u64 = 20_000;

/// Runs one seed; a panic is a failure like any other.
fn run(stage: &Stage, seed: u64, planted: Planted) -> Result<Tally, String> {
    let ran = catch_unwind(AssertUnwindSafe(|| Lives::run(stage, seed, planted)));
    ran.unwrap_or_else(|_| Err("a panic; see above".into())).map_err(|why| format!("seed {seed}: {why}"))
}

/// How many seeds run at once.
fn threads() -> u64 {
    let cpus = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    setting("AETHERFS_SIMULATION_THREADS", cpus)
}

/// Seeds that have found something: they must not find it again.
#[test]
fn seeds_that_failed_once() {
    let stage = Stage::set();
    // A log file that began on a full disk never got its space.
    for seed in [3_967_324] {
        if let Err(why) = run(&stage, seed, Planted::default()) {
            panic!("{why}");
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it took is said to a person; no test hangs on it")]
fn seeds() {
    if setting("AETHERFS_SIMULATION_TRACE", 0) > 0 {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    }
    let (stage, begin) = (Stage::set(), Instant::now());
    let first = setting("AETHERFS_SIMULATION_FIRST", 0);
    let count = setting("AETHERFS_SIMULATION_SEEDS", SEEDS);
    let (next, failed, tally) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Tally::default()));
    let work = || {
        let mut own = Tally::default();
        while !failed.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                break;
            }
            match run(&stage, first + n, Planted::default()) {
                Ok(met) => own.add(met),
                Err(why) => {
                    failed.store(true, Ordering::Relaxed);
                    eprintln!("{why}");
                }
            }
            if (n + 1).is_multiple_of(10_000) {
                eprintln!("{} seeds, {} s", n + 1, begin.elapsed().as_secs());
            }
        }
        tally.lock().unwrap().add(own);
    };
    thread::scope(|scope| (0..threads()).for_each(|_| drop(scope.spawn(work))));
    assert!(!failed.into_inner(), "a seed failed");
    let tally = tally.into_inner().unwrap();
    println!("{count} seeds from {first} in {:?}: {tally:?}", begin.elapsed());
    for (what, met) in tally.all() {
        assert!(count < SEEDS || met > count / 20, "{what} were met only {met} times");
    }
}

/// A checker that never fails checks nothing.
#[test]
fn planted_faults_are_found() {
    let stage = Stage::set();
    let faults = [
        Fault::Sync("log/"),
        Fault::Sync("segments/"),
        Fault::Sync("store/packs/"),
        Fault::Sync("store/index"),
        Fault::Sync("store/catalogue"),
        Fault::SyncDir("log"),
        Fault::SyncDir("segments"),
        Fault::SyncDir("store/packs"),
        Fault::Write("log/"),
        Fault::Write("segments/"),
        Fault::Forgetful("log/"),
        Fault::Forgetful("segments/"),
        Fault::Forgetful("store/packs/"),
        Fault::Reserve("log/"),
        Fault::Trusting("log/"),
        Fault::Trusting("segments/"),
        Fault::Trusting("store/packs/"),
        Fault::TrustingSync("log/"),
        Fault::TrustingSync("segments/"),
        Fault::TrustingSync("store/packs/"),
        Fault::Heal,
    ];
    let mut planted: Vec<Planted> =
        faults.into_iter().map(|fault| Planted { disk: Some(fault), same_boot: false }).collect();
    planted.push(Planted { disk: None, same_boot: true });
    // Panics are expected in this thread, and not worth a page each.
    let (quiet, usual) = (thread::current().id(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        if thread::current().id() != quiet {
            usual(panic);
        }
    }));
    let find = |planted: Planted| (0..PLANTED_SEEDS).find(|seed| run(&stage, *seed, planted).is_err());
    let found: Vec<_> = planted.into_iter().map(|planted| (planted, find(planted))).collect();
    let _ = std::panic::take_hook();
    for (planted, seed) in &found {
        println!("{planted:?} is found by seed {seed:?}");
    }
    let missed: Vec<_> =
        found.iter().filter(|(_, seed)| seed.is_none()).map(|(planted, _)| planted).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
