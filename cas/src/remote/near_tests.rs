//! Hosts that are asked before the remote store, or instead of one: what comes from them is what was asked for, and one that lies, hangs or goes delays and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    hanging::Origin,
    lease::Naming,
    peer::{Name, Named, Part, Patience, Peer, Take},
    sim::SimRemote,
    tests::fresh,
    *,
};
use crate::{
    Digest, Error, ObjectKind, SnapshotId, Store,
    pack::pack_path,
    record::{PackKind, RECORD_HEADER},
    sim::SimDisk,
    store::{
        FsckOptions, Roots,
        gc_tests::{assert_tree, tree},
        tests::{bytes, open},
    },
};

const CACHE_BYTES: u64 = 64 << 20;

/// What a host does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    Gone,
    WrongBytes,
    Truncated,
    Endless,
    Babbles,
    TooLong,
    Unasked,
    OutOfOrder,
    NamesTooMany,
    NamesNonsense,
    SaysLess,
    Hangs,
}

/// A host that has what a store has.
#[derive(Debug)]
struct Host {
    store: Store,
    lie: Mutex<Lie>,
    calls: AtomicU64,
    objects: AtomicU64,
}

impl Host {
    fn new(store: Store) -> Arc<Host> {
        let lie = Mutex::new(Lie::None);
        Arc::new(Host { store, lie, calls: AtomicU64::new(0), objects: AtomicU64::new(0) })
    }

    fn lie(&self, lie: Lie) {
        *self.lie.lock() = lie;
    }

    fn take_calls(&self) -> (u64, u64) {
        (self.calls.swap(0, SeqCst), self.objects.swap(0, SeqCst))
    }
}

impl Peer for Host {
    fn address(&self) -> &str {
        "https://near:1"
    }

    fn read(
        &self,
        wanted: &[Name],
        following_max: usize,
        patience: Patience,
        take: &mut Take<'_>,
    ) -> Result<(), Failure> {
        self.calls.fetch_add(1, SeqCst);
        self.objects.fetch_add(wanted.len() as u64, SeqCst);
        let gone =
            |reason: &str| Failure::Unreachable { object: self.address().into(), reason: reason.into() };
        let lie = *self.lie.lock();
        match lie {
            Lie::Gone => return Err(gone("refused")),
            Lie::Hangs => {
                thread::sleep(patience.quiet);
                return Err(gone("no answer"));
            }
            _ => {}
        }
        for (nth, (kind, digest)) in wanted.iter().enumerate() {
            let Some(mut bytes) = self.store.here(*kind, *digest).unwrap() else {
                take(Part::Absent { nth })?;
                continue;
            };
            let mut len = bytes.len() as u32;
            match lie {
                Lie::WrongBytes => bytes[0] ^= 1,
                Lie::Truncated => {
                    bytes.truncate(1);
                    return take(Part::Bytes { nth, len, bytes });
                }
                Lie::Endless => loop {
                    take(Part::Bytes { nth, len: 1 << 20, bytes: bytes.clone() })?;
                },
                Lie::TooLong => len = u32::MAX,
                Lie::Unasked => take(Part::Bytes { nth: wanted.len(), len, bytes: bytes.clone() })?,
                Lie::OutOfOrder => take(Part::Absent { nth: nth + 1 })?,
                _ => {}
            }
            for bytes in bytes.chunks(1000) {
                take(Part::Bytes { nth, len, bytes: bytes.to_vec() })?;
            }
            if lie == Lie::Babbles {
                loop {
                    take(Part::Bytes { nth, len, bytes: bytes.clone() })?;
                }
            }
        }
        let mut named = match wanted.last() {
            Some((_, digest)) => self.store.following(*digest, following_max).unwrap(),
            None => Vec::new(),
        };
        match lie {
            Lie::NamesTooMany => named = vec![named[0]; following_max + 1],
            Lie::NamesNonsense => {
                let nonsense = |nth: u32| Named {
                    name: (ObjectKind::Dir, Digest::of(&nth.to_le_bytes())),
                    len: u32::MAX - nth,
                };
                named = (0..following_max as u32).map(nonsense).collect();
            }
            Lie::SaysLess => named.iter_mut().for_each(|named| named.len = 1),
            _ => {}
        }
        if following_max > 0 { take(Part::Following(named)) } else { Ok(()) }
    }
}

fn naming() -> Naming {
    Naming { host: fresh(), fresh: Box::new(fresh) }
}

/// A host that asks others, and a remote store if there is one.
fn asking(disk: &SimDisk, peers: &[&Arc<Host>], remote: Option<&SimRemote>) -> Store {
    let store = open(disk);
    let peers = peers.iter().map(|host| Arc::clone(*host) as Arc<dyn Peer>).collect();
    let remote = remote.map(|remote| Arc::new(remote.clone()) as Arc<dyn Remote>);
    store.attach_all(remote, peers, naming(), CACHE_BYTES).unwrap();
    store
}

