//! Bytes of the log that rot: what was synced and cannot be read is never passed over in silence, what was not may be.

use cas::sim::SimDisk;
use cas::{
    Kind,
    disk::{Disk, Open},
};
use fsd::session::{Error, Limits, Name, New, ROOT};
use proptest::{prelude::*, strategy::ValueTree};

use crate::{
    common::{
        file,
        host::{Opening, tight},
        random, seeded, setting,
        template::Template,
    },
    model::{
        engine::EngineTarget,
        history::{History, moment, observe},
        ops::{self, Op, Step},
        runner::Runner,
    },
};

/// Bytes of a log file's header; see `docs/format.md`.
const FILE_HEADER: u64 = 48;

/// A disk after some operations, a sync, and a few more.
struct Sample {
    disk: SimDisk,
    target: EngineTarget,
    /// So much of the log was synced, and a later record says so.
    synced: u64,
    end: u64,
    /// Every moment that a cut log may describe.
    history: History,
}

fn sample(seed: u64) -> Sample {
    // Segments outlive every prefix of the log: nothing is given back, sealed or discarded.
    let limits = Limits { segment_bytes_min: 4 << 20, segment_bytes_max: 4 << 20, ..tight() };
    let (mut target, world) = Template::get().start(Opening { limits, ..Opening::first(seed) });
    let mut runner = Runner::new(world);
    // The first records make the session: without them there is none.
    let mut history = History::new(Vec::new());
    history.push(moment(&runner.world));
    runner.history = Some(history);
    let steps = prop::collection::vec(ops::step(), 60);
    let steps: Vec<Step> = steps.new_tree(&mut seeded(seed, 1)).expect("nothing is filtered").current();
    let kept = |op: &Op| {
        !matches!(op, Op::Reopen | Op::Sync | Op::Gc | Op::Tick | Op::Seal(_) | Op::Discard | Op::Anchor)
    };
    steps.iter().filter(|step| kept(&step.op)).for_each(|step| runner.step(&mut target, step).unwrap());
    target.engine.durability().sync().unwrap();
    let log = &target.engine.durability().log;
    let synced = log.synced();
    let new = New { kind: Kind::File, mode: 0, uid: 0, gid: 0, rdev: 0, umask: 0, target: None };
    let mut history = runner.history.expect("set above");
    for n in 0..3 {
        let name = format!("late {n}");
        let tree = &mut runner.world.live_mut(0).tree;
        tree.now = target.opening.clock.advance(5);
        tree.make(ROOT, name.as_bytes(), new.clone()).unwrap();
        target.session(0).make(ROOT, &Name::parse(name.as_bytes()).unwrap(), new.clone()).unwrap();
        history.push(moment(&runner.world));
    }
    let end = log.position();
    Sample { disk: target.disk.kill(), target, synced, end, history }
}

/// Log file and offset in it of every position from `from` to `to`, headers of the files in between included.
fn bytes_of(disk: &SimDisk, from: u64, to: u64) -> Vec<(String, u64)> {
    let names = disk.list("log").unwrap();
    let start_of = |name: &str| u64::from_str_radix(name.strip_suffix(".log")?, 16).ok();
    let mut files: Vec<(u64, String)> =
        names.iter().filter_map(|name| Some((start_of(name)?, format!("log/{name}")))).collect();
    files.sort();
    let mut bytes = Vec::new();
    for (i, (start, path)) in files.iter().enumerate() {
        let end = files.get(i + 1).map_or(to, |(next, _)| (*next).min(to));
        if *start >= from && *start < to {
            bytes.extend((0..FILE_HEADER).map(|at| (path.clone(), at)));
        }
        let positions = from.max(*start)..end;
        bytes.extend(positions.map(|position| (path.clone(), FILE_HEADER + position - start)));
    }
    bytes
}

