//! What was read of a session on one host warms it on another: by a profile, told over the socket.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::FileExt,
    path::Path,
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use proto::v1::{
    ByteRange, FetchDone, FetchRequest, ProfileDone, ProfileEntry, ProfileRequest, Transport, fetch_event,
    profile_event,
};
use tonic::{Code, Status};

use crate::{
    daemon::{Answer, Daemon, soon},
    random::Random,
    remote::{Hosts, transports},
};

const DIRS: usize = 8;
const FILES: usize = 60;
const FILE_BYTES: usize = 30_000;
const MIB: u64 = 1 << 20;

/// Directories of files that differ, and a large one.
fn tree(daemon: &Daemon) -> String {
    let tree = daemon.new_dir("tree");
    let random = &mut Random::new(5);
    for dir in 0..DIRS {
        let dir = tree.join(format!("dir{dir}"));
        fs::create_dir(&dir).expect("mkdir");
        for file in 0..FILES {
            fs::write(dir.join(format!("file{file}")), random.bytes(FILE_BYTES)).expect("write");
        }
    }
    fs::write(tree.join("large"), random.bytes(40 << 20)).expect("write");
    daemon.import(&tree).expect("import")
}

/// As a build reads a part of a tree: some directories, not in the order of the tree; names that there are not; part of a large file.
fn build(dir: &Path) {
    let read = |dir: &Path, files: usize| {
        (0..files).for_each(|file| {
            assert_eq!(fs::read(dir.join(format!("file{file}"))).expect("read").len(), FILE_BYTES)
        });
    };
    read(&dir.join("dir5"), FILES);
    assert_eq!(fs::read_dir(dir.join("dir2")).expect("list").count(), FILES);
    read(&dir.join("dir2"), FILES);
    read(&dir.join("dir3"), FILES / 2);
    let missing = fs::metadata(dir.join("dir7/config.h")).expect_err("there is none");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let large = File::open(dir.join("large")).expect("open");
    // How far the kernel reads ahead of a program is its own affair, and not the same each time.
    posix_fadvise(&large, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).expect("fadvise");
    let mut bytes = vec![0; 12 << 20];
    large.read_exact_at(&mut bytes, 10 * MIB).expect("read");
}

fn profile(daemon: &Daemon, session: &str) -> Answer<(Vec<ProfileEntry>, ProfileDone)> {
    let request = ProfileRequest { session: session.into() };
    daemon.ask(async |mut client| {
        let mut events = client.profile(request).await?.into_inner();
        let mut entries = Vec::new();
        loop {
            match events.message().await?.and_then(|event| event.event) {
                Some(profile_event::Event::Entries(more)) => entries.extend(more.entries),
                Some(profile_event::Event::Done(done)) => return Ok((entries, done)),
                None => return Err(Status::internal("a profile without an end")),
            }
        }
    })
}

fn fetch(daemon: &Daemon, id: &str, profile: &[ProfileEntry]) -> Answer<FetchDone> {
    let request = FetchRequest { id: id.into(), profile: profile.to_vec(), ..FetchRequest::default() };
    daemon.ask(async |mut client| {
        let mut events = client.fetch(request).await?.into_inner();
        loop {
            match events.message().await?.and_then(|event| event.event) {
                Some(fetch_event::Event::Done(done)) => return Ok(done),
                Some(fetch_event::Event::Progress(_)) => {}
                None => return Err(Status::internal("a fetch without an end")),
            }
        }
    })
}

/// Requests to the store for parts of packs so far, and what came.
fn asked(daemon: &Daemon) -> (u64, u64) {
    let remote = daemon.stats().remote.expect("a remote store");
    (remote.requests, remote.bytes)
}

fn paths(entries: &[ProfileEntry]) -> BTreeSet<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

fn file(path: &str) -> ProfileEntry {
    ProfileEntry { path: path.into(), ranges: vec![ByteRange { start: 0, end: 0 }] }
}

fn dir(path: &str) -> ProfileEntry {
    ProfileEntry { path: path.into(), ranges: vec![] }
}

#[test]
fn what_was_read_on_one_host_is_there_before_it_is_read_on_another() {
    transports().into_iter().for_each(one_warms_the_other);
}

