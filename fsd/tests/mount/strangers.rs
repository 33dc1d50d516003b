//! Who is let in: mounts and sockets of one user, and what others find there.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, mknod},
    unistd::geteuid,
};

use crate::{daemon::Daemon, users::run_as};

const DEVICE: &str = "/dev/fuse";
const NOBODY: u32 = 65534;
const DAEMON: u32 = 1;

/// In this thread, and in what it starts, the device is for everybody, as udev makes it. Where there is no udev it may be for
/// root alone.
fn open_device_to_all() {
    let bound = |from: Option<&Path>, to: &Path, kind: Option<&str>, flags: MsFlags| {
        mount(from, to, kind, flags, None::<&str>).expect("mount")
    };
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    bound(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    // Of its own, because others may be mounted without devices.
    let dir = tempfile::tempdir().expect("a directory");
    bound(None, dir.path(), Some("tmpfs"), MsFlags::empty());
    let node = dir.path().join("fuse");
    let number = fs::metadata(DEVICE).expect("stat").rdev();
    mknod(&node, SFlag::S_IFCHR, Mode::empty(), number).expect("mknod");
    fs::set_permissions(&node, fs::Permissions::from_mode(0o666)).expect("chmod");
    bound(Some(&node), Path::new(DEVICE), None, MsFlags::MS_BIND);
    umount2(dir.path(), MntFlags::MNT_DETACH).expect("umount");
}

/// What the kernel's table says of a mount.
fn options(dir: &Path) -> String {
    let table = fs::read_to_string("/proc/thread-self/mounts").expect("the table of mounts");
    let line = table.lines().find(|line| line.split(' ').nth(1) == dir.to_str()).expect("it is mounted");
    line.split(' ').nth(3).expect("options").to_owned()
}

#[test]
fn others_are_kept_out_unless_they_are_let_in() {
    if !geteuid().is_root() {
        return eprintln!("only root can be somebody else: nothing is tested here");
    }
    let Some(daemon) = Daemon::start() else { return };
    let (_, open) = daemon.mounted_for_all("open", false);
    let (_, closed) = daemon.mounted("", "closed");
    for dir in [&open, &closed] {
        fs::write(dir.join("file"), b"content").expect("write");
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    assert!(run_as(NOBODY, &open, "cat file >/dev/null"));
    assert!(!run_as(NOBODY, &closed, "cat file 2>/dev/null"));
    assert!(!run_as(NOBODY, &closed, "ls . 2>/dev/null"));
    // Nor into the control socket.
    let script =
        "python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' s 2>/dev/null";
    let dir = daemon.path("");
    assert!(run_as(0, &dir, script));
    assert!(run_as(NOBODY, &dir, "test -S s") && !run_as(NOBODY, &dir, script));
}

#[test]
fn an_ordinary_users_mount_is_for_that_user_alone() {
    if !geteuid().is_root() {
        return eprintln!("only root can be somebody else: nothing is tested here");
    }
    if !Path::new(DEVICE).exists() {
        return eprintln!("no /dev/fuse: nothing is tested here");
    }
    open_device_to_all();
    assert!(run_as(NOBODY, Path::new("/dev"), ": <>fuse"));
    let Some(daemon) = Daemon::start_as(NOBODY) else { return };
    let tree = daemon.new_dir("tree");
    fs::write(tree.join("secret"), b"of root").expect("write");
    fs::write(tree.join("program"), b"#!/bin/sh\n").expect("write");
    fs::set_permissions(tree.join("program"), fs::Permissions::from_mode(0o4755)).expect("chmod");
    let snapshot = daemon.import(&tree).expect("import");
    let (_, dir) = daemon.mounted(&snapshot, "mnt");
    for user in [0, DAEMON] {
        assert!(!run_as(user, &dir, "ls . 2>/dev/null"), "user {user} got in");
        assert!(!run_as(user, &dir, "cat program 2>/dev/null"));
    }
    assert!(run_as(NOBODY, &dir, "cat program >/dev/null && echo x >new && test $(stat -c %u new) = 65534"));
    // The tree's owners are what they were, and the kernel minds them.
    assert!(run_as(NOBODY, &dir, "test $(stat -c %u:%a program) = 0:4755"));
    assert!(!run_as(NOBODY, &dir, "echo x 2>/dev/null >>program"));
    assert!(!run_as(NOBODY, &dir, "chmod 777 secret 2>/dev/null"));
    let options = options(&dir);
    assert!(["nosuid", "nodev"].iter().all(|word| options.split(',').any(|o| o == *word)), "{options}");
    // The root of a session on nothing is the daemon's user's.
    let (_, empty) = daemon.mounted("", "empty");
    assert!(run_as(NOBODY, &empty, "test $(stat -c %u:%g .) = 65534:65534"));
    assert_eq!(fs::metadata(&tree).expect("stat").uid(), NOBODY);
}
