//! What the store promises, on a disk that fails.

use super::*;
use crate::{
    Attrs, Snapshot, SnapshotId, Time,
    disk::Open,
    index::INDEX_PATH,
    record::{BLOCK_BYTES, PackHeader, RECORD_HEADER, RecordHeader},
    sim::SimDisk,
    sys::SysDisk,
};

pub(crate) const SMALL: Options = Options {
    pack_bytes_max: 16 << 10,
    batch_bytes: 1 << 10,
    object_cache_bytes: 8 << 10,
    unused: std::time::Duration::ZERO,
};

/// All of a file.
fn whole(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

pub(crate) fn open(disk: &SimDisk) -> Store {
    Store::open_with(Arc::new(disk.clone()), SMALL).unwrap()
}

/// Bytes that depend on `seed` alone.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn put(writer: &mut Writer, seed: u64, len: usize) -> Result<Digest> {
    let bytes = bytes(seed, len);
    let digest = Digest::of(&bytes);
    let kind = if seed.is_multiple_of(3) { ObjectKind::Dir } else { ObjectKind::Chunk };
    writer.put_object(kind, digest, &bytes)?;
    Ok(digest)
}

/// Objects of many sizes, enough for several packs of each kind.
fn fill(store: &Store, seeds: std::ops::Range<u64>) -> Result<Vec<(u64, usize, Digest)>> {
    let mut writer = store.writer()?;
    let mut put_all = Vec::new();
    for seed in seeds {
        let len = (seed as usize * 397) % 3000;
        put_all.push((seed, len, put(&mut writer, seed, len)?));
    }
    writer.finish()?;
    Ok(put_all)
}

fn assert_reads(store: &Store, put: &[(u64, usize, Digest)]) {
    for (seed, len, digest) in put {
        let want = bytes(*seed, *len);
        assert_eq!(&*store.object(ObjectKind::Chunk, *digest).unwrap(), want);
        let (from, to) = (len / 3, len - len / 4);
        for _ in 0..2 {
            let mut part = vec![0; to - from.min(to)];
            store.read_chunk(*digest, from.min(to) as u64, &mut part).unwrap();
            assert_eq!(part, want[from.min(to)..to]);
        }
    }
}

#[test]
fn objects_are_read_back_and_known_afterwards() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let put = fill(&store, 0..60).unwrap();
    assert_reads(&store, &put);
    let stats = store.stats().unwrap();
    assert!(stats.packs > 6, "{stats:?}");
    let mut again = store.writer().unwrap();
    assert!(!again.put_object(ObjectKind::Chunk, put[1].2, &bytes(1, put[1].1)).unwrap());
    assert_eq!(again.finish().unwrap().known_objects, 1);
    assert_eq!(store.stats().unwrap(), stats, "nothing was written");
    assert!(matches!(store.object(ObjectKind::Dir, Digest::of(b"no")), Err(Error::Missing(_))));
    assert!(matches!(store.read_chunk(put[1].2, 0, &mut [0; 4000]), Err(Error::Malformed { .. })));
    drop(store);
    let store = open(&disk);
    assert_reads(&store, &put);
    assert_eq!(store.stats().unwrap(), stats);
}

#[test]
fn the_real_disk_serves_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SysDisk::open(dir.path()).unwrap());
    let store = Store::open_with(disk.clone(), SMALL).unwrap();
    let first = fill(&store, 0..40).unwrap();
    assert_reads(&store, &first);
    let second = fill(&store, 40..80).unwrap();
    assert_reads(&store, &second);
    drop(store);
    let store = Store::open(disk).unwrap();
    assert_reads(&store, &[first, second].concat());
}

#[test]
fn an_unfinished_writer_leaves_nothing() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let put_before = fill(&store, 0..10).unwrap();
    let packs = || {
        let mut names = disk.list(PACKS_DIR).unwrap();
        names.sort();
        let len = |n: &String| disk.open(&format!("{PACKS_DIR}/{n}"), Open::Read).unwrap().len().unwrap();
        names.iter().map(|n| (n.clone(), len(n))).collect::<Vec<_>>()
    };
    let (before, stats) = (packs(), store.stats().unwrap());
    let mut writer = store.writer().unwrap();
    let digest = (100..160).map(|seed| put(&mut writer, seed, 1500).unwrap()).last().unwrap();
    assert!(writer.has(digest).unwrap());
    assert!(packs() != before);
    drop(writer);
    assert_eq!((packs(), store.stats().unwrap()), (before, stats));
    assert!(matches!(store.object(ObjectKind::Dir, digest), Err(Error::Missing(_))));
    let put_after = fill(&store, 100..160).unwrap();
    assert_reads(&store, &[put_before, put_after].concat());
}

