//! Long lives: forks of forks of forks, seals and anchors between them, a log that is cut from the front again and again,
//! and what comes back of all that after kills and power loss.

use proptest::{prelude::*, strategy::ValueTree};

use crate::{
    common::{host::Opening, random, seeded, setting, template::Template},
    model::{
        engine::EngineTarget,
        history::{History, Moment, moment, observe},
        ops::{self, Op, Step},
        runner::Runner,
        target::Target,
        tree::Tree,
    },
};

/// Operations of a seed that change one session.
fn changes(seed: u64, len: usize) -> Vec<Op> {
    let ops = prop::collection::vec(ops::simple(), len);
    ops.new_tree(&mut seeded(seed, 1)).expect("nothing is filtered").current()
}

/// Opens what is left, and compares all of it.
fn check(target: &EngineTarget, disk: cas::sim::SimDisk, opening: Opening, expected: Moment) -> EngineTarget {
    let again = EngineTarget::open(disk, opening, target.ids.clone()).unwrap();
    History::new(expected).explain(&observe(&again).unwrap()).unwrap_or_else(|why| panic!("{why}"));
    again
}

#[test]
fn a_chain_of_forks_comes_back_as_it_was() {
    const DEPTH: usize = 50;
    for seed in 0..setting("AETHERFS_RECOVERY_SEEDS", 4) {
        let mut chance = seed;
        let (mut target, world) = Template::get().start(Opening::first(seed));
        let mut runner = Runner::new(world);
        for depth in 0..DEPTH {
            let mut run = |op: Op| {
                // Every session but the last few lives on untouched, so the one to work on is named by its number.
                let at = runner.world.living().iter().position(|s| *s == depth).expect("it lives");
                runner.step(&mut target, &Step { session: at as u8, op })
            };
            for op in changes(seed * 100 + depth as u64, 6) {
                run(op).unwrap_or_else(|stop| panic!("seed {seed}, depth {depth}: {stop:?}"));
            }
            match random(&mut chance) % 6 {
                0 => run(Op::Seal(changes(seed + depth as u64, 3))).unwrap(),
                1 => run(Op::Anchor).unwrap(),
                2 => run(Op::Gc).unwrap(),
                _ => {}
            }
            target.fork(depth).unwrap();
            runner.world.fork(depth);
        }
        assert_eq!(target.session(DEPTH).meta.depth as usize, DEPTH);
        runner.compare_all(&mut target).unwrap();
        let expected = moment(&runner.world);
        let killed = check(&target, target.disk.kill(), target.opening.clone(), expected.clone());
        killed.engine.durability().sync().unwrap();
        // From the middle on they go, the deepest live on.
        let mut expected = expected;
        for (s, shot) in expected.iter_mut().enumerate().take(DEPTH - 5) {
            killed.engine.discard(&killed.session(s)).unwrap();
            *shot = None;
        }
        killed.engine.durability().sync().unwrap();
        let left = killed.disk.crash(&mut || random(&mut chance));
        let rebooted = check(&killed, left, killed.opening.rebooted(), expected.clone());
        rebooted.engine.gc(false, &mut |_| {}).unwrap();
        check(&rebooted, rebooted.disk.kill(), rebooted.opening.clone(), expected);
    }
}

#[test]
fn a_log_that_is_cut_from_the_front_still_tells_everything() {
    for seed in 0..setting("AETHERFS_RECOVERY_SEEDS", 4) {
        let mut chance = seed;
        let (mut target, world) = Template::get().start(Opening::first(seed));
        let mut runner = Runner::new(world);
        let steps = prop::collection::vec(ops::step(), 400);
        let steps: Vec<Step> = steps.new_tree(&mut seeded(seed, 1)).expect("nothing is filtered").current();
        let mut trims = 0;
        for (at, step) in steps.iter().enumerate() {
            let said = |stop| panic!("seed {seed}, step {at}: {stop:?}");
            runner.step(&mut target, step).unwrap_or_else(said);
            if at % 20 == 19 {
                let before = target.engine.durability().log.start();
                target.tick().unwrap();
                let log = &target.engine.durability().log;
                trims += (log.start() > before) as u32;
                let len = log.position() - log.start();
                assert!(len < 4 * target.opening.limits.log_bytes_max, "seed {seed}: {len} bytes of log");
            }
            if at % 50 == 49 {
                target.sync().unwrap();
                let left = target.disk.crash(&mut || random(&mut chance));
                check(&target, left, target.opening.rebooted(), moment(&runner.world));
                runner.compare_all(&mut target).unwrap_or_else(said);
            }
        }
        assert!(trims >= 2, "seed {seed}: the log was cut {trims} times");
    }
}

/// A trim's own record is the last of the log, and no sync covers it: a power loss takes it back, the removed files do not
/// come back. Found by seed 93772 of the simulation.
#[test]
fn a_trim_and_two_power_losses_leave_a_log_with_a_beginning() {
    let mut chance = 1;
    let (mut target, world) = Template::get().start(Opening::first(1));
    let mut runner = Runner::new(world);
    let mut trims = 0;
    for round in 0..200 {
        for op in changes(round, 10) {
            runner.step(&mut target, &Step { session: 0, op }).unwrap();
        }
        let before = target.engine.durability().log.start();
        target.tick().unwrap();
        if target.engine.durability().log.start() == before {
            continue;
        }
        trims += 1;
        let expected = moment(&runner.world);
        let first = target.disk.crash(&mut || random(&mut chance));
        let opening = target.opening.rebooted();
        let again = check(&target, first, opening.clone(), expected.clone());
        let second = again.disk.crash(&mut || random(&mut chance));
        check(&again, second, opening.rebooted(), expected);
    }
    assert!(trims >= 2, "the log was cut {trims} times");
}

/// A quiet session is sealed once, not every second, however long a deleted file is held open.
#[test]
fn a_quiet_session_is_sealed_once() {
    let (mut target, world) = Template::get().start(Opening::first(1));
    let tree: Tree = world.live(0).tree.clone();
    let session = target.session(0);
    let small = target.lookup(0, fsd::session::ROOT, b"small").unwrap();
    target.unlink(0, fsd::session::ROOT, b"small").unwrap();
    assert!(tree.picture().contains_key(&b"small"[..]) && session.has_changes());
    target.opening.clock.advance(120_000_000_000);
    target.tick().unwrap();
    assert!(!session.has_changes(), "sealed when it was idle");
    assert_ne!(session.peek().base, session.meta.origin);
    let listed = target.engine.store().list().unwrap();
    assert!(
        listed.iter().all(|listed| listed.id != session.peek().base),
        "what nobody asked for is not listed"
    );
    // The next one syncs what the seal recorded.
    target.tick().unwrap();
    let position = target.engine.durability().log.position();
    target.opening.clock.advance(1_000_000_000);
    target.tick().unwrap();
    target.tick().unwrap();
    assert_eq!(target.engine.durability().log.position(), position, "nothing more to do");
    assert_eq!(target.read(0, small.ino, 0, 3).unwrap(), b"sss", "it is still held");
}
