//! Two hosts and the store that they share: what one publishes the other reads, and fetches no more of it than it needs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use proptest::{
    prelude::{Strategy, any},
    sample::Index,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{lease::Naming, name::RemoteName, publish::Published, sim::SimRemote, *};
use crate::{
    Error, ObjectKind, Result, Store,
    disk::{Disk, Patience},
    sim::SimDisk,
    store::{
        gc_tests::{assert_tree, tree},
        tests::{bytes, open},
    },
};

const CACHE_BYTES: u64 = 64 << 20;

#[test]
fn the_simulated_store_keeps_the_contract() {
    super::contract::check(&SimRemote::default());
}

/// Changes to the bytes of something that ends with a checksum.
pub(super) fn flips() -> impl Strategy<Value = Vec<(Index, u8)>> {
    proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4)
}

/// Makes them, and puts the checksum right.
pub(super) fn flipped(mut bytes: Vec<u8>, flips: Vec<(Index, u8)>) -> Vec<u8> {
    for (at, flip) in flips {
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
    }
    let (body, sum) = bytes.split_last_chunk_mut::<8>().unwrap();
    *sum = xxh3_64(body).to_le_bytes();
    bytes
}

pub(super) fn host(disk: &SimDisk, remote: &SimRemote) -> Store {
    let store = open(disk);
    store.attach(Arc::new(remote.clone()), naming(), CACHE_BYTES).unwrap();
    store
}

/// Of a host that nobody has heard of.
fn naming() -> Naming {
    Naming { host: fresh(), fresh: Box::new(fresh) }
}

/// A name that nobody has.
pub(super) fn fresh() -> RemoteName {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    RemoteName((u128::from(NEXT.fetch_add(1, SeqCst)) << 64).to_le_bytes())
}

pub(super) fn publish(store: &Store, id: crate::SnapshotId) -> Result<Published> {
    let name = fresh;
    let near = store.list()?.into_iter().map(|listed| listed.id).collect::<Vec<_>>();
    store.publish(id, &near, &name, &|_| {}, &|| false)
}

/// A tree that one host has published, and another one that has heard of it.
struct Hosts {
    remote: SimRemote,
    here: Store,
    there: Store,
    id: crate::SnapshotId,
}

fn hosts(seeds: std::ops::Range<u64>) -> Hosts {
    let remote = SimRemote::default();
    let here = host(&SimDisk::new(1), &remote);
    let id = tree(&here, seeds).unwrap();
    publish(&here, id).unwrap();
    let there = host(&SimDisk::new(2), &remote);
    there.discover(id).unwrap();
    Hosts { remote, here, there, id }
}

/// Makes a snapshot one of a host's own, as an engine does.
fn adopt(store: &Store, id: crate::SnapshotId) -> crate::Snapshot {
    let snapshot = store.fetching().snapshot(id).unwrap();
    let mut writer = store.writer().unwrap();
    writer.put_snapshot(&snapshot).unwrap();
    writer.finish().unwrap();
    store.fetching().keep(id, None, crate::Time::default()).unwrap();
    snapshot
}

#[test]
fn what_one_host_publishes_another_reads() {
    let remote = SimRemote::default();
    let here = host(&SimDisk::new(1), &remote);
    let id = tree(&here, 0..300).unwrap();
    let published = publish(&here, id).unwrap();
    assert_eq!((published.packs, published.objects), (2, 300 + 3));
    assert_eq!(published.manifest.files, 301);
    let disk = SimDisk::new(2);
    let there = host(&disk, &remote);
    assert!(matches!(there.snapshot(id), Err(Error::Absent { kind: ObjectKind::Snapshot, .. })));
    remote.take_reads();
    there.discover(id).unwrap();
    let root = there.fetching().snapshot(id).unwrap().dir;
    crate::dir::Dir::open(&there.fetching(), root).unwrap();
    assert_eq!(
        remote.take_reads().0,
        6,
        "which store it is, the manifest, whether that and its layer stay, the layer, a frame"
    );
    assert_tree(&there.fetching(), id, 0..300);
    let (reads, read_bytes) = remote.take_reads();
    assert!(reads < 20 && read_bytes < published.pack_bytes * 11 / 10, "{reads} reads, {read_bytes} bytes");
    assert_tree(&there, id, 0..300);
    assert_eq!(remote.take_reads(), (0, 0), "all of it is here");
    there.settle_cache(Duration::from_secs(60));
    drop(there);
    let there = host(&disk, &remote);
    assert_tree(&there, id, 0..300);
    assert_eq!(remote.take_reads(), (0, 0), "and stays here");
}

