//! gc and fsck over small trees, on a disk that fails.

use super::{
    tests::{SMALL, bytes, open},
    *,
};
use crate::{
    Attrs, Content, Snapshot, SnapshotId, Time,
    dir::{Dir, DirEntry, OwnedNode, Totals},
    disk::Open,
    index::INDEX_PATH,
    sim::SimDisk,
};

/// A dry run over a pack that a rebuild found cut short subtracted the header and the padding it lacks. Found by fuzzing.
#[test]
fn a_dry_run_counts_packs_that_were_cut_short() {
    let disk = SimDisk::new(0);
    let store = open(&disk);
    tree(&store, 0..3).unwrap();
    drop(store);
    for name in disk.list("store/packs").unwrap() {
        disk.open(&format!("store/packs/{name}"), Open::Write).unwrap().set_len(10).unwrap();
    }
    disk.remove(INDEX_PATH).unwrap();
    disk.remove("store/catalogue.redb").unwrap();
    let store = open(&disk);
    let report = store.gc(|| Ok(Roots::default()), true, &mut |_| {}).unwrap();
    assert_eq!(report.freed_bytes, 0);
}

fn attrs(size: u64) -> Attrs {
    let time = Time { secs: 1, nanos: 0 };
    Attrs { mode: 0o644, uid: 0, gid: 0, nlink: 1, rdev: 0, size, mtime: time, ctime: time }
}

/// Puts a tree of two directories, its files made of `seeds`, and keeps it.
pub(crate) fn tree(store: &Store, seeds: std::ops::Range<u64>) -> Result<SnapshotId> {
    let mut writer = store.writer()?;
    let entry = |name: String, ino, size, node, totals| DirEntry {
        name: name.into_bytes(),
        ino,
        attrs: attrs(size),
        node,
        xattrs: None,
        totals,
    };
    let mut files = Vec::new();
    for seed in seeds {
        let content = bytes(seed, 500 + seed as usize * 7);
        let digest = Digest::of(&content);
        writer.put_object(ObjectKind::Chunk, digest, &content)?;
        let node = OwnedNode::File(Content::Chunk(digest));
        files.push(entry(format!("f{seed}"), 10 + seed, content.len() as u64, node, Totals::default()));
    }
    let (sub, totals) = writer.put_dir(files)?;
    let mut dir_attrs = attrs(0);
    dir_attrs.nlink = 2;
    let mut sub = entry("sub".to_owned(), 5, 0, OwnedNode::Dir(sub), totals);
    sub.attrs = dir_attrs;
    let (dir, _) = writer.put_dir(vec![sub])?;
    let id = writer.put_snapshot(&Snapshot { attrs: dir_attrs, xattrs: None, dir })?;
    let _hold = store.hold();
    writer.finish()?;
    store.keep(id, None, Time::default())?;
    Ok(id)
}

pub(crate) fn assert_tree(store: &Store, id: SnapshotId, seeds: std::ops::Range<u64>) {
    assert_tree_at(store, store.snapshot(id).unwrap().dir, seeds);
}

fn assert_tree_at(store: &Store, root: Digest, seeds: std::ops::Range<u64>) {
    let root = Dir::open(store, root).unwrap();
    let (_, sub) = root.find(b"sub").unwrap().unwrap();
    let crate::Node::Dir(sub) = sub.node else { panic!("a directory") };
    let sub = Dir::open(store, sub).unwrap();
    assert_eq!(u64::from(sub.count()), seeds.end - seeds.start);
    for seed in seeds {
        let (_, file) = sub.find(format!("f{seed}").as_bytes()).unwrap().unwrap();
        let crate::Node::File(content) = file.node else { panic!("a file") };
        let mut read = vec![0; file.attrs.size as usize];
        store.read(&content, file.attrs.size, 0, &mut read).unwrap();
        assert_eq!(read, bytes(seed, read.len()));
    }
}

fn no_roots() -> Result<Roots> {
    Ok(Roots::default())
}

fn check(store: &Store) -> FsckReport {
    store.fsck(FsckOptions::default(), &[], &mut |_| {}).unwrap()
}

