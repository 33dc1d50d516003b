//! The service as a client sees it: started in this process on a state of its own, driven over its socket.

use std::{fs, os::unix::fs::symlink, path::Path};

use cas::{
    Digest, SnapshotId,
    remote::{
        Remote,
        name::{LEASES, PACKS, RemoteName, pins},
        sim::SimRemote,
    },
};
use fsd::{
    fleet::heads::HostId,
    session::{Name, New},
};
use proto::v1::{self, *};
use tonic::Code;

use crate::daemon::Daemon;

/// A tree with a little of everything.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("src/deep")).unwrap();
    fs::write(dir.path().join("src/main.c"), "int main(void) { return 0; }\n").unwrap();
    fs::write(dir.path().join("src/deep/data"), vec![7; 700_000]).unwrap();
    fs::write(dir.path().join("a-first"), "").unwrap();
    symlink("main.c", dir.path().join("src/link")).unwrap();
    dir
}

fn import(daemon: &Daemon, dir: &Path, name: &str) -> ImportDone {
    let events = daemon.import(dir, name).unwrap();
    match events.last().and_then(|event| event.event.clone()) {
        Some(import_event::Event::Done(done)) => done,
        other => panic!("the last event is {other:?}"),
    }
}

fn create(daemon: &Daemon, from: &str, name: &str) -> SessionInfo {
    let request = CreateRequest { from: from.into(), name: name.into(), mount_dir: Vec::new(), notes: None };
    daemon.call(|mut c| async move { c.create(request).await }).unwrap().session.unwrap()
}

#[test]
fn a_tree_goes_in_and_is_read_without_a_mount() {
    let (daemon, tree) = (Daemon::start(), tree());
    let done = import(&daemon, tree.path(), "base");
    assert!(done.snapshot.starts_with("snp_") && done.snapshot.len() == 56);
    let again = import(&daemon, tree.path(), "");
    assert_eq!((again.snapshot.clone(), again.new_objects), (done.snapshot.clone(), 0));

    let session = create(&daemon, "base", "work");
    assert_eq!((session.base.as_str(), session.changed_inodes), (done.snapshot.as_str(), 0));
    for id in ["work", session.id.as_str(), &session.id[..12], "base", &done.snapshot[..20]] {
        let names: Vec<_> = daemon.ls(id, b"/src").unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [&b"deep"[..], b"link", b"main.c"]);
    }
    assert_eq!(daemon.ls("work", b"src/main.c").unwrap()[0].name, b"main.c");
    assert_eq!(daemon.cat("work", b"src/deep/data", 0, 0).unwrap(), vec![7; 700_000]);
    assert_eq!(daemon.cat("base", b"src/main.c", 4, 4).unwrap(), b"main");
    assert_eq!(daemon.cat("work", b"a-first", 0, 0).unwrap(), b"");
    assert_eq!(daemon.cat("work", b"src/main.c", 1 << 40, 0).unwrap(), b"");
    let link = StatRequest { id: "work".into(), path: b"src/link".to_vec() };
    let link = daemon.call(|mut c| async move { c.stat(link).await }).unwrap();
    assert_eq!((link.kind(), link.target.as_slice()), (FileKind::Symlink, &b"main.c"[..]));
}

#[test]
fn thirty_forks_are_made_listed_and_discarded() {
    let (daemon, tree) = (Daemon::start(), tree());
    import(&daemon, tree.path(), "base");
    let parent = create(&daemon, "base", "p");
    let request = ForkRequest {
        session: "p".into(),
        count: 30,
        name: "try".into(),
        mount_dir: Vec::new(),
        notes: None,
    };
    let reply = daemon.call(|mut c| async move { c.fork(request).await }).unwrap();
    assert_eq!(reply.sessions.len(), 30);
    assert_eq!((reply.sessions[0].name.as_str(), reply.sessions[29].name.as_str()), ("try-1", "try-30"));
    assert!(reply.sessions.iter().all(|fork| fork.parent == parent.id && fork.fork_depth == 1));
    assert!(reply.elapsed_us < 5_000_000);

    // A name that is taken in the middle: none of that request stays.
    let request = ForkRequest {
        session: "p".into(),
        count: 1,
        name: "late-2".into(),
        mount_dir: Vec::new(),
        notes: None,
    };
    daemon.call(|mut c| async move { c.fork(request).await }).unwrap();
    let request = ForkRequest {
        session: "p".into(),
        count: 3,
        name: "late".into(),
        mount_dir: Vec::new(),
        notes: None,
    };
    let taken = daemon.call(|mut c| async move { c.fork(request).await }).unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);

    let items = daemon.list().unwrap();
    assert_eq!(items.len(), 1 + 30 + 1 + 1);
    assert!(matches!(&items[0].item, Some(list_item::Item::Session(first)) if first.id == parent.id));
    assert!(matches!(&items[32].item, Some(list_item::Item::Snapshot(last)) if last.names == ["base"]));

    let mut ids: Vec<String> = reply.sessions.iter().map(|fork| fork.id.clone()).collect();
    ids.push("nobody".into());
    let results = daemon.discard(ids, false).unwrap();
    assert!(results[..30].iter().all(|result| result.code == 0 && result.id == result.session));
    assert_eq!((results[30].code, results[30].session.as_str()), (Code::NotFound as i32, ""));
    assert!(results[30].message.contains("nobody"));
    assert_eq!(daemon.list().unwrap().len(), 3);
}