#[test]
fn a_second_snapshot_costs_what_is_new() {
    let remote = SimRemote::default();
    let here = host(&SimDisk::new(1), &remote);
    let first = tree(&here, 0..300).unwrap();
    let whole = publish(&here, first).unwrap();
    let second = tree(&here, 10..310).unwrap();
    let rest = publish(&here, second).unwrap();
    assert_eq!((rest.objects, rest.packs), (10 + 3, 2));
    assert!(rest.pack_bytes * 10 < whole.pack_bytes, "{rest:?}");
    let again = publish(&here, second).unwrap();
    assert_eq!((again.objects, again.packs), (0, 0));
    // Another host that publishes what it has of the first.
    let there = host(&SimDisk::new(2), &remote);
    there.discover(first).unwrap();
    tree(&there, 5..305).unwrap();
    let theirs = publish(&there, tree(&there, 5..305).unwrap()).unwrap();
    assert_eq!(theirs.objects, 5 + 3);
    let third = host(&SimDisk::new(3), &remote);
    for (id, seeds) in [(first, 0..300), (second, 10..310), (theirs.manifest.snapshot, 5..305)] {
        third.discover(id).unwrap();
        assert_tree(&third.fetching(), id, seeds);
    }
}

#[test]
fn a_publish_that_was_broken_off_goes_on() {
    let disk = SimDisk::new(1);
    let remote = SimRemote::default();
    let here = host(&disk, &remote);
    // Some packs of files.
    let id = tree(&here, 0..4000).unwrap();
    // What the store is called: asked for, made, asked for again; whether the snapshot is there; and a pack.
    remote.fail_after(5);
    assert!(matches!(publish(&here, id), Err(Error::Remote(_))));
    assert_eq!(remote.take_writes(), 2);
    assert!(remote.list("snapshots/").is_err());
    drop(here);
    remote.heal();
    assert!(remote.list("snapshots/").unwrap().is_empty(), "nobody hears of a part");
    let here = host(&disk, &remote);
    let published = publish(&here, id).unwrap();
    let there = host(&SimDisk::new(2), &remote);
    there.discover(id).unwrap();
    assert_tree(&there.fetching(), id, 0..4000);
    assert!(published.objects < 4000, "{published:?}");
}

#[test]
fn a_store_that_fails_or_lies_keeps_single_objects_away() {
    let Hosts { remote, there, id, .. } = hosts(0..600);
    let there = there.fetching();
    there.snapshot(id).unwrap();
    let data = remote.list("packs/").unwrap();
    // The first frame of files is wrong, wherever it is.
    data.iter().for_each(|pack| remote.flip(pack, 1000));
    let read = |seed: u64| {
        let len = 500 + seed as usize * 7;
        let digest = crate::Digest::of(&bytes(seed, len));
        let mut buf = vec![0; len];
        there.read_chunk(digest, 0, &mut buf).map(|()| buf)
    };
    assert!(matches!(read(0), Err(Error::Fetch(_))), "{:?}", read(0));
    assert_eq!(read(599).unwrap(), bytes(599, 500 + 599 * 7));
    data.iter().for_each(|pack| remote.flip(pack, 1000));
    assert_eq!(read(0).unwrap(), bytes(0, 500), "it is asked for again");
    remote.fail_after(0);
    remote.take_calls();
    assert!(matches!(read(300), Err(Error::Fetch(_))));
    (300..400).for_each(|seed| assert!(matches!(read(seed), Err(Error::Fetch(_)))));
    assert!(remote.take_calls() < 10, "for a while nobody else tries");
    remote.heal();
    let again = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        read(300).ok()
    });
    assert_eq!(again.unwrap(), bytes(300, 500 + 300 * 7));
}

