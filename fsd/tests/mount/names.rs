//! What can be a name, what can have one, and how names are counted.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt, symlink},
        net::UnixListener,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2},
    sys::stat::Mode,
    unistd::mkfifo,
};

use crate::daemon::Daemon;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.expect_err("it should be refused").raw_os_error()
}

#[test]
fn any_bytes_make_a_name() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let mut names: BTreeSet<Vec<u8>> = (1..=255).filter(|b| !b"./".contains(b)).map(|b| vec![b]).collect();
    names.extend((1..=255).filter(|b| *b != b'/').map(|byte| vec![byte; 255]));
    // One character in two ways, and two that differ in case alone.
    names.extend(["\u{e9}", "e\u{301}", "Name", "name", "..."].map(|name| name.as_bytes().to_vec()));
    for name in &names {
        fs::write(dir.join(OsStr::from_bytes(name)), name).expect("create");
    }
    for name in [vec![b'x'; 256], "\u{20ac}".repeat(86).into_bytes()] {
        let path = dir.join(OsStr::from_bytes(&name));
        assert_eq!(errno(File::create(&path)), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(fs::metadata(&path)), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(fs::create_dir(&path)), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(fs::rename(dir.join("Name"), &path)), Some(libc::ENAMETOOLONG));
    }
    let check = |dir: &Path| {
        let listed = fs::read_dir(dir).expect("list").map(|e| e.expect("an entry").file_name().into_vec());
        assert_eq!(listed.collect::<BTreeSet<_>>(), names);
        for name in &names {
            assert_eq!(&fs::read(dir.join(OsStr::from_bytes(name))).expect("read"), name);
        }
    };
    daemon.check_everywhere(&session, &dir, check);
}

#[test]
fn symbolic_links_have_targets_of_a_path_s_length() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let targets = [1, 100, 4094, 4095].map(|len| OsString::from_vec(vec![b't'; len]));
    for target in &targets {
        symlink(target, dir.join(target.len().to_string())).expect("symlink");
    }
    assert_eq!(errno(symlink(OsStr::from_bytes(&[b't'; 4096]), dir.join("long"))), Some(libc::ENAMETOOLONG));
    assert_eq!(errno(symlink("", dir.join("empty"))), Some(libc::ENOENT));
    daemon.seal(&session).expect("seal");
    daemon.remount(&session, &dir);
    for target in &targets {
        let link = dir.join(target.len().to_string());
        assert_eq!(&fs::read_link(&link).expect("readlink"), target);
        assert_eq!(fs::symlink_metadata(&link).expect("lstat").len(), target.len() as u64);
    }
}

#[test]
fn everything_but_a_directory_can_have_more_names() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("file"), b"content").expect("write");
    symlink("file", dir.join("symlink")).expect("symlink");
    mkfifo(&dir.join("fifo"), Mode::from_bits_truncate(0o600)).expect("mkfifo");
    drop(UnixListener::bind(dir.join("socket")).expect("bind"));
    fs::create_dir(dir.join("dir")).expect("mkdir");
    let kinds = ["file", "symlink", "fifo", "socket"];
    for kind in kinds {
        fs::hard_link(dir.join(kind), dir.join("dir").join(kind)).expect("link");
    }
    assert_eq!(errno(fs::hard_link(dir.join("dir"), dir.join("again"))), Some(libc::EPERM));
    assert_eq!(errno(fs::hard_link(dir.join("file"), dir.join("dir/file"))), Some(libc::EEXIST));
    for sealed in [false, true] {
        if sealed {
            daemon.seal(&session).expect("seal");
            daemon.remount(&session, &dir);
        }
        for kind in kinds {
            let stat = |path: &Path| fs::symlink_metadata(path).expect("lstat");
            let (one, other) = (stat(&dir.join(kind)), stat(&dir.join("dir").join(kind)));
            assert_eq!((one.ino(), one.nlink(), other.nlink()), (other.ino(), 2, 2), "{kind}");
        }
    }
    fs::write(dir.join("dir/file"), b"changed").expect("write");
    assert_eq!(fs::read(dir.join("file")).expect("read"), b"changed");
    fs::remove_file(dir.join("file")).expect("unlink");
    assert_eq!(fs::metadata(dir.join("dir/file")).expect("stat").nlink(), 1);
    assert!(fs::symlink_metadata(dir.join("dir/fifo")).expect("lstat").file_type().is_fifo());
}

#[test]
fn links_of_a_directory_are_its_subdirectories() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let links = |path: &str| fs::metadata(dir.join(path)).expect("stat").nlink();
    fs::create_dir_all(dir.join("a/b/c")).expect("mkdir");
    fs::create_dir(dir.join("a/d")).expect("mkdir");
    (0..500).for_each(|n| fs::write(dir.join(format!("a/file {n}")), b"").expect("write"));
    assert_eq!((links(""), links("a"), links("a/b"), links("a/b/c")), (3, 4, 3, 2));
    fs::rename(dir.join("a/b"), dir.join("b")).expect("rename");
    assert_eq!((links(""), links("a")), (4, 3));
    fs::rename(dir.join("a/d"), dir.join("b/c")).expect("rename over an empty directory");
    assert_eq!((links("a"), links("b")), (2, 3));
    renameat2(AT_FDCWD, &dir.join("b/c"), AT_FDCWD, &dir.join("a/file 1"), RenameFlags::RENAME_EXCHANGE)
        .expect("exchange");
    assert_eq!((links("a"), links("b")), (3, 2));
    daemon.seal(&session).expect("seal");
    daemon.remount(&session, &dir);
    assert_eq!((links(""), links("a"), links("b"), links("a/file 1")), (4, 3, 2, 2));
    fs::remove_dir(dir.join("a/file 1")).expect("rmdir");
    assert_eq!(links("a"), 2);
    for path in ["", "a", "b"] {
        assert_eq!(fs::metadata(dir.join(path)).expect("stat").len(), 4096, "{path}");
    }
}

#[test]
fn what_is_not_offered_is_refused() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("a"), b"content").expect("write");
    fs::write(dir.join("b"), b"other").expect("write");
    let rename = |flags| renameat2(AT_FDCWD, &dir.join("a"), AT_FDCWD, &dir.join("b"), flags);
    assert_eq!(rename(RenameFlags::RENAME_WHITEOUT), Err(Errno::EINVAL));
    assert_eq!(rename(RenameFlags::RENAME_NOREPLACE), Err(Errno::EEXIST));
    let to = File::create(dir.join("c")).expect("create");
    for mode in [FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, FallocateFlags::FALLOC_FL_INSERT_RANGE] {
        assert_eq!(fallocate(&to, mode, 0, 4096), Err(Errno::EOPNOTSUPP));
    }
    assert_eq!(fs::read(dir.join("b")).expect("read"), b"other", "nothing has happened");
    assert_eq!(fs::read_dir(&dir).expect("list").count(), 3);
}
