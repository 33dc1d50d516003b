//! Daemons that ask each other: over TLS on this host, with a store between them or without. What one has the other reads, and one that is gone, stopped or wrong
//! is told from what is lost.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::TcpListener,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use proto::v1::{
    AdvanceRequest, CreateTokenRequest, DiffKind, FetchDone, FetchRequest, FsckRequest, ListRequest,
    PeerStats, TokenRight, fetch_event, fsck_event, list_item,
};
use tonic::{Code, Status};

use crate::{
    daemon::{Answer, Daemon, soon},
    listing::{Times, assert_same, listing},
    random::Random,
};

/// Longer than anybody may wait for a peer that does not answer, and nobody else to ask.
const ALONE_MAX: Duration = Duration::from_secs(22);
/// The same where there is a store.
const BESIDE_STORE_MAX: Duration = Duration::from_secs(6);

/// A daemon that listens on the network, and one that has it for a peer.
struct Pair {
    near: Daemon,
    here: Daemon,
    port: u16,
    files: tempfile::TempDir,
}

impl Pair {
    fn start(store: Option<&Path>) -> Option<Pair> {
        let files = tempfile::tempdir().expect("a directory");
        let path = |name: &str| files.path().join(name).display().to_string();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(path("cert.pem"), made.cert.pem()).expect("write");
        fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("write");
        let port = free_port();
        let listen = [
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--tls-cert",
            &path("cert.pem"),
            "--tls-key",
            &path("key.pem"),
        ];
        let near = Daemon::start_with_args(store, listen.map(str::to_owned).to_vec())?;
        fs::write(path("token"), token(&near, TokenRight::Read)).expect("write");
        let peer = format!("https://localhost:{port},ca={}", path("cert.pem"));
        let args = ["--peer", &peer, "--peer-token-file", &path("token")];
        let here = Daemon::start_with_args(store, args.map(str::to_owned).to_vec())?;
        Some(Pair { near, here, port, files })
    }

    fn uri(&self, session: &str) -> String {
        format!("aether://localhost:{}/{session}", self.port)
    }

    /// A session there on a large tree, and the tree.
    fn session(&self) -> (String, PathBuf) {
        let tree = self.near.new_dir("tree");
        large_tree(&tree);
        let snapshot = self.near.import(&tree).expect("import");
        (self.near.create(&snapshot).expect("create"), tree)
    }

    fn peer(&self) -> PeerStats {
        self.here.stats().peers.remove(0)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.here.path("log")).expect("a log")
    }

    fn fetch(&self, id: &str) -> Answer<FetchDone> {
        let request = FetchRequest { id: id.into(), ..FetchRequest::default() };
        self.here.ask(async |mut client| {
            let mut events = client.fetch(request).await?.into_inner();
            loop {
                match events.message().await?.and_then(|event| event.event) {
                    Some(fetch_event::Event::Done(done)) => return Ok(done),
                    Some(_) => {}
                    None => return Err(Status::internal("a fetch without an end")),
                }
            }
        })
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn token(daemon: &Daemon, right: TokenRight) -> String {
    let request =
        CreateTokenRequest { rights: vec![right.into()], sessions: Vec::new(), lifetime_ms: 3_600_000 };
    daemon.ask(async |mut client| client.create_token(request).await).expect("a token").into_inner().token
}

/// Directories of files that differ.
fn large_tree(root: &Path) {
    let random = &mut Random::new(5);
    for dir in 0..8 {
        let dir = root.join(format!("dir{dir}"));
        fs::create_dir(&dir).expect("mkdir");
        for file in 0..40 {
            fs::write(dir.join(format!("file{file}")), random.bytes(30_000)).expect("write");
        }
    }
    fs::write(root.join("large"), random.bytes(9 << 20)).expect("write");
}

#[expect(clippy::disallowed_methods, reason = "how long somebody waits for a host is what is promised")]
fn now() -> Instant {
    Instant::now()
}

/// A file that cannot be read, within that time.
fn cannot_read(path: &Path, within: Duration) {
    let begun = now();
    let error = fs::read(path).expect_err("nobody has it");
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EIO as i32), "{error}");
    assert!(begun.elapsed() < within, "{:?}", begun.elapsed());
}

