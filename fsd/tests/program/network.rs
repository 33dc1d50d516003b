//! The real program on the network: TLS and tokens, as those meet them who mean well and those who do not.

mod daemon;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    thread,
    time::Duration,
};

use daemon::{Daemon, Pem, aetherfsd};
use proto::v1::{TokenRight as Right, *};
use token::{Narrowing, RootKey};
use tonic::{Code, Status, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

const HOUR_MS: u64 = 3_600_000;

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, words: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(words), "{status:?} lacks {words}");
}

/// Imports a small tree, and gives its snapshot.
fn import(daemon: &Daemon, content: &str) -> String {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), content).unwrap();
    let request = ImportRequest { path: tree.path().as_os_str().as_bytes().to_vec(), name: String::new() };
    let events = daemon.owner().collect(|mut c| async move { c.import(request).await }).unwrap();
    match events.into_iter().last().and_then(|event| event.event) {
        Some(import_event::Event::Done(done)) => done.snapshot,
        other => panic!("the last event is {other:?}"),
    }
}

#[test]
fn without_a_token_nobody_gets_further() {
    let daemon = Daemon::start();
    let (token, _) = daemon.token(&[Right::Read], &[], HOUR_MS);
    refused(daemon.stranger(None).list(), Code::Unauthenticated, "aetherctl token create");
    for header in ["x", "Bearer", "Basic abc", &token, &format!("bearer {token}")] {
        refused(daemon.stranger(Some(header)).list(), Code::Unauthenticated, "`Bearer ` and a token");
    }
    refused(daemon.holder("").list(), Code::Unauthenticated, "aetherctl token create");
    refused(daemon.holder("AAAA").list(), Code::Unauthenticated, "this is no token");
    refused(daemon.holder(&"A".repeat(9000)).list(), Code::Unauthenticated, "one has at most 8192");
    refused(daemon.holder(&token[..token.len() - 8]).list(), Code::Unauthenticated, "not all of one");
    let rights = [token::Right::Read].into();
    let foreign =
        token::mint(&RootKey::generate(), "tok_0123456789abcdef", rights, None, u32::MAX.into()).unwrap();
    refused(daemon.holder(&foreign).list(), Code::Unauthenticated, "not made by this daemon");
    assert!(daemon.holder(&token).list().is_ok());
    // Not even that a call is not there.
    let (mut health, service) = (HealthClient::new(daemon.channel()), "aether.v1.Aether".to_owned());
    let health = daemon.runtime.block_on(health.check(HealthCheckRequest { service }));
    assert_eq!(health.unwrap().into_inner().status, 1);
    let reflected = |header: Option<&str>| {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let requests = tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request });
        let mut request = tonic::Request::new(requests);
        if let Some(header) = header {
            request.metadata_mut().insert("authorization", header.parse().unwrap());
        }
        let mut client = ServerReflectionClient::new(daemon.channel());
        daemon.runtime.block_on(client.server_reflection_info(request)).map(drop)
    };
    refused(reflected(None), Code::Unauthenticated, "a token is needed");
    refused(reflected(Some(&format!("Bearer {token}"))), Code::PermissionDenied, "over the network");
}

#[test]
fn nothing_but_tls_is_spoken_and_clients_know_whom_they_talk_to() {
    let daemon = Daemon::start();
    assert!(daemon.connect(&Pem::new().cert).is_err(), "another root");
    let plain = Endpoint::from_shared(format!("http://{}", daemon.address())).unwrap();
    let answer = daemon.runtime.block_on(async {
        let mut client = aether_client::AetherClient::new(plain.connect().await.map_err(|_| ())?);
        client.list(ListRequest::default()).await.map(drop).map_err(|_| ())
    });
    assert_eq!(answer, Err(()));
    let mut raw = TcpStream::connect(daemon.address()).unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut said = Vec::new();
    // An alert of TLS, and the end.
    let _ = raw.read_to_end(&mut said);
    assert!(said.len() < 16 && !said.starts_with(b"HTTP"), "{said:?}");
}