#[test]
fn writers_at_once_keep_to_their_own_packs() {
    let store = open(&SimDisk::new(1));
    let mut writers: Vec<Writer> = (0..3).map(|_| store.writer().unwrap()).collect();
    let mut digests = Vec::new();
    for seed in 0..90 {
        // Every object is put by two writers: the second copy is dead, and both are told the truth.
        for w in [seed % 3, (seed + 1) % 3] {
            digests.push((seed, 700, put(&mut writers[w as usize], seed, 700).unwrap()));
        }
    }
    for writer in writers {
        assert_eq!(writer.finish().unwrap().new_objects, 60);
    }
    assert_eq!(store.stats().unwrap().objects, 90);
    assert_reads(&store, &digests);
}

/// Cuts the power behind every mutating call of an import, and checks what is there when it comes back.
#[test]
fn power_loss_at_any_call_takes_nothing_acknowledged() {
    let run = |disk: &SimDisk, acknowledged: &mut Vec<(u64, usize, Digest)>| -> Result<()> {
        let store = Store::open_with(Arc::new(disk.clone()), SMALL)?;
        for start in [0, 20, 40] {
            acknowledged.extend(fill(&store, start..start + 20)?);
        }
        Ok(())
    };
    let disk = SimDisk::new(0);
    run(&disk, &mut Vec::new()).unwrap();
    for cut in 0..=disk.mutations() {
        let disk = SimDisk::new(cut);
        disk.crash_after(cut);
        let mut acknowledged = Vec::new();
        let _ = run(&disk, &mut acknowledged);
        for (what, after) in [("crash", disk.crash(&mut || disk.random())), ("kill", disk.kill())] {
            let store = Store::open_with(Arc::new(after.clone()), SMALL)
                .unwrap_or_else(|e| panic!("{what} behind call {cut}: {e}"));
            assert_reads(&store, &acknowledged);
            let rest = fill(&store, 0..60).unwrap_or_else(|e| panic!("{what} behind call {cut}: {e}"));
            assert_reads(&store, &rest);
        }
    }
}

/// One call fails with EIO and the process lives on.
#[test]
fn a_failed_call_fails_its_writer_alone() {
    let disk = SimDisk::new(0);
    let store = open(&disk);
    let before = disk.mutations();
    fill(&store, 0..20).unwrap();
    let calls = disk.mutations() - before;
    for at in 1..=calls {
        let disk = SimDisk::new(at);
        let store = open(&disk);
        let first = fill(&store, 100..110).unwrap();
        disk.fail_after(at);
        let _ = fill(&store, 0..20);
        disk.fail_after(u64::MAX / 2);
        assert_reads(&store, &first);
        let again = fill(&store, 0..20).unwrap_or_else(|e| panic!("call {at}: {e}"));
        assert_reads(&store, &again);
        drop(store);
        assert_reads(&open(&disk.crash(&mut || disk.random())), &[first, again].concat());
    }
}

#[test]
fn a_full_disk_is_said_so_and_the_store_lives_on() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let first = fill(&store, 0..20).unwrap();
    for free in (0..120_000).step_by(3001) {
        disk.set_space_free(free);
        match fill(&store, 20..80) {
            Err(error) => assert!(error.is_no_space(), "{free}: {error}"),
            Ok(_) => {
                assert!(free > 80_000, "{free}");
                break;
            }
        }
        assert_reads(&store, &first);
    }
    disk.set_space_free(1 << 30);
    let second = fill(&store, 20..80).unwrap();
    assert_reads(&store, &[first, second].concat());
}

