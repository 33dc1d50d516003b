//! Mounts that are made, refused, and taken away.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    time::SystemTime,
};

use tonic::{Code, Status};

use crate::daemon::{Answer, Daemon};

fn refused<T: std::fmt::Debug>(answer: Answer<T>, codes: &[Code], names: &str) {
    let status: Status = answer.expect_err("it should be refused");
    assert!(codes.contains(&status.code()), "{status:?}");
    assert!(status.message().contains(names), "{:?} does not name {names}", status.message());
}

#[test]
fn mounts_that_cannot_be_are_refused() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let other = daemon.create("").expect("create");
    let free = daemon.new_dir("free");
    let file = daemon.path("file");
    fs::write(&file, b"").expect("write");
    let mount = |session: &str, dir: &Path| daemon.mount(session, dir);

    refused(mount(&other, &dir), &[Code::AlreadyExists], "mnt");
    refused(mount(&session, &free), &[Code::AlreadyExists, Code::FailedPrecondition], "mnt");
    refused(mount(&other, &daemon.path("missing")), &[Code::NotFound], "missing");
    refused(mount(&other, &file), &[Code::FailedPrecondition, Code::InvalidArgument], "file");
    refused(mount(&other, &daemon.state_dir()), &[Code::FailedPrecondition, Code::InvalidArgument], "state");
    refused(mount(&other, &daemon.path("")), &[Code::FailedPrecondition, Code::InvalidArgument], "state");
    fs::create_dir(dir.join("inside")).expect("mkdir");
    refused(mount(&other, &dir.join("inside")), &[Code::AlreadyExists, Code::FailedPrecondition], "mnt");
    refused(mount("ses_0000000000000000", &free), &[Code::NotFound], "ses_0000000000000000");
    refused(mount("ses_!!", &free), &[Code::InvalidArgument], "ses_!!");
    assert_eq!(daemon.mounts(), std::slice::from_ref(&dir));
    assert_eq!(daemon.show(&session).mounts.len(), 1);
    mount(&other, &free).expect("a free directory");
}

#[test]
fn mounts_are_taken_away_by_directory_and_by_session() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("file"), b"kept").expect("write");
    refused(daemon.unmount(&daemon.path("nothing")), &[Code::NotFound, Code::FailedPrecondition], "nothing");
    daemon.unmount_unused(&dir);
    assert!(daemon.mounts().is_empty());
    refused(daemon.unmount_session(&session), &[Code::FailedPrecondition], &session);
    daemon.mount(&session, &dir).expect("mount");
    daemon.unmount_session(&session).expect("unmount");
    assert!(daemon.mounts().is_empty());
    daemon.mount(&session, &dir).expect("mount");
    assert_eq!(fs::read(dir.join("file")).expect("read"), b"kept");

    let held = File::open(dir.join("file")).expect("open");
    refused(daemon.unmount(&dir), &[Code::AlreadyExists, Code::FailedPrecondition], "mnt");
    drop(held);
    daemon.unmount_unused(&dir);
}

#[test]
fn a_mount_that_others_took_away_can_be_made_again() {
    let Some(daemon) = Daemon::start() else { return };
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (session, dir) = daemon.mounted("", "mnt");
    nix::mount::umount(&dir).expect("umount");
    // The daemon hears of it from the kernel, a moment later.
    for _ in 0..500 {
        if daemon.show(&session).mounts.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    daemon.mount(&session, &dir).expect("mount again");
}

#[test]
fn a_read_only_mount_refuses_changes() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let file = dir.join("file");
    fs::write(&file, b"content").expect("write");
    daemon.unmount_unused(&dir);
    daemon.mount_read_only(&session, &dir).expect("mount");
    assert_eq!(fs::read(&file).expect("read"), b"content");
    let refused = [
        fs::write(&file, b"no"),
        fs::remove_file(&file),
        fs::create_dir(dir.join("no")),
        fs::rename(&file, dir.join("no")),
        fs::hard_link(&file, dir.join("no")),
        symlink("no", dir.join("no")),
        fs::set_permissions(&file, fs::Permissions::from_mode(0o777)),
        chown(&file, Some(1), Some(1)),
        xattr::set(&file, "user.no", b""),
        File::open(&file).expect("open").set_modified(SystemTime::UNIX_EPOCH),
    ];
    assert!(
        refused.iter().all(|r| r.as_ref().is_err_and(|e| e.kind() == ErrorKind::ReadOnlyFilesystem)),
        "{refused:?}"
    );
    daemon.unmount_unused(&dir);
    daemon.mount(&session, &dir).expect("mount");
    assert_eq!(daemon.names(&session, "").expect("ls"), [b"file"]);
}

#[test]
fn a_mounted_session_is_discarded_only_by_force() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("file"), b"content").expect("write");
    let (fork, _) = daemon.forked(&session, "fork");
    refused(daemon.discard(&session, false), &[Code::FailedPrecondition], "mount");
    assert_eq!(fs::read(dir.join("file")).expect("read"), b"content");
    daemon.discard(&session, true).expect("discard");
    assert!(!daemon.mounts().contains(&dir));
    refused(daemon.mount(&session, &dir), &[Code::NotFound], &session);
    assert_eq!(daemon.read(&fork, "file").expect("read"), b"content", "a fork outlives its parent");
}

/// A mount was remembered by the path that it was made on; with a directory above it renamed nothing could take it away.
#[test]
fn a_mount_is_found_where_it_is_now() {
    let Some(daemon) = Daemon::start() else { return };
    let above = daemon.new_dir("above");
    let session = daemon.create("").expect("create");
    fs::create_dir(above.join("mnt")).expect("mkdir");
    daemon.mount(&session, &above.join("mnt")).expect("mount");
    fs::write(above.join("mnt/file"), b"kept").expect("write");
    let moved = daemon.path("moved");
    fs::rename(&above, &moved).expect("rename");
    assert_eq!(fs::read(moved.join("mnt/file")).expect("read"), b"kept");
    refused(
        daemon.mount(&session, &daemon.new_dir("free")),
        &[Code::AlreadyExists],
        moved.to_str().expect("a plain path"),
    );
    daemon.unmount_unused(&moved.join("mnt"));
    assert!(daemon.mounts().is_empty());
    daemon.mount(&session, &moved.join("mnt")).expect("mount");
    fs::rename(&moved, &above).expect("rename");
    daemon.discard(&session, true).expect("discard");
    assert!(daemon.mounts().is_empty());
}

#[test]
fn a_detached_mount_says_so_and_blocks_no_directory() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let held = File::create(dir.join("held")).expect("create");
    nix::mount::umount2(&dir, nix::mount::MntFlags::MNT_DETACH).expect("umount -l");
    refused(daemon.unmount_session(&session), &[Code::AlreadyExists], "detached");
    refused(daemon.mount(&session, &daemon.new_dir("free")), &[Code::AlreadyExists], "detached");
    let other = daemon.create("").expect("create");
    daemon.mount(&other, &dir).expect("nothing is mounted there any more");
    drop(held);
    let free = daemon.path("free");
    let mounted = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        daemon.mount(&session, &free).is_ok()
    });
    assert!(mounted, "its last user is gone");
    assert!(free.join("held").exists());
}
