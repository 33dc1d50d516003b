//! What a client makes grow has a bound, and beyond it there is an error that names it. And who may be a client at all.

use std::{
    fs,
    io::{ErrorKind, Read},
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    process::Command,
    time::Duration,
};

use fsd::session::{Limits, Name, New, ROOT, SetAttrs};
use proto::v1::{aether_client::AetherClient, *};
use tonic::{Code, Status};

use crate::daemon::Daemon;

/// The user called nobody.
const NOBODY: u32 = 65534;

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, word: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(word), "{status:?} lacks {word}");
    assert!(status.message().len() < 2000, "a message of {} bytes", status.message().len());
}

fn create(daemon: &Daemon, from: &str, name: &str) -> Result<CreateReply, Status> {
    let request = CreateRequest { from: from.into(), name: name.into(), mount_dir: Vec::new(), notes: None };
    daemon.call(|mut c| async move { c.create(request).await })
}

fn fork(daemon: &Daemon, session: &str, count: u32, name: &str) -> Result<ForkReply, Status> {
    let request =
        ForkRequest { session: session.into(), count, name: name.into(), mount_dir: Vec::new(), notes: None };
    daemon.call(|mut c| async move { c.fork(request).await })
}

/// A label of 4 MiB for a thousand forks was 4 GiB of labels before the first was looked at; an ID of 4 MiB came back in the
/// status, which no client could read.
#[test]
fn texts_and_paths_are_bounded_before_anything_is_made_of_them() {
    let daemon = Daemon::start();
    create(&daemon, "", "s").unwrap();
    let long = "x".repeat(3 << 20);
    let invalid = Code::InvalidArgument;
    refused(create(&daemon, "", &long), invalid, "128 bytes");
    refused(create(&daemon, &long, ""), invalid, "128 bytes");
    refused(fork(&daemon, "s", 1000, &long), invalid, "128 bytes");
    refused(fork(&daemon, &long, 1, ""), invalid, "128 bytes");
    refused(daemon.show(&long), invalid, "128 bytes");
    refused(daemon.ls(&long, b""), invalid, "128 bytes");
    refused(daemon.pin(&long), invalid, "128 bytes");
    refused(daemon.unpin(&long), invalid, "128 bytes");
    refused(daemon.gc_why(&long), invalid, "128 bytes");
    refused(daemon.diff(&long, "s", false), invalid, "128 bytes");
    refused(daemon.diff("s", &long, false), invalid, "128 bytes");
    refused(daemon.import(std::path::Path::new("/tmp"), &long), invalid, "128 bytes");
    assert!(create(&daemon, "", &"n".repeat(128)).is_ok());
    assert_eq!(create(&daemon, "", &"n".repeat(129)).unwrap_err().code(), invalid);
    // A fork's number counts.
    assert_eq!(fork(&daemon, "s", 10, &"m".repeat(127)).unwrap_err().code(), invalid);

    let deep = [&[0xff; 255][..], b"/"].concat().repeat(16);
    assert_eq!(deep.len(), proto::PATH_BYTES_MAX);
    refused(daemon.ls("s", &deep), Code::NotFound, "(4096 bytes)");
    refused(daemon.ls("s", &[&deep[..], b"x"].concat()), invalid, "4096");
    let dir = [b"/".as_slice(), &deep[..4000]].concat();
    let request = MountRequest { session: "s".into(), dir, ..Default::default() };
    let mounted = daemon.call(|mut c| async move { c.mount(request).await });
    assert!(mounted.unwrap_err().message().len() < 64 << 10);
}

#[test]
fn messages_and_counts_in_them_are_bounded() {
    let daemon = Daemon::start();
    create(&daemon, "", "s").unwrap();
    let ids = |count: usize| (0..count).map(|n| format!("{n:0>128}")).collect::<Vec<_>>();
    let results = daemon.discard(ids(10_000), false).unwrap();
    assert!(results.iter().all(|result| result.code == Code::NotFound as i32), "the largest answer arrives");
    refused(daemon.discard(ids(10_001), false), Code::InvalidArgument, "10000");
    let results = daemon.discard(vec!["x".repeat(1 << 20)], false).unwrap();
    assert_eq!(results[0].code, Code::InvalidArgument as i32);
    refused(fork(&daemon, "s", 1001, ""), Code::InvalidArgument, "1000");
    assert_eq!(fork(&daemon, "s", 1000, &"n".repeat(123)).unwrap().sessions.len(), 1000);
    let huge = ShowRequest { id: "x".repeat(5 << 20) };
    refused(daemon.call(|mut c| async move { c.show(huge).await }), Code::OutOfRange, "4194304");
}

