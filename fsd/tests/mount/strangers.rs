//! Who is let in: mounts and sockets of one user, and what others find there.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, mknod},
    unistd::geteuid,
};

use crate::daemon::Daemon;

const DEVICE: &str = "/dev/fuse";
const NOBODY: u32 = 65534;
const DAEMON: u32 = 1;

/// Runs a script as a user. True if it succeeds.
fn run_as(user: u32, script: &str, path: &Path) -> bool {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).arg(path).uid(user).gid(user).current_dir("/");
    command.status().expect("a shell").success()
}

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
    assert!(run_as(NOBODY, "cat $0/file >/dev/null", &open));
    assert!(!run_as(NOBODY, "cat $0/file 2>/dev/null", &closed));
    assert!(!run_as(NOBODY, "ls $0 2>/dev/null", &closed));
    // Nor into the control socket.
    let script =
        "python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' $0 2>/dev/null";
    let socket: PathBuf = daemon.path("s");
    assert!(run_as(0, script, &socket));
    assert!(!run_as(NOBODY, script, &socket));
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
    assert!(run_as(NOBODY, ": <>$0", Path::new(DEVICE)));
    let Some(daemon) = Daemon::start_as(NOBODY) else { return };
    let tree = daemon.new_dir("tree");
    fs::write(tree.join("secret"), b"of root").expect("write");
    fs::write(tree.join("program"), b"#!/bin/sh\n").expect("write");
    fs::set_permissions(tree.join("program"), fs::Permissions::from_mode(0o4755)).expect("chmod");
    let snapshot = daemon.import(&tree).expect("import");
    let (_, dir) = daemon.mounted(&snapshot, "mnt");
    for user in [0, DAEMON] {
        assert!(!run_as(user, "ls $0 2>/dev/null", &dir), "user {user} got in");
        assert!(!run_as(user, "cat $0/program 2>/dev/null", &dir));
    }
    assert!(run_as(
        NOBODY,
        "cat $0/program >/dev/null && echo x >$0/new && test $(stat -c %u $0/new) = 65534",
        &dir
    ));
    // The tree's owners are what they were, and the kernel minds them.
    assert!(run_as(NOBODY, "test $(stat -c %u:%a $0/program) = 0:4755", &dir));
    assert!(!run_as(NOBODY, "echo x 2>/dev/null >>$0/program", &dir));
    assert!(!run_as(NOBODY, "chmod 777 $0/secret 2>/dev/null", &dir));
    let options = options(&dir);
    assert!(["nosuid", "nodev"].iter().all(|word| options.split(',').any(|o| o == *word)), "{options}");
    // The root of a session on nothing is the daemon's user's.
    let (_, empty) = daemon.mounted("", "empty");
    assert!(run_as(NOBODY, "test $(stat -c %u:%g $0) = 65534:65534", &empty));
    assert_eq!(fs::metadata(&tree).expect("stat").uid(), NOBODY);
}
