//! Directories that are wide, and change while they are listed.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::daemon::Daemon;

const WIDE: usize = 100_000;

#[test]
fn a_wide_directory_is_listed_while_it_changes() {
    let Some(daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    // Half is imported, half is added in the session.
    (0..WIDE / 2).for_each(|n| fs::write(tree.join(format!("base{n:05}")), b"").expect("write"));
    let snapshot = daemon.import(&tree).expect("import");
    let (session, dir) = daemon.mounted(&snapshot, "mnt");
    (0..WIDE / 2).for_each(|n| fs::write(dir.join(format!("added{n:05}")), b"").expect("write"));
    assert_eq!(fs::read_dir(&dir).expect("list").count(), WIDE);

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // The odd ones come and go; the even ones stay.
            for round in 0.. {
                for n in (1..WIDE / 2).step_by(2) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let path = dir.join(format!("{}{n:05}", if round % 2 == 0 { "base" } else { "added" }));
                    if fs::remove_file(&path).is_err() {
                        fs::write(&path, b"again").expect("write");
                    }
                    fs::write(dir.join(format!("fleeting{n}")), b"").expect("write");
                    fs::remove_file(dir.join(format!("fleeting{n}"))).expect("unlink");
                }
            }
        });
        for _ in 0..10 {
            let mut seen: HashMap<OsString, u32> = HashMap::new();
            for entry in fs::read_dir(&dir).expect("list") {
                *seen.entry(entry.expect("an entry").file_name()).or_default() += 1;
            }
            for n in (0..WIDE / 2).step_by(2) {
                for kind in ["base", "added"] {
                    let name = OsString::from(format!("{kind}{n:05}"));
                    if seen.get(&name) != Some(&1) {
                        stop.store(true, Ordering::Relaxed);
                        panic!("{name:?} was listed {:?} times", seen.get(&name));
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });

    let names = |dir: &std::path::Path| -> BTreeSet<OsString> {
        fs::read_dir(dir).expect("list").map(|entry| entry.expect("an entry").file_name()).collect()
    };
    let (_, fork) = daemon.forked(&session, "fork");
    assert_eq!(names(&fork), names(&dir));
    daemon.seal(&session).expect("seal");
    assert_eq!(names(&fork), names(&dir));
    daemon.remount(&session, &dir);
    assert_eq!(names(&fork), names(&dir));
}

#[test]
fn a_listing_goes_on_over_removals_of_what_it_showed() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    (0..5000).for_each(|n| fs::write(dir.join(format!("file{n}")), b"").expect("write"));
    // As `rm -r` does.
    let mut removed = 0;
    for entry in fs::read_dir(&dir).expect("list") {
        fs::remove_file(entry.expect("an entry").path()).expect("unlink");
        removed += 1;
    }
    assert_eq!(removed, 5000);
    assert_eq!(fs::read_dir(&dir).expect("list").count(), 0);
}
