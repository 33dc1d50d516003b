//! Seals, forks, discards and writes of one session at once.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use tonic::Code;

use crate::daemon::Daemon;

/// Forks of one session in one test.
const FORKS_MAX: usize = 100_000;

/// Writes numbered lines and as many files, until told to stop or until a call fails; returns how many there are.
fn write_on(dir: &Path, acknowledged: &AtomicU64, stop: &AtomicBool) -> u64 {
    let work = |n: u64| -> std::io::Result<()> {
        fs::write(dir.join(format!("file-{}", n % 50)), format!("{n:08}").repeat(500))?;
        let mut journal = File::options().append(true).create(true).open(dir.join("journal"))?;
        journal.write_all(format!("{n:08}\n").as_bytes())
    };
    for n in 0.. {
        if stop.load(Ordering::Relaxed) || work(n).is_err() {
            return n;
        }
        acknowledged.store(n + 1, Ordering::Release);
    }
    unreachable!("the numbers do not end")
}

/// A session that was cut from the writer's: the journal's lines from the first on, and the files that go with them.
fn check_cut(daemon: &Daemon, id: &str, at_least: u64) {
    let journal = if at_least == 0 {
        daemon.read(id, "journal").unwrap_or_default()
    } else {
        daemon.read(id, "journal").expect("a journal")
    };
    let lines = journal.len() as u64 / 9;
    assert!(lines >= at_least, "{id} has {lines} lines, and {at_least} were acknowledged before it was made");
    for (n, line) in journal.chunks(9).enumerate() {
        let expected = format!("{n:08}\n");
        // Of a line across the end of a page the kernel makes two requests, and docs/semantics.md says that a fork may be between them.
        let expected = match line.len() {
            9 => &expected[..],
            len if journal.len() % 4096 == 0 => &expected[..len],
            _ => panic!("{id}: {} bytes of a journal, which end within line {n}", journal.len()),
        };
        assert_eq!(String::from_utf8_lossy(line), expected, "{id}, line {n} of {lines}");
    }
    // The file of the last whole line was written before it; the one after may have begun.
    for n in lines.saturating_sub(40)..lines {
        let file = daemon.read(id, &format!("file-{}", n % 50)).expect("a file of an acknowledged line");
        assert_eq!(file, format!("{n:08}").repeat(500).into_bytes(), "{id}, line {n} of {lines}");
    }
}

#[test]
fn forks_while_a_session_is_sealed_and_written_are_whole() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(&dir, &acknowledged, &stop));
        let sealer = scope.spawn(|| {
            let mut snapshots = HashSet::new();
            while !stop.load(Ordering::Relaxed) {
                let before = acknowledged.load(Ordering::Acquire);
                let snapshot = daemon.seal(&session).expect("seal");
                check_cut(&daemon, &snapshot, before);
                snapshots.insert(snapshot);
            }
            snapshots.len()
        });
        for _ in 0..25 {
            let before = acknowledged.load(Ordering::Acquire);
            let fork = daemon.fork(&session).expect("fork");
            let of_fork = daemon.fork(&fork).expect("fork of the fork");
            check_cut(&daemon, &fork, before);
            daemon.seal(&fork).expect("seal the fork");
            // Its child stands on what the parent had; the parent goes.
            daemon.discard(&fork, false).expect("discard");
            check_cut(&daemon, &of_fork, before);
            daemon.discard(&of_fork, false).expect("discard");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(sealer.join().expect("the sealer") > 1, "hardly anything was sealed: this tests nothing");
        writer.join().expect("the writer")
    });
    check_cut(&daemon, &session, written);
    daemon.remount(&session, &dir);
    check_cut(&daemon, &session, written);
    assert!(written > 20, "only {written} lines were written: this tests nothing");
}

#[test]
fn a_session_discarded_while_it_is_forked_and_mounted_leaves_whole_forks() {
    let Some(daemon) = Daemon::start() else { return };
    for round in 0..6 {
        let (session, dir) = daemon.mounted("", &format!("mnt-{round}"));
        let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let forks = thread::scope(|scope| {
            let writer = scope.spawn(|| write_on(&dir, &acknowledged, &stop));
            // Until the session is gone, or for so many that something else is wrong.
            let forker = scope.spawn(|| {
                let mut forks = Vec::new();
                for _ in 0..FORKS_MAX {
                    let before = acknowledged.load(Ordering::Acquire);
                    match daemon.fork(&session) {
                        Ok(fork) => forks.push((fork, before)),
                        Err(status) => return (forks, Some(status)),
                    }
                }
                (forks, None)
            });
            while acknowledged.load(Ordering::Acquire) < 5 + 10 * round {
                thread::yield_now();
            }
            let refused = daemon.discard(&session, false).expect_err("it is mounted");
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
            stop.store(true, Ordering::Relaxed);
            writer.join().expect("the writer");
            // Busy while some other test's child has a copy of a file that was open here.
            let mut discarded = daemon.discard(&session, true);
            for _ in 0..100 {
                if !discarded.as_ref().is_err_and(|status| status.message().contains("busy")) {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
                discarded = daemon.discard(&session, true);
            }
            let (forks, end) = forker.join().expect("the forker");
            discarded.expect("discard by force");
            assert_eq!(end.map(|status| status.code()), Some(Code::NotFound));
            forks
        });
        assert!(!forks.is_empty(), "nothing was forked: this tests nothing");
        for (fork, before) in &forks {
            check_cut(&daemon, fork, *before);
            daemon.discard(fork, false).expect("discard");
        }
        assert!(daemon.show_anything(&session).is_err(), "the session is still there");
        assert!(!daemon.mounts().contains(&dir), "the mount is still there");
    }
    assert_eq!(daemon.stats().sessions, 0);
}