#[test]
fn damage_is_named_and_the_rest_reads() {
    let disk = SimDisk::new(1);
    let put = fill(&open(&disk), 0..60).unwrap();
    let victim = put[31];
    let at = open(&disk).index().locate(victim.2).unwrap().unwrap();
    let path = pack_path(at.pack, PackKind::of(at.kind));
    for offset in [0, 20, 50, 60, 64, 64 + u64::from(at.len) - 1] {
        disk.flip(&path, at.offset + offset, 4);
        let store = open(&disk);
        for read in [
            store.object(ObjectKind::Chunk, victim.2).err(),
            store.read_chunk(victim.2, 9, &mut [0; 7]).err(),
        ] {
            match read {
                Some(Error::Corrupt { digest, offset, .. }) => {
                    assert_eq!((digest, offset), (victim.2, at.offset))
                }
                other => panic!("{other:?}"),
            }
        }
        let rest: Vec<_> = put.iter().copied().filter(|p| p.2 != victim.2).collect();
        assert_reads(&store, &rest);
        disk.flip(&path, at.offset + offset, 4);
    }
    assert_reads(&open(&disk), &put);
}

/// An object that went out of memory and is read again is not hashed again: its record's checksum is asked.
#[test]
fn damage_after_the_first_read_is_noticed() {
    let disk = SimDisk::new(1);
    let store = Store::open_with(Arc::new(disk.clone()), Options { object_cache_bytes: 0, ..SMALL }).unwrap();
    let put = fill(&store, 0..12).unwrap();
    let ((.., victim), (.., other)) = (put[6], put[9]);
    let read = || {
        store.object(ObjectKind::Dir, other).unwrap();
        store.object(ObjectKind::Dir, victim)
    };
    read().unwrap();
    let at = store.index().locate(victim).unwrap().unwrap();
    let path = pack_path(at.pack, PackKind::Meta);
    for place in 0..u64::from(at.len) {
        disk.flip(&path, at.offset + RECORD_HEADER as u64 + place, 1);
        assert!(matches!(read(), Err(Error::Corrupt { digest, .. }) if digest == victim), "{place}");
        disk.flip(&path, at.offset + RECORD_HEADER as u64 + place, 1);
        assert_eq!(&*read().unwrap(), &bytes(6, at.len as usize)[..]);
    }
}

/// A store with one large chunk: its digest, its bytes and where it is.
fn with_large_chunk(disk: &SimDisk) -> (Digest, Vec<u8>, crate::pack::Location) {
    let content = bytes(1, 5 * BLOCK_BYTES + 777);
    let digest = Digest::of(&content);
    let store = open(disk);
    let mut writer = store.writer().unwrap();
    writer.put_object(ObjectKind::Chunk, digest, &content).unwrap();
    writer.finish().unwrap();
    let at = store.index().locate(digest).unwrap().unwrap();
    (digest, content, at)
}

#[test]
fn part_of_a_chunk_costs_its_blocks() {
    let disk = SimDisk::new(1);
    let (digest, content, at) = with_large_chunk(&disk);
    let store = open(&disk);
    let len = content.len();
    for start in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5, 5 * BLOCK_BYTES, len - 1, len] {
        for end in [start, start + 1, start + 4096, start + BLOCK_BYTES, start + 3 * BLOCK_BYTES, len] {
            let end = end.min(len);
            let mut part = vec![0xee; end - start];
            store.read_chunk(digest, start as u64, &mut part).unwrap();
            assert!(part == content[start..end], "{start}..{end}");
        }
    }
    assert!(store.read_chunk(digest, len as u64 - 1, &mut [0; 2]).is_err());
    assert_eq!(&*store.object(ObjectKind::Chunk, digest).unwrap(), content);
    drop(store);
    disk.flip(&pack_path(at.pack, PackKind::Data), 8, 1);
    let mut part = vec![0; 5000];
    open(&disk).read_chunk(digest, 20_000, &mut part).unwrap();
    assert!(part == content[20_000..25_000], "the pack's header is damaged");
}