/// Makes a snapshot of another host one of this one's, as an engine does.
fn visit(store: &Store, id: SnapshotId) {
    store.hang(&[id], &Origin { place: "there".into(), snapshot: id }).unwrap();
    let snapshot = store.fetching().snapshot(id).unwrap();
    let mut writer = store.writer().unwrap();
    writer.put_snapshot(&snapshot).unwrap();
    writer.finish().unwrap();
    store.fetching().keep(id, None, crate::Time::default()).unwrap();
}

/// A host with a tree of these files.
fn near(seeds: std::ops::Range<u64>) -> (Arc<Host>, SnapshotId) {
    // With packs as they are, and not small ones: what stands behind an object is in the same one.
    let store = Store::open(Arc::new(SimDisk::new(1))).unwrap();
    let id = tree(&store, seeds).unwrap();
    (Host::new(store), id)
}

fn gc(store: &Store) -> crate::store::GcReport {
    store.gc(|| Ok(Roots::default()), false, &mut |_| {}).unwrap()
}

#[test]
fn what_a_host_has_another_reads_in_few_requests() {
    let (host, id) = near(0..3000);
    let disk = SimDisk::new(2);
    let there = asking(&disk, &[&host], None);
    visit(&there, id);
    assert_tree(&there.fetching(), id, 0..3000);
    let (calls, objects) = host.take_calls();
    // Hardly any is asked for twice: by who came between its arrival and the end of its batch.
    assert!(calls < 150 && objects < 3100, "{calls} requests for {objects} objects");
    assert_tree(&there, id, 0..3000);
    soon(|| there.peer_counts()[0].hits >= 3003);
    let counts = there.peer_counts().remove(0);
    assert_eq!((counts.failures, counts.down), (0, None));
    there.settle_cache(Duration::from_secs(60));
    drop(there);
    host.lie(Lie::Gone);
    let there = asking(&disk, &[&host], None);
    assert_tree(&there, id, 0..3000);
    assert!(there.hangs(id));
}

#[test]
fn a_host_that_lies_delays_and_nothing_else() {
    for lie in [
        Lie::Gone,
        Lie::WrongBytes,
        Lie::Truncated,
        Lie::Endless,
        Lie::Babbles,
        Lie::TooLong,
        Lie::Unasked,
        Lie::OutOfOrder,
        Lie::NamesTooMany,
        Lie::SaysLess,
    ] {
        let (host, id) = near(0..40);
        let there = asking(&SimDisk::new(2), &[&host], None);
        visit(&there, id);
        let root = there.snapshot(id).unwrap().dir;
        crate::dir::Dir::open(&there.fetching(), root).unwrap();
        let object = Digest::of(&bytes(7, 549));
        host.lie(lie);
        let answer = there.fetching().bytes_of(ObjectKind::Chunk, object);
        // What came whole before it went wrong is what was asked for.
        assert_eq!(
            answer.is_ok(),
            matches!(lie, Lie::Babbles | Lie::NamesTooMany | Lie::SaysLess),
            "{lie:?}: {answer:?}"
        );
        soon(|| there.peer_counts()[0].down.is_some());
        if let Err(error) = answer {
            let error = error.to_string();
            assert!(error.contains("https://near:1") && error.contains(&object.to_string()), "{error}");
            assert!(!there.is_here(ObjectKind::Chunk, object).unwrap(), "{lie:?}");
        }
        host.lie(Lie::None);
        soon(|| there.fetching().bytes_of(ObjectKind::Chunk, object).is_ok());
        soon(|| there.fetching().bytes_of(ObjectKind::Chunk, Digest::of(&bytes(39, 500 + 39 * 7))).is_ok());
        assert_tree(&there.fetching(), id, 0..40);
        assert_eq!(there.peer_counts()[0].down, None);
    }
}

/// What a session over a snapshot of another host has sealed is here alone, though that host has all that is not here; and the kernel knows its directories.
#[test]
fn gc_keeps_what_was_sealed_over_what_hangs() {
    let (host, id) = near(0..5);
    let there = asking(&SimDisk::new(2), &[&host], None);
    visit(&there, id);
    let sealed = tree(&there, 0..40).unwrap();
    there.hang_like(id, sealed).unwrap();
    there.forget(sealed).unwrap();
    host.lie(Lie::Gone);
    let root = there.snapshot(sealed).unwrap().dir;
    for (of_all, of_hanging) in [(vec![root], vec![]), (vec![], vec![root])] {
        let roots = || {
            let hanging =
                Roots { snapshots: vec![sealed], dir_objects: of_hanging.clone(), ..Roots::default() };
            let hanging = Some(Box::new(hanging));
            Ok(Roots { dir_objects: of_all.clone(), hanging, ..Roots::default() })
        };
        let report = there.gc(roots, false, &mut |_| {}).unwrap();
        assert!(report.problems.is_empty() && !report.refused, "{report:?}");
        assert_tree(&there, sealed, 0..40);
    }
}

