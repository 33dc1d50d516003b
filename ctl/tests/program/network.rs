//! The real `aetherctl` against a daemon on the network: whom it believes, what it shows, and what it keeps to itself. And tokens, which take no daemon.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use token::{Right, RootKey};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Status};

use crate::fake::{Daemon, FORK, SECRET, SESSION, TOKEN_ID, ctl};

const END_SECS: u64 = 4_000_000_000;

fn a_token() -> String {
    let rights = BTreeSet::from([Right::Read, Right::Fork]);
    token::mint(&RootKey::generate(), TOKEN_ID, rights, None, END_SECS).unwrap()
}

/// The daemon of fixed answers on a port, for who shows this header.
struct Network {
    daemon: Daemon,
    address: SocketAddr,
}

impl Network {
    fn start(header: &str) -> Network {
        let daemon = Daemon::start();
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        let cert = made.cert.pem();
        fs::write(daemon.dir().join("ca.pem"), &cert).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, made.signing_key.serialize_pem()));
        let wanted = header.to_string();
        let check = move |request: Request<()>| match request.metadata().get("authorization") {
            Some(shown) if *shown == *wanted => Ok(request),
            _ => Err(Status::unauthenticated("the token was revoked")),
        };
        let service = daemon.service(check);
        daemon.spawn(async move {
            let listener = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
            Server::builder()
                .tls_config(tls)
                .unwrap()
                .add_service(service)
                .serve_with_incoming(listener)
                .await
        });
        Network { daemon, address }
    }

    fn ctl(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let server = format!("https://localhost:{}", self.address.port());
        let mut command = ctl(self.daemon.dir());
        command.env("AETHERFS_SERVER", server).env("AETHERFS_CA", "ca.pem").envs(variables.iter().copied());
        command.args(args).output().unwrap()
    }
}

#[track_caller]
fn says(out: &Output) -> String {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout.clone()).unwrap()
}

#[track_caller]
fn fails(out: &Output, code: i32, words: &str) {
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(words), "{stderr}");
}

#[test]
fn commands_go_to_the_server_with_the_token() {
    let token = a_token();
    let network = Network::start(&format!("Bearer {token}"));
    let out = network.ctl(&["fork", "work"], &[("AETHERFS_TOKEN", &token)]);
    assert_eq!(says(&out), format!("{}\n", FORK));
    fs::write(network.daemon.dir().join("t"), format!("{token}\n")).unwrap();
    says(&network.ctl(&["--token-file", "t", "list"], &[("AETHERFS_TOKEN", "something else")]));
    says(&network.ctl(&["list"], &[("AETHERFS_TOKEN_FILE", "t")]));
    let doctor = network.ctl(&["--json", "doctor"], &[("AETHERFS_TOKEN", &token)]);
    let document: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert!(
        document["checks"].as_array().unwrap().iter().all(|check| check["name"] != "fuse device"),
        "{document}"
    );
    // A socket that is named is meant, whatever the environment says.
    says(&network.ctl(&["--socket", "aetherfsd.sock", "list"], &[]));
    fails(&network.ctl(&["list", "--server", "https://x:1", "--socket", "y"], &[]), 2, "cannot be used with");
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let token = a_token();
    let network = Network::start(&format!("Bearer {token}"));
    fails(&network.ctl(&["list"], &[]), 1, "wants a token: AETHERFS_TOKEN");
    fails(&network.ctl(&["list"], &[("AETHERFS_TOKEN", &a_token())]), 1, "the token was revoked");
    let out = network.ctl(&["list"], &[("AETHERFS_TOKEN", "hunter2")]);
    fails(&out, 1, "this is no token");
    assert!(!String::from_utf8_lossy(&out.stderr).contains("hunter2"));
    let with = |name, value| [("AETHERFS_TOKEN", token.as_str()), (name, value)];
    fails(&network.ctl(&["list"], &with("AETHERFS_CA", "none.pem")), 1, "--ca none.pem: No such file");
    fails(&network.ctl(&["list"], &with("AETHERFS_CA", "aetherfsd.sock")), 1, "--ca aetherfsd.sock");
    let other = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    fs::write(network.daemon.dir().join("other.pem"), other.cert.pem()).unwrap();
    fails(&network.ctl(&["list"], &with("AETHERFS_CA", "other.pem")), 2, "certificate");
    let address = format!("https://127.0.0.1:{}", network.address.port());
    fails(&network.ctl(&["list"], &with("AETHERFS_SERVER", &address)), 2, "the name in the address");
    for bad in ["http://localhost:1", "localhost:1", "https://", "https://h:1/path", "ftp://h:1"] {
        fails(&network.ctl(&["list"], &with("AETHERFS_SERVER", bad)), 1, "is not https://HOST:PORT");
    }
    fails(
        &network.ctl(&["list"], &with("AETHERFS_SERVER", "https://127.0.0.1:1")),
        2,
        "no daemon to talk to at",
    );
    fails(&network.ctl(&["list", "--token-file", "none"], &[]), 1, "the token in none: No such file");
}

