//! Any byte of a state may rot, any file of it may be cut or vanish: whatever is read then is what was written or an error,
//! what is an error is named by a check, and what a repair leaves is no less than there was before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cas::{
    Kind,
    disk::{Disk, Open},
    sim::SimDisk,
    sys::SysDisk,
};
use fsd::session::{Checked, Engine, Error, Limits, New, ROOT, Rename, Session, SetAttrs, SetXattr, State};

use crate::common::{
    host::{Opening, tight},
    name, random, setting,
    template::Template,
};

/// What was read at a path, or why not.
type Outcome = Result<(cas::Attrs, BTreeMap<Vec<u8>, Vec<u8>>, Vec<u8>), String>;
/// By `ses_...:/path`.
type Seen = BTreeMap<String, Outcome>;

fn new(kind: Kind) -> New {
    New { kind, mode: 0o644, uid: 1, gid: 2, rdev: 0, umask: 0, target: None }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    (0..len.div_ceil(8)).flat_map(|_| random(&mut state).to_le_bytes()).take(len).collect()
}

fn create(session: &Session, dir: u64, text: &str, bytes: &[u8]) -> u64 {
    let ino = session.make(dir, &name(text), new(Kind::File)).unwrap().ino;
    session.write(ino, 0, bytes).unwrap();
    ino
}

/// Something of everything that a state has: sealed and not, shared and not, in every kind of file. Nothing is overwritten in
/// place: those bytes have no checksum, and docs/semantics.md says so.
fn fill(engine: &Engine, first: &Session, seed: u64) {
    let small = first.lookup(ROOT, &name("small")).unwrap().ino;
    first.write(small, 1000, &noise(seed, 100)).unwrap();
    let dir = first.make(ROOT, &name("made"), New { mode: 0o755, ..new(Kind::Dir) }).unwrap().ino;
    create(first, dir, "sealed", &noise(seed + 1, 300_000));
    create(first, dir, "gone later", b"gone later");
    engine.seal(first, true, &mut |_| {}).unwrap();

    create(first, dir, "long", &noise(seed + 2, 150_000));
    let pieces = create(first, dir, "pieces", b"");
    for n in 0..30 {
        first.write(pieces, n * 1000, &noise(seed + 3 + n, 1000)).unwrap();
    }
    let cut = create(first, dir, "cut", &noise(seed + 4, 100_000));
    first.set_attrs(cut, SetAttrs { size: Some(30_000), ..SetAttrs::default() }).unwrap();
    let big = first.lookup(ROOT, &name("big")).unwrap().ino;
    first.write(big, 800_000, &noise(seed + 5, 5000)).unwrap();
    first.set_xattr(big, b"user.new", &noise(seed + 6, 300), SetXattr::Any).unwrap();
    first.unlink(dir, &name("gone later")).unwrap();
    first.rename(ROOT, &name("empty"), dir, &name("moved"), Rename::Replace).unwrap();

    let fork = engine.fork(first, &[None]).unwrap().remove(0);
    let theirs = fork.lookup(fork.lookup(ROOT, &name("made")).unwrap().ino, &name("long")).unwrap().ino;
    fork.write(theirs, 70_000, &noise(seed + 7, 10_000)).unwrap();
    create(&fork, ROOT, "of the fork", &noise(seed + 8, 20_000));
    create(first, ROOT, "of the parent", &noise(seed + 9, 20_000));
    engine.durability().sync().unwrap();
}

fn allowed(error: Error) -> String {
    match error {
        Error::Store(
            cas::Error::Corrupt { .. }
            | cas::Error::Malformed { .. }
            | cas::Error::Missing(_)
            | cas::Error::UnknownSnapshot(_)
            | cas::Error::Database { .. }
            | cas::Error::Io { .. },
        )
        | Error::Damaged { .. }
        | Error::Io { .. } => error.to_string(),
        other => panic!("damage must not look like {other:?}"),
    }
}