/// Whatever bit is flipped, no wrong byte is given out; what is under other sums still reads.
#[test]
fn damage_of_a_block_costs_that_block() {
    let disk = SimDisk::new(1);
    let (digest, content, at) = with_large_chunk(&disk);
    let path = pack_path(at.pack, PackKind::Data);
    let store = open(&disk);
    let front = (at.span() - at.len as u64) / 64 * 64;
    let places = (0..front).chain((front..front + u64::from(at.len)).step_by(1009));
    for place in places {
        disk.flip(&path, at.offset + place, 3);
        assert!(store.read_chunk(digest, 0, &mut vec![0; content.len()]).is_err(), "{place}");
        let hit = place.checked_sub(front).map(|at| at as usize / BLOCK_BYTES);
        for block in 0..6 {
            let start = block * BLOCK_BYTES + 3;
            let mut part = [0; 500];
            let read = store.read_chunk(digest, start as u64, &mut part);
            let is_hit = hit.is_none_or(|hit| hit == block);
            assert_eq!(read.is_err(), is_hit, "{place}, block {block}: {read:?}");
            assert!(is_hit || part == content[start..start + 500]);
        }
        disk.flip(&path, at.offset + place, 3);
    }
}

/// A pack as the first version wrote it, whose chunks have no sums.
#[test]
fn packs_of_the_first_version_are_read_and_left_alone() {
    let disk = SimDisk::new(1);
    let (digest, content, at) = with_large_chunk(&disk);
    let path = pack_path(at.pack, PackKind::Data);
    let header = PackHeader { kind: PackKind::Data, id: at.pack, has_sums: false };
    let record = RecordHeader { has_sums: false, ..RecordHeader::of(at.kind, digest, &[], &content) };
    let mut old = [&header.encode()[..], &record.encode(), &content].concat();
    old.resize(old.len().next_multiple_of(64), 0);
    let file = disk.open(&path, Open::Write).unwrap();
    file.set_len(0).unwrap();
    file.write_at(&old, 0).unwrap();
    disk.remove(INDEX_PATH).unwrap();

    let store = open(&disk);
    assert_eq!(&*store.object(ObjectKind::Chunk, digest).unwrap(), content);
    let mut part = [0; 100];
    store.read_chunk(digest, 40_000, &mut part).unwrap();
    assert_eq!(part, content[40_000..40_100]);
    assert!(store.fsck(FsckOptions::default(), &[], &mut |_| {}).unwrap().is_clean());
    let new = fill(&store, 0..20).unwrap();
    assert_reads(&store, &new);
    assert_eq!(whole(&disk, &path), old, "nothing is appended to it");
    drop(store);
    // Where the header does not tell the version any more, each record tells what it has.
    for (at, mask) in [(8, 3), (20, 1)] {
        disk.flip(&path, at, mask);
        let store = open(&disk);
        store.read_chunk(digest, 40_000, &mut part).unwrap();
        assert_eq!(part, content[40_000..40_100]);
        assert_eq!(&*store.object(ObjectKind::Chunk, digest).unwrap(), content);
        disk.flip(&path, at, mask);
    }
    let store = open(&disk);
    disk.flip(&path, at.offset + 70_000, 1);
    assert!(store.read_chunk(digest, 40_000, &mut part).is_err());
}

#[test]
fn a_truncated_or_missing_pack_costs_its_own_objects() {
    let disk = SimDisk::new(1);
    let put = fill(&open(&disk), 0..60).unwrap();
    let at = open(&disk).index().locate(put[31].2).unwrap().unwrap();
    let path = pack_path(at.pack, PackKind::of(at.kind));
    let check = |len: u64| {
        let store = open(&disk);
        for p in &put {
            let there = store.index().locate(p.2).unwrap().unwrap();
            let lost = there.pack == at.pack && there.offset + 64 + u64::from(there.len) > len;
            match store.object(ObjectKind::Chunk, p.2) {
                Ok(_) => assert!(!lost),
                Err(Error::Corrupt { .. }) => assert!(lost),
                Err(e) => panic!("{e}"),
            }
        }
        // New objects have a place all the same.
        assert_reads(&store, &fill(&store, 200..205).unwrap());
    };
    let file = disk.open(&path, Open::Write).unwrap();
    file.set_len(at.offset + 70).unwrap();
    check(at.offset + 70);
    disk.remove(&path).unwrap();
    check(0);
}