#[test]
fn rights_are_held_to() {
    let daemon = Daemon::start();
    let id = daemon.owner().create("", "s").unwrap();
    let holder = |rights: &[Right]| daemon.token(rights, &[], HOUR_MS).0;
    let (read, write) = (holder(&[Right::Read]), holder(&[Right::Write]));
    let (fork, manage) = (holder(&[Right::Fork]), holder(&[Right::Manage]));
    let (read, write, fork, manage) =
        (daemon.holder(&read), daemon.holder(&write), daemon.holder(&fork), daemon.holder(&manage));
    assert!(read.ls("s").is_ok() && read.show(&id).is_ok() && read.diff("s", "").is_ok());
    refused(
        read.seal("s"),
        Code::PermissionDenied,
        "Seal needs a token that allows write; this one allows read of all",
    );
    refused(read.fork("s", b""), Code::PermissionDenied, "allows fork");
    refused(read.discard("s"), Code::PermissionDenied, "allows write");
    refused(read.gc(), Code::PermissionDenied, "allows manage");
    refused(write.ls("s"), Code::PermissionDenied, "allows read");
    assert!(write.seal("s").is_ok() && manage.gc().is_ok() && fork.fork("s", b"").is_ok());
    let made = fork.create("", "").unwrap();
    assert_eq!(write.discard(&made).unwrap().code, 0);
    refused(manage.list(), Code::PermissionDenied, "allows read");

    // What is about the daemon's host is not for the network, whatever the token.
    let all = daemon.token(&[Right::Read, Right::Write, Right::Fork, Right::Manage], &[], HOUR_MS).0;
    let all = daemon.holder(&all);
    let request = MountRequest { session: "s".into(), dir: b"/mnt".to_vec(), ..MountRequest::default() };
    refused(
        all.call(|mut c| async move { c.mount(request).await }),
        Code::PermissionDenied,
        "through its socket",
    );
    refused(all.fork("s", b"/mnt"), Code::PermissionDenied, "through its socket");
    let request = ImportRequest { path: b"/etc".to_vec(), name: String::new() };
    refused(all.collect(|mut c| async move { c.import(request).await }), Code::PermissionDenied, "socket");
    refused(all.revoke("tok_0123456789abcdef"), Code::PermissionDenied, "socket");
    let request = CreateTokenRequest { rights: vec![Right::Read.into()], ..CreateTokenRequest::default() };
    refused(all.call(|mut c| async move { c.create_token(request).await }), Code::PermissionDenied, "socket");
}

#[test]
fn a_token_holds_for_its_sessions_and_their_forks() {
    let daemon = Daemon::start();
    let owner = daemon.owner();
    let (base, other) = (import(&daemon, "one"), import(&daemon, "two"));
    let (a, b) = (owner.create(&base, "a").unwrap(), owner.create(&other, "b").unwrap());
    let rights = [Right::Read, Right::Write, Right::Fork];
    let (token, _) = daemon.token(&rights, &["a"], HOUR_MS);
    let holder = daemon.holder(&token);
    let fork = holder.fork("a", b"").unwrap();
    let of_others = owner.fork(&fork, b"").unwrap();
    for id in ["a", &a, &fork, &of_others, &base] {
        assert!(holder.ls(id).is_ok() && holder.show(id).is_ok(), "{id}");
    }
    assert!(
        holder.diff(&fork, "a").is_ok() && holder.diff(&fork, "").is_ok() && holder.diff("a", &base).is_ok()
    );
    assert_eq!(holder.list().unwrap(), [a.clone(), fork.clone(), of_others.clone(), base.clone()]);
    // Whether there is one is not told.
    for id in ["b", &b, &b[..12], &other, "nobody", "ses_0000000000000000"] {
        let words = format!("the token does not allow read of {id}");
        refused(holder.ls(id), Code::PermissionDenied, &words);
        refused(holder.show(id), Code::PermissionDenied, &words);
        refused(holder.diff("a", id), Code::PermissionDenied, &words);
        refused(holder.seal(id), Code::PermissionDenied, "does not allow write of");
        refused(holder.fork(id, b""), Code::PermissionDenied, "does not allow fork of");
        assert_eq!(holder.discard(id).unwrap().code, Code::PermissionDenied as i32);
    }
    refused(holder.create("", ""), Code::PermissionDenied, "Create needs a token for all sessions");
    assert_eq!(holder.discard(&base).unwrap().code, Code::PermissionDenied as i32, "a snapshot");

    // Narrowed to the fork, without the daemon.
    let only = [fork.parse().unwrap()].into();
    let by =
        Narrowing { sessions: Some(only), rights: Some([token::Right::Read].into()), expires_secs: None };
    let narrow = daemon.holder(&token::narrow(&token, by).unwrap());
    assert!(narrow.ls(&fork).is_ok() && narrow.ls(&of_others).is_ok());
    refused(narrow.ls("a"), Code::PermissionDenied, "read of a");
    refused(narrow.seal(&fork), Code::PermissionDenied, "Seal needs a token that allows write");
    assert_eq!(narrow.list().unwrap(), [fork.clone(), of_others.clone(), base.clone()]);
    // To one that it never held for: to nothing.
    let by = Narrowing { sessions: Some([b.parse().unwrap()].into()), ..Narrowing::default() };
    refused(daemon.holder(&token::narrow(&token, by).unwrap()).ls("b"), Code::PermissionDenied, "read of b");

    assert_eq!(holder.discard(&fork).unwrap().code, 0);
    // What lay between them is gone.
    refused(holder.ls(&of_others), Code::PermissionDenied, "read of");
}

