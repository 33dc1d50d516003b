//! Kills, power loss, full disks and rot, by seed, on a simulated disk: nothing acknowledged is lost by a kill, nothing
//! synced by power loss, and what comes back is always the state after some operation.
//!
//! `AETHERFS_RECOVERY_SEEDS` sets how many seeds are tried; a failure names its seed.

use cas::sim::SimDisk;
use proptest::{prelude::*, strategy::ValueTree};

use crate::{
    common::{faulty::Fault, host::Opening, random, seeded, setting, template::Template},
    model::{
        engine::EngineTarget,
        history::{History, moment, observe},
        ops::{self, Op, Step},
        runner::{Maybe, Runner, Stop},
    },
};

/// The steps of a seed.
fn script(seed: u64, len: usize) -> Vec<Step> {
    let steps = prop::collection::vec(ops::step(), len);
    steps.new_tree(&mut seeded(seed, 1)).expect("nothing is filtered").current()
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    0..setting("AETHERFS_RECOVERY_SEEDS", default)
}

/// A run that ended early, or did not.
struct Run {
    target: EngineTarget,
    runner: Runner,
    /// The operation under way when the disk failed.
    crashed: Option<Option<Maybe>>,
}

impl Run {
    /// Runs the steps of a seed until the disk fails, behind so many calls that change it.
    fn of(seed: u64, opening: Opening, crash_after: u64) -> Result<Run, String> {
        let (mut target, world) = Template::get().start(opening);
        let mut runner = Runner::new(world);
        runner.history = Some(History::new(moment(&runner.world)));
        target.disk.crash_after(crash_after);
        for step in script(seed, 45).iter().filter(|step| !matches!(step.op, Op::Reopen)) {
            match runner.step(&mut target, step) {
                Ok(()) => {}
                Err(Stop::Wrong(why)) => return Err(format!("{:?}: {why}", step.op)),
                Err(Stop::Crashed(maybe)) => return Ok(Run { target, runner, crashed: Some(maybe) }),
            }
        }
        Ok(Run { target, runner, crashed: None })
    }

    /// Opens what was left on `disk`, and compares. `history` lacks what was not acknowledged.
    fn check(self, disk: SimDisk, opening: Opening, mut history: History) -> Result<bool, String> {
        let crashed = self.crashed.is_some();
        history.push_maybe(&self.runner.world, self.crashed.flatten());
        let again = EngineTarget::open(disk, opening, self.target.ids.clone());
        let again = again.map_err(|error| format!("it does not open: {error}"))?;
        history.explain(&observe(&again)?)?;
        Ok(crashed)
    }
}

/// Kills the engine at every call that changes the disk, or at every so many; returns how many calls there are.
fn kill_everywhere(seed: u64, stride: u64, fault: Option<Fault>) -> Result<u64, String> {
    let mut crash_after = seed % stride;
    loop {
        let run = Run::of(seed, Opening { fault, ..Opening::first(seed) }, crash_after)?;
        let acknowledged = History::new(moment(&run.runner.world));
        let (disk, opening) = (run.target.disk.kill(), run.target.opening.clone());
        let crashed = run.check(disk, opening, acknowledged);
        if !crashed.map_err(|why| format!("seed {seed}, killed behind {crash_after} calls:\n{why}"))? {
            return Ok(crash_after);
        }
        crash_after += stride;
    }
}

/// Cuts the power at every so many calls that change the disk.
fn cut_power_within(seed: u64, stride: u64) -> Result<(), String> {
    let (mut chance, mut crash_after) = (seed, seed % stride);
    loop {
        let run = Run::of(seed, Opening::first(seed), crash_after)?;
        let history = run.runner.history.clone().expect("set by every run");
        let (disk, opening) =
            (run.target.disk.crash(&mut || random(&mut chance)), run.target.opening.rebooted());
        let crashed = run.check(disk, opening, history);
        if !crashed.map_err(|why| format!("seed {seed}, power lost behind {crash_after} calls:\n{why}"))? {
            return Ok(());
        }
        crash_after += stride;
    }
}

/// Cuts the power behind every operation, and now and then goes on from what that left.
fn cut_power_everywhere(seed: u64, fault: Option<Fault>) -> Result<(), String> {
    let mut chance = seed;
    let (mut target, world) = Template::get().start(Opening { fault, ..Opening::first(seed) });
    let mut runner = Runner::new(world);
    runner.history = Some(History::new(moment(&runner.world)));
    for (at, step) in script(seed, 60).iter().enumerate() {
        let said = |why: String| format!("seed {seed}, step {at} ({:?}): {why}", step.op);
        match runner.step(&mut target, step) {
            Ok(()) => {}
            Err(stop) => return Err(said(format!("{stop:?}"))),
        }
        let left = target.disk.crash(&mut || random(&mut chance));
        let rebooted = target.opening.rebooted();
        let again = EngineTarget::open(left, rebooted, target.ids.clone());
        let again = again.map_err(|error| said(format!("it does not open: {error}")))?;
        let found = observe(&again).map_err(said)?;
        runner.history.as_ref().expect("set above").explain(&found).map_err(said)?;
        if random(&mut chance).is_multiple_of(8) {
            runner.world.adopt(&found);
            target = again;
            runner.history = Some(History::new(moment(&runner.world)));
        }
    }
    Ok(())
}

#[test]
fn a_kill_loses_nothing_acknowledged() {
    let mut calls = 0;
    for seed in seeds(12) {
        let stride = if seed < 2 { 1 } else { 7 };
        calls += kill_everywhere(seed, stride, None).unwrap_or_else(|why| panic!("{why}"));
    }
    assert!(calls > 1000, "only {calls} calls that change the disk");
}

#[test]
fn power_loss_leaves_the_state_after_some_operation() {
    for seed in seeds(24) {
        cut_power_everywhere(seed, None).unwrap_or_else(|why| panic!("{why}"));
    }
}

#[test]
fn power_loss_within_an_operation_leaves_the_state_before_or_after_it() {
    for seed in seeds(12) {
        cut_power_within(seed, 11).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// A checker that never fails checks nothing.
#[test]
fn planted_faults_are_found() {
    let found = |result: Result<(), String>| result.is_err();
    let any = |find: &dyn Fn(u64) -> bool| (0..6).any(find);
    for prefix in ["log/", "segments/"] {
        let sync = Some(Fault::Sync(prefix));
        assert!(any(&|seed| found(cut_power_everywhere(seed, sync))), "nothing under {prefix} is synced");
        let write = Some(Fault::Write(prefix));
        let killed = |seed| kill_everywhere(seed, 40, write).map(drop);
        assert!(
            any(&|seed| std::panic::catch_unwind(|| found(killed(seed))).unwrap_or(true)),
            "{prefix} stays empty"
        );
    }
}