#[test]
fn gc_frees_what_is_forgotten_and_keeps_the_rest() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    // Every tree shares some files with the next.
    let trees: Vec<_> =
        (0..5).map(|n| (n * 15..n * 15 + 25, tree(&store, n * 15..n * 15 + 25).unwrap())).collect();
    let all = store.gc(no_roots, false, &mut |_| {}).unwrap();
    assert_eq!((all.dead_objects, all.freed_bytes, all.problems.len()), (0, 0, 0));
    let held = store.object(ObjectKind::Snapshot, trees[1].1.0).unwrap();
    let before = store.stats().unwrap();
    for n in [1, 3] {
        store.forget(trees[n].1).unwrap();
    }
    let dry = store.gc(no_roots, true, &mut |_| {}).unwrap();
    assert!(dry.dead_bytes > 0 && dry.packs_rewritten > 0, "{dry:?}");
    assert_eq!(store.stats().unwrap().pack_bytes, before.pack_bytes);
    let report = store.gc(no_roots, false, &mut |_| {}).unwrap();
    assert_eq!((report.live_objects, report.dead_objects), (dry.live_objects, dry.dead_objects));
    let after = store.stats().unwrap();
    assert_eq!(before.pack_bytes - after.pack_bytes, report.freed_bytes);
    assert!(report.freed_bytes * 10 > dry.dead_bytes * 8, "{report:?}");
    assert_eq!(disk.list(PACKS_DIR).unwrap().len() as u64, after.packs);
    assert!(Snapshot::decode(&held).is_ok(), "what somebody holds outlives its pack");
    for n in [0, 2, 4] {
        assert_tree(&store, trees[n].1, trees[n].0.clone());
    }
    assert!(check(&store).is_clean());
    drop(store);
    let store = open(&disk);
    assert_tree(&store, trees[2].1, trees[2].0.clone());
    tree(&store, 0..60).unwrap();
    for listed in store.list().unwrap() {
        store.forget(listed.id).unwrap();
    }
    store.gc(no_roots, false, &mut |_| {}).unwrap();
    assert_eq!(store.stats().unwrap(), Stats::default());
    let again = tree(&store, 0..60).unwrap();
    assert_tree(&store, again, 0..60);
}

#[test]
fn roots_of_sessions_are_live() {
    let store = open(&SimDisk::new(1));
    let base = tree(&store, 0..20).unwrap();
    let other = tree(&store, 30..50).unwrap();
    for id in [base, other] {
        store.forget(id).unwrap();
    }
    let content = Content::Chunk(Digest::of(&bytes(31, 500 + 31 * 7)));
    let roots = || Ok(Roots { snapshots: vec![base], contents: vec![content], ..Default::default() });
    store.gc(roots, false, &mut |_| {}).unwrap();
    assert_tree(&store, base, 0..20);
    let size = 500 + 31 * 7;
    store.read(&content, size, 0, &mut vec![0; size as usize]).unwrap();
    assert!(matches!(store.snapshot(other), Err(Error::UnknownSnapshot(_))));
}

#[test]
fn an_object_that_hides_others_stops_gc() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let (kept, forgotten) = (tree(&store, 0..20).unwrap(), tree(&store, 20..40).unwrap());
    let root = store.snapshot(kept).unwrap().dir;
    let at = store.index().locate(root).unwrap().unwrap();
    drop(store);
    disk.flip(&pack_path(at.pack, PackKind::Meta), at.offset + 70, 1);
    let store = open(&disk);
    let stats = store.stats().unwrap();
    store.forget(forgotten).unwrap();
    let report = store.gc(no_roots, false, &mut |_| {}).unwrap();
    assert!(report.refused && report.freed_bytes == 0);
    assert_eq!(report.problems[0].path, format!("{kept}:/"));
    assert_eq!(store.stats().unwrap().pack_bytes, stats.pack_bytes);
}