#[test]
fn sessions_snapshots_names_and_differences_are_bounded() {
    let limits =
        Limits { sessions_max: 3, snapshots_max: 3, names_max: 2, differences_max: 5, ..Limits::default() };
    let daemon = Daemon::start_with(limits);
    let full = Code::ResourceExhausted;
    create(&daemon, "", "s").unwrap();
    refused(fork(&daemon, "s", 3, ""), full, "3 sessions");
    fork(&daemon, "s", 2, "f").unwrap();
    refused(create(&daemon, "", ""), full, "3 sessions");
    daemon.discard(vec!["f-1".into()], false).unwrap();
    create(&daemon, "", "again").unwrap();

    let tree = |files: usize| {
        let dir = tempfile::tempdir().unwrap();
        (0..files).for_each(|n| fs::write(dir.path().join(n.to_string()), n.to_string()).unwrap());
        dir
    };
    let trees: Vec<_> = (3..8).map(tree).collect();
    daemon.import(trees[0].path(), "a").unwrap();
    daemon.import(trees[1].path(), "b").unwrap();
    refused(daemon.import(trees[2].path(), "c"), full, "2 names");
    daemon.import(trees[2].path(), "b").unwrap();
    refused(daemon.import(trees[3].path(), ""), full, "3 snapshots");
    refused(daemon.seal("s"), full, "3 snapshots");

    assert_eq!(daemon.diff("a", "b", false).unwrap().len(), 2);
    let session = daemon.engine().session("s").unwrap();
    let new = New { kind: cas::Kind::File, mode: 0o644, uid: 0, gid: 0, rdev: 0, umask: 0, target: None };
    for n in 0..6 {
        session.make(ROOT, &Name::parse(n.to_string().as_bytes()).unwrap(), new.clone()).unwrap();
    }
    refused(daemon.diff("s", "", false), full, "5 differences");
}

/// Clients that do not read keep their streams, and nobody else from being answered.
#[test]
fn streams_under_way_are_bounded_and_leave_room_for_the_rest() {
    let daemon = Daemon::start();
    create(&daemon, "", "s").unwrap();
    let session = daemon.engine().session("s").unwrap();
    let new = New { kind: cas::Kind::File, mode: 0o644, uid: 0, gid: 0, rdev: 0, umask: 0, target: None };
    let file = session.make(ROOT, &Name::parse(b"large").unwrap(), new).unwrap();
    session.set_attrs(file.ino, SetAttrs { size: Some(1 << 30), ..SetAttrs::default() }).unwrap();
    let (mut client, runtime) = daemon.client();
    let request = || ReadFileRequest { id: "s".into(), path: b"large".to_vec(), offset: 0, length: 0 };
    let mut unread = Vec::new();
    let refusal = runtime.block_on(async {
        for _ in 0..200 {
            match client.read_file(request()).await {
                Ok(stream) => unread.push(stream),
                Err(status) => return Some(status),
            }
        }
        None
    });
    refused::<()>(Err(refusal.unwrap()), Code::ResourceExhausted, "96 streams");
    assert_eq!(unread.len(), 96);
    // Over a connection of its own: what nobody reads fills the window of the one it came over.
    let address = format!("unix://{}", daemon.socket().display());
    let mut other = runtime.block_on(AetherClient::connect(address)).unwrap();
    let show = ShowRequest { id: "s".into() };
    assert!(runtime.block_on(other.show(show)).is_ok(), "single answers have threads left");
    refused(runtime.block_on(other.list(ListRequest::default())), Code::ResourceExhausted, "96 streams");
    runtime.block_on(async { drop(unread) });
    for _ in 0..200 {
        if runtime.block_on(other.list(ListRequest::default())).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("streams of clients that went away still count");
}

#[test]
fn connections_are_bounded() {
    let daemon = Daemon::start();
    let open: Vec<UnixStream> = (0..300).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
    let is_closed = |mut stream: &UnixStream| {
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut buf = [0; 4096];
        match stream.read(&mut buf) {
            // Others get the server's settings.
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    };
    let closed = open.iter().filter(|stream| is_closed(stream)).count();
    // One of the 256 is the daemon's own client here.
    assert_eq!(closed, 300 - 255);
    assert!(daemon.list().is_ok(), "who is connected is answered");
    drop(open);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!is_closed(&UnixStream::connect(daemon.socket()).unwrap()), "there is room again");
}

/// The socket's mode keeps others out; if somebody changes it, the daemon asks the kernel who is calling.
#[test]
fn other_users_are_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: nobody else can be played here");
        return;
    }
    let daemon = Daemon::start();
    let ask = || {
        let mut program = Command::new("/proc/self/exe");
        program
            .args(["--exact", "limits::ask_as_another_user", "--ignored", "--nocapture"])
            .uid(NOBODY)
            .gid(NOBODY);
        let output = program.env("AETHERFS_TEST_SOCKET", daemon.socket()).current_dir("/").output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let run = daemon.socket().parent().unwrap().to_owned();
    for dir in [run.parent().unwrap(), &run] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let said = ask();
    assert!(said.contains("cannot connect"), "{said}");
    fs::set_permissions(daemon.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let said = ask();
    assert!(said.contains("PermissionDenied: user 65534 may not use this daemon"), "{said}");
    assert!(daemon.list().is_ok());
}

#[test]
#[ignore = "run by other_users_are_refused, as another user"]
fn ask_as_another_user() {
    let Some(socket) = std::env::var_os("AETHERFS_TEST_SOCKET") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = format!("unix://{}", socket.display());
    runtime.block_on(async {
        match AetherClient::connect(address).await {
            Err(error) => println!("cannot connect: {error}"),
            Ok(mut client) => match client.stats(StatsRequest {}).await {
                Err(status) => println!("{:?}: {}", status.code(), status.message()),
                Ok(_) => println!("answered"),
            },
        }
    });
}