/// A file's bytes, once they can be had.
fn eventually(path: &Path) -> Vec<u8> {
    let mut read = Err(io::ErrorKind::NotFound.into());
    for _ in 0..300 {
        read = fs::read(path);
        if read.is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    read.expect("it can be read by now")
}

#[test]
fn a_session_is_forked_by_its_uri_with_no_store_at_all() {
    let Some(mut pair) = Pair::start(None) else { return };
    let (session, tree) = pair.session();
    let fork = pair.here.fork(&pair.uri(&session)).expect("fork");
    let dir = pair.here.new_dir("mnt");
    pair.here.mount(&fork, &dir).expect("mount");
    // Little came, and what is read comes.
    assert!(pair.peer().bytes < 2 << 20, "{:?}", pair.peer());
    assert_eq!(
        fs::read(dir.join("dir0/file3")).expect("read"),
        fs::read(tree.join("dir0/file3")).expect("read")
    );
    fs::write(dir.join("dir0/new"), "new").expect("write");
    let file = File::options().write(true).open(dir.join("large")).expect("open");
    file.write_all_at(b"changed", 5 << 20).expect("write");
    let changes = [(DiffKind::Added, "dir0/new".to_owned()), (DiffKind::Modified, "large".to_owned())];
    assert_eq!(pair.here.diff(&fork, "").expect("diff"), changes);
    let peer = pair.peer();
    assert!(peer.hits > 0 && peer.failures == 0 && peer.down.is_empty(), "{peer:?}");
    assert!(peer.bytes < 8 << 20, "not all of it: {peer:?}");

    // The other one dies: what is here is read and written, the rest is an error that names what and where.
    pair.near.kill();
    assert_eq!(fs::read(dir.join("dir0/file3")).expect("read").len(), 30_000);
    cannot_read(&dir.join("dir7/file39"), ALONE_MAX);
    cannot_read(&dir.join("dir7/file39"), Duration::from_secs(15));
    fs::write(dir.join("dir0/newer"), "newer").expect("write");
    let log = pair.log();
    let line = log.lines().find(|line| line.contains("answered EIO")).expect("a line");
    assert!(line.contains(&format!("https://localhost:{}", pair.port)), "{line}");

    // Both start again, first the one that asks.
    pair.here.terminate();
    pair.here.restart();
    pair.here.mount(&fork, &dir).expect("mount");
    assert_eq!(fs::read_to_string(dir.join("dir0/newer")).expect("read"), "newer");
    assert_eq!(fs::read(dir.join("dir0/file3")).expect("read").len(), 30_000);
    pair.near.restart();
    assert_eq!(eventually(&dir.join("dir7/file39")), fs::read(tree.join("dir7/file39")).expect("read"));
    fs::remove_file(dir.join("dir0/new")).expect("remove");
    fs::remove_file(dir.join("dir0/newer")).expect("remove");
    file_back(&tree.join("large"), &dir.join("large"));
    assert!(contents(&tree) == contents(&dir));
}

/// IDs of sessions, and of snapshots.
fn listed(daemon: &Daemon) -> (Vec<String>, Vec<String>) {
    daemon
        .ask(async |mut client| {
            let (mut sessions, mut snapshots) = (Vec::new(), Vec::new());
            let mut items = client.list(ListRequest::default()).await?.into_inner();
            while let Some(item) = items.message().await? {
                match item.item {
                    Some(list_item::Item::Session(session)) => sessions.push(session.id),
                    Some(list_item::Item::Snapshot(snapshot)) => snapshots.push(snapshot.id),
                    None => {}
                }
            }
            Ok((sessions, snapshots))
        })
        .expect("list")
}

/// What fsck finds.
fn findings(daemon: &Daemon) -> u64 {
    daemon
        .ask(async |mut client| {
            let mut events = client.fsck(FsckRequest { repair: false }).await?.into_inner();
            let mut findings = 0;
            while let Some(event) = events.message().await? {
                findings += u64::from(matches!(event.event, Some(fsck_event::Event::Finding(_))));
            }
            Ok(findings)
        })
        .expect("fsck")
}

/// All files, by path.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut all, mut dirs) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").flatten() {
            let path = entry.path();
            if entry.file_type().expect("a type").is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(root).expect("it is below").to_owned();
                all.insert(name, fs::read(&path).expect("read"));
            }
        }
    }
    all
}

fn file_back(from: &Path, to: &Path) {
    fs::write(to, fs::read(from).expect("read")).expect("write");
}