/// Cuts the power behind every mutating call of a gc; nothing live is lost, and the next gc ends it.
#[test]
fn power_loss_at_any_call_of_gc_loses_nothing_live() {
    let start = SimDisk::new(0);
    let live = {
        let store = open(&start);
        let live = [tree(&store, 0..25).unwrap(), tree(&store, 40..60).unwrap()];
        let dead = tree(&store, 20..45).unwrap();
        store.forget(dead).unwrap();
        live
    };
    let clean = open(&start.kill());
    clean.gc(no_roots, false, &mut |_| {}).unwrap();
    let want = clean.stats().unwrap().objects;
    let run = |disk: &SimDisk| {
        let store = Store::open_with(Arc::new(disk.clone()), SMALL)?;
        store.gc(no_roots, false, &mut |_| {})
    };
    let disk = start.kill();
    let before = disk.mutations();
    run(&disk).unwrap();
    for cut in 0..=disk.mutations() - before {
        for fault in ["power", "eio", "full"] {
            let disk = start.kill();
            match fault {
                "power" => disk.crash_after(cut),
                "eio" => disk.fail_after(cut + 1),
                _ => disk.set_space_free(cut * 300),
            }
            let _ = run(&disk);
            disk.set_space_free(1 << 30);
            for after in [disk.crash(&mut || disk.random()), disk.kill()] {
                let store = open(&after);
                assert_tree(&store, live[0], 0..25);
                assert_tree(&store, live[1], 40..60);
                store.gc(no_roots, false, &mut |_| {}).unwrap();
                assert_eq!(store.stats().unwrap().objects, want, "{fault} at call {cut}");
                assert!(check(&store).is_clean(), "{fault} at call {cut}");
            }
        }
    }
}

#[test]
fn readers_never_notice_gc() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(crate::sys::SysDisk::open(dir.path()).unwrap());
    let store = Store::open_with(disk, SMALL).unwrap();
    let live = tree(&store, 0..30).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_tree(&store, live, 0..30);
                }
            });
        }
        for n in 0..30 {
            // The pack that the live tree has come to gets a dead neighbour, so that gc moves both again.
            let dead = tree(&store, 100 + n * 20..115 + n * 20).unwrap();
            store.forget(dead).unwrap();
            store.gc(no_roots, false, &mut |_| {}).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(check(&store).is_clean());
}

#[test]
fn fsck_names_damage_and_who_uses_it_and_a_new_copy_heals() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let ids = [tree(&store, 0..30).unwrap(), tree(&store, 10..40).unwrap()];
    assert!(check(&store).is_clean());
    let victim = Digest::of(&bytes(15, 500 + 15 * 7));
    let at = store.index().locate(victim).unwrap().unwrap();
    drop(store);
    let path = pack_path(at.pack, PackKind::Data);
    disk.flip(&path, at.offset + 100, 1);
    disk.flip(&path, 3, 1);
    let store = open(&disk);
    let report = check(&store);
    assert_eq!((report.damaged_objects, report.damaged_uses, report.snapshots), (1, 2, 2));
    assert_eq!(report.damaged_headers.len(), 1);
    let damage = &report.damage[0];
    assert_eq!((damage.digest, damage.place.as_ref().map(|p| p.1)), (victim, Some(at.offset)));
    let mut want: Vec<_> = ids.iter().map(|id| format!("{id}:/sub/f15")).collect();
    want.sort();
    let mut paths = damage.paths.clone();
    paths.sort();
    assert_eq!(paths, want);
    assert!(store.fsck(FsckOptions { repair: true }, &[], &mut |_| {}).unwrap().repaired);
    assert!(matches!(store.object(ObjectKind::Chunk, victim), Err(Error::Missing(_))));
    tree(&store, 0..30).unwrap();
    assert_tree(&store, ids[1], 10..40);
    let healed = check(&store);
    assert_eq!((healed.damaged_objects, healed.index_errors), (0, 0), "{healed:?}");
}

/// A repair that gave up on a pack once said that it had mended it.
#[test]
fn a_pack_that_breaks_while_it_is_repaired_is_not_called_mended() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    tree(&store, 0..30).unwrap();
    let at = store.index().locate(Digest::of(&bytes(15, 500 + 15 * 7))).unwrap().unwrap();
    drop(store);
    let path = pack_path(at.pack, PackKind::Data);
    disk.flip(&path, 3, 1);
    let store = open(&disk);
    let mut later = Some(());
    let report = store
        .fsck(FsckOptions { repair: true }, &[], &mut |progress| {
            // All packs were read: what breaks from here on is met by who copies.
            if matches!(progress, FsckProgress::Snapshots { .. }) && later.take().is_some() {
                disk.flip(&path, at.offset + 100, 1);
            }
        })
        .unwrap();
    assert_eq!(later, None);
    assert_eq!((report.damaged_headers.len(), report.left.len(), report.set_aside.len()), (1, 1, 0));
    assert!(!report.is_mended(&report.damaged_headers[0]) && !report.is_clean());
    let again = store.fsck(FsckOptions { repair: true }, &[], &mut |_| {}).unwrap();
    assert_eq!((again.damaged_objects, again.left.len(), again.set_aside.len()), (1, 0, 1));
    assert!(again.is_mended(&again.damaged_headers[0]));
}

