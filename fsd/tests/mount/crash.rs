//! The daemon dies under load, and comes back.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    thread,
    time::Duration,
};

use crate::{
    daemon::{Daemon, soon},
    listing::{Times, assert_same, listing},
};

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let Some(mut daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let mut lost = Vec::new();
    for round in 0..3 {
        let counts: Vec<u64> = thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let home = dir.join(format!("round{round}-writer{writer}"));
                    scope.spawn(move || write_until_death(&home))
                })
                .collect();
            thread::sleep(Duration::from_millis(700));
            daemon.kill();
            writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
        });
        daemon.restart();
        assert_eq!(daemon.mounts(), Vec::<std::path::PathBuf>::new(), "the dead mount is still there");
        daemon.mount(&session, &dir).expect("mount");
        for (writer, count) in counts.into_iter().enumerate() {
            let home = dir.join(format!("round{round}-writer{writer}"));
            assert!(count > 10, "only {count} files were written: this tests nothing");
            lost.extend(check_acknowledged(&home, count));
        }
    }
    assert!(lost.is_empty(), "lost: {lost:?}");
}

/// Returns how many files were written whole, each then a line in the journal, before the first call failed.
fn write_until_death(home: &Path) -> u64 {
    let mut acknowledged = 0;
    let mut work = || -> std::io::Result<()> {
        fs::create_dir(home)?;
        let mut journal = File::options().append(true).create(true).open(home.join("journal"))?;
        for n in 0.. {
            let temporary = home.join("temporary");
            fs::write(&temporary, format!("payload {n}\n").repeat(n as usize % 700 + 1))?;
            fs::rename(&temporary, home.join(n.to_string()))?;
            journal.write_all(format!("{n}\n").as_bytes())?;
            acknowledged = n + 1;
        }
        Ok(())
    };
    work().expect_err("it ends when the daemon does");
    acknowledged
}

fn check_acknowledged(home: &Path, count: u64) -> Vec<String> {
    let mut lost = Vec::new();
    let journal = fs::read_to_string(home.join("journal")).expect("read");
    if !journal.lines().take(count as usize).eq((0..count).map(|n| n.to_string())) {
        lost.push(format!("{}/journal", home.display()));
    }
    for n in 0..count {
        let content = fs::read_to_string(home.join(n.to_string())).unwrap_or_default();
        if content != format!("payload {n}\n").repeat(n as usize % 700 + 1) {
            lost.push(format!("{}/{n}", home.display()));
        }
    }
    lost
}

#[test]
fn everything_is_there_after_a_crash_and_after_a_clean_stop() {
    let Some(mut daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    crate::sample::make(&tree);
    let snapshot = daemon.import(&tree).expect("import");
    let (session, dir) = daemon.mounted(&snapshot, "mnt");
    fs::rename(dir.join("kinds"), dir.join("sorts")).expect("rename");
    fs::write(dir.join("sorts/file"), b"changed").expect("write");
    let (fork, forked) = daemon.forked(&session, "fork");
    fs::remove_dir_all(forked.join("wide")).expect("rm -r");
    fs::write(dir.join("after-the-fork"), b"parent").expect("write");
    let (want, want_fork) = (listing(&dir, Times::All), listing(&forked, Times::All));
    for crash in [true, false, true] {
        if crash {
            daemon.kill();
        } else {
            assert!(daemon.terminate().success(), "SIGTERM is a clean end");
            assert!(daemon.mounts().is_empty(), "SIGTERM left {:?}", daemon.mounts());
        }
        daemon.restart();
        assert!(daemon.mounts().is_empty(), "a dead mount is still there: {:?}", daemon.mounts());
        daemon.mount(&session, &dir).expect("mount");
        daemon.mount(&fork, &forked).expect("mount");
        assert_same("the parent", &want, &listing(&dir, Times::All));
        assert_same("the fork", &want_fork, &listing(&forked, Times::All));
    }
}

#[test]
fn a_dead_mount_answers_enotconn_until_the_next_start() {
    let Some(mut daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("file"), b"kept").expect("write");
    let mut held = File::options().append(true).open(dir.join("file")).expect("open");
    daemon.kill();
    let dead =
        |result: std::io::Result<()>| result.is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN));
    // The kernel takes rings apart in the background; calls that reach it meanwhile are aborted, in another word.
    soon("the kernel has taken note", || dead(fs::write(dir.join("new"), b"")));
    assert!(dead(fs::metadata(&dir).map(drop)));
    assert!(dead(fs::remove_file(dir.join("file"))));
    assert!(held.write_all(b"lost").is_err(), "what was open before is no better");
    assert_eq!(daemon.mounts(), std::slice::from_ref(&dir));
    daemon.restart();
    assert!(daemon.mounts().is_empty());
    assert_eq!(fs::read_dir(&dir).expect("the bare directory").count(), 0);
    daemon.mount(&session, &dir).expect("mount");
    assert_eq!(fs::read(dir.join("file")).expect("read"), b"kept");
}

#[test]
fn sigterm_detaches_a_busy_mount() {
    let Some(mut daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let held = File::create(dir.join("held")).expect("create");
    assert!(daemon.terminate().success());
    assert!(daemon.mounts().is_empty());
    drop(held);
    daemon.restart();
    daemon.mount(&session, &dir).expect("mount");
    assert!(dir.join("held").exists());
}
