//! What is imported is what is mounted.

use std::{fs, os::unix::fs::MetadataExt};

use crate::{
    daemon::Daemon,
    listing::{Times, assert_same, listing},
    sample,
};

#[test]
fn an_imported_tree_is_mounted_as_it_was() {
    let Some(daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    sample::make(&tree);
    let want = listing(&tree, Times::All);
    let snapshot = daemon.import(&tree).expect("import");
    let (session, dir) = daemon.mounted(&snapshot, "mnt");
    assert_same("the mount", &want, &listing(&dir, Times::All));
    daemon.remount(&session, &dir);
    assert_same("the mount, again", &want, &listing(&dir, Times::All));
    assert_eq!(daemon.seal(&session).expect("seal"), snapshot, "an unchanged session is its base");
    assert_eq!(daemon.import(&tree).expect("import"), snapshot, "the same tree again is the same snapshot");
}

#[test]
fn inode_numbers_stay_over_mounts_and_forks() {
    let Some(daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    sample::make(&tree);
    let snapshot = daemon.import(&tree).expect("import");
    let (session, first) = daemon.mounted(&snapshot, "first");
    let (_, fork) = daemon.forked(&session, "fork");
    let (_, other) = daemon.mounted(&snapshot, "other");
    for path in ["", "kinds", "kinds/file", "kinds/soft", "wide/file-01234", "sizes/holes"] {
        let ino = |root: &std::path::Path| fs::symlink_metadata(root.join(path)).expect("stat").ino();
        assert_eq!((ino(&fork), ino(&other)), (ino(&first), ino(&first)), "{path:?}");
    }
    let device = |root: &std::path::Path| fs::metadata(root).expect("stat").dev();
    assert_ne!(device(&first), device(&fork), "each mount has a device number of its own");
}

#[test]
fn holes_stay_holes() {
    let Some(daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    sample::make(&tree);
    let snapshot = daemon.import(&tree).expect("import");
    let (_, dir) = daemon.mounted(&snapshot, "mnt");
    for (name, blocks_max) in [("all-hole", 0), ("holes", 8192)] {
        let blocks = fs::metadata(dir.join("sizes").join(name)).expect("stat").blocks();
        assert!(blocks <= blocks_max, "{name} has {blocks} blocks");
    }
}
