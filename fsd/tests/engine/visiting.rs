//! What hangs on other hosts, and what does not: in process, on simulated disks, with a store that nothing is published to.

use cas::{
    Attrs, Digest, Snapshot, SnapshotId, Time,
    remote::{hanging::Origin, sim::SimRemote},
    sim::SimDisk,
};
use fsd::session::Engine;

use crate::common::host::Opening;

const PLACE: &str = "aether://near:1/ses_0000000000000000";

fn engine(remote: &SimRemote) -> (SimDisk, Opening, Engine) {
    let (disk, opening) = (SimDisk::new(1), Opening { remote: Some(remote.clone()), ..Opening::first(1) });
    let engine = opening.open_sim(&disk).unwrap();
    (disk, opening, engine)
}

fn unknown(nth: u32) -> SnapshotId {
    SnapshotId(Digest::of(&nth.to_le_bytes()))
}

/// A snapshot that nothing here refers to, as another host's is once its first objects came.
fn foreign(engine: &Engine, mtime: i64) -> SnapshotId {
    let time = Time { secs: mtime, nanos: 0 };
    let attrs = Attrs { mode: 0o755, uid: 0, gid: 0, nlink: 2, rdev: 0, size: 0, mtime: time, ctime: time };
    let mut writer = engine.store().writer().unwrap();
    let (dir, _) = writer.put_dir(Vec::new()).unwrap();
    let id = writer.put_snapshot(&Snapshot { attrs, xattrs: None, dir }).unwrap();
    writer.finish().unwrap();
    id
}

fn gc(engine: &Engine) {
    let report = engine.gc(false, &mut |_| {}).unwrap();
    assert!(!report.refused && report.problems.is_empty(), "{:?}", report.problems);
}

/// Two hosts opened of each other what one of them had: each took its own tree for the other's, and each kept it for the other for ever.
#[test]
fn what_is_a_hosts_own_hangs_on_nobody_whoever_says_so() {
    let (_, _, engine) = engine(&SimRemote::default());
    let session = engine.create(None, None, (0, 0)).unwrap();
    let empty = session.meta.origin;
    let base = engine.seal(&session, false, &mut |_| {}).unwrap().snapshot;
    assert_ne!(empty, base);
    let listed = foreign(&engine, 1);
    engine.store().keep(listed, None, Time::default()).unwrap();
    let lent = foreign(&engine, 2);
    engine.lent().lend(&[lent], engine.clock().now().secs).unwrap();
    let own = [empty, base, listed, lent];
    let _stay = engine.visit(&own, PLACE).unwrap();
    assert_eq!(own.map(|id| engine.store().hangs(id)), [false; 4]);
    // What nothing here stands on does.
    let _other = engine.visit(&[unknown(1)], PLACE).unwrap();
    assert!(engine.store().hangs(unknown(1)));
    // And goes on to hang once something stands on it.
    let theirs = foreign(&engine, 3);
    drop(engine.visit(&[theirs], PLACE).unwrap());
    engine.adopt(theirs).unwrap();
    drop(engine.visit(&[theirs], "aether://elsewhere:1/ses_0000000000000000").unwrap());
    let there = engine.store().origins().into_iter().find(|origin| origin.snapshot == theirs);
    assert_eq!(there, Some(Origin { place: PLACE.into(), snapshot: theirs }));
}

/// A gc between the visit and the first session forgot that it hangs: then a listed snapshot was neither whole nor with anybody.
#[test]
fn what_was_opened_hangs_through_any_gc_until_a_session_stands_on_it() {
    let (disk, opening, engine) = engine(&SimRemote::default());
    let (id, absent) = (foreign(&engine, 1), unknown(1));
    let stay = engine.visit(&[id, absent], PLACE).unwrap();
    gc(&engine);
    assert!(engine.store().hangs(id) && engine.store().hangs(absent));
    engine.adopt(id).unwrap();
    drop(stay);
    gc(&engine);
    assert!(engine.store().hangs(id) && !engine.store().hangs(absent));
    drop(engine);
    let engine = opening.rebooted().open_sim(&disk.crash(&mut || 1)).unwrap();
    gc(&engine);
    assert!(engine.store().hangs(id));
}

/// Each seal of what hangs added one, and at 65,536 all seals failed.
#[test]
fn what_hangs_and_is_nobodys_is_forgotten_without_a_gc() {
    let (_, _, engine) = engine(&SimRemote::default());
    let listed = foreign(&engine, 1);
    drop(engine.visit(&[listed], PLACE).unwrap());
    engine.adopt(listed).unwrap();
    let ids: Vec<_> = (0..1024).map(unknown).collect();
    let stay = engine.visit(&ids[..1], PLACE).unwrap();
    engine.store().hang(&ids, &Origin { place: PLACE.into(), snapshot: listed }).unwrap();
    // Somebody is in the middle of something that nothing refers to yet.
    let hold = engine.store().hold();
    engine.tidy();
    assert_eq!(engine.store().hanging_count(), 1025);
    drop(hold);
    engine.tidy();
    assert_eq!(engine.store().hanging_count(), 2);
    assert!(engine.store().hangs(listed) && engine.store().hangs(ids[0]));
    drop(stay);
}

#[test]
fn what_another_host_has_is_opened_while_the_store_is_down() {
    let remote = SimRemote::default();
    let (_, _, engine) = engine(&remote);
    let id = foreign(&engine, 1);
    let _stay = engine.visit(&[id], PLACE).unwrap();
    remote.fail_after(0);
    engine.adopt(id).unwrap();
    assert!(engine.store().keeps(id).unwrap());
    // Of what hangs on nobody the store alone can tell.
    engine.adopt(unknown(1)).unwrap_err();
}