/// Reads everything that can be read.
fn look(engine: &Engine) -> Seen {
    let mut seen = Seen::new();
    for session in engine.sessions() {
        let state = session.peek();
        let root = state.walk(engine.store(), &[]).map_err(allowed);
        let mut queue = vec![(format!("{}:", session.id()), root)];
        while let Some((path, found)) = queue.pop() {
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    seen.insert(path, Err(why));
                    continue;
                }
            };
            let mut read = || -> fsd::session::Result<_> {
                let bytes = match found.kind {
                    Kind::File => {
                        let mut bytes = vec![0xee; found.attrs.size as usize];
                        state.read(engine.store(), &found, 0, &mut bytes)?;
                        bytes
                    }
                    Kind::Symlink => found.target()?,
                    Kind::Dir => {
                        let dir = state.open_dir(engine.store(), &found)?;
                        for (name, child) in state.entries(&dir)? {
                            let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
                            queue.push((format!("{path}/{name}"), Ok(child)));
                        }
                        Vec::new()
                    }
                    _ => Vec::new(),
                };
                Ok((found.attrs, found.xattrs(engine.store())?, bytes))
            };
            let outcome = read().map_err(allowed);
            seen.insert(path, outcome);
        }
    }
    seen
}

/// Compares with what was there. Gives the paths that cannot be read; panics at anything that is wrong.
fn compare(said: &str, was: &Seen, is: &Seen) -> BTreeSet<String> {
    let mut failed = BTreeSet::new();
    for (path, outcome) in is {
        match (outcome, was.get(path)) {
            (Err(_), _) => drop(failed.insert(path.clone())),
            (Ok(is), Some(Ok(was))) => assert!(is == was, "{said}: {path} is not what was written"),
            (Ok(_), _) => panic!("{said}: {path} was never there"),
        }
    }
    let below = |path: &str| failed.iter().any(|dir| path.starts_with(&format!("{dir}/")));
    let lost: Vec<&String> = was.keys().filter(|path| !is.contains_key(*path) && !below(path)).collect();
    assert!(lost.is_empty(), "{said}: {lost:?} vanished, and no directory says why");
    failed
}

/// Everything that a check names, and whether it found nothing at all.
fn named(engine: &Engine, repair: bool) -> (BTreeSet<String>, bool) {
    let checked = engine.check(repair, &mut |_| {}).unwrap();
    (names_of(&checked), checked.is_clean())
}

fn names_of(checked: &Checked) -> BTreeSet<String> {
    let users = checked.flaws.iter().flat_map(|flaw| &flaw.users);
    let paths = checked.store.damage.iter().flat_map(|damage| &damage.paths);
    let mut names: BTreeSet<String> = users.chain(paths).cloned().collect();
    if checked.store.damaged_uses > 1000 {
        // So many that the rest is only counted: who is hit is told, not everything that is.
        names.extend(names.clone().iter().filter_map(|name| Some(name.split_once(':')?.0.to_owned())));
    }
    names
}

