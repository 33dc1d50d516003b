//! What months of running bring: a clock that is set back, inode numbers that run out. In process, on simulated disks.

use cas::{Attrs, Snapshot, SnapshotId, Store, Time, dir::DirEntry, dir::OwnedNode, dir::Totals};
use fsd::session::{Error, INODES_MAX, ROOT, Rename};

use crate::{
    common::{file, host::Opening, template::Template},
    model::{
        engine::EngineTarget,
        picture::Picture,
        target::{Against, Change, Target},
    },
};

/// A second of the simulated clock, and a day in seconds.
const SECOND_NS: u64 = 1_000_000_000;
const DAY_SECS: i64 = 86_400;

fn start() -> EngineTarget {
    Template::get().start(Opening::first(3)).0
}

/// A day of work, sealed, forked, restarted and tidied up in between. Before each step the system's clock is set back by
/// `back_secs`, and somebody's sleep passes.
fn day(back_secs: i64) -> EngineTarget {
    let mut target = start();
    let turn = |target: &EngineTarget| {
        target.opening.clock.advance(SECOND_NS);
        target.opening.clock.set_back(back_secs);
    };
    for round in 0..6u8 {
        turn(&target);
        let name = [b'a' + round];
        let made = target.make(0, ROOT, &name, file()).unwrap().ino;
        target.write(0, made, 0, &[round; 9000]).unwrap();
        turn(&target);
        // Looked up in each round: a restart forgets the numbers that were told. The same size as before: nothing but the bytes tells that it changed.
        let small = target.lookup(0, ROOT, b"small").unwrap().ino;
        target.write(0, small, 0, &[round; 5000]).unwrap();
        if round > 0 {
            target.rename(0, (ROOT, &[name[0] - 1]), (ROOT, b"last"), Rename::Replace).unwrap();
        }
        turn(&target);
        match round % 3 {
            0 => drop(target.seal(0, &mut |_| {}).unwrap()),
            1 => target.fork(0).unwrap(),
            _ => target.reopen(),
        }
        turn(&target);
        target.sync().unwrap();
        target.tick().unwrap();
        let small = target.lookup(0, ROOT, b"small").unwrap().ino;
        let mut read = [0; 5000];
        let session = target.session(0);
        assert_eq!(session.read(small, 0, &mut read).unwrap(), 5000);
        assert_eq!(read, [round; 5000], "round {round}, {back_secs} s back a turn");
        let changes = target.diff(0, Against::Origin).unwrap();
        assert!(changes.contains(&Change::Modified(b"small".to_vec())), "{changes:?}");
    }
    target
}

/// The trees of all sessions, without their times.
fn trees(target: &mut EngineTarget) -> Vec<Picture> {
    let mut trees: Vec<Picture> = (0..target.ids.len()).map(|s| target.picture(s).unwrap()).collect();
    for tree in &mut trees {
        for item in tree.values_mut() {
            (item.seen.attrs.mtime, item.seen.attrs.ctime) = Default::default();
        }
    }
    trees
}

#[test]
fn a_clock_that_is_set_back_changes_times_and_nothing_else() {
    let want = trees(&mut day(0));
    for back_secs in [1, 2, DAY_SECS, 365 * 100 * DAY_SECS, -DAY_SECS] {
        let mut target = day(back_secs);
        assert_eq!(trees(&mut target), want, "{back_secs} s back a turn");
        target.gc().unwrap();
        target.reopen();
        assert_eq!(trees(&mut target), want, "{back_secs} s back a turn, started again");
        assert_eq!(target.engine.sessions().len(), target.ids.len());
    }
}

#[test]
fn quiet_is_told_by_a_clock_that_nobody_sets() {
    let target = start();
    let session = target.session(0);
    session.make(ROOT, &fsd::session::Name::parse(b"new").unwrap(), file()).unwrap();
    for back_secs in [DAY_SECS, -2 * DAY_SECS] {
        target.opening.clock.set_back(back_secs);
        target.engine.tidy();
        assert!(session.has_changes(), "sealed although it was quiet for no time");
    }
    target.opening.clock.advance(61 * SECOND_NS);
    target.engine.tidy();
    assert!(!session.has_changes(), "quiet for a minute, and not sealed");
}

/// A snapshot of one file with this number.
fn snapshot_with(store: &Store, ino: u64) -> SnapshotId {
    let time = Time { secs: 1_700_000_000, nanos: 0 };
    let attrs = Attrs { mode: 0o644, uid: 0, gid: 0, nlink: 1, rdev: 0, size: 0, mtime: time, ctime: time };
    let node = OwnedNode::File(cas::Content::Empty);
    let entry = DirEntry { name: b"old".to_vec(), ino, attrs, node, xattrs: None, totals: Totals::default() };
    let mut writer = store.writer().unwrap();
    let (dir, _) = writer.put_dir(vec![entry]).unwrap();
    let root = Attrs { mode: 0o755, nlink: 2, ..attrs };
    let id = writer.put_snapshot(&Snapshot { attrs: root, xattrs: None, dir }).unwrap();
    writer.finish().unwrap();
    store.keep(id, None, time).unwrap();
    id
}

/// At the end of the numbers every new file got the number of the one before, and took its place: 2^64 - 1 was given out again
/// and again. And from 2^63 on no seal would have stored it.
#[test]
fn inode_numbers_that_run_out_are_an_error_and_never_come_twice() {
    // From CREATED_MIN on as many as statfs shows; both are 2^62.
    let end = 2 * INODES_MAX;
    let mut target = start();
    let base = snapshot_with(target.engine.store(), end - 4);
    let session = target.engine.create(Some(base), None, (0, 0)).unwrap();
    target.ids[0] = session.id();
    let mut numbers = Vec::new();
    for name in [b"a", b"b", b"c"] {
        numbers.push(target.make(0, ROOT, name, file()).unwrap().ino);
    }
    assert_eq!(numbers, [end - 3, end - 2, end - 1]);
    target.fork(0).unwrap();
    for stage in ["at once", "after a seal", "after a restart", "from the snapshot"] {
        match stage {
            "after a seal" => drop(target.seal(0, &mut |_| {}).unwrap()),
            "after a restart" => target.reopen(),
            "from the snapshot" => {
                let sealed = target.engine.seal(&target.session(0), true, &mut |_| {}).unwrap();
                let session = target.engine.create(Some(sealed.snapshot), None, (0, 0)).unwrap();
                target.ids[0] = session.id();
            }
            _ => {}
        }
        for s in [0, 1] {
            let session = target.session(s);
            for name in [b"d", b"e"] {
                let made = session.make(ROOT, &fsd::session::Name::parse(name).unwrap(), file());
                assert!(matches!(made, Err(Error::NoSpace)), "{stage}, session {s}: {made:?}");
            }
            for (name, ino) in [b"a", b"b", b"c"].into_iter().zip(&numbers) {
                assert_eq!(target.lookup(s, ROOT, name).unwrap().ino, *ino, "{stage}, session {s}");
            }
            // All else goes on.
            target.write(s, numbers[2], 0, stage.as_bytes()).unwrap();
            target.link(s, numbers[0], ROOT, b"link").unwrap();
            target.unlink(s, ROOT, b"link").unwrap();
        }
    }
}
