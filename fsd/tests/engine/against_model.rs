//! Random operations on the engine and on a dull model of it: every answer and every tree must be the same.
//!
//! `AETHERFS_MODEL_CASES` sets how many sequences are tried, `AETHERFS_MODEL_SEED` which; a failure prints the shortest one
//! that still fails.

use std::cell::RefCell;

use cas::remote::sim::SimRemote;
use proptest::prelude::*;

use crate::{
    common::{base, host::Opening, runner, setting, template::Template},
    model::{
        engine::EngineTarget,
        notes,
        ops::{Op, Step},
        runner::{Runner, Stop, Tally},
        world::World,
    },
};

/// Whole trees are compared every so many steps.
const COMPARE_EVERY: usize = 12;

fn run(steps: &[Step], tally: &mut Tally) -> Result<(), String> {
    let (target, world) = Template::get().start(Opening::first(7));
    run_on(target, world, steps, tally)
}

/// The same on a host that has next to nothing of the base: each operation has to do nothing until all that it needs is there.
#[test]
fn a_base_that_is_elsewhere_makes_no_difference() {
    let remote = SimRemote::default();
    let opening = Opening { remote: Some(remote.clone()), ..Opening::first(7) };
    let template = Template::elsewhere(base::tree(), &opening);
    let steps = prop::collection::vec(notes::step(), 20..100);
    let cases = setting("AETHERFS_MODEL_CASES", 96) / 4;
    remote.take_reads();
    let result = runner(cases).run(&steps, |steps| {
        let (target, world) = template.start(opening.clone());
        run_on(target, world, &steps, &mut Tally::new()).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (reads, _) = remote.take_reads();
    println!("{reads} reads of the remote store");
    assert!(reads > 4 * cases, "{reads} reads");
}

fn run_on(mut target: EngineTarget, world: World, steps: &[Step], tally: &mut Tally) -> Result<(), String> {
    let mut runner = Runner::new(world);
    let said = |at: usize, stop: Stop| format!("step {at}: {stop:?}").replace("\\n", "\n");
    runner.compare_all(&mut target).map_err(|stop| said(0, stop))?;
    for (at, step) in steps.iter().enumerate() {
        runner.step(&mut target, step).map_err(|stop| said(at, stop))?;
        if at % COMPARE_EVERY == COMPARE_EVERY - 1 || at + 1 == steps.len() {
            runner.compare_all(&mut target).map_err(|stop| said(at, stop))?;
        }
    }
    for (what, (done, failed)) in runner.tally {
        let all = tally.entry(what).or_default();
        (all.0, all.1) = (all.0 + done, all.1 + failed);
    }
    target.engine.close().map_err(|error| error.to_string())
}

#[test]
fn the_engine_does_what_the_model_does() {
    let steps = prop::collection::vec(notes::step(), 20..100);
    let cases = setting("AETHERFS_MODEL_CASES", 96);
    let tally = RefCell::new(Tally::new());
    let result =
        runner(cases).run(&steps, |steps| run(&steps, &mut tally.borrow_mut()).map_err(TestCaseError::fail));
    if let Err(error) = result {
        panic!("{error}");
    }
    let tally = tally.into_inner();
    println!("{tally:?}");
    assert!(tally.len() >= 25, "every operation was tried");
    let seldom: Vec<_> = tally.iter().filter(|(_, (done, _))| *done < cases / 6).collect();
    assert!(seldom.is_empty(), "these hardly ever succeed, so little is tested: {seldom:?}");
}

/// The same with the bounds of a host, on files of this one.
#[test]
fn the_real_disk_makes_no_difference() {
    let steps = prop::collection::vec(notes::step(), 120);
    let result = runner(6).run(&steps, |steps| {
        let dir = tempfile::tempdir().unwrap();
        let (target, world) = Template::get().start_in(dir.path());
        // Without restarts: those are killed copies of a simulated disk.
        let steps: Vec<Step> = steps.into_iter().filter(|step| !matches!(step.op, Op::Reopen)).collect();
        run_on(target, world, &steps, &mut Tally::new()).map_err(TestCaseError::fail)?;
        let again = Opening::first(8).open_dir(dir.path()).unwrap();
        prop_assert!(!again.sessions().is_empty(), "they are there after a restart");
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
