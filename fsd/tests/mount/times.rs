//! The three times of an inode: what sets them, and what keeps them.

use std::{
    fs::{self, File, Permissions},
    io::Read,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink},
    path::Path,
};

use nix::{
    fcntl::{AT_FDCWD, FallocateFlags, copy_file_range, fallocate},
    sys::{
        stat::{UtimensatFlags, utimensat},
        time::TimeSpec,
    },
    unistd::geteuid,
};

use crate::daemon::Daemon;

type Time = (i64, i64);

fn set(path: &Path, atime: Time, mtime: Time) {
    let spec = |(secs, nanos)| TimeSpec::new(secs, nanos);
    utimensat(AT_FDCWD, path, &spec(atime), &spec(mtime), UtimensatFlags::NoFollowSymlink)
        .expect("utimensat");
}

fn atime(path: &Path) -> Time {
    let meta = fs::symlink_metadata(path).expect("lstat");
    (meta.atime(), meta.atime_nsec())
}

fn mtime(path: &Path) -> Time {
    let meta = fs::symlink_metadata(path).expect("lstat");
    (meta.mtime(), meta.mtime_nsec())
}

fn ctime(path: &Path) -> Time {
    let meta = fs::symlink_metadata(path).expect("lstat");
    (meta.ctime(), meta.ctime_nsec())
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let times: [Time; 8] = [
        (0, 0),
        (0, 1),
        (-1, 999_999_999),
        (-2_147_483_649, 1),
        (-14_182_940, 123_456_789),
        (1_234_567_890, 987_654_321),
        (4_294_967_296, 999_999_999),
        (16_000_000_000, 5),
    ];
    for (n, time) in times.into_iter().enumerate() {
        let [file, below, link] = ["file", "dir", "link"].map(|kind| dir.join(format!("{kind}{n}")));
        fs::write(&file, b"content").expect("write");
        fs::create_dir(&below).expect("mkdir");
        symlink("nowhere", &link).expect("symlink");
        [file, below, link].iter().for_each(|path| set(path, (n as i64, 1), time));
    }
    let check = |dir: &Path| {
        for (n, time) in times.into_iter().enumerate() {
            for kind in ["file", "dir", "link"] {
                assert_eq!(mtime(&dir.join(format!("{kind}{n}"))), time, "{kind}{n}");
            }
        }
    };
    daemon.remount(&session, &dir);
    check(&dir);
    assert!((0..8).all(|n| atime(&dir.join(format!("link{n}"))) == (n, 1)));
    daemon.check_everywhere(&session, &dir, check);
}

/// Which times a call changed: `m` and `c` of the file, then of its directory.
fn changed(dir: &Path, call: &dyn Fn()) -> String {
    let paths = [dir.join("file"), dir.to_owned()];
    let before = paths.each_ref().map(|path| (mtime(path), ctime(path)));
    call();
    let letters = paths.iter().zip(before).map(|(path, (old_mtime, old_ctime))| {
        let letter = |old: Time, new: Time, letter| if new > old { letter } else { "" };
        letter(old_mtime, mtime(path), "m").to_owned() + letter(old_ctime, ctime(path), "c")
    });
    letters.collect::<Vec<_>>().join(" ")
}