#[test]
fn sessions_of_all_hosts_are_shown_to_who_may_read_them() {
    let daemon = Daemon::start_with(&["--remote", "file://DIR/remote"]);
    let owner = daemon.owner();
    let (a, b) = (owner.create("", "a").unwrap(), owner.create("", "b").unwrap());
    let fork = owner.fork("a", b"").unwrap();
    for id in [&a, &b, &fork] {
        let request = PublishRequest { id: id.clone() };
        owner.collect(|mut c| async move { c.publish(request).await }).unwrap();
    }
    let listed = |sessions: &[&str]| {
        let holder = daemon.holder(&daemon.token(&[Right::Read], sessions, HOUR_MS).0);
        let all = holder.collect(|mut c| async move { c.list_remote(ListRemoteRequest {}).await }).unwrap();
        let mut ids: Vec<_> = all.into_iter().map(|one| one.session.unwrap().id).collect();
        ids.sort();
        ids
    };
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(listed(&[]), sorted(&[&a, &b, &fork]));
    assert_eq!(listed(&["a"]), sorted(&[&a, &fork]));
    assert_eq!(listed(&["b"]), sorted(&[&b]));
    // Not here any more: only who names it.
    let request = HandoffRequest { session: fork.clone(), force: false };
    let (of_a, of_fork) = (["a"], [fork.as_str()]);
    assert_eq!(listed(&of_fork), sorted(&[&fork]));
    owner.collect(|mut c| async move { c.handoff(request).await }).unwrap();
    assert_eq!(listed(&of_a), sorted(&[&a]));
    let writer = daemon.holder(&daemon.token(&[Right::Write], &[], HOUR_MS).0);
    refused(
        writer.collect(|mut c| async move { c.list_remote(ListRemoteRequest {}).await }),
        Code::PermissionDenied,
        "allows read",
    );
}

#[test]
fn tokens_end_and_revoked_ones_stay_revoked() {
    let mut daemon = Daemon::start();
    daemon.owner().create("", "s").unwrap();
    let (short, _) = daemon.token(&[Right::Read], &[], 1000);
    let (kept, _) = daemon.token(&[Right::Read], &["s"], HOUR_MS);
    let (gone, gone_id) = daemon.token(&[Right::Read], &[], HOUR_MS);
    let by = Narrowing { expires_secs: Some(u32::MAX.into()), ..Narrowing::default() };
    let narrowed = token::narrow(&gone, by).unwrap();
    assert!(daemon.holder(&narrowed).list().is_ok());
    assert!(daemon.owner().revoke(&gone_id).unwrap().token.unwrap().revoked);
    refused(daemon.owner().revoke("tok_0000000000000000"), Code::NotFound, "aetherctl token list");
    thread::sleep(Duration::from_millis(1100));
    let check = |daemon: &Daemon| {
        refused(daemon.holder(&gone).list(), Code::Unauthenticated, "revoked");
        refused(daemon.holder(&narrowed).list(), Code::Unauthenticated, "revoked");
        refused(daemon.holder(&short).list(), Code::Unauthenticated, "has expired");
        assert!(daemon.holder(&kept).ls("s").is_ok());
    };
    check(&daemon);
    daemon.restart();
    check(&daemon);
    let tokens =
        daemon.owner().call(|mut c| async move { c.list_tokens(ListTokensRequest {}).await }).unwrap().tokens;
    let told: Vec<_> = tokens.iter().map(|token| (token.revoked, token.sessions.len())).collect();
    assert!(told.len() == 2 && told.contains(&(false, 1)) && told.contains(&(true, 0)), "{tokens:?}");
    let bad = |rights: Vec<i32>, sessions: Vec<String>, lifetime_ms: u64| {
        let request = CreateTokenRequest { rights, sessions, lifetime_ms };
        daemon.owner().call(|mut c| async move { c.create_token(request).await }).map(drop)
    };
    let read = || vec![Right::Read.into()];
    refused(bad(vec![], vec![], 0), Code::InvalidArgument, "without any right");
    refused(bad(vec![9], vec![], 0), Code::InvalidArgument, "right 9");
    refused(bad(read(), vec!["s".into(); 65], 0), Code::InvalidArgument, "at most 64");
    refused(bad(read(), vec!["nobody".into()], 0), Code::NotFound, "nobody");
    refused(bad(read(), vec![], 31 * 24 * HOUR_MS), Code::InvalidArgument, "30 days");
    refused(bad(vec![Right::Manage.into()], vec!["s".into()], 0), Code::InvalidArgument, "whole host");

    // Nothing of it is anywhere but with those who have it, and the key in a file of its owner's.
    let key = daemon.state().join("tokens/key");
    for file in [&key, &daemon.state().join("tokens/list")] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    let log = daemon.log();
    assert!(log.contains(&gone_id), "it is logged what was made and revoked");
    for secret in [&short, &kept, &gone, &narrowed] {
        assert!(!log.contains(&secret[..secret.len() - 4]) && !log.contains(&secret[secret.len() - 40..]));
    }
    let key = fs::read(key).unwrap();
    let hex: String = key[..token::KEY_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!log.contains(&hex) && !log.contains("PRIVATE KEY"));
}

