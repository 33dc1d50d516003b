//! A disk that fills up, at random moments and at every moment of an operation: the caller is told, nothing is corrupted,
//! what gives space back still works, and so does everything once there is room again.

use std::sync::atomic::AtomicBool;

use cas::{disk::Disk, sim::SimDisk};
use fsd::session::{Allocate, Error, Limits, ROOT, Rename, SetAttrs, Writer};
use proptest::{prelude::*, strategy::ValueTree};

use crate::{
    common::{
        base, file,
        host::{Opening, tight},
        name, random, seeded, setting,
        template::Template,
    },
    model::{
        engine::EngineTarget,
        history::observe,
        ops::{self, Op, Step},
        runner::Runner,
        target::Target,
    },
};

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

/// Something that needs room, on a state that has sessions 0 and 1 and a snapshot that nobody needs any more.
type Operation<'a> = (&'static str, &'a dyn Fn(&EngineTarget) -> Result<(), Error>);

/// A state after a short history, and how it was opened.
fn prepared() -> (SimDisk, EngineTarget) {
    let limits = Limits { log_file_bytes: 8 << 10, segment_bytes_min: 4 << 10, ..tight() };
    let opening = Opening { limits, pack_bytes_max: 24 << 10, ..Opening::first(1) };
    let (mut target, _) = Template::of(base::small_tree(), &opening).start(opening);
    let session = target.session(0);
    let ino = session.make(ROOT, &name("file"), file()).unwrap().ino;
    session.write(ino, 0, &[1; 7000]).unwrap();
    let sealed = target.engine.seal(&session, true, &mut |_| {}).unwrap().snapshot;
    session.write(ino, 100, &[2; 9000]).unwrap();
    session.unlink(ROOT, &name("from the root")).unwrap();
    target.engine.seal(&session, true, &mut |_| {}).unwrap();
    target.engine.forget_snapshot(sealed).unwrap();
    session.write(ino, 300, &[3; 5000]).unwrap();
    target.ids.push(target.engine.fork(&session, &[None]).unwrap()[0].id());
    session.write(ino, 700, &[4; 2000]).unwrap();
    (target.disk.kill(), target)
}

/// Whatever call of an operation finds the disk full: it is refused and has changed nothing, or it is done; removals go on;
/// and with room everything works.
#[test]
fn the_disk_may_fill_up_at_every_call() {
    let (disk, target) = prepared();
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("one"), vec![1; 3000]).unwrap();
    std::fs::write(source.path().join("two"), vec![2; 30_000]).unwrap();
    let not_cancelled = AtomicBool::new(false);
    let ino = |target: &EngineTarget| target.session(0).lookup(ROOT, &name("file")).unwrap().ino;
    let operations: [Operation<'_>; 10] = [
        ("import", &|t| t.engine.import(source.path(), None, &|_| {}, &not_cancelled).map(drop)),
        ("write", &|t| t.session(0).write(ino(t), 50, &[9; 20_000])),
        ("overwrite", &|t| t.session(0).write(ino(t), 800, &[9; 100])),
        ("make", &|t| t.session(0).make(ROOT, &name("new"), file()).map(drop)),
        ("seal", &|t| t.engine.seal(&t.session(0), false, &mut |_| {}).map(drop)),
        ("keep", &|t| t.engine.seal(&t.session(1), true, &mut |_| {}).map(drop)),
        ("gc", &|t| t.engine.gc(false, &mut |_| {}).map(drop)),
        ("fork", &|t| t.engine.fork(&t.session(0), &[None]).map(drop)),
        ("create", &|t| t.engine.create(None, None, (0, 0)).map(drop)),
        ("anchor", &|t| t.session(0).write_anchor()),
    ];
    let (mut refused, mut runs) = (0, 0);
    for (what, operation) in operations {
        for bytes in [0, 200, 6000] {
            for call in 1.. {
                let disk = disk.kill();
                let t = EngineTarget::open(disk, target.opening.clone(), target.ids.clone()).unwrap();
                let said = |why: String| format!("{what}, {bytes} bytes of room from call {call} on: {why}");
                let before = observe(&t).unwrap();
                t.disk.fill_after(call, bytes);
                let done = operation(&t);
                let over = t.disk.is_armed();
                t.disk.clear_faults();
                let after = observe(&t).unwrap_or_else(|why| panic!("{}", said(why)));
                match &done {
                    Ok(()) => {}
                    Err(Error::NoSpace) => {
                        assert!(after == before, "{}", said("it changed something".into()))
                    }
                    Err(error) => panic!("{}", said(error.to_string())),
                }
                if !over {
                    t.session(0)
                        .unlink(ROOT, &name("small"))
                        .unwrap_or_else(|e| panic!("{}", said(e.to_string())));
                    t.engine.discard(&t.session(1)).unwrap_or_else(|e| panic!("{}", said(e.to_string())));
                    t.disk.set_space_free(ROOMY);
                    t.engine.settle();
                    if done.is_err() && what != "keep" {
                        operation(&t).unwrap_or_else(|e| panic!("{}", said(format!("with room again: {e}"))));
                    }
                }
                let last = observe(&t).unwrap();
                let again = EngineTarget::open(t.disk.kill(), t.opening.clone(), t.ids.clone());
                let again = again.unwrap_or_else(|e| panic!("{}", said(e.to_string())));
                assert!(observe(&again).unwrap() == last, "{}", said("a restart changed something".into()));
                (refused, runs) = (refused + done.is_err() as u32, runs + 1);
                if over {
                    break;
                }
            }
        }
    }
    assert!(refused > runs / 10, "of {runs} operations {refused} were refused");
}

/// A start that finds the disk full anywhere works: the log has its reserve.
#[test]
fn the_disk_may_fill_up_at_every_call_of_a_start() {
    let (disk, target) = prepared();
    let before = observe(&target).unwrap();
    for bytes in [0, 200, 6000] {
        for call in 1.. {
            let disk = disk.kill();
            disk.fill_after(call, bytes);
            let opened = EngineTarget::open(disk.clone(), target.opening.clone(), target.ids.clone());
            let opened = opened.unwrap_or_else(|error| panic!("{bytes} bytes from call {call} on: {error}"));
            let over = disk.is_armed();
            assert!(observe(&opened).unwrap() == before, "{bytes} bytes from call {call} on");
            opened.session(0).unlink(ROOT, &name("small")).unwrap();
            opened.engine.discard(&opened.session(1)).unwrap();
            let left = observe(&opened).unwrap();
            let disk = disk.kill();
            disk.set_space_free(ROOMY);
            let again = EngineTarget::open(disk, target.opening.clone(), target.ids.clone()).unwrap();
            assert!(observe(&again).unwrap() == left, "{bytes} bytes from call {call} on, then room");
            if over {
                break;
            }
        }
    }
}
