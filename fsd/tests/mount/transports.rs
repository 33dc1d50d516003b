//! What carries a mount's requests: io_uring where the kernel offers it, /dev/fuse everywhere.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::unix::fs::FileExt,
    thread,
};

use fsd::fuse::may_use_io_uring;
use proto::v1::Transport;
use tonic::Code;

use crate::daemon::{Daemon, soon};

const MIB: usize = 1 << 20;

#[test]
fn a_mount_says_what_carries_its_requests_and_why() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = (daemon.create("").expect("create"), daemon.new_dir("mnt"));
    let shown = || daemon.show(&session).mounts.remove(0);
    daemon.mount_by(Transport::DevFuse, &session, &dir).expect("mount");
    assert_eq!((shown().transport(), shown().transport_note.as_str()), (Transport::DevFuse, ""));
    daemon.unmount_unused(&dir);

    daemon.mount_by(Transport::Auto, &session, &dir).expect("mount");
    let mount = shown();
    daemon.unmount_unused(&dir);
    let by_ring = daemon.mount_by(Transport::IoUring, &session, &dir);
    match may_use_io_uring() {
        Ok(()) => {
            assert_eq!((mount.transport(), mount.transport_note.as_str()), (Transport::IoUring, ""));
            by_ring.expect("mount");
            assert_eq!(shown().transport(), Transport::IoUring);
        }
        Err(why) => {
            assert_eq!((mount.transport(), mount.transport_note), (Transport::DevFuse, why.to_string()));
            let refused = by_ring.expect_err("there is none");
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains(&why.to_string()), "{refused:?}");
            assert!(daemon.mounts().is_empty());
        }
    }
}

#[test]
fn more_requests_than_a_mount_has_places_for_are_all_answered() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let bytes = |n: usize, round: usize| vec![(n * 31 + round) as u8 | 1; 3000 * (n + 1)];
    // Syncs, which wait for the disk, among short calls, which do not.
    thread::scope(|scope| {
        for n in 0..40 {
            let (dir, bytes) = (&dir, &bytes);
            scope.spawn(move || {
                let mut file = File::create_new(dir.join(n.to_string())).expect("create");
                for round in 0..10 {
                    file.rewind().expect("seek");
                    file.write_all(&bytes(n, round)).expect("write");
                    file.sync_all().expect("fsync");
                    let name = dir.join(format!("{n}-{round}"));
                    fs::write(&name, b"x").expect("write");
                    assert!(fs::metadata(dir.join(format!("{n}-never-{round}"))).is_err());
                    fs::remove_file(&name).expect("unlink");
                }
            });
        }
    });
    daemon.remount(&session, &dir);
    assert_eq!(fs::read_dir(&dir).expect("list").count(), 40);
    for n in 0..40 {
        assert_eq!(fs::read(dir.join(n.to_string())).expect("read"), bytes(n, 9), "file {n}");
    }
}

#[test]
fn memory_that_large_requests_took_goes_back() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = (daemon.create("").expect("create"), daemon.new_dir("mnt"));
    if may_use_io_uring().is_err() {
        return;
    }
    daemon.mount_by(Transport::IoUring, &session, &dir).expect("mount");
    let before = daemon.stats().memory_rss_bytes;
    thread::scope(|scope| {
        for n in 0..16 {
            let dir = &dir;
            scope.spawn(move || {
                let path = dir.join(n.to_string());
                let file = File::create_new(&path).expect("create");
                for at in 0..8 {
                    file.write_all_at(&vec![n; MIB], (at * MIB) as u64).expect("write");
                }
                let mut read = vec![];
                File::open(&path).expect("open").read_to_end(&mut read).expect("read");
                assert_eq!(read, vec![n; 8 * MIB]);
            });
        }
    });
    soon("what is left is small", || daemon.stats().memory_rss_bytes < before + 6 * MIB as u64);
}
