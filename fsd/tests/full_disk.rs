//! A disk that fills up at random moments: the caller is told, nothing is corrupted, what gives space back still works, and
//! so does everything once there is room again.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "modules shared by several test programs; a test ends at what it did not expect"
)]

mod common;
mod model;

use cas::{Kind, disk::Disk};
use common::{
    host::{Opening, tight},
    random, seeded, setting,
    template::Template,
};
use fsd::session::{Allocate, Error, Limits, Name, New, ROOT, Rename, SetAttrs, Writer};
use model::{
    engine::EngineTarget,
    ops::{self, Op, Step},
    runner::Runner,
    target::Target,
};
use proptest::{prelude::*, strategy::ValueTree};

const ROOMY: u64 = 1 << 30;

/// Runs a seed's steps while the disk is full now and then; returns how many operations were refused.
fn run(seed: u64) -> Result<u64, String> {
    let (mut chance, steps) = (seed, prop::collection::vec(ops::step(), 80));
    let steps: Vec<Step> = steps.new_tree(&mut seeded(seed, 1)).expect("nothing is filtered").current();
    let (mut target, world) = Template::get().start(Opening::first(seed));
    let mut runner = Runner::new(world);
    runner.may_be_full = true;
    for (at, step) in steps.iter().enumerate() {
        if at % 20 == 5 {
            target.disk.set_space_free(random(&mut chance) % 60_000);
        }
        if at % 20 == 18 {
            target.disk.set_space_free(ROOMY);
        }
        let said = |stop| format!("seed {seed}, step {at} ({:?}): {stop:?}", step.op);
        // Opening may need room; what a full disk means for it is another test.
        if matches!(step.op, Op::Reopen) && (5..18).contains(&(at % 20)) {
            continue;
        }
        runner.step(&mut target, step).map_err(said)?;
        if at % 20 == 12 || at % 20 == 19 {
            runner.compare_all(&mut target).map_err(said)?;
        }
    }
    target.disk.set_space_free(ROOMY);
    runner.step(&mut target, &Step { session: 0, op: Op::Tick }).expect("a tick");
    runner.may_be_full = false;
    let last = [Op::Sync, Op::Seal(Vec::new()), Op::Reopen];
    last.into_iter()
        .try_for_each(|op| runner.step(&mut target, &Step { session: 0, op }))
        .map_err(|stop| format!("seed {seed}, after space came back: {stop:?}"))?;
    Ok(runner.refused)
}

#[test]
fn a_full_disk_refuses_and_corrupts_nothing() {
    let mut refused = 0;
    for seed in 0..setting("AETHERFS_RECOVERY_SEEDS", 40) {
        refused += run(seed).unwrap_or_else(|why| panic!("{why}"));
    }
    assert!(refused > 50, "only {refused} operations met a full disk");
}

fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).unwrap()
}

fn file() -> New {
    New { kind: Kind::File, mode: 0o644, uid: 0, gid: 0, rdev: 0, umask: 0, target: None }
}

/// Fills the log until nothing more is accepted; returns how many files were made.
fn fill(target: &EngineTarget) -> usize {
    let session = target.session(0);
    target.disk.set_space_free(100);
    for n in 0.. {
        match session.make(ROOT, &name(&format!("file {n}")), file()) {
            Ok(_) => {}
            Err(Error::NoSpace) => return n,
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!("the disk is full at some time")
}

#[test]
fn what_gives_space_back_works_on_a_full_disk() {
    let limits = Limits { log_file_bytes: 16 << 10, ..tight() };
    let (mut target, _) = Template::get().start(Opening { limits, ..Opening::first(1) });
    let session = target.session(0);
    let fork = target.engine.fork(&session, &[None]).unwrap().remove(0);
    let ino = fork.make(ROOT, &name("bulky"), file()).unwrap().ino;
    fork.write(ino, 0, &[7; 200_000]).unwrap();
    let made = fill(&target);
    assert!(made > 10 && target.engine.durability().log.is_low());
    assert!(matches!(target.engine.fork(&session, &[None]), Err(Error::NoSpace)));
    let mut buf = [0; 6];
    let small = session.lookup(ROOT, &name("small")).unwrap().ino;
    assert_eq!(session.read(small, 0, &mut buf).unwrap(), 6, "reads go on");
    assert!(matches!(session.write(small, 0, &[1; 100]), Err(Error::NoSpace)), "that would take room");
    for n in 0..10 {
        session.unlink(ROOT, &name(&format!("file {n}"))).unwrap();
    }
    session.rmdir(ROOT, &name("empty dir")).unwrap();
    session.rename(ROOT, &name("file 10"), ROOT, &name("file 11"), Rename::Replace).unwrap();
    fork.write(ino, 100, &[8; 5000]).expect("its own bytes are overwritten in place");
    fork.allocate(Writer::Privileged, ino, 0, 4096, Allocate::Punch).unwrap();
    fork.set_attrs(ino, SetAttrs { size: Some(150_000), ..Default::default() }).unwrap();
    target.engine.discard(&fork).unwrap();
    target.tick().unwrap();
    let free = target.disk.space().unwrap().free_bytes;
    assert!(free > 100_000, "the fork's segments are gone: {free} bytes free");
    target.tick().unwrap();
    assert!(!target.engine.durability().log.is_low(), "the reserve is back");
    session.make(ROOT, &name("again"), file()).unwrap();
    target.engine.durability().sync().unwrap();
}

/// A daemon that cannot start on a full disk cannot be told to discard anything.
#[test]
fn a_full_disk_does_not_keep_the_engine_from_starting() {
    let (mut target, _) = Template::get().start(Opening::first(1));
    let made = fill(&target);
    target.disk = target.disk.kill();
    target.disk.set_space_free(4096);
    let engine = target.opening.open_sim(&target.disk).unwrap();
    let session = engine.sessions().remove(0);
    session.lookup(ROOT, &name(&format!("file {}", made - 1))).unwrap();
    session.unlink(ROOT, &name("small")).unwrap();
    engine.discard(&session).unwrap();
}