#[test]
fn a_fork_by_uri_is_sealed_collected_and_checked_over_what_is_not_here() {
    let Some(mut pair) = Pair::start(None) else { return };
    let (session, tree) = pair.session();
    let fork = pair.here.fork(&pair.uri(&session)).expect("fork");
    let dir = pair.here.new_dir("mnt");
    pair.here.mount(&fork, &dir).expect("mount");
    fs::write(dir.join("dir1/new"), "new").expect("write");
    let sealed = pair.here.seal(&fork).expect("seal");
    fs::write(dir.join("dir2/file1"), "unsealed").expect("write");
    pair.here.gc().expect("gc");
    assert_eq!(findings(&pair.here), 0, "what is with a peer is not damaged");
    // The session goes there, and what was opened of it stays.
    pair.near.discard(&session, false).expect("discard");
    let snapshot = listed(&pair.near).1.remove(0);
    pair.near.discard(&snapshot, false).expect("discard");
    pair.near.gc().expect("gc");
    pair.near.terminate();
    pair.near.restart();
    pair.near.gc().expect("gc");
    assert_eq!(eventually(&dir.join("dir5/file5")), fs::read(tree.join("dir5/file5")).expect("read"));
    // Made whole, it needs nobody.
    let done = pair.fetch(&fork).expect("fetch");
    assert!(done.snapshot == sealed && done.files == 322, "{done:?}");
    pair.near.kill();
    pair.here.gc().expect("gc");
    pair.here.terminate();
    fs::remove_dir_all(pair.here.state_dir().join("cache")).expect("the cache");
    pair.here.restart();
    pair.here.mount(&fork, &dir).expect("mount");
    assert_eq!(fs::read_to_string(dir.join("dir2/file1")).expect("read"), "unsealed");
    fs::remove_file(dir.join("dir1/new")).expect("remove");
    file_back(&tree.join("dir2/file1"), &dir.join("dir2/file1"));
    assert!(contents(&tree) == contents(&dir));
}

#[test]
fn a_session_of_a_peer_is_looked_at_and_the_look_goes_on() {
    let Some(mut pair) = Pair::start(None) else { return };
    let (session, tree) = pair.session();
    let there = pair.near.new_dir("mnt");
    pair.near.mount(&session, &there).expect("mount");
    let (uri, dir) = (pair.uri(&session), pair.here.new_dir("look"));
    let refused = pair.here.mount(&uri, &dir).expect_err("it is written there");
    assert!(
        refused.code() == Code::FailedPrecondition && refused.message().contains("--read-only"),
        "{refused:?}"
    );
    pair.here.mount_read_only(&uri, &dir).expect("mount");
    assert_same("the look", &listing(&tree, Times::All), &listing(&dir, Times::All));
    fs::write(there.join("dir0/file0"), "written there").expect("write");
    assert_eq!(fs::read(dir.join("dir0/file0")).expect("read").len(), 30_000, "as it was");
    let error = fs::write(dir.join("dir0/file0"), "here").expect_err("it takes no writes");
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    let advance = || {
        let request = AdvanceRequest { dir: dir.display().to_string().into_bytes() };
        pair.here.ask(async |mut client| client.advance(request).await).map(|reply| reply.into_inner())
    };
    let mut advanced = advance();
    // A child of another test may be between fork and exec.
    for _ in 0..100 {
        match &advanced {
            Err(status) if status.message().contains("busy") => thread::sleep(Duration::from_millis(20)),
            _ => break,
        }
        advanced = advance();
    }
    let advanced = advanced.expect("advance");
    assert!(advanced.advanced && advanced.session == uri, "{advanced:?}");
    assert_eq!(fs::read_to_string(dir.join("dir0/file0")).expect("read"), "written there");
    assert!(!advance().expect("advance").advanced);
    // A look goes with its mount; what a dead daemon left goes at the next start. A point of the session stays what it is.
    let points = pair.here.new_dir("point");
    pair.here.mount_read_only(&format!("{uri}@{}", advanced.published), &points).expect("mount");
    fs::write(there.join("dir0/file0"), "later").expect("write");
    assert_eq!(fs::read_to_string(points.join("dir0/file0")).expect("read"), "written there");
    assert_eq!(listed(&pair.here).0.len(), 2);
    pair.here.unmount_unused(&dir);
    assert_eq!(listed(&pair.here).0.len(), 1);
    pair.here.kill();
    pair.here.restart();
    assert_eq!(listed(&pair.here).0.len(), 0);
}