#[test]
fn changes_are_seen_in_a_diff_and_sealed() {
    let (daemon, tree) = (Daemon::start(), tree());
    let base = import(&daemon, tree.path(), "base").snapshot;
    let session = create(&daemon, "base", "work");
    assert_eq!(daemon.seal("work").unwrap().snapshot, base);
    assert!(daemon.diff("work", "", true).unwrap().is_empty());

    let engine = daemon.engine();
    let live = engine.session("work").unwrap();
    let name = |text: &str| Name::parse(text.as_bytes()).unwrap();
    let new = |kind| New { kind, mode: 0o644, uid: 0, gid: 0, rdev: 0, umask: 0, target: None };
    let src = live.lookup(fsd::session::ROOT, &name("src")).unwrap();
    let main = live.lookup(src.ino, &name("main.c")).unwrap();
    live.write(main.ino, 0, b"INT").unwrap();
    let added = live.make(src.ino, &name("new"), new(cas::Kind::File)).unwrap();
    live.write(added.ino, 0, b"hello\n\0").unwrap();
    let deep = name("deep");
    live.rename(src.ino, &deep, fsd::session::ROOT, &name("moved"), fsd::session::Rename::Replace).unwrap();

    let entries = daemon.diff("work", "", true).unwrap();
    let told: Vec<_> = entries.iter().map(|e| (e.kind(), e.path.as_slice(), e.old_path.as_slice())).collect();
    assert_eq!(
        told,
        [
            (DiffKind::Renamed, &b"moved"[..], &b"src/deep"[..]),
            (DiffKind::Renamed, b"moved/data", b"src/deep/data"),
            (DiffKind::Modified, b"src/main.c", b""),
            (DiffKind::Added, b"src/new", b""),
        ]
    );
    assert!(entries[1].same_content && entries[1].new.as_ref().unwrap().content.is_none());
    let main = entries[2].new.as_ref().unwrap();
    assert_eq!(main.content.as_deref(), Some(&b"INT main(void) { return 0; }\n"[..]));
    assert_eq!(entries[3].new.as_ref().unwrap().omitted(), ContentOmitted::Binary);
    let told: Vec<_> = daemon.diff("work", "base", false).unwrap().into_iter().map(|e| e.path).collect();
    assert_eq!(told, [&b"moved"[..], b"src/main.c", b"src/new"]);
    let back = daemon.diff("base", "work", false).unwrap();
    assert_eq!((back[0].kind(), back[0].path.as_slice()), (DiffKind::Renamed, &b"src/deep"[..]));
    assert_eq!((back[2].kind(), back[2].path.as_slice()), (DiffKind::Deleted, &b"src/new"[..]));

    let shown = daemon.show("work").unwrap();
    assert!(shown.changed_inodes >= 3 && shown.changed_bytes >= 10, "{shown:?}");
    let sealed = daemon.seal("work").unwrap();
    assert_ne!(sealed.snapshot, base);
    let shown = daemon.show(&session.id).unwrap();
    assert_eq!((shown.sealed.as_str(), shown.base.as_str()), (sealed.snapshot.as_str(), base.as_str()));
    assert!(daemon.diff(&sealed.snapshot, "work", false).unwrap().is_empty());
    assert_eq!(daemon.cat(&sealed.snapshot, b"src/new", 0, 0).unwrap(), b"hello\n\0");
    let replay = create(&daemon, &sealed.snapshot, "");
    assert_eq!(daemon.cat(&replay.id, b"moved/data", 0, 1).unwrap(), [7]);
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, tonic::Status>, code: Code, word: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(word), "{status:?} lacks {word}");
}

const DAY_SECS: i64 = 24 * 3600;