#[test]
fn each_call_sets_the_times_that_posix_says() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, mount) = daemon.mounted("", "mnt");
    let dir = mount.join("dir");
    fs::create_dir(&dir).expect("mkdir");
    let path = dir.join("file");
    fs::write(&path, [7; 5000]).expect("write");
    fs::write(mount.join("source"), [8; 100]).expect("write");
    let file = File::options().read(true).write(true).open(&path).expect("open");
    let source = File::open(mount.join("source")).expect("open");
    let (punch, keep) = (FallocateFlags::FALLOC_FL_PUNCH_HOLE, FallocateFlags::FALLOC_FL_KEEP_SIZE);
    type Call<'a> = (&'a str, &'a str, &'a dyn Fn());
    let calls: [Call<'_>; 24] = [
        ("write", "mc ", &|| file.write_all_at(b"x", 5).expect("write")),
        ("append", "mc ", &|| file.write_all_at(b"x", 9000).expect("write")),
        ("truncate", "mc ", &|| file.set_len(100).expect("truncate")),
        ("truncate to the same", "mc ", &|| file.set_len(100).expect("truncate")),
        ("fallocate", "mc ", &|| fallocate(&file, FallocateFlags::empty(), 0, 200).expect("fallocate")),
        ("fallocate of nothing", "mc ", &|| fallocate(&file, keep, 0, 10).expect("fallocate")),
        ("punch", "mc ", &|| fallocate(&file, punch | keep, 0, 10).expect("punch")),
        ("punch beyond", "mc ", &|| fallocate(&file, punch | keep, 5000, 10).expect("punch")),
        ("copy_file_range", "mc ", &|| {
            copy_file_range(&source, Some(&mut 0), &file, Some(&mut 0), 50).map(drop).expect("copy")
        }),
        ("chmod", "c ", &|| fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod")),
        ("chown", "c ", &|| lchown(&path, Some(geteuid().as_raw()), None).expect("chown")),
        ("setxattr", "c ", &|| xattr::set(&path, "user.a", b"b").expect("setxattr")),
        ("removexattr", "c ", &|| xattr::remove(&path, "user.a").expect("removexattr")),
        ("read", " ", &|| assert!(fs::read(&path).expect("read").len() == 200)),
        ("list", " ", &|| assert_eq!(fs::read_dir(&dir).expect("list").count(), 1)),
        ("create", " mc", &|| drop(File::create(dir.join("other")).expect("create"))),
        ("open to truncate", " ", &|| drop(File::create(dir.join("other")).expect("open"))),
        ("link", "c mc", &|| fs::hard_link(&path, dir.join("link")).expect("link")),
        ("unlink of another name", "c mc", &|| fs::remove_file(dir.join("link")).expect("unlink")),
        ("unlink of another file", " mc", &|| fs::remove_file(dir.join("other")).expect("unlink")),
        ("mkdir", " mc", &|| fs::create_dir(dir.join("sub")).expect("mkdir")),
        ("rmdir", " mc", &|| fs::remove_dir(dir.join("sub")).expect("rmdir")),
        ("rename away and back", "c mc", &|| {
            fs::rename(&path, dir.join("away")).expect("rename");
            fs::rename(dir.join("away"), &path).expect("rename");
        }),
        ("a failing call", " ", &|| assert!(fs::remove_dir(&path).is_err())),
    ];
    for (name, expected, call) in calls {
        assert_eq!(changed(&dir, call), expected, "{name}");
    }
    set(&path, (1, 2), (3, 4));
    assert!(ctime(&path) > mtime(&path), "utimensat(2) sets the change time itself");
}

#[test]
fn access_times_are_kept_until_a_seal() {
    let Some(daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    fs::write(tree.join("old"), b"imported").expect("write");
    set(&tree.join("old"), (5, 6), (1_000_000_000, 7));
    let snapshot = daemon.import(&tree).expect("import");
    let (session, dir) = daemon.mounted(&snapshot, "mnt");
    let (old, new) = (dir.join("old"), dir.join("new"));
    assert_eq!(atime(&old), (1_000_000_000, 7), "the modification time, not that of the source");
    fs::write(&new, b"content").expect("write");
    let born = atime(&new);
    let read = || {
        for path in [&old, &new] {
            File::open(path).expect("open").read_to_end(&mut Vec::new()).expect("read");
        }
        assert_eq!(fs::read_dir(&dir).expect("list").count(), 2);
    };
    read();
    fs::write(&new, b"changed").expect("write");
    fs::write(&old, b"changed").expect("write");
    read();
    daemon.remount(&session, &dir);
    read();
    assert_eq!((atime(&old), atime(&new)), ((1_000_000_000, 7), born), "neither reading nor writing");
    assert!(mtime(&new) > born && mtime(&old) > born);

    [&old, &new].iter().for_each(|path| set(path, (77, 88), (99, 11)));
    daemon.remount(&session, &dir);
    let (_, fork) = daemon.forked(&session, "fork");
    for path in [&old, &new, &fork.join("old"), &fork.join("new")] {
        assert_eq!(atime(path), (77, 88), "{}", path.display());
    }
    daemon.seal(&session).expect("seal");
    daemon.remount(&session, &dir);
    assert_eq!((atime(&old), atime(&new)), ((99, 11), (99, 11)), "a snapshot has none");
}