#[test]
fn while_the_store_is_down_hosts_are_asked() {
    let (host, id) = near(0..40);
    let remote = SimRemote::default();
    let there = asking(&SimDisk::new(2), &[&host], Some(&remote));
    visit(&there, id);
    let far = super::tests::host(&SimDisk::new(3), &remote);
    let published = tree(&far, 100..120).unwrap();
    super::tests::publish(&far, published).unwrap();
    there.discover(published).unwrap();
    remote.fail_after(0);
    let object = Digest::of(&bytes(107, 500 + 107 * 7));
    let Error::Fetch(error) = there.fetching().bytes_of(ObjectKind::Chunk, object).unwrap_err() else {
        panic!("it did not come from anywhere")
    };
    assert!(is_unreachable(&error), "{error}");
    assert_tree(&there.fetching(), id, 0..40);
}

/// Waits until it is so.
fn soon(mut is_so: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("still not so");
}

#[test]
fn a_host_that_failed_is_left_alone_for_a_while() {
    let (host, id) = near(0..40);
    let there = asking(&SimDisk::new(2), &[&host], None);
    visit(&there, id);
    soon(|| host.take_calls().0 == 0);
    host.lie(Lie::WrongBytes);
    let begun = now();
    let objects = (0..40).map(|seed| Digest::of(&bytes(seed, 500 + seed as usize * 7)));
    objects.for_each(|object| drop(there.fetching().bytes_of(ObjectKind::Chunk, object).unwrap_err()));
    let (calls, passed) = (host.take_calls().0, begun.elapsed().as_secs());
    // Once, and once more after each pause.
    assert!(calls >= 1 && calls <= 2 + passed, "{calls} requests in {passed} s");
}

#[test]
fn names_that_mean_nothing_cost_a_request_and_nothing_else() {
    let (host, id) = near(0..40);
    host.lie(Lie::NamesNonsense);
    let there = asking(&SimDisk::new(2), &[&host], None);
    visit(&there, id);
    assert_tree(&there.fetching(), id, 0..40);
}

#[test]
fn beside_a_remote_store_nobody_waits_long_for_a_host() {
    let remote = SimRemote::default();
    let here = asking(&SimDisk::new(1), &[], Some(&remote));
    let id = tree(&here, 0..60).unwrap();
    here.publish(id, &[], &fresh, &|_| {}, &|| false).unwrap();
    for lie in [Lie::None, Lie::Gone, Lie::WrongBytes, Lie::Endless, Lie::Hangs] {
        let host = Host::new(here.clone());
        host.lie(lie);
        let there = asking(&SimDisk::new(2), &[&host], Some(&remote));
        there.discover(id).unwrap();
        remote.take_reads();
        let begun = now();
        assert_tree(&there.fetching(), id, 0..60);
        let (reads, took) = (remote.take_reads().0, begun.elapsed());
        assert_eq!(reads == 0, lie == Lie::None, "{lie:?}: {reads} reads of the store");
        // One wait, however many objects.
        assert!(took < Duration::from_secs(4), "{lie:?}: {took:?}");
    }
    // Of two the second is asked when the first has nothing.
    let (empty, full) = (Host::new(open(&SimDisk::new(5))), Host::new(here));
    let there = asking(&SimDisk::new(6), &[&empty, &full], Some(&remote));
    there.discover(id).unwrap();
    remote.take_reads();
    assert_tree(&there.fetching(), id, 0..60);
    assert_eq!(remote.take_reads().0, 0);
    assert!(there.peer_counts()[0].misses > 0 && there.peer_counts()[1].hits > 60);
}