#[test]
fn what_nobody_needs_in_the_remote_store_is_condemned_and_then_removed() {
    let (remote, tree) = (SimRemote::default(), tree());
    let daemon = Daemon::start_sharing(&remote);
    import(&daemon, tree.path(), "base");
    daemon.publish("base").unwrap();
    let dry = GcRemoteRequest { dry_run: true, ..Default::default() };
    let (done, gone_hosts, missing) = daemon.gc_remote(dry).unwrap();
    let needed = done.needed.unwrap();
    assert!(done.dry_run && needed.objects >= 3 && needed.bytes > 0, "manifest, layer, pack: {done:?}");
    assert_eq!((done.delay_ms, done.hosts_gone_after_ms), (86_400_000, 30 * 86_400_000));
    assert!(gone_hosts.is_empty() && missing.is_empty());

    // A pack that no layer names, what a host said long ago, and a pin of what never was.
    let (pack, host) = (RemoteName([7; 16]), RemoteName([9; 16]));
    remote.write(&pack.pack(), vec![1; 100]).unwrap();
    remote.write(&format!("{LEASES}{host}/{pack}"), Vec::new()).unwrap();
    let never = SnapshotId(Digest::of(b"never"));
    remote.write(&format!("{}{pack}", pins(never)), Vec::new()).unwrap();
    remote.pass(31 * DAY_SECS);

    let garbage = Some(RemoteObjects { objects: 1, bytes: 100 });
    assert!(daemon.gc_why(&pack.to_string()).unwrap().iter().any(|line| line.contains("not needed")));
    let collect = || daemon.gc_remote(GcRemoteRequest::default()).unwrap();
    let (done, gone_hosts, missing) = collect();
    assert_eq!(
        (done.condemned, done.waiting, done.needed),
        (garbage, Some(RemoteObjects::default()), Some(needed))
    );
    assert!(gone_hosts.contains(&HostId(host.0).to_string()), "{gone_hosts:?}");
    assert_eq!(missing, [never.to_string()]);
    assert_eq!((collect().0.waiting, collect().0.removed), (garbage, Some(RemoteObjects::default())));
    remote.pass(2 * DAY_SECS);
    let (done, ..) = collect();
    assert_eq!((done.removed, done.needed), (garbage, Some(needed)));
    assert!(!remote.list(PACKS).unwrap().contains(&pack.pack()));
    refused(daemon.gc_why(&pack.to_string()), Code::NotFound, &pack.to_string());

    let soon = |ms| GcRemoteRequest { hosts_gone_after_ms: Some(ms), ..Default::default() };
    refused(daemon.gc_remote(soon(86_399_999)), Code::InvalidArgument, "24 h");
    assert!(daemon.gc_remote(soon(86_400_000)).is_ok());
}

#[test]
fn what_is_pinned_is_named_by_snapshot_or_session_on_any_host() {
    let (remote, tree) = (SimRemote::default(), tree());
    let (here, there) = (Daemon::start_sharing(&remote), Daemon::start_sharing(&remote));
    let base = import(&here, tree.path(), "base").snapshot;
    let session = create(&here, "base", "work");
    refused(here.pin("base"), Code::NotFound, "aetherctl publish");
    refused(here.pin("work"), Code::FailedPrecondition, "publish");
    refused(here.pin("nobody"), Code::NotFound, "nobody");
    refused(there.pin(&session.id), Code::NotFound, &session.id);
    refused(here.unpin("base"), Code::FailedPrecondition, "not pinned");

    let pinned = || remote.list(&pins(base.parse().unwrap())).unwrap().len();
    here.publish("base").unwrap();
    assert_eq!(pinned(), 1, "a snapshot that is published stays");
    assert!(there.gc_why(&base).unwrap().iter().any(|line| line.contains("pinned")));
    assert_eq!(there.unpin(&base).unwrap(), base, "by another host, too");
    assert_eq!(pinned(), 0);
    refused(here.unpin("base"), Code::FailedPrecondition, "not pinned");

    here.publish("work").unwrap();
    assert_eq!(pinned(), 0, "of a session its head keeps what is published");
    assert!(here.gc_why("work").unwrap().iter().any(|line| line.contains(&base)));
    assert_eq!(here.pin("work").unwrap(), base);
    assert_eq!(there.pin(&session.id).unwrap(), base);
    assert_eq!(pinned(), 2, "whoever wants it");
    assert_eq!(here.unpin(&session.id).unwrap(), base);
    assert_eq!(pinned(), 0);
    refused(here.gc_why("nothing"), Code::NotFound, "nothing");
}

