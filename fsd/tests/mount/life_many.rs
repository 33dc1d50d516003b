//! Many sessions come and go: what the daemon holds afterwards is what it held before.

use std::{fs, os::unix::fs::FileExt, thread, time::Duration};

use proto::v1::StatsReply;

use crate::daemon::Daemon;

/// How many by default, and with AETHER_LONG=1 in the environment.
const SESSIONS: usize = 120;
const SESSIONS_LONG: usize = 1000;
/// Mounted at a time.
const BATCH: usize = 20;
/// In the tree that all of them begin with.
const FILES: usize = 150;
/// What an allocator may keep of memory that was given back.
const SLACK_BYTES: u64 = 24 << 20;

fn how_many() -> usize {
    if std::env::var_os("AETHER_LONG").is_some() { SESSIONS_LONG } else { SESSIONS }
}

/// Creates sessions, forks some, lists all, mounts each and works in it, unmounts and discards them.
fn generation(daemon: &Daemon, snapshot: &str, count: usize) {
    let mut sessions: Vec<String> = Vec::new();
    for n in 0..count {
        sessions.push(match n % 3 {
            2 => daemon.fork(&sessions[n - 1]).expect("fork"),
            _ => daemon.create(snapshot).expect("create"),
        });
    }
    assert_eq!(daemon.stats().sessions, count as u64);
    for batch in sessions.chunks(BATCH) {
        let dirs: Vec<_> = (0..batch.len()).map(|n| daemon.path(&format!("batch-{n}"))).collect();
        for (session, dir) in batch.iter().zip(&dirs) {
            if !dir.exists() {
                fs::create_dir(dir).expect("mkdir");
            }
            daemon.mount(session, dir).expect("mount");
        }
        for dir in &dirs {
            // Looks at everything, changes something of the base, makes something new.
            for n in 0..FILES {
                let content = fs::read(dir.join(format!("dir-{}/file-{n}", n % 7))).expect("read");
                assert_eq!(content, format!("{n} ").repeat(100).into_bytes());
            }
            let file = fs::File::options().write(true).open(dir.join("large")).expect("open");
            file.write_all_at(b"changed", 1000).expect("write");
            fs::write(dir.join("new"), vec![1; 50_000]).expect("write");
        }
        let stats = daemon.stats();
        assert_eq!(stats.mounts, batch.len() as u64);
        assert!(stats.known_inodes > (FILES * batch.len()) as u64, "{} known inodes", stats.known_inodes);
        dirs.iter().for_each(|dir| daemon.unmount_unused(dir));
        // The sessions are still there; what the kernel knew of them is not.
        let stats = daemon.stats();
        assert_eq!((stats.mounts, stats.known_inodes), (0, 0));
    }
    for session in &sessions {
        daemon.discard(session, false).expect("discard");
    }
}

/// The gauges once dead segments are removed, which takes a sync or two.
fn at_rest(daemon: &Daemon) -> StatsReply {
    let mut last = daemon.stats();
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(100));
        let now = daemon.stats();
        let segments = now.log.as_ref().map_or(0, |log| log.segments + log.segment_bytes);
        if segments == 0 && now.open_files == last.open_files {
            return now;
        }
        last = now;
    }
    last
}

/// 120 mounts that came and went left 600 MiB resident: the C library kept their buffers.
#[test]
fn many_sessions_come_and_go_and_leave_nothing() {
    let Some(daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    (0..7).for_each(|n| fs::create_dir(tree.join(format!("dir-{n}"))).expect("mkdir"));
    for n in 0..FILES {
        fs::write(tree.join(format!("dir-{}/file-{n}", n % 7)), format!("{n} ").repeat(100)).expect("write");
    }
    fs::write(tree.join("large"), vec![7; 1 << 20]).expect("write");
    let snapshot = daemon.import(&tree).expect("import");
    // What is made once and kept: caches, threads, the allocator's arenas.
    generation(&daemon, &snapshot, BATCH);
    let before = at_rest(&daemon);
    generation(&daemon, &snapshot, how_many());
    let after = at_rest(&daemon);

    let gauges = |stats: &StatsReply| {
        let log = stats.log.unwrap_or_default();
        (stats.sessions, stats.mounts, stats.known_inodes, log.segments, log.segment_bytes)
    };
    assert_eq!(gauges(&before), (0, 0, 0, 0, 0), "{before:?}");
    assert_eq!(gauges(&after), (0, 0, 0, 0, 0), "{after:?}");
    assert_eq!(after.open_files, before.open_files, "file descriptors");
    let grown = after.memory_rss_bytes.saturating_sub(before.memory_rss_bytes);
    eprintln!(
        "{} sessions: memory {} -> {} KiB, {} open files, log {} KiB",
        how_many(),
        before.memory_rss_bytes >> 10,
        after.memory_rss_bytes >> 10,
        after.open_files,
        after.log.unwrap_or_default().bytes >> 10,
    );
    assert!(grown < SLACK_BYTES, "the daemon grew by {} KiB", grown >> 10);
    let threads = fs::read_dir(format!("/proc/{}/task", after.pid)).expect("the daemon's threads").count();
    assert!(threads < 160, "{threads} threads");
}