#[expect(clippy::disallowed_methods, reason = "a test of how long something takes")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn what_is_with_another_host_is_no_damage_and_what_is_nowhere_is() {
    let (host, id) = near(0..50);
    let disk = SimDisk::new(2);
    let there = asking(&disk, &[&host], None);
    visit(&there, id);
    // Something of its own, which nothing hangs on.
    let own = tree(&there, 100..110).unwrap();
    let check = |store: &Store| store.fsck(FsckOptions::default(), &[], &mut |_| {}).unwrap();
    assert!(check(&there).is_clean());
    let report = gc(&there);
    assert!(!report.refused && report.problems.is_empty());
    assert_tree(&there, own, 100..110);
    assert!(there.hangs(id) && !there.hangs(own));
    // What was lost of its own is told, whatever hangs elsewhere.
    let lost = Digest::of(&bytes(105, 500 + 105 * 7));
    there.disown(lost).unwrap();
    assert_eq!(check(&there).damaged_objects, 1);
    // And what rots of a tree that hangs elsewhere: nobody asks there for what is here.
    assert_tree(&there.fetching(), id, 0..50);
    let mut writer = there.writer().unwrap();
    let content = bytes(5, 500 + 5 * 7);
    let here = Digest::of(&content);
    writer.put_object(ObjectKind::Chunk, here, &content).unwrap();
    writer.finish().unwrap();
    let at = there.index().locate(here).unwrap().unwrap();
    disk.flip(&pack_path(at.pack, PackKind::of(at.kind)), at.offset + RECORD_HEADER as u64, 1);
    let report = check(&there);
    assert_eq!(
        (report.damaged_objects, report.damaged_uses, report.elsewhere_objects),
        (2, 2, 0),
        "{report:?}"
    );
    there.disown(here).unwrap();
    // What nobody needs any more hangs on nobody.
    there.forget(id).unwrap();
    there.forget(own).unwrap();
    gc(&there);
    assert!(!there.hangs(id) && there.origins().is_empty());
}

#[test]
fn a_tree_that_was_made_whole_needs_nobody() {
    let (host, id) = near(0..400);
    let disk = SimDisk::new(2);
    let there = asking(&disk, &[&host], None);
    visit(&there, id);
    host.lie(Lie::Gone);
    let broken = there.make_whole(id, &mut |_| {}, &|| false).unwrap_err();
    assert!(broken.to_string().contains("https://near:1"), "{broken}");
    assert!(there.hangs(id));
    host.lie(Lie::None);
    assert!(matches!(there.make_whole(id, &mut |_| {}, &|| true), Err(Error::Cancelled)));
    let mut whole = there.make_whole(id, &mut |_| {}, &|| false);
    soon(|| {
        if whole.is_err() {
            whole = there.make_whole(id, &mut |_| {}, &|| false);
        }
        whole.is_ok()
    });
    let whole = whole.unwrap();
    assert!(whole.files == 400 && whole.came + whole.here == 400 + 3 && !there.hangs(id), "{whole:?}");
    host.lie(Lie::Gone);
    gc(&there);
    drop(there);
    // Without a cache, and without anybody.
    let there = open(&disk);
    assert_tree(&there, id, 0..400);
    assert!(there.fsck(FsckOptions::default(), &[], &mut |_| {}).unwrap().is_clean());
}

/// Each directory names the one below it twice: it was walked two to the power of their number times.
#[test]
fn a_tree_that_names_a_directory_many_times_is_walked_once() {
    let store = Store::open(Arc::new(SimDisk::new(1))).unwrap();
    let mut writer = store.writer().unwrap();
    let zero = crate::Time::default();
    let attrs =
        crate::Attrs { mode: 0o755, uid: 0, gid: 0, nlink: 2, rdev: 0, size: 0, mtime: zero, ctime: zero };
    let (mut dir, mut totals) = writer.put_dir(Vec::new()).unwrap();
    for _ in 0..40 {
        let named = |name: &str, ino| crate::dir::DirEntry {
            name: name.into(),
            ino,
            attrs,
            node: crate::dir::OwnedNode::Dir(dir),
            xattrs: None,
            totals,
        };
        (dir, totals) = writer.put_dir(vec![named("a", 2), named("b", 3)]).unwrap();
    }
    let id = writer.put_snapshot(&crate::Snapshot { attrs, xattrs: None, dir }).unwrap();
    writer.finish().unwrap();
    let host = Host::new(store);
    let there = asking(&SimDisk::new(2), &[&host], None);
    visit(&there, id);
    let whole = there.make_whole(id, &mut |_| {}, &|| false).unwrap();
    assert!(whole.came + whole.here == 42 && !there.hangs(id), "{whole:?}");
}

#[test]
fn hosts_give_what_is_in_their_caches_and_ask_nobody() {
    let (far, id) = near(0..30);
    let middle = asking(&SimDisk::new(2), &[&far], None);
    visit(&middle, id);
    assert_tree(&middle.fetching(), id, 0..30);
    let middle = Host::new(middle);
    far.take_calls();
    far.lie(Lie::Gone);
    let there = asking(&SimDisk::new(3), &[&middle], None);
    visit(&there, id);
    assert_tree(&there.fetching(), id, 0..30);
    assert_eq!(far.take_calls().0, 0);
    // What the one in the middle lacks it does not fetch.
    let absent = Digest::of(b"nowhere");
    assert_eq!(middle.store.here(ObjectKind::Chunk, absent).unwrap(), None);
    let error = there.fetching().bytes_of(ObjectKind::Chunk, absent).unwrap_err();
    assert!(matches!(&error, Error::Fetch(inner) if matches!(&**inner, Error::Remote(Failure::NotFound(_)))));
    assert_eq!(far.take_calls().0, 0);
}