#[test]
fn without_a_remote_store_nothing_is_kept_or_collected_there() {
    let (daemon, tree) = (Daemon::start(), tree());
    import(&daemon, tree.path(), "base");
    let no_remote = |result| refused(result, Code::FailedPrecondition, "start aetherfsd with --remote");
    no_remote(daemon.pin("base").map(drop));
    no_remote(daemon.unpin("base").map(drop));
    no_remote(daemon.gc_why("base").map(drop));
    no_remote(daemon.gc_remote(GcRemoteRequest::default()).map(drop));
    let soon = GcRemoteRequest { hosts_gone_after_ms: Some(0), ..Default::default() };
    refused(daemon.gc_remote(soon), Code::InvalidArgument, "--hosts-gone-after");
}

#[test]
fn errors_have_their_codes_and_name_the_thing() {
    let (daemon, tree) = (Daemon::start(), tree());
    let snapshot = import(&daemon, tree.path(), "base").snapshot;
    create(&daemon, "base", "work");
    let dir = tree.path().to_str().unwrap();
    let cat = |id: &str, path: &[u8]| daemon.cat(id, path, 0, 0).map(drop);
    refused(cat("ses_0000000000000000", b"a"), Code::NotFound, "ses_0000000000000000");
    refused(cat("ses_!!", b"a"), Code::InvalidArgument, "ses_!!");
    refused(cat("ses_00", b"a"), Code::InvalidArgument, "8 characters");
    refused(cat("snp_00000000", b"a"), Code::NotFound, "snp_00000000");
    refused(cat("work", b"no/such/path"), Code::NotFound, "work:/no/such/path");
    refused(cat("work", b"../../etc/passwd"), Code::InvalidArgument, "..");
    refused(cat("work", &[b'/'; 5000]), Code::InvalidArgument, "4096");
    refused(cat("work", b"src"), Code::FailedPrecondition, "directory");
    refused(cat("work", b"src/link"), Code::FailedPrecondition, "symbolic link");
    refused(cat("work", b"src/main.c/x"), Code::FailedPrecondition, "not a directory");
    refused(daemon.import(Path::new("/no/such/dir"), "").map(drop), Code::NotFound, "/no/such/dir");
    refused(daemon.import(Path::new("relative"), "").map(drop), Code::InvalidArgument, "absolute");
    let state = daemon.state().join("store");
    refused(daemon.import(&state, "").map(drop), Code::FailedPrecondition, "own state");
    refused(daemon.diff(&snapshot, "", false).map(drop), Code::FailedPrecondition, &snapshot);
    refused(daemon.seal("base").map(drop), Code::NotFound, "base is a snapshot");

    let create = |from: &str, name: &str, mount_dir: &str| {
        let mount_dir = mount_dir.as_bytes().to_vec();
        let request = CreateRequest { from: from.into(), name: name.into(), mount_dir, notes: None };
        daemon.call(|mut c| async move { c.create(request).await }).map(drop)
    };
    refused(create("nosuchbase", "", ""), Code::NotFound, "nosuchbase");
    refused(create("base", "work", ""), Code::AlreadyExists, "work");
    refused(create("base", "a/b", ""), Code::InvalidArgument, "a/b");
    refused(create("base", "lost", &format!("{dir}/none")), Code::NotFound, "none");
    refused(create("base", "lost", &format!("{dir}/a-first")), Code::FailedPrecondition, "not a directory");
    assert!(daemon.show("lost").is_err(), "a session whose mount failed is gone");

    let forks = ForkRequest { session: "work".into(), count: 1001, ..Default::default() };
    let forks = daemon.call(|mut c| async move { c.fork(forks).await }).map(drop);
    refused(forks, Code::InvalidArgument, "1000");
    refused(daemon.discard(Vec::new(), false).map(drop), Code::InvalidArgument, "1 to 10000");
    let unmount = |target| {
        let request = UnmountRequest { target };
        daemon.call(|mut c| async move { c.unmount(request).await }).map(drop)
    };
    refused(unmount(None), Code::InvalidArgument, "neither");
    refused(
        unmount(Some(unmount_request::Target::Session("work".into()))),
        Code::FailedPrecondition,
        "not mounted",
    );
    refused(
        unmount(Some(unmount_request::Target::Dir(b"/".to_vec()))),
        Code::FailedPrecondition,
        "not mounted",
    );
    let results = daemon.discard(vec!["base".into()], false).unwrap();
    assert_eq!(results[0].code, Code::FailedPrecondition as i32, "a snapshot that sessions stand on stays");
}