#[test]
fn fsck_finds_an_index_that_is_wrong_and_makes_it_right() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let id = tree(&store, 0..30).unwrap();
    let lost = store.index().collect(|_| true).unwrap();
    let (a, b) = (lost[3], lost[4]);
    let moved = vec![
        crate::index::Move { digest: a.0, from: a.1, to: Some(b.1) },
        crate::index::Move { digest: b.0, from: b.1, to: None },
    ];
    store.index().commit(&Change { moved, ..Default::default() }).unwrap();
    let report = check(&store);
    assert_eq!(report.index_errors, 2);
    let report = store.fsck(FsckOptions { repair: true }, &[], &mut |_| {}).unwrap();
    assert!(report.repaired);
    assert_tree(&store, id, 0..30);
    assert!(check(&store).is_clean());
    assert!(disk.open(INDEX_PATH, Open::Read).is_ok());
}

#[test]
fn the_beginning_of_an_id_is_enough_if_it_is_one_of_a_kind() {
    let store = open(&SimDisk::new(1));
    let id = tree(&store, 0..3).unwrap();
    let text = id.to_string();
    for ok in [&text[..], &text[..12], &text[..30]] {
        assert_eq!(store.unique_snapshot(ok).unwrap(), id);
    }
    assert_eq!(store.unique_snapshot(&format!("snp_{}", text[4..14].to_uppercase())).unwrap(), id);
    let fail = |text: &str| store.unique_snapshot(text).unwrap_err();
    assert!(matches!(fail(&text[..11]), Error::ShortSnapshot(_)));
    assert!(matches!(fail("ses_00000000"), Error::NotASnapshot(_)));
    assert!(matches!(fail("snp_uuuuuuuu"), Error::NotASnapshot(_)));
    assert!(matches!(fail(&format!("{text}0")), Error::NotASnapshot(_)));
    assert!(matches!(fail("snp_00000000"), Error::NoSuchSnapshot(_)));
    assert!(matches!(fail(&SnapshotId(Digest::of(b"?")).to_string()), Error::UnknownSnapshot(_)));
    let two = Error::AmbiguousSnapshot { prefix: "snp_00000000".into(), candidates: vec![id, id] };
    assert!(two.to_string().contains(&text));
}

/// A file may hold the very bytes of a dir object. Once the walk took the one for the other, and gc freed what only the
/// directory referred to.
#[test]
fn a_file_with_the_bytes_of_a_directory_does_not_hide_it() {
    let store = open(&SimDisk::new(3));
    let inner = tree(&store, 0..4).unwrap();
    let dir = store.snapshot(inner).unwrap().dir;
    let image = store.object(ObjectKind::Dir, dir).unwrap().to_vec();
    let entry = |name: &[u8], ino, attrs, node, totals| DirEntry {
        name: name.to_vec(),
        ino,
        attrs,
        node,
        xattrs: None,
        totals,
    };
    let totals = Dir::open(&store, dir).unwrap().totals();
    let dir_attrs = Attrs { nlink: 2, ..attrs(0) };
    let twin = OwnedNode::File(Content::Chunk(dir));
    let files = vec![
        entry(b"a", 100, attrs(image.len() as u64), twin, Totals::default()),
        entry(b"z", 101, dir_attrs, OwnedNode::Dir(dir), totals),
    ];
    let mut writer = store.writer().unwrap();
    let (root, _) = writer.put_dir(files).unwrap();
    let outer = writer.put_snapshot(&Snapshot { attrs: dir_attrs, xattrs: None, dir: root }).unwrap();
    let hold = store.hold();
    writer.finish().unwrap();
    store.keep(outer, None, Time::default()).unwrap();
    drop(hold);
    store.forget(inner).unwrap();
    store.gc(no_roots, false, &mut |_| {}).unwrap();
    assert!(check(&store).is_clean());
    let root = Dir::open(&store, store.snapshot(outer).unwrap().dir).unwrap();
    let (_, found) = root.find(b"z").unwrap().unwrap();
    let crate::Node::Dir(below) = found.node else { panic!("a directory") };
    assert_tree_at(&store, below, 0..4);
}
