//! What is imported is what is mounted.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
};

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
fn an_import_goes_into_mounts_and_not_along_links() {
    let Some(daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    let elsewhere = daemon.new_dir("elsewhere");
    fs::write(elsewhere.join("not-imported"), b"").expect("write");
    symlink(&elsewhere, tree.join("link")).expect("symlink");
    // Another file system below the source: a session of another daemon.
    let Some(mut other) = Daemon::start() else { return };
    let session = other.create("").expect("create");
    fs::create_dir(tree.join("below")).expect("mkdir");
    other.mount(&session, &tree.join("below")).expect("mount");
    fs::write(tree.join("below/there"), b"on another file system").expect("write");
    let snapshot = daemon.import(&tree).expect("import");
    assert_eq!(daemon.names(&snapshot, "").expect("ls"), [&b"below"[..], b"link"]);
    assert_eq!(daemon.read(&snapshot, "below/there").expect("cat"), b"on another file system");
    let (_, dir) = daemon.mounted(&snapshot, "mnt");
    assert_eq!(fs::read_link(dir.join("link")).expect("readlink"), elsewhere);
    // That file system dies: what cannot be read is not left out.
    other.kill();
    let failed = daemon.import(&tree).expect_err("the mount below is dead");
    assert!(failed.message().contains("below"), "{failed:?}");
    other.restart();
    daemon.import(&tree).expect("the bare directory can be read");
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