/// Each of them was held for ever before there was a bound.
#[test]
fn a_connection_on_which_nobody_becomes_known_is_closed() {
    let daemon = Daemon::start();
    let (token, _) = daemon.token(&[Right::Read], &[], HOUR_MS);
    let holder = daemon.holder(&token);
    assert!(holder.list().is_ok());
    // Somebody who is told that the daemon is well, and goes on listening.
    let (mut health, service) = (HealthClient::new(daemon.channel()), "aether.v1.Aether".to_owned());
    let watch = daemon.runtime.block_on(health.watch(HealthCheckRequest { service }));
    let mut watch = watch.unwrap().into_inner();
    assert!(daemon.runtime.block_on(watch.message()).unwrap().is_some());
    // Nothing at all, and the beginning of a greeting of TLS.
    let stalled = [&b""[..], b"\x16\x03\x01\x02\x00\x01"].map(|said| {
        let mut stalled = TcpStream::connect(daemon.address()).unwrap();
        stalled.write_all(said).unwrap();
        stalled
    });
    for mut stalled in stalled {
        stalled.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        match stalled.read(&mut [0; 16]) {
            Ok(0) => {}
            Ok(_) => panic!("an answer to nothing"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    assert!(daemon.runtime.block_on(watch.message()).is_err(), "nobody has shown a token");
    assert!(holder.list().is_ok(), "who is known stays");
}

#[test]
fn a_renewed_certificate_is_shown_to_who_connects_from_then_on() {
    let daemon = Daemon::start();
    let (token, _) = daemon.token(&[Right::Read, Right::Manage], &[], HOUR_MS);
    let (first, old) = (daemon.pem().clone(), daemon.holder(&token));
    let check = || {
        let checks = old.call(|mut c| async move { c.doctor(DoctorRequest {}).await }).unwrap().checks;
        checks.into_iter().find(|check| check.name == "certificate").unwrap()
    };
    assert_eq!(check().status(), DoctorStatus::Ok);

    // A broken pair: the old one stays, and whoever asks is told.
    let second = Pem::new();
    daemon.put_certificate(&second.cert, &first.key);
    daemon.hang_up();
    daemon.wait_for("the old one stays in use", 1);
    assert_eq!(check().status(), DoctorStatus::Warn);
    assert!(check().detail.contains("both have to be PEM"), "{:?}", check());
    assert!(daemon.connect(&first.cert).is_ok() && daemon.connect(&second.cert).is_err());

    daemon.put_certificate(&second.cert, &second.key);
    daemon.hang_up();
    daemon.wait_for("the certificate was renewed", 1);
    assert!(daemon.connect(&second.cert).is_ok() && daemon.connect(&first.cert).is_err());
    // The connection that was there goes on.
    assert!(old.list().is_ok());
    assert_eq!(check().status(), DoctorStatus::Ok);

    // Nobody says so: it is seen all the same.
    let third = Pem::new();
    daemon.put_certificate(&third.cert, &third.key);
    daemon.wait_for("the certificate was renewed", 2);
    assert!(daemon.connect(&third.cert).is_ok() && daemon.connect(&second.cert).is_err());
    assert!(!daemon.log().contains("PRIVATE KEY"));
}

#[test]
fn what_keeps_the_daemon_off_the_network_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (pem, other) = (Pem::new(), Pem::new());
    for (name, text) in
        [("cert", &pem.cert), ("key", &pem.key), ("other", &other.key), ("text", &"no PEM".to_owned())]
    {
        fs::write(path(name), text).unwrap();
    }
    let said = |address: &str, cert: &Path, key: &Path| {
        let mut command = aetherfsd(&path("state"));
        command.args(["--listen", address]).arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let any = "127.0.0.1:0";
    let text = said(any, &path("none"), &path("key"));
    assert!(text.contains("--tls-cert") && text.contains("none: No such file"), "{text}");
    let text = said(any, &path("cert"), &path("none"));
    assert!(text.contains("--tls-key") && text.contains("none: No such file"), "{text}");
    for (cert, key) in [("text", "key"), ("cert", "text"), ("cert", "other")] {
        let text = said(any, &path(cert), &path(key));
        assert!(text.contains("--tls-cert") && text.contains("both have to be PEM"), "{text}");
    }
    let text = said("256.0.0.1:1", &path("cert"), &path("key"));
    assert!(text.contains("--listen 256.0.0.1:1"), "{text}");
    let output = aetherfsd(&path("state")).args(["--listen", any]).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("--tls-cert is missing"));
}

#[test]
fn what_a_host_is_to_others_needs_a_token_that_reads() {
    let daemon = Daemon::start();
    let snapshot = import(&daemon, "content");
    let (one, other) =
        (daemon.owner().create(&snapshot, "one").unwrap(), daemon.owner().create("", "other").unwrap());
    let name = |kind: u32, bytes: &[u8]| ObjectName { kind, digest: cas::Digest::of(bytes).0.to_vec() };
    let content = || vec![name(1, b"content")];
    let nobody = daemon.stranger(None);
    refused(nobody.open(&one, ""), Code::Unauthenticated, "aetherctl token create");
    refused(nobody.read(content(), 0), Code::Unauthenticated, "aetherctl token create");
    let write = daemon.token(&[Right::Write, Right::Fork, Right::Manage], &[], HOUR_MS).0;
    refused(daemon.holder(&write).open(&one, ""), Code::PermissionDenied, "needs a token that allows read");
    refused(
        daemon.holder(&write).read(content(), 0),
        Code::PermissionDenied,
        "needs a token that allows read",
    );

    // One for one session opens that one, and reads whatever it can name.
    let read = daemon.token(&[Right::Read], &[&one], HOUR_MS).0;
    let read = daemon.holder(&read);
    refused(read.open(&other, ""), Code::PermissionDenied, "it holds for other sessions");
    refused(read.open("ses_0000000000000001", ""), Code::PermissionDenied, "it holds for other sessions");
    let opened = read.open("one", "").unwrap();
    assert_eq!((&opened.snapshot, &opened.origin), (&snapshot, &snapshot));
    // Until it is asked for again; from then on for a week.
    assert!(opened.session.unwrap().id == one && opened.stays_ms > 2 * HOUR_MS);
    let opened = read.open(&one, &snapshot).unwrap();
    assert!(opened.snapshot == snapshot && opened.stays_ms > 6 * 24 * HOUR_MS);
    let parts = read.read(vec![name(1, b"nowhere"), name(1, b"content")], 10).unwrap();
    let part = |nth, absent, bytes: &[u8]| {
        let (len, bytes) = (bytes.len() as u32, bytes.to_vec());
        Some(read_reply::Part::Object(ObjectPart { nth, absent, len, bytes }))
    };
    assert_eq!(
        (parts.len(), &parts[0].part, &parts[1].part),
        (3, &part(0, true, b""), &part(1, false, b"content"))
    );

    refused(read.read(Vec::new(), 0), Code::InvalidArgument, "1 to 256");
    refused(read.read(vec![name(1, b"x"); 257], 0), Code::InvalidArgument, "1 to 256");
    refused(read.read(content(), 513), Code::InvalidArgument, "512");
    refused(read.read(vec![name(7, b"x")], 0), Code::InvalidArgument, "32 bytes");
    let short = ObjectName { kind: 1, digest: vec![0; 31] };
    refused(read.read(vec![short], 0), Code::InvalidArgument, "32 bytes");
    refused(read.open(&one, "snp_0"), Code::InvalidArgument, "no whole snapshot ID");
    let nothing = "snp_0000000000000000000000000000000000000000000000000000";
    refused(read.open(&one, nothing), Code::NotFound, nothing);
    // What was opened stays, and can be asked for again, when the session is gone.
    assert_eq!(daemon.owner().discard(&one).unwrap().code, 0);
    assert_eq!(read.open(&one, &snapshot).unwrap().snapshot, snapshot);
    refused(read.open(&one, ""), Code::PermissionDenied, "it holds for other sessions");
}
