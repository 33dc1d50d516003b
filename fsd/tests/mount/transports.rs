//! What carries a mount's requests: io_uring where the kernel offers it, /dev/fuse everywhere.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use fsd::fuse::may_use_io_uring;
use nix::unistd::geteuid;
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

/// Scheduling policies of the threads that own rings: field 41 of proc_pid_stat(5).
fn ring_policies(daemon: &Daemon) -> Vec<i32> {
    let policy = |stat: &str| stat.rsplit_once(") ")?.1.split(' ').nth(38)?.parse().ok();
    let stats = daemon.threads();
    let of_rings = stats.iter().filter(|stat| stat.contains("(fuse-ring-"));
    of_rings.map(|stat| policy(stat).expect("a number")).collect()
}

#[test]
fn rings_make_way_for_their_clients_but_not_for_others() {
    let Some(daemon) = Daemon::start() else { return };
    if !geteuid().is_root() || may_use_io_uring().is_err() {
        return;
    }
    let (session, dir) = (daemon.create("").expect("create"), daemon.new_dir("mnt"));
    daemon.mount_by(Transport::IoUring, &session, &dir).expect("mount");
    let is_over = AtomicBool::new(false);
    let any = |policy| ring_policies(&daemon).contains(&policy);
    let all_fair = || ring_policies(&daemon).iter().all(|policy| *policy == libc::SCHED_OTHER);
    assert!(all_fair());
    thread::scope(|scope| {
        let _end = EndsWith(&is_over);
        scope.spawn(|| {
            let mut names = 0..;
            while !is_over.load(Ordering::Relaxed) {
                let name = names.next().expect("there is no end").to_string();
                assert!(fs::metadata(dir.join(name)).is_err());
            }
        });
        soon("a busy ring makes way", || any(libc::SCHED_IDLE));
        // Everybody wants a CPU now: rings that made way would wait for theirs.
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..2 * cpus {
            scope.spawn(|| while !is_over.load(Ordering::Relaxed) {});
        }
        soon("no ring waits for its CPU", all_fair);
    });
    soon("a quiet ring has its share", all_fair);
}

/// Ends what others do, also when a test fails.
struct EndsWith<'a>(&'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