/// Whether a check that names `named` says of `path` that it is hit: itself, a directory above it, or its session.
fn is_named(named: &BTreeSet<String>, path: &str) -> bool {
    let mut path = path.to_owned();
    loop {
        if [path.clone(), format!("{path}/"), path.trim_end_matches(':').to_owned()]
            .iter()
            .any(|p| named.contains(p))
        {
            return true;
        }
        match path.rfind('/') {
            Some(at) => path.truncate(at),
            None => return false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(u64, u8),
    Cut(u64),
    Delete,
}

impl Damage {
    fn strike(self, disk: &dyn Disk, path: &str) {
        let file = disk.open(path, Open::Write).unwrap();
        match self {
            Damage::Flip(at, mask) => {
                let mut byte = [0];
                assert_eq!(file.read_at(&mut byte, at).unwrap(), 1);
                file.write_at(&[byte[0] ^ mask], at).unwrap();
            }
            Damage::Cut(len) => file.set_len(len).unwrap(),
            Damage::Delete => disk.remove(path).unwrap(),
        }
    }
}

fn files(disk: &SimDisk) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    for dir in ["store", "store/packs", "log", "segments"] {
        let mut names = disk.list(dir).unwrap();
        names.sort();
        for name in names.iter().filter(|name| *name != "packs" && *name != "reserve") {
            let path = format!("{dir}/{name}");
            let len = disk.open(&path, Open::Read).unwrap().len().unwrap();
            files.push((path, len));
        }
    }
    files
}

/// Bytes of a file that may be damaged: all of it but what is only reserved.
fn meaningful(disk: &SimDisk, path: &str, len: u64) -> u64 {
    let mut bytes = vec![0; len as usize];
    disk.open(path, Open::Read).unwrap().read_at(&mut bytes, 0).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

fn damages(chance: &mut u64, len: u64, rounds: u64) -> Vec<Damage> {
    let mut damages = vec![Damage::Delete, Damage::Cut(0)];
    for _ in 0..rounds {
        let mask = 1 << (random(chance) % 8);
        damages.push(Damage::Flip(random(chance) % len, mask));
        damages.push(Damage::Flip(random(chance) % len, 0xff));
        damages.push(Damage::Cut(random(chance) % len));
    }
    damages
}

struct Sample {
    disk: SimDisk,
    opening: Opening,
    was: Seen,
}

fn sample(seed: u64) -> Sample {
    let limits = Limits { segment_bytes_min: 64 << 10, segment_bytes_max: 128 << 10, ..tight() };
    let (target, _) = Template::get().start(Opening { limits, ..Opening::first(seed) });
    fill(&target.engine, &target.session(0), seed);
    let was = look(&target.engine);
    assert!(was.values().all(Result::is_ok));
    target.engine.close().unwrap();
    // A start says that all before it was synced.
    let disk = target.disk.kill();
    drop(target.opening.open_sim(&disk).unwrap());
    Sample { disk: disk.kill(), opening: target.opening, was }
}

/// A start that is refused, then: what the message says must work, and nothing that is there afterwards may be garbage.
fn after_a_refusal(said: &str, sample: &Sample, disk: &SimDisk, error: Error) {
    assert!(matches!(error, Error::Damaged { .. } | Error::Newer { .. }), "{said}: {error}");
    if matches!(error, Error::Newer { .. }) {
        return;
    }
    assert!(error.to_string().contains("--accept-loss"), "{said}: {error}");
    let engine = Opening { accept_loss: true, ..sample.opening.clone() }.open_sim(disk).unwrap();
    let is = look(&engine);
    // An earlier moment of the same sessions. What it had in segments that were given back since is an error, and named.
    let failed: BTreeSet<&String> =
        is.iter().filter(|(_, outcome)| outcome.is_err()).map(|(path, _)| path).collect();
    let (names, _) = named(&engine, false);
    assert!(failed.iter().all(|path| is_named(&names, path)), "{said}: {failed:?} fail, {names:?} are named");
    engine.close().unwrap();
    drop(engine);
    let again = sample.opening.open_sim(&disk.kill()).unwrap();
    assert!(look(&again) == is, "{said}: the loss is accepted once");
}

#[test]
fn damage_before_a_start_costs_what_it_hit_and_is_named() {
    let rounds = setting("AETHERFS_DAMAGE_ROUNDS", 2);
    for seed in 0..setting("AETHERFS_DAMAGE_SEEDS", 1) {
        let (sample, mut chance) = (sample(seed), seed);
        let (mut cases, mut refused, mut hit) = (0, 0, 0);
        for (path, len) in files(&sample.disk) {
            let len = meaningful(&sample.disk, &path, len);
            for damage in damages(&mut chance, len, rounds) {
                let said = format!("seed {seed}, {path} of {len} bytes, {damage:?}");
                let disk = sample.disk.kill();
                damage.strike(&disk, &path);
                cases += 1;
                let engine = match sample.opening.open_sim(&disk) {
                    Ok(engine) => engine,
                    Err(error) => {
                        assert!(path.starts_with("log/"), "{said}: {error}");
                        refused += 1;
                        after_a_refusal(&said, &sample, &disk, error);
                        continue;
                    }
                };
                let failed = compare(&said, &sample.was, &look(&engine));
                let (names, clean) = named(&engine, false);
                let untold: Vec<_> = failed.iter().filter(|path| !is_named(&names, path)).collect();
                assert!(
                    untold.is_empty(),
                    "{said}: {untold:?} fail and are not among {} that are named",
                    names.len()
                );
                assert!(failed.is_empty() || !clean, "{said}");
                hit += usize::from(!failed.is_empty());

                named(&engine, true);
                let after = compare(&said, &sample.was, &look(&engine));
                assert!(after.is_subset(&failed), "{said}: a repair broke {:?}", after.difference(&failed));
                engine.close().unwrap();
                drop(engine);
                let again = sample.opening.open_sim(&disk.kill()).unwrap_or_else(|e| panic!("{said}: {e}"));
                let after = compare(&said, &sample.was, &look(&again));
                assert!(after.is_subset(&failed), "{said}: a start after a repair lost more");
            }
        }
        println!("seed {seed}: {cases} cases, {refused} refused, {hit} hit something");
        assert!(refused > 0 && hit > 0, "the damage does not hit");
    }
}

#[test]
fn damage_under_a_running_engine_costs_what_it_hit_and_is_named() {
    let rounds = setting("AETHERFS_DAMAGE_ROUNDS", 2);
    for seed in 100..100 + setting("AETHERFS_DAMAGE_SEEDS", 1) {
        let (sample, mut chance) = (sample(seed), seed);
        for (path, len) in files(&sample.disk) {
            let len = meaningful(&sample.disk, &path, len);
            for damage in damages(&mut chance, len, rounds) {
                let said = format!("seed {seed}, {path} of {len} bytes, {damage:?}, while in use");
                let disk = sample.disk.kill();
                let engine = sample.opening.open_sim(&disk).unwrap();
                compare(&said, &sample.was, &look(&engine));
                if disk.open(&path, Open::Read).is_err() {
                    continue;
                }
                damage.strike(&disk, &path);
                let failed = compare(&said, &sample.was, &look(&engine));
                // The index is read through redb, which says no more than that it is damaged.
                let Ok(checked) = engine.check(false, &mut |_| {}) else {
                    assert!(path.ends_with(".redb"), "{said}");
                    continue;
                };
                let names = names_of(&checked);
                let untold: Vec<_> = failed.iter().filter(|path| !is_named(&names, path)).collect();
                assert!(
                    untold.is_empty(),
                    "{said}: {untold:?} fail and are not among {} that are named",
                    names.len()
                );

                // What a damaged log would have told the next start is still known: nothing is lost by mending it.
                if path.starts_with("log/") {
                    named(&engine, true);
                    engine.durability().sync().unwrap();
                    let again =
                        sample.opening.open_sim(&disk.kill()).unwrap_or_else(|e| panic!("{said}: {e}"));
                    assert!(compare(&said, &sample.was, &look(&again)).is_empty(), "{said}");
                }
            }
        }
    }
}

/// A pack that is cut under a map is a SIGBUS: the end of the daemon and of all mounts. Nothing is mapped, so it is an error.
#[test]
fn real_packs_cut_under_a_running_engine_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (target, _) = Template::get().start_in(dir.path());
    let session = target.session(0);
    create(&session, ROOT, "unsealed", &noise(1, 100_000));
    let was = look(&target.engine);
    let disk = SysDisk::open(dir.path()).unwrap();
    for name in disk.list("store/packs").unwrap() {
        Damage::Cut(1000).strike(&disk, &format!("store/packs/{name}"));
    }
    let failed = compare("cut", &was, &look(&target.engine));
    assert!(failed.iter().any(|path| path.ends_with("/big")) && failed.len() < was.len(), "{failed:?}");
    let (names, clean) = named(&target.engine, false);
    assert!(!clean && failed.iter().all(|path| is_named(&names, path)), "{failed:?}, {names:?}");
}

/// A seal gives bytes a digest that vouches for them for good: what rotted before must not get one.
#[test]
fn what_rotted_in_a_segment_is_not_sealed() {
    let (target, _) = Template::get().start(Opening::first(3));
    let session = target.session(0);
    create(&session, ROOT, "whole", &noise(1, 9000));
    let (segment, _) =
        files(&target.disk).into_iter().find(|(path, _)| path.starts_with("segments/")).unwrap();
    target.disk.flip(&segment, 5000, 1);
    let sealed = target.engine.seal(&session, true, &mut |_| {});
    assert!(sealed.is_err(), "{sealed:?}");
    // Overwritten as a whole it is whole again, and can be.
    let ino = session.lookup(ROOT, &name("whole")).unwrap().ino;
    session.write(ino, 0, &noise(2, 9000)).unwrap();
    let sealed = target.engine.seal(&session, true, &mut |_| {}).unwrap();
    let state = State::of_snapshot(target.engine.store(), sealed.snapshot).unwrap();
    let found = state.walk(target.engine.store(), &[name("whole")]).unwrap();
    let mut bytes = vec![0; 9000];
    state.read(target.engine.store(), &found, 0, &mut bytes).unwrap();
    assert_eq!(bytes, noise(2, 9000));
}

/// Of a segment that was cut short, the part that is missing must not come back as zeros because something behind it is
/// written again; after a power loss there is no sum that would tell.
#[test]
fn what_is_missing_in_a_segment_stays_missing_when_bytes_behind_it_are_written() {
    let (target, _) = Template::get().start(Opening::first(3));
    let ino = create(&target.session(0), ROOT, "cut", &noise(1, 9000));
    target.engine.durability().sync().unwrap();
    let disk = target.disk.crash(&mut || 0);
    let (segment, _) = files(&disk).into_iter().find(|(path, _)| path.starts_with("segments/")).unwrap();
    disk.open(&segment, Open::Write).unwrap().set_len(5000).unwrap();
    let opening = target.opening.rebooted();
    let session = opening.open_sim(&disk).unwrap().session(&target.ids[0].to_string()).unwrap();
    session.write(ino, 8000, &[7; 500]).unwrap();
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        session.read(ino, at, &mut bytes).map(|_| bytes)
    };
    assert_eq!(read(8000, 500).unwrap(), [7; 500]);
    assert_eq!(read(0, 5000).unwrap(), noise(1, 9000)[..5000]);
    for (at, len) in [(5000, 3000), (7999, 2), (8500, 500)] {
        let got = read(at, len);
        assert!(matches!(got, Err(Error::Damaged { .. })), "{len} bytes at {at}: {got:?}");
    }
}