#[test]
fn a_lost_or_broken_index_is_made_anew() {
    let disk = SimDisk::new(1);
    let put = fill(&open(&disk), 0..60).unwrap();
    let older = disk.kill();
    let more = fill(&open(&disk), 60..90).unwrap();
    let put = [put, more].concat();
    let file = |disk: &SimDisk| disk.open(INDEX_PATH, Open::Write).unwrap();
    let len = file(&disk).len().unwrap();
    type Damage<'a> = (&'a str, &'a dyn Fn(&SimDisk));
    let damages: [Damage<'_>; 6] = [
        ("missing", &|d| d.remove(INDEX_PATH).unwrap()),
        ("empty", &|d| file(d).set_len(0).unwrap()),
        ("truncated", &|d| file(d).set_len(len / 2).unwrap()),
        ("garbage", &|d| file(d).write_at(&bytes(1, len as usize), 0).unwrap()),
        ("foreign", &|d| file(d).write_at(b"SQLite format 3", 0).unwrap()),
        ("old", &|d| {
            let old = whole(&older, INDEX_PATH);
            file(d).set_len(0).unwrap();
            file(d).write_at(&old, 0).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let disk = disk.kill();
        damage(&disk);
        let store = open(&disk);
        if what != "old" {
            assert_reads(&store, &put);
        }
        let after = fill(&store, 300..330).unwrap();
        drop(store);
        assert_reads(&open(&disk), &after);
    }
    // One flipped bit, anywhere: found at the latest when it is read.
    for at in (0..len).step_by(389) {
        let disk = disk.kill();
        disk.flip(INDEX_PATH, at, 16);
        assert_reads(&open(&disk), &put);
    }
}

#[test]
fn a_rebuild_finds_the_records_behind_damage() {
    let disk = SimDisk::new(1);
    let put = fill(&open(&disk), 0..60).unwrap();
    let at = open(&disk).index().locate(put[31].2).unwrap().unwrap();
    disk.flip(&pack_path(at.pack, PackKind::of(at.kind)), at.offset + 1, 1);
    disk.remove(INDEX_PATH).unwrap();
    let rest: Vec<_> = put.iter().copied().filter(|p| p.2 != put[31].2).collect();
    let store = open(&disk);
    assert_reads(&store, &rest);
    assert!(matches!(store.object(ObjectKind::Chunk, put[31].2), Err(Error::Missing(_))));
    assert_reads(&store, &fill(&store, 0..60).unwrap());
}

/// An index that was made anew named the torn record of a writer that had not finished: who put that object again was told
/// that it was there, and had it in no good copy.
#[test]
fn what_a_rebuild_finds_damaged_can_be_stored_again() {
    let disk = SimDisk::new(1);
    let put = fill(&open(&disk), 0..10).unwrap();
    let at = open(&disk).index().locate(put[4].2).unwrap().unwrap();
    // In the payload: the record still says what it would be.
    disk.flip(&pack_path(at.pack, PackKind::of(at.kind)), at.offset + 70, 1);
    disk.remove(INDEX_PATH).unwrap();
    let store = open(&disk);
    assert!(store.object(ObjectKind::Chunk, put[4].2).is_err());
    assert_reads(&store, &fill(&store, 0..10).unwrap());
}

/// An index that was made anew ended in the padding of a torn write's last record, and what was appended there could not
/// be read. Found by seed 124087 of the simulation.
#[test]
fn nothing_is_appended_where_no_record_may_begin() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let mut writer = store.writer().unwrap();
    for seed in [1, 3] {
        put(&mut writer, seed, 100).unwrap();
    }
    writer.finish().unwrap();
    drop(store);
    for cut in 0..300 {
        let disk = disk.kill();
        for name in disk.list(PACKS_DIR).unwrap() {
            let file = disk.open(&format!("{PACKS_DIR}/{name}"), Open::Write).unwrap();
            file.set_len(file.len().unwrap() - cut.min(file.len().unwrap())).unwrap();
        }
        disk.remove(INDEX_PATH).unwrap();
        let put = fill(&open(&disk), 10..20).unwrap();
        assert_reads(&open(&disk), &put);
        disk.remove(INDEX_PATH).unwrap();
        assert_reads(&open(&disk), &put);
    }
}

/// An index that was made anew after a kill named what only the page cache held; power loss took that, and what had been
/// stored since then lacked it.
#[test]
fn what_a_rebuild_names_is_durable() {
    let disk = SimDisk::new(1);
    fill(&open(&disk), 0..10).unwrap();
    let store = open(&disk);
    let mut writer = store.writer().unwrap();
    for seed in 10..40 {
        put(&mut writer, seed, (seed as usize * 397) % 3000).unwrap();
    }
    // The process dies in the middle of it.
    let disk = disk.kill();
    disk.remove(INDEX_PATH).unwrap();
    let again = fill(&open(&disk), 10..40).unwrap();
    assert_reads(&open(&disk.crash(&mut || 2)), &again);
}

pub(crate) fn snapshot(store: &Store, mtime: i64) -> SnapshotId {
    let time = Time { secs: mtime, nanos: 0 };
    let attrs = Attrs { mode: 0o755, uid: 0, gid: 0, nlink: 2, rdev: 0, size: 0, mtime: time, ctime: time };
    let mut writer = store.writer().unwrap();
    let (dir, _) = writer.put_dir(Vec::new()).unwrap();
    let id = writer.put_snapshot(&Snapshot { attrs, xattrs: None, dir }).unwrap();
    writer.finish().unwrap();
    id
}

#[test]
fn the_catalogue_keeps_names_and_forgets_on_demand() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let (a, b) = (snapshot(&store, 1), snapshot(&store, 2));
    let at = |secs| Time { secs, nanos: 5 };
    store.keep(a, Some("main"), at(10)).unwrap();
    store.keep(b, None, at(20)).unwrap();
    store.keep(b, Some("main"), at(30)).unwrap();
    store.keep(b, Some("best"), at(30)).unwrap();
    let listed: Vec<_> = store.list().unwrap().into_iter().map(|l| (l.id, l.names, l.created)).collect();
    assert_eq!(listed, [(b, vec!["best".to_owned(), "main".to_owned()], at(20)), (a, vec![], at(10))]);
    assert_eq!(store.named("main").unwrap(), Some(b));
    assert!(store.keep(SnapshotId(Digest::of(b"?")), None, at(1)).is_err());
    store.forget(b).unwrap();
    assert!(matches!(store.forget(b), Err(Error::UnknownSnapshot(_))));
    assert_eq!(store.named("best").unwrap(), None);
    drop(store);
    assert_eq!(open(&disk).list().unwrap().len(), 1);
}

