//! What carries a mount's requests: io_uring where the kernel offers it, /dev/fuse everywhere.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use fsd::fuse::may_use_io_uring;
use nix::{
    libc,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
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

/// The scheduling policy of the thread that owns a CPU's ring: field 41 of proc_pid_stat(5).
fn ring_policy(daemon: &Daemon, cpu: usize) -> i32 {
    let name = format!("(fuse-ring-{cpu}) ");
    let threads = daemon.threads();
    let stat = threads.iter().find_map(|stat| stat.split_once(&name)).expect("there is one").1;
    stat.split(' ').nth(38).and_then(|policy| policy.parse().ok()).expect("a number")
}

/// Whether this process may change policies as it likes: bit 23 of its capabilities, CAP_SYS_NICE.
fn may_set_policies() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("read");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("it is there");
    u64::from_str_radix(effective, 16).expect("a number") & 1 << 23 != 0
}

fn stay_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &set).expect("it is ours");
}

#[test]
fn a_ring_makes_way_for_its_clients_but_not_for_others() {
    let Some(daemon) = Daemon::start() else { return };
    if !may_set_policies() || may_use_io_uring().is_err() {
        return;
    }
    let (session, dir) = (daemon.create("").expect("create"), daemon.new_dir("mnt"));
    daemon.mount_by(Transport::IoUring, &session, &dir).expect("mount");
    let ours = sched_getaffinity(Pid::from_raw(0)).expect("it is known");
    let cpu = (0..CpuSet::count()).find(|cpu| ours.is_set(*cpu).unwrap_or(false)).expect("we are on one");
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let answered_so_far = || answered.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let _end = EndsWith(&is_over);
        scope.spawn(|| {
            stay_on(cpu);
            while !is_over.load(Ordering::Relaxed) {
                let nth = answered.fetch_add(1, Ordering::Relaxed);
                assert!(fs::metadata(dir.join(nth.to_string())).is_err());
            }
        });
        // Beside other tests that may be for milliseconds: looked at without a pause. The daemon is killed if it never is.
        while ring_policy(&daemon, cpu) != libc::SCHED_IDLE {
            thread::yield_now();
        }
        for _ in 0..2 {
            scope.spawn(|| {
                stay_on(cpu);
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        // An idle ring would be given its CPU a few times a second here, and stay idle.
        let begin = answered_so_far();
        soon("the ring has its share, and clients their answers", || {
            answered_so_far() > begin + 1000 && ring_policy(&daemon, cpu) == libc::SCHED_OTHER
        });
    });
    soon("a quiet ring has its share", || ring_policy(&daemon, cpu) == libc::SCHED_OTHER);
}

/// Ends what others do, also when a test fails.
struct EndsWith<'a>(&'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
