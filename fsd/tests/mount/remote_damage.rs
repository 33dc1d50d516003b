//! Bytes that rot where hosts share a store: in the store, in the cache of what came from it, and in a host's own packs.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use proto::v1::Transport;

use crate::{
    daemon::Daemon,
    listing::{Times, assert_same, listing},
    remote::{Hosts, large_tree},
};

#[test]
fn damage_in_the_store_is_never_read() {
    let Some(hosts) = Hosts::start() else { return };
    let tree = hosts.here.new_dir("tree");
    large_tree(&tree);
    let snapshot = hosts.here.import(&tree).expect("import");
    hosts.here.publish(&snapshot).expect("publish");
    let flip = |pack: &Path| {
        let file = File::options().read(true).write(true).open(pack).expect("a pack");
        let mut byte = [0];
        file.read_exact_at(&mut byte, 2000).expect("read");
        file.write_all_at(&[byte[0] ^ 1], 2000).expect("write");
    };
    let pack = hosts.packs().remove(0);
    flip(&pack);
    let (_, dir) = hosts.there.mounted(&snapshot, "mnt");
    assert!(fs::read(dir.join("dir0/file0")).is_err(), "its frame is damaged");
    let same =
        |path: &str| fs::read(dir.join(path)).expect("read") == fs::read(tree.join(path)).expect("read");
    assert!(same("dir3/file39"), "others are not");
    flip(&pack);
    assert!(same("dir0/file0"), "and neither is it, as soon as it is mended");
}

/// Zeros in the middle of each file.
fn damage(files: impl IntoIterator<Item = PathBuf>) {
    for path in files {
        let file = File::options().write(true).open(&path).expect("a pack");
        let len = file.metadata().expect("a file").len();
        file.write_all_at(&[0; 2000], len / 2).expect("write");
    }
}

/// The files in a directory of a daemon's state.
fn files_of(daemon: &Daemon, dir: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(daemon.state_dir().join(dir)).expect("a folder").flatten().map(|file| file.path())
}

#[test]
fn packs_that_rot_are_read_from_the_remote_store() {
    let Some(mut hosts) = Hosts::start() else { return };
    let tree = hosts.here.new_dir("tree");
    large_tree(&tree);
    let want = listing(&tree, Times::All);
    let snapshot = hosts.here.import(&tree).expect("import");
    hosts.here.publish(&snapshot).expect("publish");
    hosts.here.terminate();
    damage(files_of(&hosts.here, "store/packs"));
    hosts.here.restart();
    let session = hosts.here.create(&snapshot).expect("create");
    let dir = hosts.here.new_dir("mnt");
    hosts.here.mount(&session, &dir).expect("mount");
    assert_same("the mount", &want, &listing(&dir, Times::All));
    fs::write(dir.join("new"), "bytes").expect("write");
    hosts.here.seal(&session).expect("seal");
}

#[test]
fn damage_in_the_cache_is_fetched_again() {
    let Some(mut hosts) = Hosts::start() else { return };
    let tree = hosts.here.new_dir("tree");
    large_tree(&tree);
    let want = listing(&tree, Times::All);
    let (session, dir) = hosts.travel(&tree, Transport::Unspecified);
    assert_same("the mount", &want, &listing(&dir, Times::All));
    hosts.there.terminate();
    let packs = ["cache/store/packs", "cache/frames"].map(|dir| files_of(&hosts.there, dir));
    damage(packs.into_iter().flatten());
    hosts.there.restart();
    hosts.there.mount(&session, &dir).expect("mount");
    assert_same("the mount, again", &want, &listing(&dir, Times::All));
    hosts.there.terminate();
    // No index, and no pack that is one.
    fs::write(hosts.there.state_dir().join("cache/store/index.redb"), "none").expect("write");
    hosts.there.restart();
    hosts.there.mount(&session, &dir).expect("mount");
    assert_same("the mount, with a new cache", &want, &listing(&dir, Times::All));
}