#[test]
fn who_does_not_wait_is_told_when_to_come_again() {
    let Hosts { there, .. } = hosts(0..20);
    let content = bytes(7, 549);
    let digest = crate::Digest::of(&content);
    let mut buf = vec![0; 49];
    let absent = there.read_chunk_with(Patience::Now, digest, 500, &mut buf).unwrap_err();
    let Error::Absent { kind, digest } = absent else { panic!("{absent}") };
    let (tell, told) = std::sync::mpsc::channel();
    let ticket = there.fetch(kind, digest).unwrap();
    ticket.then(move |has_come| tell.send(has_come).unwrap());
    told.recv().unwrap().unwrap();
    ticket.wait().unwrap();
    there.read_chunk_with(Patience::Now, digest, 500, &mut buf).unwrap();
    assert_eq!(buf, content[500..]);
    let nowhere = there.fetch(ObjectKind::Chunk, crate::Digest([1; 32])).unwrap();
    assert!(matches!(&*nowhere.wait().unwrap_err(), Error::Missing(_)));
}

#[test]
fn many_who_want_the_same_cost_one_read() {
    let Hosts { remote, there, id, .. } = hosts(0..50);
    remote.take_reads();
    std::thread::scope(|scope| {
        (0..8).for_each(|_| drop(scope.spawn(|| assert_tree(&there.fetching(), id, 0..50))));
    });
    // A layer, a frame of directories, one of files; and once more what came between a look and the next.
    assert!(remote.take_reads().0 < 8);
}

/// A reader that runs ahead of a scan, and the scan, which reads what the other left out: requests are large, and nothing comes twice.
#[test]
fn a_scan_behind_another_one_has_nothing_fetched_again() {
    const FILES: u64 = 3000;
    let Hosts { remote, there, .. } = hosts(0..FILES);
    let mut seeds: Vec<_> = (0..FILES).collect();
    // As they stand in the directory, and in the packs.
    seeds.sort_by_key(|seed| seed.to_string());
    let read = |seed: u64| read_files(&there, [seed]);
    read(seeds[0]);
    remote.take_reads();
    let lead = seeds.len() / 2;
    for at in 1..seeds.len() + lead {
        let is_left = |seed: &u64| seed.is_multiple_of(5);
        seeds.get(at).filter(|seed| !is_left(seed)).into_iter().for_each(|seed| read(*seed));
        at.checked_sub(lead).map(|at| seeds[at]).filter(is_left).into_iter().for_each(read);
    }
    let (reads, read_bytes) = remote.take_reads();
    let all_bytes: u64 = (0..FILES).map(|seed| 500 + seed * 7).sum();
    assert!(read_bytes < all_bytes * 101 / 100, "{read_bytes} of {all_bytes} bytes");
    // Of 256 KiB in the beginning, of 1 MiB then.
    assert!(reads < 80, "{reads}");
}

#[test]
fn what_is_named_together_comes_together_and_alone() {
    let Hosts { remote, there, .. } = hosts(0..1000);
    let chunk = |seed: u64| crate::Content::Chunk(crate::Digest::of(&bytes(seed, 500 + seed as usize * 7)));
    let bring = |seeds: &mut dyn Iterator<Item = u64>| {
        let mut bring = super::bring::Bring::new(&there);
        seeds.for_each(|seed| bring.range(&chunk(seed), 0..1).unwrap());
        bring.finish().unwrap()
    };
    // Here it is found out where they are.
    assert_eq!(bring(&mut [7].into_iter()).fetched, 1);
    remote.take_reads();
    let fetched = bring(&mut (0..1000).rev()).fetched;
    let (reads, read_bytes) = remote.take_reads();
    // 4 MB that do not compress, in whatever order.
    assert!(
        fetched > 900 && reads < 10 && read_bytes < 5 << 20,
        "{fetched} by {reads} of {read_bytes} bytes"
    );
    assert_eq!((bring(&mut (0..1000)).here, remote.take_reads().0), (1000, 0));
    // Nobody has this one, and the others hear nothing of it.
    let mut bring = super::bring::Bring::new(&there);
    bring.range(&crate::Content::Chunk(crate::Digest([1; 32])), 0..1).unwrap();
    assert!(bring.finish().is_err());
}

#[test]
fn the_cache_keeps_its_bound_and_what_it_lets_go_comes_again() {
    let remote = SimRemote::default();
    let here = host(&SimDisk::new(1), &remote);
    let id = tree(&here, 0..600).unwrap();
    publish(&here, id).unwrap();
    let (disk, bound) = (SimDisk::new(2), 300 << 10);
    let there = open(&disk);
    there.attach(Arc::new(remote.clone()), naming(), bound).unwrap();
    there.discover(id).unwrap();
    for _ in 0..2 {
        assert_tree(&there.fetching(), id, 0..600);
        there.settle_cache(Duration::from_secs(60));
    }
    // Files of frames have holes.
    let size = |name: &String| {
        let file = crate::disk::read_whole(&disk, name, u64::MAX).unwrap().unwrap();
        file.chunks(512).filter(|sector| sector.iter().any(|byte| *byte != 0)).count() as u64 * 512
    };
    let kept: u64 = cache_files(&disk).iter().map(size).sum();
    assert!(kept > bound / 4 && kept < bound * 5 / 4, "{kept} bytes");
    assert!(there.remote_counts().unwrap().unwrap().cached_bytes <= bound);
}

