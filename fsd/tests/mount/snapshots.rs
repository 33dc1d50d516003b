//! What was sealed, and stays.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::{Whence, lseek};
use proto::v1::GcRequest;

use crate::{
    daemon::Daemon,
    listing::{Times, assert_same, listing},
    random::Random,
    sample,
};

/// What a listing leaves out: number, change time, access time, and where data begins.
type Rest = (u64, (i64, i64), (i64, i64), u64, Option<i64>);

fn rest(root: &Path) -> BTreeMap<PathBuf, Rest> {
    let of = |path: &Path| {
        let meta = fs::symlink_metadata(path).expect("lstat");
        let data = meta.is_file().then(|| fs::File::open(path).expect("open"));
        let data = data.and_then(|file| lseek(&file, 0, Whence::SeekData).ok());
        let (ctime, atime) = ((meta.ctime(), meta.ctime_nsec()), (meta.atime(), meta.atime_nsec()));
        (meta.ino(), ctime, atime, meta.blocks(), data)
    };
    let paths = listing(root, Times::All).into_keys();
    paths.map(|path| (path.clone(), of(&root.join(path)))).collect()
}

fn gc(daemon: &Daemon) {
    let done = daemon.ask(async |mut client| {
        let mut events = client.gc(GcRequest { dry_run: false }).await?.into_inner();
        while events.message().await?.is_some() {}
        Ok(())
    });
    done.expect("gc");
}

#[test]
fn a_snapshot_stays_what_it_was() {
    let Some(mut daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    sample::make(&tree);
    // A GiB of zeros to read, each time.
    fs::remove_file(tree.join("sizes/all-hole")).expect("unlink");
    let imported = daemon.import(&tree).expect("import");
    let (session, dir) = daemon.mounted(&imported, "mnt");
    // What no import has: change times of their own.
    fs::create_dir(dir.join("made")).expect("mkdir");
    fs::write(dir.join("made/file"), Random::new(31).bytes(700_000)).expect("write");
    fs::hard_link(dir.join("kinds/file"), dir.join("made/link")).expect("link");
    fs::File::create(dir.join("made/hole")).expect("create").set_len(64 << 20).expect("truncate");
    let sealed = daemon.seal(&session).expect("seal");
    let (_, first) = daemon.mounted(&sealed, "first");
    let (want, want_rest) = (listing(&first, Times::All), rest(&first));
    assert_same("the session that was sealed", &want, &listing(&dir, Times::All));
    for (path, (ino, ctime, ..)) in rest(&dir) {
        assert_eq!((ino, ctime), (want_rest[&path].0, want_rest[&path].1), "{}", path.display());
    }

    // Everything is moved, then removed, with seals and gc in between; in the end the session goes as well.
    for round in 0..2 {
        for name in ["kinds", "names", "sizes", "wide", "attributes"] {
            if round == 0 {
                fs::rename(dir.join(name), dir.join(format!("old {name}"))).expect("rename");
            } else {
                fs::remove_dir_all(dir.join(format!("old {name}"))).expect("rm -r");
            }
        }
        fs::write(dir.join("made/file"), Random::new(round).bytes(800_000)).expect("write");
        fs::write(dir.join("made/link"), b"another content").expect("write");
        daemon.seal(&session).expect("seal");
        gc(&daemon);
    }
    daemon.discard(&session, true).expect("discard");
    gc(&daemon);
    daemon.kill();
    daemon.restart();
    let (_, again) = daemon.mounted(&sealed, "again");
    assert_same("created from it later", &want, &listing(&again, Times::All));
    assert_eq!(rest(&again), want_rest, "numbers, change times, blocks, or where data begins");
}