#[test]
fn damage_to_what_was_synced_is_refused_and_loss_can_be_accepted() {
    for seed in 0..setting("AETHERFS_RECOVERY_SEEDS", 8) {
        let mut chance = seed;
        let sample = sample(seed);
        let bytes = bytes_of(&sample.disk, 0, sample.synced);
        for _ in 0..25 {
            let (path, at) = &bytes[random(&mut chance) as usize % bytes.len()];
            let mask = 1 << (random(&mut chance) % 8);
            let disk = sample.disk.kill();
            disk.flip(path, *at, mask);
            let said = format!("seed {seed}, bit {mask:#x} of byte {at} of {path}");
            let opened = sample.target.opening.open_sim(&disk);
            // A flip in the version makes it one of the future.
            let refused = matches!(opened, Err(Error::Damaged { .. } | Error::Newer { .. }));
            assert!(refused, "{said}: {:?}", opened.map(drop));
            if matches!(opened, Err(Error::Newer { .. })) {
                continue;
            }
            let opening = Opening { accept_loss: true, ..sample.target.opening.clone() };
            let again = EngineTarget::open(disk, opening, sample.target.ids.clone()).unwrap();
            sample.history.explain(&observe(&again).unwrap()).unwrap_or_else(|why| panic!("{said}: {why}"));
            let set_aside = again.disk.list("log").unwrap().iter().any(|name| name.ends_with(".lost"));
            assert!(set_aside, "{said}: what was lost is kept for whoever wants to look");
            if let Some(session) = again.engine.sessions().first() {
                session.make(ROOT, &Name::parse(b"goes on").unwrap(), file()).unwrap();
            }
        }
    }
}

#[test]
fn a_torn_end_is_cut_in_silence() {
    for seed in 0..setting("AETHERFS_RECOVERY_SEEDS", 8) {
        let mut chance = seed;
        let sample = sample(seed);
        let mut bytes = bytes_of(&sample.disk, sample.synced, sample.end);
        // Records claim that all before a file is safe that begins where the sync ended, and no kill loses its header.
        let begins = format!("log/{:016x}.log", sample.synced);
        bytes.retain(|(path, at)| *path != begins || *at >= FILE_HEADER);
        if sample.disk.open(&begins, Open::Read).is_ok() {
            let disk = sample.disk.kill();
            disk.flip(&begins, random(&mut chance) % FILE_HEADER, 0x10);
            let opened = sample.target.opening.open_sim(&disk);
            assert!(
                matches!(opened, Err(Error::Damaged { .. } | Error::Newer { .. })),
                "{:?}",
                opened.map(drop)
            );
        }
        for _ in 0..25 {
            let (path, at) = &bytes[random(&mut chance) as usize % bytes.len()];
            let disk = sample.disk.kill();
            disk.flip(path, *at, 0x10);
            let again = EngineTarget::open(disk, sample.target.opening.clone(), sample.target.ids.clone());
            let again = match again {
                // As above: no torn end looks like that.
                Err(Error::Newer { .. }) if (4..8).contains(at) => continue,
                other => other.unwrap_or_else(|error| panic!("seed {seed}, byte {at} of {path}: {error}")),
            };
            sample
                .history
                .explain(&observe(&again).unwrap())
                .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        }
    }
}

#[test]
fn a_log_of_a_later_version_is_left_alone() {
    let sample = sample(1);
    let (path, _) = &bytes_of(&sample.disk, 0, 1)[0];
    // The version stands behind the magic number, little-endian.
    sample.disk.flip(path, 7, 0x40);
    let before = sample.disk.mutations();
    let opened = sample.target.opening.open_sim(&sample.disk);
    assert!(matches!(opened, Err(Error::Newer { found, .. }) if found > 1), "{:?}", opened.map(drop));
    let file = sample.disk.open(path, Open::Read).unwrap();
    assert!(file.len().unwrap() > 0 && sample.disk.mutations() >= before, "nothing is removed");
}
