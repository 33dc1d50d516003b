//! The same random system calls on the mount and on the file system under it: the same answers, the same trees.
//!
//! In between the session is sealed, mounted again, and its daemon killed: none of that may show. More seeds than usual:
//! `AETHERFS_TEST_SEEDS=200 cargo test --test mount differential`.

mod calls;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    daemon::Daemon,
    listing::{Times, assert_same, listing},
    random::Random,
};
use calls::{Calls, World};

const SEEDS: u64 = 6;
const STEPS: u64 = 600;
const COMPARE_EVERY: u64 = 25;
const SEAL_EVERY: u64 = 90;
const REMOUNT_EVERY: u64 = 110;
const KILL_EVERY: u64 = 250;

#[test]
fn system_calls_on_an_empty_session_answer_as_elsewhere() {
    (0..seeds()).for_each(|seed| compare(seed, false));
}

#[test]
fn system_calls_on_an_imported_tree_answer_as_elsewhere() {
    (0..seeds()).for_each(|seed| compare(seed | 1 << 20, true));
}

fn seeds() -> u64 {
    std::env::var("AETHERFS_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

fn compare(seed: u64, on_import: bool) {
    let Some(mut daemon) = Daemon::start() else { return };
    let native = daemon.new_dir("native");
    let calls = Calls::for_directory(&native);
    let mut expected = World::new(native.clone());
    let mut base = String::new();
    if on_import {
        // What the calls themselves make of an empty directory is a tree that they find names in.
        (0..STEPS / 2).for_each(|step| drop(calls.one(&mut expected, &mut chance(seed, 1 << 32 | step))));
        expected.handles.clear();
        base = daemon.import(&native).expect("import");
    }
    let (session, mount) = daemon.mounted(&base, "mnt");
    if !on_import {
        // Its root is new, and owned by whoever runs the daemon; the other one's mode depends on the umask.
        fs::set_permissions(&mount, fs::metadata(&native).expect("stat").permissions()).expect("chmod");
    }
    let mut actual = World::new(mount.clone());
    let mut last = Vec::new();
    for step in 1..=STEPS {
        let (call, want) = calls.one(&mut expected, &mut chance(seed, step));
        let (_, got) = calls.one(&mut actual, &mut chance(seed, step));
        last.push(format!("{step}: {call} -> {want:?}"));
        let story = || {
            format!("seed {seed}, step {step}, after\n{}", last[last.len().saturating_sub(30)..].join("\n"))
        };
        assert_eq!(got, want, "{}", story());
        if step % SEAL_EVERY == 0 {
            daemon.seal(&session).expect("seal");
        }
        let remount = step % REMOUNT_EVERY == 0;
        let crash = step % KILL_EVERY == 0;
        if remount || crash {
            expected.handles.clear();
            actual.handles.clear();
        }
        if crash {
            daemon.kill();
            daemon.restart();
            daemon.mount(&session, &mount).expect("mount after a crash");
        } else if remount {
            daemon.remount(&session, &mount);
        }
        if step % COMPARE_EVERY == 0 || remount || crash {
            assert_same(&story(), &tree(&native), &tree(&mount));
        }
    }
    check_copies(&daemon, &session, &native);
}

/// The tree is in a fork and in a session on the sealed point as well.
fn check_copies(daemon: &Daemon, session: &str, native: &Path) {
    let want = tree(native);
    let (fork, dir) = daemon.forked(session, "fork");
    assert_same("a fork", &want, &tree(&dir));
    let sealed = daemon.seal(&fork).expect("seal");
    assert_same("a fork, sealed", &want, &tree(&dir));
    let (_, dir) = daemon.mounted(&sealed, "sealed");
    assert_same("a session on the sealed point", &want, &tree(&dir));
}

fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    listing(root, Times::SetByHand)
}

fn chance(seed: u64, step: u64) -> Random {
    Random::new(seed << 34 ^ step)
}