#[test]
fn what_comes_from_a_peer_is_not_asked_of_the_store() {
    let store = tempfile::tempdir().expect("a directory");
    let Some(mut pair) = Pair::start(Some(store.path())) else { return };
    let (session, tree) = pair.session();
    pair.near.publish(&session).expect("publish");
    let fork = pair.here.fork(&session).expect("fork");
    let dir = pair.here.new_dir("mnt");
    pair.here.mount(&fork, &dir).expect("mount");
    for nth in 0..4 {
        let path = format!("dir{nth}");
        assert!(contents(&tree.join(&path)) == contents(&dir.join(&path)));
    }
    // What is coming ahead is counted when it has come.
    soon("all of it came", || pair.peer().hits > 160);
    let (remote, peer) = (pair.here.stats().remote.expect("a store"), pair.peer());
    assert!(remote.requests == 0 && peer.failures == 0, "{remote:?} {peer:?}");
    // One that is stopped delays nobody for long, and the rest comes from the store.
    pair.near.signal(Signal::SIGSTOP);
    let begun = now();
    // More than comes ahead of a reader.
    assert!(fs::read(dir.join("large")).expect("read") == fs::read(tree.join("large")).expect("read"));
    assert!(begun.elapsed() < BESIDE_STORE_MAX, "{:?}", begun.elapsed());
    let remote = pair.here.stats().remote.expect("a store");
    assert!(remote.requests > 0 && pair.peer().failures > 0);
    let begun = now();
    assert!(contents(&tree.join("dir7")) == contents(&dir.join("dir7")));
    assert!(begun.elapsed() < 2 * BESIDE_STORE_MAX, "{:?}", begun.elapsed());
    pair.near.signal(Signal::SIGCONT);
    pair.near.kill();
    assert!(contents(&tree) == contents(&dir));
    assert!(!pair.peer().down.is_empty());
    // It is asked again when it is back.
    pair.near.restart();
    let (hits, other) = (pair.peer().hits, pair.near.new_dir("other"));
    fs::write(other.join("file"), "another one").expect("write");
    let other = pair.near.import(&other).expect("import");
    pair.near.publish(&other).expect("publish");
    soon("it is not left alone any more", || {
        let _ = pair.here.read(&other, "file");
        pair.peer().hits > hits || {
            // What came from the store is not asked for again.
            thread::sleep(Duration::from_millis(500));
            pair.here.fork(&pair.uri(&session)).is_ok()
        }
    });
}

#[test]
fn who_may_not_open_a_session_is_told_why() {
    let Some(pair) = Pair::start(None) else { return };
    let (session, _) = pair.session();
    let refused = |uri: &str, code: Code, words: &str| {
        let status = pair.here.fork(uri).expect_err("it is refused");
        assert!(status.code() == code && status.message().contains(words), "{uri}: {status:?}");
    };
    let elsewhere = format!("aether://elsewhere.example:7440/{session}");
    refused(&elsewhere, Code::FailedPrecondition, "--peer https://elsewhere.example:7440");
    refused(&pair.uri("ses_0000000000000001"), Code::NotFound, "ses_0000000000000001");
    refused(&pair.uri(&session[..12]), Code::InvalidArgument, "whole session ID");
    refused(&format!("{}/dir0", pair.uri(&session)), Code::InvalidArgument, "has a path in it");
    let nothing = "snp_0000000000000000000000000000000000000000000000000000";
    refused(&format!("{}@{nothing}", pair.uri(&session)), Code::NotFound, nothing);
    // One of this host by its URI, and forks of it.
    let own = pair.here.create("").expect("create");
    assert!(pair.here.fork(&format!("aether:///{own}")).is_ok());
    // A token that does not do is told, and none of it.
    let file = pair.files.path().join("token");
    let other = token(&pair.near, TokenRight::Write);
    fs::write(&file, &other).expect("write");
    let Pair { near, mut here, port, files } = pair;
    here.terminate();
    here.restart();
    let pair = Pair { near, here, port, files };
    let status = pair.here.fork(&pair.uri(&session)).expect_err("it allows nothing that is asked");
    assert!(
        status.code() == Code::FailedPrecondition && status.message().contains("allows read"),
        "{status:?}"
    );
    assert!(!pair.log().contains(&other) && !status.message().contains(&other));
    // A new one is taken without a restart.
    fs::write(&file, token(&pair.near, TokenRight::Read)).expect("write");
    soon("it is let in", || pair.here.fork(&pair.uri(&session)).is_ok());
}

#[test]
fn a_session_of_a_peer_is_fetched_whole() {
    let Some(mut pair) = Pair::start(None) else { return };
    let (session, tree) = pair.session();
    let done = pair.fetch(&pair.uri(&session)).expect("fetch");
    assert!(done.files == 321 && done.bytes > 18 << 20, "{done:?}");
    pair.near.kill();
    let (_, dir) = pair.here.mounted(&done.snapshot, "mnt");
    assert_same("the snapshot", &listing(&tree, Times::All), &listing(&dir, Times::All));
    assert!(listed(&pair.here).1.contains(&done.snapshot));
    pair.here.gc().expect("gc");
    assert_eq!(findings(&pair.here), 0);
}
