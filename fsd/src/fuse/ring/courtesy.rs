//! Lets clients stay on the CPU that they are on.
//!
//! A reply wakes its client while the client's own CPU is busy with the thread that replies. So the scheduler moves the client to an
//! idle CPU, which has to wake up first, at every reply, and that takes longer than most requests. A CPU that runs nothing but
//! `SCHED_IDLE` threads counts as idle (`sched_idle_cpu` in kernel/sched/fair.c): under that policy the client stays, and goes on at once.
//!
//! But on a CPU that others want, such a thread waits for tens of milliseconds, and everybody with it. So the threads have it only
//! while they are busy, and a guard looks every [`TICK`] whether one of them waits for its CPU: then it is [`Policy::Fair`] for a while.
//! That bounds the wait to three ticks.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use nix::unistd::Pid;

use crate::sys_sched::{Policy, set_policy};

const TICK: Duration = Duration::from_millis(2);
/// Turns of all threads within a tick that are worth it. Fewer are large requests, whose clients win by another CPU.
const BUSY_TURNS: u32 = 8;
/// After so many ticks without a turn a thread is `Fair` again, and with all of them the guard sleeps. Many, because clients come
/// back to a CPU: the guard's own wake-ups are enough for the scheduler to move them.
const QUIET_TICKS: u32 = 50;
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
    is_awake: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

/// Of a thread: what the guard sees of it.
pub(super) struct Pulse {
    turns: Arc<AtomicU32>,
    bell: Bell,
}

/// A thread, as the guard knows it.
pub(super) struct Watched {
    thread: Pid,
    turns: Arc<AtomicU32>,
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

    /// Starts the guard of these threads. It ends when the last [`Pulse`] is gone. Error: the system has no thread.
    pub fn guard(self, mut watched: Vec<Watched>) -> io::Result<()> {
        let Post { waiting, bell: Bell { is_awake, wake } } = self;
        drop(wake);
        let body = move || {
            if let Err(error) = try_policies() {
                // `is_awake` stays: nobody rings.
                is_awake.store(true, Ordering::Relaxed);
                tracing::debug!(%error, "rings keep the policy that they have");
                return;
            }
            while waiting.recv().is_ok() {
                while watched.iter().any(|one| !one.watch.is_quiet()) {
                    thread::sleep(TICK);
                    let turns = watched.iter_mut().map(Watched::count).sum::<u32>();
                    watched.iter_mut().for_each(|one| one.tick(turns >= BUSY_TURNS));
                }
                watched.iter_mut().for_each(|one| one.watch.wake());
                is_awake.store(false, Ordering::Relaxed);
            }
        };
        thread::Builder::new().name("fuse-courtesy".into()).spawn(body).map(drop)
    }
}

/// On this thread, which nobody waits for. Error: who cannot come back from `Idle` must not go there.
fn try_policies() -> io::Result<()> {
    let this = Pid::from_raw(0);
    set_policy(this, Policy::Idle)?;
    set_policy(this, Policy::Fair)
}

