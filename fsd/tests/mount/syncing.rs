//! What makes changes survive power loss: each of the calls that promise it, and the daemon by itself.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    thread,
    time::Duration,
};

use crate::daemon::Daemon;

/// How often, 10 ms apart, it is looked whether the daemon has synced by itself.
const LOOKS: u32 = 500;

/// Where the log ends, and up to where it is durable.
fn log(daemon: &Daemon) -> (u64, u64) {
    let log = daemon.stats().log.expect("a log");
    (log.position, log.synced_position)
}

fn syncs(daemon: &Daemon) -> u64 {
    let requests = daemon.stats().fuse_requests;
    ["fsync", "fsyncdir"].iter().filter_map(|name| requests.get(*name)).sum()
}

#[test]
fn every_way_to_sync_covers_everything_so_far() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    let (_, other) = daemon.mounted("", "other");
    let open_with = |flag: i32| {
        let mut options = File::options();
        options.write(true).create(true).custom_flags(flag).open(dir.join("file")).expect("open")
    };
    let (plain, all, data) = (open_with(0), open_with(libc::O_SYNC), open_with(libc::O_DSYNC));
    let root = File::open(&dir).expect("open");
    type Way<'a> = (&'a str, &'a dyn Fn());
    let ways: [Way<'_>; 5] = [
        ("fsync", &|| plain.sync_all().expect("fsync")),
        ("fdatasync", &|| plain.sync_data().expect("fdatasync")),
        ("fsync of a directory", &|| root.sync_all().expect("fsync")),
        ("O_SYNC", &|| (&all).write_all(b"durable").expect("write")),
        ("O_DSYNC", &|| (&data).write_all(b"durable").expect("write")),
    ];
    for (name, way) in ways {
        let mut covered = 0;
        for n in 0..5 {
            // What another session did is durable with it.
            fs::write(other.join(format!("{name} {n}")), b"unsynced").expect("write");
            let ((end, _), before) = (log(&daemon), syncs(&daemon));
            way();
            assert!(log(&daemon).1 >= end, "{name} left changes behind");
            covered += syncs(&daemon) - before;
        }
        // Not by the daemon's own sync, which might have come in between.
        assert!(covered >= 5, "{name} does not reach the daemon");
    }
}

#[test]
fn what_nobody_syncs_is_synced_soon() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("file"), b"not synced by anybody").expect("write");
    let (end, _) = log(&daemon);
    let looked = (0..LOOKS).find(|_| {
        thread::sleep(Duration::from_millis(10));
        log(&daemon).1 >= end
    });
    assert!(looked.is_some(), "not synced after {LOOKS} looks");
    assert_eq!(syncs(&daemon), 0, "it was the daemon");
}