/// What is damaged stays damaged: a background seal that failed is not tried again every second.
#[test]
fn a_session_that_cannot_be_sealed_is_left_alone_until_it_was_quiet_again() {
    let (target, _) = Template::get().start(Opening::first(3));
    let session = target.session(0);
    create(&session, ROOT, "whole", &noise(1, 9000));
    target.engine.durability().sync().unwrap();
    let (segment, _) =
        files(&target.disk).into_iter().find(|(path, _)| path.starts_with("segments/")).unwrap();
    target.disk.flip(&segment, 5000, 1);
    let tries = |seconds: u64| {
        target.opening.clock.advance(seconds * 1_000_000_000);
        let before = target.disk.reads();
        target.engine.tidy();
        target.disk.reads() > before
    };
    assert!(!tries(1) && tries(120), "the seal reads what is there, and fails");
    assert!(session.has_changes() && session.peek().base == session.meta.origin);
    assert!(!tries(1) && !tries(1) && tries(120));
}

/// The daemon is killed between the record that lets go of a sum and the bytes, and the machine goes down right after an
/// overwrite in place: either way the bytes are right, old or new, and must not be taken for damage.
#[test]
fn an_overwrite_in_place_is_never_taken_for_damage() {
    for seed in 0..40 {
        let opening = Opening::first(seed);
        let (target, _) = Template::get().start(opening.clone());
        let session = target.session(0);
        let ino = create(&session, ROOT, "file", &noise(seed, 50_000));
        target.engine.durability().sync().unwrap();
        let mut chance = seed;
        let (mut at, mut versions) = (0, vec![noise(seed, 50_000)]);
        if seed % 2 == 0 {
            session.write_anchor().unwrap();
            target.engine.durability().sync().unwrap();
        }
        target.disk.crash_after(random(&mut chance) % 12);
        for n in 0..6 {
            let bytes = noise(1000 + n, 4096);
            if session.write(ino, at, &bytes).is_ok() {
                let mut next = versions.last().unwrap().clone();
                next[at as usize..at as usize + 4096].copy_from_slice(&bytes);
                versions.push(next);
            }
            at = random(&mut chance) % 45_000;
        }
        let after = [
            (target.disk.kill(), opening.clone()),
            (target.disk.crash(&mut || random(&mut chance)), opening.rebooted()),
        ];
        for (disk, opening) in after {
            let engine = Arc::new(opening.open_sim(&disk).unwrap());
            let session = engine.sessions().remove(0);
            let ino = session.lookup(ROOT, &name("file")).unwrap().ino;
            let mut bytes = vec![0; 50_000];
            session.read(ino, 0, &mut bytes).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            // Every byte is one of the versions'; which ones were overwritten last is not promised.
            let known = |at: usize| versions.iter().any(|version| version[at] == bytes[at]);
            let tried = |at: usize| (0..6).any(|n| noise(1000 + n, 4096).contains(&bytes[at]));
            assert!((0..50_000).all(|at| known(at) || tried(at)), "seed {seed}");
            assert!(engine.check(false, &mut |_| {}).unwrap().is_clean(), "seed {seed}");
            // The same again: what was learned at the first start must not be forgotten by the second.
            drop((session, engine));
            let engine = opening.open_sim(&disk.kill()).unwrap();
            assert!(engine.check(false, &mut |_| {}).unwrap().is_clean(), "seed {seed}, second start");
        }
    }
}