impl Pulse {
    /// The guard's side of it, of the thread with this number.
    pub fn watched(&self, thread: Pid) -> Watched {
        Watched { thread, turns: Arc::clone(&self.turns), counted: 0, done: 0, watch: Watch::default() }
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
    /// Returns the turns since it was called last.
    fn count(&mut self) -> u32 {
        let turns = self.turns.load(Ordering::Relaxed);
        self.done = turns.wrapping_sub(self.counted);
        self.counted = turns;
        self.done
    }

    fn tick(&mut self, is_worth_it: bool) {
        let is_waiting = || is_waiting_for_its_cpu(self.thread);
        let Some(policy) = self.watch.tick(self.done, is_worth_it, is_waiting) else { return };
        // A thread that is gone needs none.
        let _ = set_policy(self.thread, policy);
    }
}

/// Whether a thread that is not known to run could.
fn is_waiting_for_its_cpu(thread: Pid) -> bool {
    // proc_pid_stat(5): the state is behind the name, which is in brackets.
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R')))
}

/// What is decided about one thread, tick by tick.
#[derive(Debug, Default)]
struct Watch {
    is_idle: bool,
    quiet_ticks: u32,
    /// As `Idle`: without a wait, and in which it seemed to wait, one after the other.
    calm_ticks: u32,
    waits: u32,
    /// Ticks to go as `Fair`, and how many it was given the last time.
    fair_ticks: u32,
    last_fair_ticks: u32,
}

impl Watch {
    /// With the turns it did since the last tick, and whether all of them together are worth it. Returns the policy that it is to
    /// have from now on, if that is another.
    fn tick(&mut self, done: u32, is_worth_it: bool, is_waiting: impl FnOnce() -> bool) -> Option<Policy> {
        self.quiet_ticks = if done == 0 { self.quiet_ticks + 1 } else { 0 };
        self.fair_ticks = self.fair_ticks.saturating_sub(1);
        if !self.is_idle {
            self.is_idle = is_worth_it && done > 0 && self.fair_ticks == 0;
            return self.is_idle.then_some(Policy::Idle);
        }
        self.calm_ticks += 1;
        if self.calm_ticks == CALM_TICKS {
            self.last_fair_ticks = 0;
        }
        // Once may be a thread that has just begun.
        self.waits = if done == 0 && is_waiting() { self.waits + 1 } else { 0 };
        if self.waits == 2 {
            self.last_fair_ticks = (2 * self.last_fair_ticks).clamp(FAIR_TICKS_MIN, FAIR_TICKS_MAX);
            self.fair_ticks = self.last_fair_ticks;
        } else if !self.is_quiet() {
            return None;
        }
        (self.is_idle, self.calm_ticks, self.waits) = (false, 0, 0);
        Some(Policy::Fair)
    }

    fn is_quiet(&self) -> bool {
        self.quiet_ticks >= QUIET_TICKS
    }

    /// It is looked at again after a pause.
    fn wake(&mut self) {
        self.quiet_ticks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many ticks of one that is always busy, or always quiet.
    fn run(watch: &mut Watch, ticks: u32, is_busy: bool, is_waiting: bool) -> Vec<(u32, Policy)> {
        let tick = |nth| Some((nth, watch.tick(is_busy.into(), is_busy, || is_waiting)?));
        (0..ticks).filter_map(tick).collect()
    }

    #[test]
    fn a_busy_thread_makes_way_until_it_is_quiet() {
        let mut watch = Watch::default();
        assert_eq!(watch.tick(1, false, || true), None);
        assert_eq!(watch.tick(0, true, || true), None);
        assert_eq!(run(&mut watch, 10, true, true), [(0, Policy::Idle)]);
        assert_eq!(run(&mut watch, 2 * QUIET_TICKS, false, false), [(QUIET_TICKS - 1, Policy::Fair)]);
        assert!(watch.is_quiet());
        watch.wake();
        assert!(!watch.is_quiet());
        assert_eq!(run(&mut watch, 1, true, false), [(0, Policy::Idle)]);
    }

    #[test]
    fn one_that_waits_is_fair_for_longer_each_time() {
        let mut watch = Watch::default();
        assert_eq!(run(&mut watch, 1, true, true), [(0, Policy::Idle)]);
        for expected in [10, 20, 40, 80, 160, 320, 640, 640] {
            assert_eq!(run(&mut watch, 2, false, true), [(1, Policy::Fair)]);
            assert_eq!(run(&mut watch, expected, true, true), [(expected - 1, Policy::Idle)]);
        }
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
        let (send, numbers) = std::sync::mpsc::channel();
        let (keep, kept) = std::sync::mpsc::channel::<()>();
        let sleeper = thread::spawn(move || {
            send.send(nix::unistd::gettid()).unwrap();
            let _ = kept.recv();
        });
        let number = numbers.recv().unwrap();
        while is_waiting_for_its_cpu(number) {
            thread::yield_now();
        }
        assert!(is_waiting_for_its_cpu(nix::unistd::gettid()));
        drop(keep);
        sleeper.join().unwrap();
    }
}