fn one_warms_the_other(transport: Transport) {
    let Some(Hosts { here, there, store: _store }) = Hosts::start_without_read_ahead() else { return };
    let snapshot = tree(&here);
    here.publish(&snapshot).expect("publish");
    let (session, mnt) = (here.create(&snapshot).expect("create"), here.new_dir("mnt"));
    here.mount_by(transport, &session, &mnt).expect("mount");
    build(&mnt);
    let (entries, done) = profile(&here, &session).expect("profile");
    assert_eq!((done.gone, done.full), (0, false));
    assert_eq!(done.files as usize, 2 * FILES + FILES / 2 + 1, "{:?}", paths(&entries));
    let order: Vec<_> = paths_of_dirs(&entries);
    assert_eq!(order, ["", "dir5", "dir2", "dir3", "dir7"]);

    let other = there.create(&snapshot).expect("create");
    let before = asked(&there);
    let fetched = fetch(&there, &other, &entries).expect("fetch");
    let after = asked(&there);
    assert_eq!((fetched.files, fetched.missing, fetched.chunks_here), (done.files, 0, 0));
    let (requests, bytes) = (after.0 - before.0, after.1 - before.1);
    assert!(bytes * 10 <= fetched.bytes * 13, "{bytes} bytes came of {} that were named", fetched.bytes);
    // A megabyte with each, but for the first directories.
    assert!(requests < 20 + fetched.bytes / MIB * 3 / 2, "{requests} requests for {} bytes", fetched.bytes);
    let mnt = there.new_dir("mnt");
    there.mount_by(transport, &other, &mnt).expect("mount");
    build(&mnt);
    assert_eq!(asked(&there), after, "nobody had to wait for anything");
    // And it is all that was read there.
    let again = profile(&there, &other).expect("profile").0;
    assert_eq!(paths(&again), paths(&entries));
    let fetched = fetch(&there, &other, &again).expect("fetch");
    assert_eq!((fetched.chunks_fetched, asked(&there)), (0, after));
}