#[test]
fn a_broken_catalogue_is_put_aside_and_snapshots_are_found_again() {
    let disk = SimDisk::new(1);
    let ids = {
        let store = open(&disk);
        let ids = [snapshot(&store, 1), snapshot(&store, 2)];
        store.keep(ids[0], Some("main"), Time { secs: 1, nanos: 0 }).unwrap();
        ids
    };
    let path = crate::catalogue::CATALOGUE_PATH;
    for n in 1..3 {
        disk.open(path, Open::Write).unwrap().write_at(&[0x55; 20_000], 0).unwrap();
        let list = open(&disk).list().unwrap();
        assert!(list.len() == 2 && list.iter().all(|l| ids.contains(&l.id)));
        assert!(disk.open(&format!("{path}.broken-{n}"), Open::Read).is_ok());
    }
    disk.remove(path).unwrap();
    assert_eq!(open(&disk).list().unwrap().len(), 2);
}

/// An older index with a newer catalogue (a backup put back, say) must not cost what the packs still have.
#[test]
fn an_index_that_lacks_a_kept_snapshot_is_made_anew() {
    let disk = SimDisk::new(1);
    snapshot(&open(&disk), 1);
    let older = whole(&disk, INDEX_PATH);
    let store = open(&disk);
    let id = snapshot(&store, 2);
    store.keep(id, None, Time::default()).unwrap();
    drop(store);
    let index = disk.open(INDEX_PATH, Open::Write).unwrap();
    index.set_len(0).unwrap();
    index.write_at(&older, 0).unwrap();
    let store = open(&disk);
    assert!(store.snapshot(id).is_ok());
    let at = store.index().locate(id.0).unwrap().unwrap();
    drop(store);
    // A snapshot that is really gone is looked for once, not at every start.
    disk.flip(&pack_path(at.pack, PackKind::Meta), at.offset, 1);
    disk.remove(INDEX_PATH).unwrap();
    let first = open(&disk).index().next_pack().unwrap();
    let store = open(&disk);
    assert!(matches!(store.snapshot(id), Err(Error::UnknownSnapshot(_))));
    assert_eq!((store.index().lacking().unwrap(), store.index().next_pack().unwrap()), (1, first));
}
