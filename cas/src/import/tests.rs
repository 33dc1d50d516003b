use std::{
    ffi::OsStr,
    fs::{self, File, FileTimes, Permissions},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tempfile::TempDir;

use super::*;
use crate::{Attrs, Content, Entry, Node, Time, blob::List, dir::Dir, sys::SysDisk};

fn new_store() -> (TempDir, Store) {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(SysDisk::open(state.path()).unwrap())).unwrap();
    (state, store)
}

fn import_it(store: &Store, source: &Path) -> Result<Imported> {
    import(store, source, &|_| (), &AtomicBool::new(false))
}

fn root(store: &Store, imported: &Imported) -> Dir {
    Dir::open(store, store.snapshot(imported.id).unwrap().dir).unwrap()
}

fn find<'d>(dir: &'d Dir, name: &str) -> Entry<'d> {
    dir.find(name.as_bytes()).unwrap().unwrap_or_else(|| panic!("{name} is not there")).1
}

fn subdir(store: &Store, dir: &Dir, name: &str) -> Dir {
    let Node::Dir(digest) = find(dir, name).node else { panic!("{name} is no directory") };
    Dir::open(store, digest).unwrap()
}

fn content(store: &Store, entry: &Entry<'_>) -> Vec<u8> {
    let Node::File(content) = entry.node else { panic!("no file") };
    let mut bytes = vec![0xa5; entry.attrs.size as usize];
    store.read(&content, entry.attrs.size, 0, &mut bytes).unwrap();
    bytes
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn a_tree_of_every_kind_comes_back() {
    let source = tempfile::tempdir().unwrap();
    let path = |name: &str| source.path().join(name);
    fs::create_dir(path("dir")).unwrap();
    fs::create_dir(path("dir/empty")).unwrap();
    fs::write(path("dir/small"), "some bytes").unwrap();
    fs::write(path("dir/nothing"), "").unwrap();
    fs::write(path("large"), noise(1, 3_000_000)).unwrap();
    symlink("../nowhere", path("link")).unwrap();
    fs::write(source.path().join(OsStr::from_bytes(b"caf\xe9")), "latin").unwrap();
    let _socket = UnixListener::bind(path("socket")).unwrap();
    mknod(&path("fifo"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o640), 0).unwrap();
    mknod(&path("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    mknod(&path("loop"), SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), makedev(7, 9)).unwrap();
    fs::set_permissions(path("dir/small"), Permissions::from_mode(0o4751)).unwrap();
    let mtime = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
    let file = File::options().write(true).open(path("dir/small")).unwrap();
    file.set_times(FileTimes::new().set_modified(mtime)).unwrap();
    std::os::unix::fs::chown(path("dir/small"), Some(12), Some(34)).unwrap();

    let (_state, store) = new_store();
    let imported = import_it(&store, source.path()).unwrap();
    assert_eq!((imported.files, imported.bytes), (11, 10 + 3_000_000 + 5));
    let snapshot = store.snapshot(imported.id).unwrap();
    assert_eq!(snapshot.attrs.nlink, 3);
    let dir = root(&store, &imported);
    assert_eq!(dir.totals().files, 11);
    let names: Vec<_> = (0..dir.count()).map(|index| dir.entry(index).unwrap().name.to_vec()).collect();
    assert!(names.is_sorted());
    assert_eq!(find(&dir, "link").node, Node::Symlink(b"../nowhere"));
    assert_eq!(find(&dir, "fifo").node, Node::Fifo);
    assert_eq!(find(&dir, "socket").node, Node::Socket);
    assert_eq!((find(&dir, "null").node, find(&dir, "null").attrs.rdev), (Node::CharDevice, makedev(1, 3)));
    assert_eq!((find(&dir, "loop").node, find(&dir, "loop").attrs.rdev), (Node::BlockDevice, makedev(7, 9)));
    assert_eq!(content(&store, &dir.find(b"caf\xe9").unwrap().unwrap().1), b"latin");
    assert!(content(&store, &find(&dir, "large")) == noise(1, 3_000_000));
    assert_eq!(find(&dir, "dir").attrs.nlink, 3);

    let sub = subdir(&store, &dir, "dir");
    let small = find(&sub, "small");
    assert_eq!(content(&store, &small), b"some bytes");
    assert_eq!(small.attrs.mtime, Time { secs: 1_234_567_890, nanos: 987_654_321 });
    assert_eq!(small.attrs.ctime, small.attrs.mtime);
    let Attrs { mode, uid, gid, nlink, .. } = small.attrs;
    assert_eq!((mode, uid, gid, nlink), (0o751, 12, 34, 1), "chown clears the set-id bits");
    assert_eq!(find(&sub, "nothing").node, Node::File(Content::Empty));
    assert_eq!(subdir(&store, &sub, "empty").count(), 0);
}

#[test]
fn importing_again_adds_nothing() {
    let source = tempfile::tempdir().unwrap();
    for n in 0..300u32 {
        fs::create_dir_all(source.path().join(format!("{}", n % 7))).unwrap();
        fs::write(source.path().join(format!("{}/{n}", n % 7)), noise(n.into(), n as usize * 100)).unwrap();
    }
    let (_state, store) = new_store();
    let first = import_it(&store, source.path()).unwrap();
    let again = import_it(&store, source.path()).unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(again.written.new_objects, 0);
    assert_eq!(again.written.known_objects, first.written.new_objects + first.written.known_objects);
    // Another host gives the same tree the same name.
    let (_other_state, other) = new_store();
    assert_eq!(import_it(&other, source.path()).unwrap().id, first.id);
}

#[test]
fn hard_links_share_a_number_and_are_counted_within_the_tree() {
    let source = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir_in(source.path().parent().unwrap()).unwrap();
    let path = |name: &str| source.path().join(name);
    fs::create_dir(path("a")).unwrap();
    fs::write(path("z"), "shared").unwrap();
    fs::hard_link(path("z"), path("a/first")).unwrap();
    fs::hard_link(path("z"), path("b")).unwrap();
    fs::hard_link(path("z"), outside.path().join("elsewhere")).unwrap();
    fs::write(path("single"), "x").unwrap();
    fs::hard_link(path("single"), outside.path().join("single")).unwrap();

    let (_state, store) = new_store();
    let imported = import_it(&store, source.path()).unwrap();
    let dir = root(&store, &imported);
    let first = subdir(&store, &dir, "a");
    let first = find(&first, "first");
    for name in ["b", "z"] {
        let entry = find(&dir, name);
        assert_eq!((entry.ino, entry.attrs, entry.node), (first.ino, first.attrs, first.node));
        assert_eq!(content(&store, &entry), b"shared");
    }
    assert_eq!(first.attrs.nlink, 3);
    assert_eq!(first.ino, inode::Numbers::default().assign(b"a/first"));
    assert_eq!(find(&dir, "single").attrs.nlink, 1);
    assert_eq!(dir.totals().links, 3);
}

#[test]
fn extended_attributes_are_kept() {
    let source = tempfile::tempdir().unwrap();
    let path = |name: &str| source.path().join(name);
    fs::create_dir(path("d")).unwrap();
    fs::write(path("f"), "x").unwrap();
    symlink("f", path("l")).unwrap();
    for (name, attribute) in [("f", "user.k"), ("d", "user.k"), ("l", "trusted.k"), (".", "user.root")] {
        if xattr::set(path(name), attribute, b"value\0").is_err() {
            return; // The file system of the tests has none.
        }
    }
    let (_state, store) = new_store();
    let imported = import_it(&store, source.path()).unwrap();
    let dir = root(&store, &imported);
    let of = |digest: Option<crate::Digest>| store.xattrs(digest.unwrap()).unwrap();
    let one = |name: &[u8]| crate::xattrs::Xattrs::from([(name.to_vec(), b"value\0".to_vec())]);
    assert_eq!(of(find(&dir, "f").xattrs), one(b"user.k"));
    assert_eq!(find(&dir, "f").xattrs, find(&dir, "d").xattrs);
    assert_eq!(of(find(&dir, "l").xattrs), one(b"trusted.k"));
    assert_eq!(of(store.snapshot(imported.id).unwrap().xattrs), one(b"user.root"));
}

#[test]
fn holes_are_not_stored() {
    let source = tempfile::tempdir().unwrap();
    let sparse = File::create(source.path().join("sparse")).unwrap();
    sparse.set_len(3 << 30).unwrap();
    sparse.write_all_at(&noise(5, 100_000), 1 << 30).unwrap();
    fs::write(source.path().join("zeros"), vec![0; 1 << 20]).unwrap();

    let (_state, store) = new_store();
    let imported = import_it(&store, source.path()).unwrap();
    assert!(imported.written.new_bytes < 200_000, "{:?}", imported.written);
    let dir = root(&store, &imported);
    let entry = find(&dir, "sparse");
    let (Node::File(content), size) = (entry.node, entry.attrs.size) else { panic!("no file") };
    assert_eq!(size, 3 << 30);
    let data = store.next_data(&content, size, 0).unwrap().unwrap();
    assert_eq!(data, 1 << 30..(1 << 30) + (128 << 10));
    assert_eq!(store.next_data(&content, size, data.end).unwrap(), None);
    assert_eq!(store.data_bytes(&content, size).unwrap(), 128 << 10);
    let mut bytes = vec![1; 100_200];
    store.read(&content, size, (1 << 30) - 100, &mut bytes).unwrap();
    assert!(
        bytes[..100] == [0; 100] && bytes[100..100_100] == noise(5, 100_000) && bytes[100_100..] == [0; 100]
    );
    let Node::File(Content::List(zeros)) = find(&dir, "zeros").node else { panic!("no list") };
    assert_eq!(List::open(&store.chunk_list(zeros).unwrap()).unwrap().count(), 1);
}

#[test]
fn a_wide_directory_is_read_by_index_and_by_name() {
    let source = tempfile::tempdir().unwrap();
    for n in 0..5000 {
        fs::write(source.path().join(format!("file-{n}")), format!("{}", n % 10)).unwrap();
    }
    let (_state, store) = new_store();
    let imported = import_it(&store, source.path()).unwrap();
    let dir = root(&store, &imported);
    assert_eq!(dir.count(), 5000);
    assert!(dir.page_count() > 3);
    assert_eq!(dir.page_range(dir.page_count() - 1).end, 5000);
    for index in 0..5000 {
        let entry = dir.entry(index).unwrap();
        assert_eq!(dir.find(entry.name).unwrap().map(|(found, _)| found), Some(index));
        assert_eq!(dir.lower_bound(entry.name).unwrap(), index);
        assert!(dir.page_range(dir.page_at(index)).contains(&index));
    }
    assert!(dir.find(b"file-").unwrap().is_none());
    assert_eq!(dir.lower_bound(b"").unwrap(), 0);
    assert_eq!(dir.lower_bound(b"zzz").unwrap(), 5000);

    fs::rename(source.path().join("file-77"), source.path().join("file-77b")).unwrap();
    let again = import_it(&store, source.path()).unwrap();
    // Two pages at most, the index and the snapshot.
    assert!(again.written.new_objects <= 4, "{:?}", again.written);
}

#[test]
fn a_source_that_does_not_rest_is_refused_and_leaves_nothing() {
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("busy");
    fs::write(&path, noise(1, 4 << 20)).unwrap();
    fs::write(source.path().join("still"), "x").unwrap();
    let (_state, store) = new_store();
    let stop = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(&path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
                thread::sleep(Duration::from_micros(200));
            }
        });
        let result = import_it(&store, source.path());
        stop.store(true, Ordering::Relaxed);
        result
    });
    assert!(
        matches!(&result, Err(Error::SourceChanged(paths)) if paths == &[path.canonicalize().unwrap()]),
        "{result:?}"
    );
    assert_eq!(store.stats().unwrap().objects, 0);
    // At rest it is imported.
    import_it(&store, source.path()).unwrap();
}

