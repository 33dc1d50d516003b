//! Lets clients stay on the CPU that they are on.
//!
//! A reply wakes its client while the client's own CPU is busy with the thread that replies. So the scheduler moves the client to an
//! idle CPU, which has to wake up first, at every reply, and that takes longer than most requests. A CPU that runs nothing but
//! `SCHED_IDLE` threads counts as idle (`sched_idle_cpu` in kernel/sched/fair.c): under that policy the client stays, and goes on at once.
//!
//! But on a CPU that others want, such a thread waits for tens of milliseconds, and everybody with it. So the threads have it only
//! while they are busy, and a guard looks every [`TICK`] whether one of them waits for its CPU: then it is [`Policy::Fair`] for a while.
//! The guard allocates nothing, opens nothing and takes no lock: it never waits for whom it guards.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use crossbeam::utils::CachePadded;
use nix::{
    errno::Errno,
    unistd::{Pid, gettid},
};

use crate::sys_sched::{Policy, policy, set_policy};

const TICK: Duration = Duration::from_millis(2);
/// Turns within a tick, of each thread that did any, that are worth it. Fewer are large requests, whose clients win by another CPU.
const BUSY_TURNS: u32 = 8;
/// After so many ticks that were not worth it all threads are `Fair`, and the guard sleeps.
const DULL_TICKS: u32 = 10;
/// After so many ticks without a turn of its own a thread is `Fair`. Many, because clients come back to a CPU: the guard's own
/// wake-ups are enough for the scheduler to move them.
const QUIET_TICKS: u32 = 50;
/// What a tick in which a thread seems to wait counts, one in which it does not takes away, and it takes to believe it. Once may
/// be a thread that has just begun; others may let go of the CPU every other tick.
const WAIT: u32 = 2;
const NO_WAIT: u32 = 1;
const WAITS_MAX: u32 = 4;
/// How long a thread that had to wait stays `Fair`: twice as long each time, until it has been `Idle` for `CALM_TICKS` without a wait.
const FAIR_TICKS_MIN: u32 = 10;
const FAIR_TICKS_MAX: u32 = 640;
const CALM_TICKS: u32 = 50;
/// A guard that sleeps is woken at one turn in so many.
const TURNS_TO_WAKE: u32 = 16;

/// The guard before it is started, and how threads reach it.
pub(super) struct Post {
    waiting: Receiver<()>,
    bell: Bell,
}

#[derive(Clone)]
struct Bell {
    is_awake: Arc<CachePadded<AtomicBool>>,
    wake: SyncSender<()>,
}

/// Of a thread: what the guard sees of it.
pub(super) struct Pulse {
    turns: Arc<CachePadded<AtomicU32>>,
    bell: Bell,
}

/// A thread, as the guard knows it.
pub(super) struct Watched {
    thread: Pid,
    /// proc_pid_stat(5) of the thread.
    stat: File,
    turns: Arc<CachePadded<AtomicU32>>,
    counted: u32,
    done: u32,
    watch: Watch,
}

impl Post {
    pub fn new() -> Post {
        let (wake, waiting) = sync_channel(1);
        Post { waiting, bell: Bell { is_awake: Arc::default(), wake } }
    }

    /// For one more thread.
    pub fn pulse(&self) -> Pulse {
        Pulse { turns: Arc::default(), bell: self.bell.clone() }
    }

    /// Starts the guard of these threads, which ends when the last [`Pulse`] is gone. Where it cannot be had, they keep the policy
    /// that they have: slower, not wrong.
    pub fn guard(self, mut watched: Vec<Watched>) {
        let Post { waiting, bell: Bell { is_awake, wake } } = self;
        drop(wake);
        // Until it listens nobody rings.
        is_awake.store(true, Ordering::Relaxed);
        let body = move || {
            if let Err(error) = try_policies() {
                return tracing::info!(%error, "rings cannot make way for their clients: small requests take longer");
            }
            is_awake.store(false, Ordering::Relaxed);
            while waiting.recv().is_ok() {
                guard_while_busy(&mut watched);
                is_awake.store(false, Ordering::Relaxed);
            }
        };
        if let Err(error) = thread::Builder::new().name("fuse-courtesy".into()).spawn(body) {
            tracing::info!(%error, "rings do not make way for their clients");
        }
    }
}