/// The files of a cache that have what was fetched.
pub(super) fn cache_files(disk: &SimDisk) -> Vec<String> {
    let in_dir = |dir: &str| {
        let names = disk.list(dir).unwrap_or_default();
        names.into_iter().map(|name| format!("{dir}/{name}")).collect::<Vec<_>>()
    };
    [in_dir("cache/store/packs"), in_dir("cache/frames")].concat()
}

/// Reads files by their seeds alone, of [`tree`].
fn read_files(there: &Store, seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        let content = bytes(seed, 500 + seed as usize * 7);
        let mut read = vec![0; content.len()];
        there.fetching().read_chunk(crate::Digest::of(&content), 0, &mut read).unwrap();
        assert_eq!(read, content);
    }
}

/// A host of which the session stands on what another one has published, before anything was read.
fn adopted(seeds: std::ops::Range<u64>) -> (SimRemote, SimDisk, crate::SnapshotId) {
    let Hosts { remote, id, .. } = hosts(seeds);
    let disk = SimDisk::new(9);
    let there = host(&disk, &remote);
    there.discover(id).unwrap();
    adopt(&there, id);
    drop(there);
    (remote, disk, id)
}

/// The same, with all of it in the cache.
pub(super) fn fetched(seeds: std::ops::Range<u64>) -> (SimRemote, SimDisk, crate::SnapshotId) {
    let (remote, disk, id) = adopted(seeds.clone());
    let there = host(&disk, &remote);
    assert_tree(&there.fetching(), id, seeds);
    there.settle_cache(Duration::from_secs(60));
    drop(there);
    (remote, disk, id)
}

#[test]
fn chunks_stay_as_they_came_and_are_read_from_there() {
    let (remote, disk, _) = fetched(0..300);
    remote.take_reads();
    let there = host(&disk, &remote);
    // Who does not wait for the disk comes again.
    let content = bytes(7, 549);
    let mut part = [0; 40];
    let read = |part: &mut [u8], patience| {
        there.fetching().read_chunk_with(patience, crate::Digest::of(&content), 500, part)
    };
    assert!(matches!(read(&mut part, Patience::Now), Err(Error::NotNow)));
    read(&mut part, Patience::Waits).unwrap();
    assert_eq!(part, content[500..540]);
    read(&mut part, Patience::Now).unwrap();
    assert!(read(&mut [0; 50], Patience::Waits).is_err(), "it is not so long");
    read_files(&there, 0..300);
    assert_eq!(remote.take_reads(), (0, 0), "all of it was here");
    let packs = disk.list("cache/store/packs").unwrap();
    assert!(packs.iter().all(|pack| !pack.ends_with(".data")), "no chunk is by itself");
}

#[test]
fn many_who_want_what_the_cache_has_unpack_it_once() {
    const READERS: usize = 16;
    let (remote, disk, _) = fetched(0..20);
    let there = host(&disk, &remote);
    there.know_elsewhere();
    let (before, barrier) = (disk.reads(), std::sync::Barrier::new(READERS));
    std::thread::scope(|scope| {
        for nth in 0..READERS {
            let (there, barrier) = (&there, &barrier);
            scope.spawn(move || {
                barrier.wait();
                read_files(there, [nth as u64]);
            });
        }
    });
    assert!(disk.reads() - before < READERS as u64 / 2, "{} reads", disk.reads() - before);
}