#[test]
fn what_is_for_the_daemons_host_is_refused_before_anybody_is_asked() {
    let token = a_token();
    let network = Network::start("nobody");
    let commands: [&[&str]; 9] = [
        &["import", "."],
        &["mount", "work", "."],
        &["unmount", "."],
        &["advance", "."],
        &["create", "--mount", "."],
        &["fork", "work", "--mount", "."],
        &["token", "create", "--allow", "read"],
        &["token", "list"],
        &["token", "revoke", TOKEN_ID],
    ];
    for args in commands {
        fails(&network.ctl(args, &[("AETHERFS_TOKEN", &token)]), 1, "on the daemon's host alone");
    }
    assert_eq!(network.daemon.asked(), "");
}

#[test]
fn tokens_are_made_listed_and_revoked_at_the_socket() {
    let daemon = Daemon::start();
    let out =
        daemon.ctl(&["token", "create", "--session", SESSION, "--allow", "read,fork", "--expires", "12h"]);
    assert_eq!(says(&out), format!("{}\n", SECRET));
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(stderr, format!("{}: read, fork of {SESSION}, until 1970-01-02 00:00:00\n", TOKEN_ID));
    assert_eq!(
        daemon.asked(),
        format!(
            "CreateTokenRequest {{ rights: [Read, Fork], sessions: [{SESSION:?}], lifetime_ms: 43200000 }}"
        )
    );
    let document = daemon.document(&["token", "create", "--allow", "manage"]);
    assert_eq!((&document["token"], &document["sessions"]), (&json!(SECRET), &Value::Null));
    assert!(daemon.asked().contains("lifetime_ms: 86400000"), "{}", daemon.asked());
    fails(&daemon.ctl(&["token", "create"]), 2, "--allow");
    fails(&daemon.ctl(&["token", "create", "--allow", "all"]), 2, "no such right");
    fails(&daemon.ctl(&["token", "create", "--allow", "read", "--session", ""]), 1, "--session is empty");
    fails(&daemon.ctl(&["token", "create", "--allow", "read", "--expires", "0s"]), 1, "a second or more");

    let list = daemon.document(&["token", "list"]);
    assert_eq!(
        list[1],
        json!({"id": TOKEN_ID, "rights": ["read", "fork"], "sessions": [SESSION], "created": "1970-01-01T00:00:00.000000000Z",
               "created_ns": 0, "expires": "1970-01-02T00:00:00.000000000Z", "expires_ns": 86_400_000_000_000_i64, "revoked": true})
    );
    assert!(daemon.says(&["token", "list"]).contains("revoked"));
    assert_eq!(daemon.says(&["token", "revoke", TOKEN_ID]), "");
    fails(&daemon.ctl(&["token", "revoke", "tok_x"]), 1, "no such token");
}

fn with_stdin(dir: &Path, args: &[&str], stdin: &str) -> Output {
    let mut command: Command = ctl(dir);
    let mut child = command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that has seen enough closes its end.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn tokens_are_narrowed_and_looked_at_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let token = a_token();
    let shown = says(&with_stdin(dir.path(), &["token", "inspect"], &format!("{token}\n")));
    assert!(
        shown.contains("read, fork") && shown.contains("all sessions") && shown.contains("2096-10-02"),
        "{shown}"
    );
    let args = ["token", "narrow", "--allow", "read", "--session", SESSION, "--expires", "10m"];
    let narrow = says(&with_stdin(dir.path(), &args, &token));
    let document: Value =
        serde_json::from_str(&says(&with_stdin(dir.path(), &["--json", "token", "inspect"], &narrow)))
            .unwrap();
    assert_eq!(
        (&document["id"], &document["rights"], &document["sessions"], &document["expired"]),
        (&json!(TOKEN_ID), &json!(["read"]), &json!([[SESSION]]), &json!(false))
    );
    assert!(document["expires_ns"].as_i64().unwrap() < END_SECS.cast_signed() * 1_000_000_000);
    let args = ["token", "narrow", "--allow", "fork"];
    fails(&with_stdin(dir.path(), &args, &narrow), 1, "the token does not allow fork");
    fails(&with_stdin(dir.path(), &["token", "narrow"], &token), 1, "nothing to narrow");
    fails(&with_stdin(dir.path(), &["token", "narrow", "--session", "work"], &token), 2, "whole ID");
    fails(&with_stdin(dir.path(), &["token", "inspect"], ""), 1, "the token is empty");
    fails(&with_stdin(dir.path(), &["token", "inspect"], &"x".repeat(100_000)), 1, "are no token");
    let out = ctl(dir.path())
        .env("AETHERFS_TOKEN", &token)
        .args(["token", "narrow", "--allow", "read"])
        .output()
        .unwrap();
    assert!(says(&out).len() > token.len());
}