fn guard_while_busy(watched: &mut [Watched]) {
    let mut dull_ticks = 0;
    while dull_ticks < DULL_TICKS || watched.iter().any(|one| one.watch.is_idle) {
        thread::sleep(TICK);
        let (mut turns, mut busy) = (0, 0);
        for one in &mut *watched {
            let done = one.count();
            turns += done;
            busy += u32::from(done > 0);
        }
        let is_worth_it = turns >= BUSY_TURNS * busy.max(1);
        dull_ticks = if is_worth_it { 0 } else { dull_ticks + 1 };
        let load = match dull_ticks {
            0 => Load::Worth,
            1..DULL_TICKS => Load::Unclear,
            DULL_TICKS.. => Load::Dull,
        };
        watched.iter_mut().for_each(|one| one.tick(load));
    }
}

/// On this thread, which nobody waits for. Error: who cannot come back from `Idle` must not go there; or the threads have been given
/// another policy than everybody's, and keep it.
fn try_policies() -> io::Result<()> {
    let this = Pid::from_raw(0);
    if policy(this)? != Some(Policy::Fair) {
        return Err(io::Error::other("the daemon was started under another scheduling policy"));
    }
    set_policy(this, Policy::Idle)?;
    set_policy(this, Policy::Fair)
}

impl Pulse {
    /// The guard's side of it, of the calling thread. Error: there is no /proc to watch it by.
    pub fn watched(&self) -> io::Result<Watched> {
        let stat = File::open("/proc/thread-self/stat")?;
        let turns = Arc::clone(&self.turns);
        Ok(Watched { thread: gettid(), stat, turns, counted: 0, done: 0, watch: Watch::default() })
    }

    /// The thread has something to do.
    pub fn beat(&self) {
        let turns = self.turns.load(Ordering::Relaxed).wrapping_add(1);
        self.turns.store(turns, Ordering::Relaxed);
        let Bell { is_awake, wake } = &self.bell;
        if turns.is_multiple_of(TURNS_TO_WAKE) && !is_awake.load(Ordering::Relaxed) {
            is_awake.store(true, Ordering::Relaxed);
            // Full: it wakes up as it is. No guard: nothing to wake.
            let _ = wake.try_send(());
        }
    }
}

impl Watched {
    /// Finds out how many turns it did since it was called last.
    fn count(&mut self) -> u32 {
        let turns = self.turns.load(Ordering::Relaxed);
        self.done = turns.wrapping_sub(self.counted);
        self.counted = turns;
        self.done
    }

    fn tick(&mut self, load: Load) {
        let Some(policy) = self.watch.tick(self.done, load, || is_waiting_for_its_cpu(&self.stat)) else {
            return;
        };
        let Err(error) = set_policy(self.thread, policy) else { return };
        // One that is gone needs none; who may not come back is tried again.
        self.watch.is_idle = policy == Policy::Fair && error.raw_os_error() != Some(Errno::ESRCH as i32);
    }
}

/// Whether a thread that is not known to run could. One that cannot be asked might.
fn is_waiting_for_its_cpu(stat: &File) -> bool {
    let mut text = [0; 64];
    let Ok(len) = stat.read_at(&mut text, 0) else { return true };
    // The state is behind the name, which is in brackets and, of these threads, short.
    let state = text[..len].windows(3).find_map(|part| part.strip_prefix(b") "));
    state != Some(b"S")
}

/// What all threads do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Many turns.
    Worth,
    /// Few, but there have been many a moment ago.
    Unclear,
    /// Few.
    Dull,
}

/// What is decided about one thread, tick by tick.
#[derive(Debug, Default)]
struct Watch {
    is_idle: bool,
    quiet_ticks: u32,
    /// As `Idle`: ticks without a wait, and what speaks for one.
    calm_ticks: u32,
    waits: u32,
    /// Ticks to go as `Fair`, and how many it was given the last time.
    fair_ticks: u32,
    last_fair_ticks: u32,
}