#[test]
fn power_loss_at_any_call_of_the_cache_loses_nothing() {
    let (remote, disk, _) = adopted(0..60);
    for at in 0.. {
        let disk = disk.copied();
        disk.crash_after(at);
        let read = |disk: &SimDisk| {
            let store = Store::open(Arc::new(disk.clone()))?;
            store.attach(Arc::new(remote.clone()), naming(), CACHE_BYTES)?;
            // The cache may come to nothing; what is read is right.
            (0..60).try_for_each(|seed| {
                let content = bytes(seed, 500 + seed as usize * 7);
                let mut read = vec![0; content.len()];
                store.fetching().read_chunk(crate::Digest::of(&content), 0, &mut read)?;
                assert_eq!(read, content);
                Ok::<_, Error>(())
            })?;
            store.settle_cache(Duration::from_secs(10));
            Ok::<_, Error>(())
        };
        let outcome = read(&disk);
        let is_over = !disk.is_down();
        let after = disk.crash(&mut || disk.random());
        assert!(!is_over || outcome.is_ok(), "{outcome:?}");
        read(&after).unwrap();
        if is_over {
            return;
        }
    }
}

#[test]
fn a_publish_that_is_cancelled_anywhere_publishes_nothing_or_all() {
    let (mut cancelled, mut at) = (0, 0);
    loop {
        let (remote, calls) = (SimRemote::default(), AtomicU64::new(0));
        let here = host(&SimDisk::new(1), &remote);
        let id = tree(&here, 0..300).unwrap();
        let next = AtomicU64::new(1);
        let name = || RemoteName(u128::from(next.fetch_add(1, SeqCst)).to_le_bytes());
        let is_cancelled = || calls.fetch_add(1, SeqCst) >= at;
        let published = here.publish(id, &[], &name, &|_| {}, &is_cancelled);
        let there = host(&SimDisk::new(2), &remote);
        match published {
            Err(Error::Cancelled) => {
                assert!(matches!(there.discover(id), Err(Error::UnknownSnapshot(_))), "cancelled at {at}");
                cancelled += 1;
                publish(&here, id).unwrap();
            }
            published => drop(published.unwrap()),
        }
        there.discover(id).unwrap();
        assert_tree(&there.fetching(), id, 0..300);
        if calls.load(SeqCst) < at {
            break;
        }
        at += 1;
    }
    assert!(cancelled > 3, "{cancelled}");
}

#[test]
fn another_store_under_the_same_address_is_noticed() {
    let disk = SimDisk::new(1);
    let remote = SimRemote::default();
    let here = host(&disk, &remote);
    let first = tree(&here, 0..300).unwrap();
    publish(&here, first).unwrap();
    // Emptied, while the host runs.
    for prefix in ["packs/", "layers/", "snapshots/"] {
        remote.list(prefix).unwrap().iter().for_each(|name| remote.remove(name).unwrap());
    }
    remote.remove(name::STORE_ID).unwrap();
    let second = tree(&here, 10..310).unwrap();
    let published = publish(&here, second).unwrap();
    assert_eq!(published.objects, 300 + 3, "nothing of what was there counts");
    let there = host(&SimDisk::new(2), &remote);
    there.discover(second).unwrap();
    assert_tree(&there.fetching(), second, 10..310);
}