fn paths_of_dirs(entries: &[ProfileEntry]) -> Vec<String> {
    let dirs = entries.iter().filter(|entry| entry.ranges.is_empty());
    dirs.map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

#[test]
fn a_profile_outlives_changes_of_its_tree_and_tells_what_is_gone() {
    let Some(Hosts { here, mut there, store: _store }) = Hosts::start_without_read_ahead() else { return };
    let snapshot = tree(&here);
    here.publish(&snapshot).expect("publish");
    let (session, mnt) = here.mounted(&snapshot, "mnt");
    for path in ["dir0/file0", "dir0/file1", "dir0/file2", "dir1/file0"] {
        fs::read(mnt.join(path)).expect("read");
    }
    fs::write(mnt.join("dir0/own"), "own").expect("write");
    fs::read(mnt.join("dir0/own")).expect("read");
    // The session's own names count.
    fs::rename(mnt.join("dir1"), mnt.join("moved")).expect("rename");
    fs::remove_file(mnt.join("dir0/file2")).expect("remove");
    here.remount(&session, &mnt);
    let (entries, done) = profile(&here, &session).expect("profile");
    let want = ["", "dir0", "dir0/file0", "dir0/file1", "moved", "moved/file0"].map(str::to_owned);
    assert_eq!((paths(&entries), done.gone), (want.into(), 1));

    // Another tree: one file is changed, one is a directory, some are gone.
    let (next, mnt) = here.mounted(&snapshot, "next");
    fs::write(mnt.join("dir0/file0"), Random::new(9).bytes(50_000)).expect("write");
    fs::remove_file(mnt.join("dir0/file1")).expect("remove");
    fs::create_dir(mnt.join("dir0/file1")).expect("mkdir");
    let published = here.publish(&next).expect("publish").snapshot;
    let fetched = fetch(&there, &published, &entries).expect("fetch");
    assert_eq!((fetched.files, fetched.bytes, fetched.missing), (1, 50_000, 3), "as it is there");
    let before = asked(&there);
    let (_, mnt) = there.mounted(&published, "next");
    assert_eq!(fs::read(mnt.join("dir0/file0")).expect("read").len(), 50_000);
    assert_eq!(asked(&there), before);

    // What a restart of the daemon forgets is not what was told of it.
    let session = there.create(&snapshot).expect("create");
    there.read(&session, "dir4/file7").expect("read");
    assert_eq!(
        paths(&profile(&there, &session).expect("profile").0),
        ["", "dir4", "dir4/file7"].map(str::to_owned).into()
    );
    there.terminate();
    there.restart();
    assert_eq!(profile(&there, &session).expect("profile").1, ProfileDone::default());
    assert_eq!(fetch(&there, &session, &entries).expect("fetch").missing, 2, "{entries:?}");
}

#[test]
fn what_is_read_ahead_of_a_scan_counts_as_far_as_the_scan_comes() {
    let Some(Hosts { here, there: _there, store: _store }) = Hosts::start() else { return };
    let tree = here.new_dir("tree");
    for dir in 0..40 {
        let dir = tree.join(format!("dir{dir}"));
        fs::create_dir(&dir).expect("mkdir");
        (0..100)
            .for_each(|file| fs::write(dir.join(format!("file{file}")), format!("{file}")).expect("write"));
    }
    let snapshot = here.import(&tree).expect("import");
    let (session, mnt) = here.mounted(&snapshot, "mnt");
    let mut scanned = BTreeSet::new();
    let dirs: Vec<_> =
        fs::read_dir(&mnt).expect("list").map(|entry| entry.expect("an entry").path()).collect();
    for dir in &dirs[..15] {
        for entry in fs::read_dir(dir).expect("list") {
            let path = entry.expect("an entry").path();
            fs::read(&path).expect("read");
            scanned.insert(path.strip_prefix(&mnt).expect("below").to_string_lossy().into_owned());
        }
    }
    let reads = here.requests("read");
    let files = || {
        let (entries, _) = profile(&here, &session).expect("profile");
        paths(&entries.into_iter().filter(|entry| !entry.ranges.is_empty()).collect::<Vec<_>>())
    };
    soon("all that was read is told", || scanned.is_subset(&files()));
    // The reader was further ahead than that, or had no reason to be: then there is nothing to tell apart.
    let too_many = files().len() - scanned.len();
    assert!(too_many <= 128, "{too_many} files that nobody came to, of {reads} that the kernel read");
}

#[test]
fn a_fetch_takes_what_a_profile_may_have_and_nothing_else() {
    let Some(Hosts { here, there, store: _store }) = Hosts::start_without_read_ahead() else { return };
    let snapshot = tree(&here);
    here.publish(&snapshot).expect("publish");
    let refused = |entries: &[ProfileEntry], words: &str| {
        let status = fetch(&there, &snapshot, entries).expect_err("it is refused");
        assert!(status.code() == Code::InvalidArgument && status.message().contains(words), "{status:?}");
    };
    refused(&[file("../etc/passwd")], "..");
    refused(&[file("a\0b")], "file name");
    refused(&[file(&"x".repeat(5000))], "4096");
    refused(&vec![dir("dir0"); 4097], "4096");
    let backwards = vec![ByteRange { start: 10, end: 20 }, ByteRange { start: 5, end: 6 }];
    refused(&[ProfileEntry { path: b"large".to_vec(), ranges: backwards }], "order");
    let both =
        FetchRequest { id: snapshot.clone(), paths: vec![b"dir0".to_vec()], profile: vec![dir("dir0")] };
    let status = there.ask(async |mut client| client.fetch(both).await?.into_inner().message().await);
    assert_eq!(status.expect_err("both").code(), Code::InvalidArgument);
    // What names nothing here is left out, whatever it is.
    let missing =
        [file(""), dir("large"), file("dir0"), dir("nowhere/x"), file("large/x"), file("\u{1b}[2J")];
    let fetched = fetch(&there, &snapshot, &missing).expect("fetch");
    assert_eq!((fetched.missing, fetched.files, fetched.chunks_fetched), (6, 0, 0));
    // Behind the end there is nothing.
    let behind = ProfileEntry { path: b"large".to_vec(), ranges: vec![ByteRange { start: 1 << 50, end: 0 }] };
    assert_eq!(fetch(&there, &snapshot, &[behind]).expect("fetch").bytes, 0);

    let alone = Daemon::start().expect("a daemon");
    let session = alone.create("").expect("create");
    let status = profile(&alone, &session).expect_err("nothing is recorded");
    assert!(status.code() == Code::FailedPrecondition && status.message().contains("--remote"), "{status:?}");
    assert_eq!(profile(&here, &snapshot).expect_err("a snapshot").code(), Code::NotFound);
}