impl Watch {
    /// With the turns it did since the last tick. Returns the policy that it is to have from now on, if that is another.
    fn tick(&mut self, done: u32, load: Load, is_waiting: impl FnOnce() -> bool) -> Option<Policy> {
        self.fair_ticks = self.fair_ticks.saturating_sub(1);
        if !self.is_idle {
            self.is_idle = load == Load::Worth && done > 0 && self.fair_ticks == 0;
            (self.quiet_ticks, self.calm_ticks, self.waits) = (0, 0, 0);
            return self.is_idle.then_some(Policy::Idle);
        }
        self.quiet_ticks = if done == 0 { self.quiet_ticks + 1 } else { 0 };
        self.calm_ticks += 1;
        if self.calm_ticks == CALM_TICKS {
            self.last_fair_ticks = 0;
        }
        let seems_to_wait = done == 0 && is_waiting();
        self.waits = if seems_to_wait { self.waits + WAIT } else { self.waits.saturating_sub(NO_WAIT) };
        if self.waits >= WAITS_MAX {
            self.last_fair_ticks = (2 * self.last_fair_ticks).clamp(FAIR_TICKS_MIN, FAIR_TICKS_MAX);
            self.fair_ticks = self.last_fair_ticks;
        } else if load != Load::Dull && self.quiet_ticks < QUIET_TICKS {
            return None;
        }
        self.is_idle = false;
        Some(Policy::Fair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many ticks of one that is always busy, or always quiet.
    fn run(watch: &mut Watch, ticks: u32, is_busy: bool, is_waiting: bool) -> Vec<(u32, Policy)> {
        let tick = |nth| Some((nth, watch.tick(is_busy.into(), Load::Worth, || is_waiting)?));
        (0..ticks).filter_map(tick).collect()
    }

    fn idle() -> Watch {
        let mut watch = Watch::default();
        assert_eq!(run(&mut watch, 1, true, true), [(0, Policy::Idle)]);
        watch
    }

    #[test]
    fn a_busy_thread_makes_way_until_it_is_quiet() {
        let mut watch = Watch::default();
        assert_eq!(watch.tick(1, Load::Unclear, || true), None);
        assert_eq!(watch.tick(1, Load::Dull, || true), None);
        assert_eq!(watch.tick(0, Load::Worth, || true), None);
        assert_eq!(run(&mut watch, 10, true, true), [(0, Policy::Idle)]);
        assert_eq!(run(&mut watch, 2 * QUIET_TICKS, false, false), [(QUIET_TICKS - 1, Policy::Fair)]);
        assert_eq!(run(&mut watch, 1, true, false), [(0, Policy::Idle)]);
    }

    #[test]
    fn a_thread_makes_no_way_for_large_requests() {
        let mut watch = idle();
        assert_eq!(watch.tick(1, Load::Unclear, || false), None);
        assert_eq!(watch.tick(1, Load::Dull, || false), Some(Policy::Fair));
        assert_eq!(watch.tick(1, Load::Dull, || false), None);
    }

    #[test]
    fn one_that_waits_is_fair_for_longer_each_time() {
        let mut watch = idle();
        for expected in [10, 20, 40, 80, 160, 320, 640, 640] {
            assert_eq!(run(&mut watch, 2, false, true), [(1, Policy::Fair)]);
            assert_eq!(run(&mut watch, expected, true, true), [(expected - 1, Policy::Idle)]);
        }
    }

    #[test]
    fn one_that_waits_every_other_tick_is_found_and_one_that_seems_to_now_and_then_is_not() {
        let mut watch = idle();
        let policies: Vec<_> = (0..10).filter_map(|nth| watch.tick(nth % 2, Load::Worth, || true)).collect();
        assert_eq!(policies[0], Policy::Fair);
        let mut watch = idle();
        assert!((0..1000).all(|nth| watch.tick(nth % 4, Load::Worth, || true).is_none()));
    }

    #[test]
    fn a_calm_time_makes_up_for_a_wait() {
        let mut watch = Watch { last_fair_ticks: FAIR_TICKS_MAX, ..Watch::default() };
        run(&mut watch, CALM_TICKS + 1, true, true);
        run(&mut watch, 2, false, true);
        assert_eq!(watch.fair_ticks, FAIR_TICKS_MIN);
    }

    #[test]
    fn a_thread_that_sleeps_does_not_wait_for_its_cpu() {
        let (send, stats) = std::sync::mpsc::channel();
        let (keep, kept) = std::sync::mpsc::channel::<()>();
        let sleeper = thread::spawn(move || {
            send.send(File::open("/proc/thread-self/stat").unwrap()).unwrap();
            let _ = kept.recv();
        });
        let stat = stats.recv().unwrap();
        while is_waiting_for_its_cpu(&stat) {
            thread::yield_now();
        }
        assert!(is_waiting_for_its_cpu(&File::open("/proc/thread-self/stat").unwrap()));
        drop(keep);
        sleeper.join().unwrap();
        assert!(is_waiting_for_its_cpu(&stat), "it is gone: nobody knows");
    }
}