#[test]
fn what_is_known_of_the_store_may_go_and_comes_again() {
    let (remote, disk, id) = adopted(0..300);
    let files: &dyn Disk = &disk;
    for name in files.list("store/remote").unwrap() {
        files.remove(&format!("store/remote/{name}")).unwrap();
    }
    let there = host(&disk, &remote);
    assert_tree(&there.fetching(), id, 0..300);
    let report = there.gc(|| Ok(Default::default()), false, &mut |_| {}).unwrap();
    assert!(!report.refused && report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn a_bad_layer_hides_nothing_but_what_it_has() {
    let remote = SimRemote::default();
    let here = host(&SimDisk::new(1), &remote);
    let ids: Vec<_> = (0..4).map(|nth| tree(&here, nth * 1000..nth * 1000 + 100).unwrap()).collect();
    ids.iter().for_each(|id| drop(publish(&here, *id).unwrap()));
    let manifest = here.discover(ids[2]).unwrap();
    remote.flip(&manifest.layers.last().unwrap().name.layer(), 30);
    let there = host(&SimDisk::new(2), &remote);
    ids.iter().for_each(|id| drop(there.discover(*id).unwrap()));
    for nth in [0, 1, 3] {
        assert_tree(&there.fetching(), ids[nth as usize], nth * 1000..nth * 1000 + 100);
    }
    assert!(there.fetching().snapshot(ids[2]).is_err());
    let report = there.gc(|| Ok(Default::default()), false, &mut |_| {}).unwrap();
    assert!(!report.refused, "nothing that is needed is in it");
    // Who has the snapshot publishes it anew.
    let other = host(&SimDisk::new(3), &remote);
    tree(&other, 2000..2100).unwrap();
    publish(&other, ids[2]).unwrap();
    let third = host(&SimDisk::new(4), &remote);
    third.discover(ids[2]).unwrap();
    assert_tree(&third.fetching(), ids[2], 2000..2100);
    // And nobody is kept from publishing.
    let other = tree(&there, 7000..7100).unwrap();
    publish(&there, other).unwrap();
}

#[test]
fn a_damaged_manifest_is_made_up_for_by_who_has_the_snapshot() {
    let remote = SimRemote::default();
    let here = host(&SimDisk::new(1), &remote);
    let id = tree(&here, 0..100).unwrap();
    publish(&here, id).unwrap();
    remote.flip(&remote.list(&name::manifests(id)).unwrap()[0], 20);
    let there = host(&SimDisk::new(2), &remote);
    assert!(matches!(there.discover(id), Err(Error::Malformed { .. })));
    let other = host(&SimDisk::new(3), &remote);
    tree(&other, 0..100).unwrap();
    publish(&other, id).unwrap();
    there.discover(id).unwrap();
    assert_tree(&there.fetching(), id, 0..100);
}

#[test]
fn gc_keeps_what_is_here_and_asks_for_nothing_that_is_elsewhere() {
    let Hosts { remote, here, there, id } = hosts(0..300);
    let snapshot = adopt(&there, id);
    // Neither the host that has it nor the one that has next to nothing of it needs the remote store for that.
    remote.fail_after(0);
    let report = here.gc(|| Ok(Default::default()), false, &mut |_| {}).unwrap();
    assert!(!report.refused && report.problems.is_empty(), "{:?}", report.problems);
    assert_tree(&here, id, 0..300);
    let roots = || Ok(crate::store::Roots { dir_objects: vec![snapshot.dir], ..Default::default() });
    let report = there.gc(roots, false, &mut |_| {}).unwrap();
    assert!(!report.refused && report.problems.is_empty(), "{:?}", report.problems);
    remote.heal();
    assert!(there.snapshot(id).is_ok());
}

#[test]
fn nothing_is_published_on_top_of_what_is_gone() {
    let remote = SimRemote::default();
    let here = host(&SimDisk::new(1), &remote);
    let first = tree(&here, 0..300).unwrap();
    publish(&here, first).unwrap();
    // By somebody's rule of expiry, say; what the store is called stays.
    remote.list("layers/").unwrap().iter().for_each(|name| remote.remove(name).unwrap());
    let second = tree(&here, 10..310).unwrap();
    let objects = publish(&here, second).unwrap().objects;
    assert!((300 + 3..=300 + 3 + 13).contains(&objects), "{objects}: what was sent in vain may be of use");
    assert_eq!(publish(&here, first).unwrap().objects, 10 + 3);
    let there = host(&SimDisk::new(2), &remote);
    for (id, seeds) in [(first, 0..300), (second, 10..310)] {
        there.discover(id).unwrap();
        assert_tree(&there.fetching(), id, seeds);
    }
}

#[test]
fn two_who_publish_one_snapshot_at_the_same_time_both_do() {
    let remote = SimRemote::default();
    let disk = SimDisk::new(1);
    let (here, other) = (host(&disk, &remote), host(&SimDisk::new(2), &remote));
    let id = tree(&here, 0..300).unwrap();
    tree(&other, 0..300).unwrap();
    let calls = AtomicU64::new(0);
    let name = || {
        // The first is for what the store is called, the second for a pack: by then it was not there.
        if calls.fetch_add(1, SeqCst) == 1 {
            publish(&other, id).unwrap();
        }
        fresh()
    };
    here.publish(id, &[], &name, &|_| {}, &|| false).unwrap();
    assert_eq!(remote.list(&name::manifests(id)).unwrap().len(), 2);
    let files: &dyn Disk = &disk;
    let kept = files.list("store/remote").unwrap();
    let count = |kind: &str| kept.iter().filter(|name| name.ends_with(kind)).count();
    assert_eq!((count(".own"), count(".layer"), count(".sent")), (1, 1, 0), "{kept:?}");
    let there = host(&SimDisk::new(3), &remote);
    there.discover(id).unwrap();
    assert_tree(&there.fetching(), id, 0..300);
}