#[test]
fn what_is_discarded_is_freed_and_what_is_kept_is_sound() {
    let (daemon, tree) = (Daemon::start(), tree());
    let snapshot = import(&daemon, tree.path(), "base").snapshot;
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("bulk"), (0..3_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
        .unwrap();
    let gone = import(&daemon, other.path(), "gone").snapshot;
    let results = daemon.discard(vec!["gone".into()], false).unwrap();
    assert_eq!((results[0].code, results[0].session.as_str()), (0, gone.as_str()));
    let planned = daemon.gc(true).unwrap();
    assert!(planned.dry_run && planned.freed_objects > 0);
    let freed = daemon.gc(false).unwrap();
    assert!(freed.freed_bytes > 10_000_000, "{freed:?}");
    let fsck = daemon.fsck().unwrap();
    assert_eq!((fsck.findings, fsck.repaired), (0, 0));
    assert!(fsck.objects > 0);
    assert_eq!(daemon.cat(&snapshot, b"src/deep/data", 0, 0).unwrap().len(), 700_000);
}

#[test]
fn the_daemon_says_how_it_is() {
    let daemon = Daemon::start();
    create(&daemon, "", "empty");
    let stats = daemon.call(|mut c| async move { c.stats(StatsRequest {}).await }).unwrap();
    assert_eq!((stats.pid, stats.sessions, stats.mounts), (std::process::id(), 1, 0));
    assert!(stats.memory_rss_bytes > 0 && stats.log.unwrap().position > 0);
    let doctor = daemon.call(|mut c| async move { c.doctor(DoctorRequest {}).await }).unwrap();
    assert!(doctor.checks.iter().any(|check| check.name == "free space"));
    let advised = |check: &v1::DoctorCheck| (check.status() == DoctorStatus::Ok) == check.advice.is_empty();
    assert!(doctor.checks.iter().all(advised), "{doctor:?}");
    assert_eq!(daemon.health(), tonic_health::pb::health_check_response::ServingStatus::Serving as i32);
    assert!(daemon.reflected().iter().any(|name| name == "aether.v1.Aether"));
}

#[test]
fn sessions_of_all_hosts_are_listed_with_who_holds_them() {
    use remote_session::State;
    let remote = SimRemote::default();
    let (here, there) = (Daemon::start_sharing(&remote), Daemon::start_sharing(&remote));
    assert!(here.list_remote().unwrap().is_empty());
    let refused = Daemon::start().list_remote().unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("--remote"), "{refused:?}");

    let published = |daemon: &Daemon, name: &str| {
        let id = create(daemon, "", name).id;
        (id, daemon.publish(name).unwrap().snapshot)
    };
    let ((own, snapshot), (free, _)) = (published(&here, "own"), published(&here, "free"));
    here.hand_off("free").unwrap();
    let ((held, _), (ended, _)) = (published(&there, "held"), published(&there, "ended"));
    there.discard(vec![ended], false).unwrap();
    there.fleet().tick();
    create(&here, "", "unpublished");

    let states = |daemon: &Daemon| {
        let mut all: Vec<_> = daemon.list_remote().unwrap();
        assert!(all.is_sorted_by_key(|one| one.session.as_ref().unwrap().id.clone()));
        all.sort_by_key(|one| one.session.as_ref().unwrap().created_ns);
        let state = |one: &RemoteSession| (one.session.as_ref().unwrap().id.clone(), one.state());
        all.iter().map(state).collect::<Vec<_>>()
    };
    // Of a host that never gave a sign of life nobody knows whether it is there.
    assert_eq!(
        states(&here),
        [(own.clone(), State::Here), (free.clone(), State::Free), (held.clone(), State::Stale)]
    );
    there.fleet().beat();
    let all = here.list_remote().unwrap();
    let find = |id: &str| all.iter().find(|one| one.session.as_ref().unwrap().id == id).unwrap().clone();
    assert_eq!(find(&held).state(), State::Held);
    assert!(find(&held).holder_seen_ns > 0 && find(&own).holder_seen_ns == 0);
    let own_session = find(&own).session.unwrap();
    let travel = own_session.travel.unwrap();
    assert_eq!((own_session.name.as_str(), travel.published.as_str()), ("own", snapshot.as_str()));
    assert_eq!((travel.epoch, travel.held_here, travel.holder), (1, true, here.fleet().host().to_string()));
    here.fleet().beat();
    assert_eq!(states(&there)[0], (own.clone(), State::Held));

    // One that is damaged keeps the others from nobody.
    let name = remote.list(&format!("heads/{own}/")).unwrap().remove(0);
    remote.flip(&name, 20);
    let all = there.list_remote().unwrap();
    assert_eq!(all.len(), 3);
    let damaged = all.iter().find(|one| one.session.as_ref().unwrap().id == own).unwrap();
    assert!(damaged.damage.contains(&name) && damaged.state() == State::Unspecified, "{damaged:?}");
}