#[test]
fn what_changes_between_scan_and_load_is_noticed() {
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("d")).unwrap();
    fs::write(source.path().join("d/f"), "old").unwrap();
    let (_state, store) = new_store();
    let run = |change: &(dyn Fn() + Sync)| {
        let scanned = AtomicBool::new(false);
        let hook = |progress| {
            // The root's listing ends the scan.
            if matches!(progress, Progress::Scanning { .. }) && scanned.swap(true, Ordering::Relaxed) {
                change();
            }
        };
        import(&store, source.path(), &hook, &AtomicBool::new(false))
    };
    let file = source.path().join("d/f");
    let imported = run(&|| fs::write(&file, "new bytes").unwrap()).unwrap();
    let sub = subdir(&store, &root(&store, &imported), "d");
    assert_eq!(content(&store, &find(&sub, "f")), b"new bytes", "a file at rest again is read as it is now");

    let added = run(&|| fs::write(source.path().join("d/g"), "").unwrap());
    assert!(
        matches!(added, Err(Error::SourceChanged(paths)) if paths == [source.path().canonicalize().unwrap().join("d")])
    );
    let gone = run(&|| fs::remove_file(&file).unwrap());
    assert!(matches!(gone, Err(Error::SourceChanged(paths)) if paths.len() == 2));
}

#[test]
fn wrong_sources_are_refused() {
    let source = tempfile::tempdir().unwrap();
    let file = source.path().join("f");
    fs::write(&file, "").unwrap();
    let (_state, store) = new_store();
    assert!(matches!(import_it(&store, &file), Err(Error::NotADirectory(path)) if path == file));
    let missing = source.path().join("missing");
    assert!(matches!(import_it(&store, &missing), Err(Error::Unreadable { path, .. }) if path == missing));
    let cancelled = import(&store, source.path(), &|_| (), &AtomicBool::new(true));
    assert!(matches!(cancelled, Err(Error::Cancelled)));
}
