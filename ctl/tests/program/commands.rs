//! The real `aetherctl` against a daemon of fixed answers: what it asks, what it prints, how it exits.

use std::fs;
use std::io::Read;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::fake::{Daemon, FORK, SESSION, SNAPSHOT, ctl};

#[track_caller]
fn fails(out: &Output, code: i32, words: &str) {
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(words), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn import_prints_the_snapshot_and_talks_on_stderr() {
    let daemon = Daemon::start();
    fs::create_dir(daemon.dir().join("tree")).unwrap();
    let out = daemon.ctl(&["import", "tree", "--name", "base"]);
    assert!(out.status.success());
    assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{SNAPSHOT}\n"));
    assert!(String::from_utf8_lossy(&out.stderr).contains("2 files"));
    let tree = fs::canonicalize(daemon.dir().join("tree")).unwrap();
    assert_eq!(
        daemon.asked(),
        format!("ImportRequest {{ path: {:?}, name: \"base\" }}", tree.as_os_str().as_encoded_bytes())
    );
    let document = daemon.document(&["import", "tree"]);
    assert_eq!(document["snapshot"], SNAPSHOT);
    assert_eq!(document["elapsed_us"], 7);
}

/// An import that has begun and will not end by itself.
fn endless_import(daemon: &Daemon) -> Child {
    let child = ctl(daemon.dir())
        .env("AETHERFS_SOCKET", daemon.socket())
        .args(["import", ".", "--name", "endless"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("aetherctl starts");
    while !daemon.asked().contains("endless") {
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn ctrl_c_ends_an_import() {
    let daemon = Daemon::start();
    let child = endless_import(&daemon);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    fails(&child.wait_with_output().unwrap(), 130, "interrupted");
}

#[test]
fn a_daemon_that_dies_is_named() {
    let daemon = Daemon::start();
    let child = endless_import(&daemon);
    daemon.stop();
    fails(&child.wait_with_output().unwrap(), 2, "the daemon went away");
}

#[test]
fn create_and_fork_print_sessions() {
    let daemon = Daemon::start();
    assert_eq!(daemon.says(&["create", "--from", "base"]), format!("{SESSION}\n"));
    let document = daemon.document(&["create"]);
    assert_eq!((&document["session"], &document["elapsed_us"]), (&json!(SESSION), &json!(42)));
    assert_eq!(daemon.says(&["fork", "work", "--count", "2"]), format!("{FORK}\n{FORK}\n"));
    let document = daemon.document(&["fork", "work"]);
    assert_eq!((&document["sessions"][0]["id"], &document["elapsed_us"]), (&json!(FORK), &json!(43)));
    fails(&daemon.ctl(&["fork", "nobody"]), 1, "no session or snapshot is called nobody");
    fails(&daemon.ctl(&["fork", "work", "--count", "0"]), 2, "--count");
    fails(&daemon.ctl(&["create", "--from", ""]), 1, "--from is empty");
}

#[test]
fn labels_and_a_time_to_go_are_sent_and_shown() {
    let daemon = Daemon::start();
    daemon.says(&["create", "--expires", "2d", "--label", "job=1", "--label", "team/a=x=y"]);
    let label = |key: &str, value: &str| format!("Label {{ key: {key:?}, value: {value:?} }}");
    let notes =
        format!("expires_after_s: 172800, labels: [{}, {}]", label("job", "1"), label("team/a", "x=y"));
    assert!(daemon.asked().contains(&notes), "{}", daemon.asked());
    daemon.says(&["fork", "work", "--expires", "90m", "--label", "job="]);
    let notes = format!("expires_after_s: 5400, labels: [{}]", label("job", ""));
    assert!(daemon.asked().contains(&notes), "{}", daemon.asked());

    assert_eq!(daemon.says(&["expire", "work", "2d"]), "");
    assert_eq!(daemon.asked(), "ExpireRequest { session: \"work\", after_s: 172800 }");
    daemon.says(&["expire", "work", "never"]);
    assert!(daemon.asked().contains("after_s: 0"), "{}", daemon.asked());
    fails(&daemon.ctl(&["expire", "work", "0s"]), 1, "a minute or more");
    fails(&daemon.ctl(&["expire", "work", "soon"]), 2, "soon");
    fails(&daemon.ctl(&["expire", "nobody", "1h"]), 1, "nobody");

    assert_eq!(daemon.says(&["label", "work", "job=2", "team-", "a.b=1=2"]), "");
    let set = format!("set: [{}, {}], remove: [\"team\"]", label("job", "2"), label("a.b", "1=2"));
    assert!(daemon.asked().contains(&set), "{}", daemon.asked());
    fails(&daemon.ctl(&["label", "work", "job"]), 2, "KEY- to take it off");
    fails(&daemon.ctl(&["label", "work"]), 2, "KEY=VALUE");

    let session = daemon.document(&["show", "noted"]);
    assert_eq!(session["labels"], json!({"job": "1", "team/a": "gr\u{fc}n"}));
    assert_eq!(
        (&session["expires"], &session["expires_in_s"]),
        (&json!("1970-01-02T00:00:00.000000000Z"), &json!(3700))
    );
    assert_eq!(daemon.document(&["expire", "work", "1h"]), session);
    assert_eq!(daemon.document(&["label", "work", "a=1"]), session);
    let text = daemon.says(&["show", "noted"]);
    assert!(text.contains("1970-01-02 00:00:00, in 1h 1m") && text.contains("team/a=gr\u{fc}n"), "{text}");
    let plain = daemon.document(&["show", "work"]);
    assert_eq!((&plain["labels"], &plain["expires"]), (&json!({}), &json!(null)));
}

#[test]
fn list_finds_sessions_by_label() {
    let daemon = Daemon::start();
    let text = daemon.says(&["list", "--label", "job=1", "--label", "team/a"]);
    let filter = |key: &str, value: &str| format!("LabelFilter {{ key: {key:?}, value: {value} }}");
    assert!(daemon.asked().contains(&filter("job", "Some(\"1\")")), "{}", daemon.asked());
    assert!(daemon.asked().contains(&filter("team/a", "None")), "{}", daemon.asked());
    assert!(text.contains("EXPIRES") && text.contains("in 1h 1m") && text.contains("job=1"), "{text}");
    assert!(!daemon.says(&["list"]).contains("EXPIRES"), "nobody uses it");
    let out = daemon.ctl(&["list", "--label", "nobody"]);
    assert!(out.status.success() && out.stdout.is_empty());
    assert!(String::from_utf8_lossy(&out.stderr).contains("no session here"));
    assert_eq!(daemon.document(&["list", "--label", "nobody"]), json!([]));
}

#[test]
fn sessions_of_all_hosts_are_listed() {
    let daemon = Daemon::start();
    let text = daemon.says(&["list", "--remote"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with("SESSION") && lines[1].starts_with(&format!("{SESSION}  free")), "{text}");
    assert!(lines[2].contains("stale") && lines[2].contains("host_of-somebody"), "{text}");
    assert!(lines[3].contains("the head is damaged"), "{text}");
    let list = daemon.document(&["list", "--remote"]);
    assert_eq!((&list[0]["state"], &list[0]["holder_seen"]), (&json!("free"), &json!(null)));
    assert_eq!((&list[1]["state"], &list[1]["holder_seen_ns"]), (&json!("stale"), &json!(2_000_000_000)));
    assert_eq!((&list[1]["travel"]["epoch"], &list[1]["travel"]["published"]), (&json!(3), &json!(SNAPSHOT)));
    assert_eq!((&list[2]["damage"], &list[2]["created"]), (&json!("the head is damaged"), &json!(null)));
    fails(&daemon.ctl(&["list", "--remote", "--label", "a"]), 2, "cannot be used with");
}

#[test]
fn mount_and_unmount_send_absolute_directories() {
    let daemon = Daemon::start();
    fs::create_dir(daemon.dir().join("m")).unwrap();
    assert_eq!(daemon.says(&["mount", "work", "m", "--read-only"]), "");
    let document = daemon.document(&["mount", "work", "./m"]);
    let dir = fs::canonicalize(daemon.dir().join("m")).unwrap();
    assert_eq!(document["dir"], dir.to_str().unwrap());
    assert_eq!(document["session"], SESSION);
    daemon.says(&["unmount", "m"]);
    assert!(daemon.asked().contains("Dir("), "{}", daemon.asked());
    daemon.says(&["unmount", "not/there"]);
    assert!(daemon.asked().contains("Dir("), "{}", daemon.asked());
    assert_eq!(
        daemon.document(&["unmount", "work"]),
        json!({"session": SESSION, "mounts": [{"dir": "/mnt/w"}]})
    );
    assert!(daemon.asked().contains("Session(\"work\")"), "{}", daemon.asked());
}

#[test]
fn list_and_show_tell_everything() {
    let daemon = Daemon::start();
    let text = daemon.says(&["list"]);
    assert!(
        text.contains(SESSION) && text.contains(SNAPSHOT) && text.contains("1970-01-01 00:00:01"),
        "{text}"
    );
    let list = daemon.document(&["list"]);
    assert_eq!((&list[0]["type"], &list[1]["type"]), (&json!("session"), &json!("snapshot")));
    let session = daemon.document(&["show", "work"]);
    assert_eq!(list[0], session);
    assert_eq!(
        session,
        json!({
            "type": "session", "id": SESSION, "name": "work", "base": SNAPSHOT, "parent": null,
            "created": "1970-01-01T00:00:01.500000000Z", "created_ns": 1_500_000_000, "fork_depth": 0,
            "mounts": [{"dir": "\"/mnt/w\\377\"", "dir_base64": "L21udC93/w==", "read_only": true,
                        "allow_other": false, "acl": false, "no_xattrs": false, "io": "cached",
                        "transport": "dev-fuse", "transport_note": null}],
            "changed_inodes": 3, "changed_bytes": 4096, "log_position": 0, "sealed": null, "travel": null,
            "labels": {}, "expires": null, "expires_ns": null, "expires_in_s": null,
        })
    );
    assert!(daemon.says(&["show", "work"]).contains("3 inodes, 4.0 KiB"));
}

#[test]
fn publish_prints_the_snapshot_and_what_was_sent() {
    let daemon = Daemon::start();
    let out = daemon.ctl(&["publish", "work"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{SNAPSHOT}\n"));
    assert!(String::from_utf8_lossy(&out.stderr).contains("in 2 packs"));
    let document = daemon.document(&["publish", "work"]);
    assert_eq!((&document["snapshot"], &document["sent_packs"]), (&json!(SNAPSHOT), &json!(2)));
    fails(&daemon.ctl(&["publish", "alone"]), 1, "start aetherfsd with --remote");
}

#[test]
fn advance_prints_what_is_seen() {
    let daemon = Daemon::start();
    assert_eq!(daemon.says(&["advance", "/mnt/look"]), format!("{SNAPSHOT}\n"));
    assert_eq!(daemon.document(&["advance", "look"])["advanced"], json!(true));
    let look = daemon.dir().join("look");
    assert!(
        daemon.asked().contains(&format!("{:?}", look.as_os_str().as_encoded_bytes())),
        "{}",
        daemon.asked()
    );
}

#[test]
fn handoff_prints_what_it_left() {
    let daemon = Daemon::start();
    assert_eq!(daemon.says(&["handoff", "work"]), format!("{SNAPSHOT}\n"));
    let document = daemon.document(&["handoff", "mounted", "--force"]);
    assert_eq!((&document["travel"]["seq"], &document["travel"]["holder"]), (&json!(2), &json!(null)));
    fails(&daemon.ctl(&["handoff", "mounted"]), 1, "--force");
}

#[test]
fn fetch_names_paths_and_says_what_came() {
    let daemon = Daemon::start();
    let out = daemon.ctl(&["fetch", "work", "src", "a b"]);
    assert!(out.stdout.is_empty() && String::from_utf8_lossy(&out.stderr).contains("3 chunks fetched"));
    assert!(daemon.asked().contains(&format!("paths: {:?}", [b"src", b"a b"])), "{}", daemon.asked());
    assert_eq!(daemon.document(&["fetch", "work"])["chunks_fetched"], 3);
    assert_eq!(daemon.says(&["fetch", "work"]), "");
    assert_eq!(daemon.document(&["fetch", "work"])["snapshot"], json!(null));
    assert_eq!(daemon.says(&["fetch", "aether://near:7440/work"]), format!("{SNAPSHOT}\n"));
}

#[test]
fn a_profile_is_printed_written_and_fetched() {
    let daemon = Daemon::start();
    let text = "aetherfs profile 1\ndir .\ndir src\nfile 0-262144,524288- src/a%20b%ff\n";
    let out = daemon.ctl(&["profile", "work"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), text);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("1 files, 2 directories; 4 that were read") && said.contains("no room"), "{said}");
    let document = daemon.document(&["profile", "work"]);
    assert_eq!(document["entries"][0], json!({"type": "dir", "path": ""}));
    let file = &document["entries"][2];
    assert_eq!(
        (&file["ranges"], &file["path"]),
        (&json!([[0, 262_144], [524_288, null]]), &json!("\"src/a b\\377\""))
    );
    assert_eq!((&document["gone"], &document["full"]), (&json!(4), &json!(true)));

    let file = daemon.dir().join("p");
    let name = file.to_str().expect("UTF-8");
    assert_eq!(daemon.says(&["profile", "work", "--output", name]), "");
    assert_eq!(std::fs::read_to_string(&file).expect("it was written"), text);
    assert_eq!(daemon.document(&["fetch", "snp", "--profile", name])["files"], 2);
    assert!(daemon.asked().contains("ByteRange { start: 524288, end: 0 }"), "{}", daemon.asked());
    // No such file: a session.
    assert_eq!(daemon.document(&["fetch", "snp", "--profile", "work"])["missing"], 0);
    fails(&daemon.ctl(&["fetch", "snp", "--profile", "nobody"]), 1, "no session nobody");
    fails(&daemon.ctl(&["fetch", "snp", "--profile", "./nowhere"]), 1, "cannot read ./nowhere");
    fails(&daemon.ctl(&["fetch", "snp", "path", "--profile", name]), 2, "cannot be used with");
    fails(&daemon.ctl(&["profile", "nobody"]), 1, "no session nobody");

    std::fs::write(&file, format!("{text}dir ../x\n")).expect("write");
    fails(&daemon.ctl(&["fetch", "snp", "--profile", name]), 1, "line 5");
    // More than one request takes, and none at all.
    let many: String = (0..5000).map(|n| format!("file 0- a.{n}\n")).collect();
    std::fs::write(&file, format!("aetherfs profile 1\n{many}")).expect("write");
    let document = daemon.document(&["fetch", "snp", "--profile", name]);
    assert_eq!((&document["missing"], &document["files"]), (&json!(5000), &json!(4)));
    std::fs::write(&file, "aetherfs profile 1\n").expect("write");
    assert_eq!(
        daemon.document(&["fetch", "snp", "--profile", name])["files"],
        0,
        "nothing, and not everything"
    );
}

#[test]
fn pin_and_unpin_print_the_snapshot() {
    let daemon = Daemon::start();
    assert_eq!(daemon.says(&["pin", "work"]), format!("{SNAPSHOT}\n"));
    assert_eq!(daemon.asked(), "PinRequest { id: \"work\" }");
    assert_eq!(daemon.document(&["pin", "work"]), json!({ "snapshot": SNAPSHOT }));
    fails(&daemon.ctl(&["pin", "unpublished"]), 1, "publish` first");
    assert_eq!(daemon.says(&["unpin", "work"]), format!("{SNAPSHOT}\n"));
    assert_eq!(daemon.document(&["unpin", "work"]), json!({ "snapshot": SNAPSHOT }));
    fails(&daemon.ctl(&["unpin", "loose"]), 1, "not pinned");
}

#[test]
fn gc_of_the_remote_store_says_what_becomes_of_everything() {
    let daemon = Daemon::start();
    let text = daemon.says(&["gc", "--remote"]);
    let asked = "GcRemoteRequest { dry_run: false, delay_ms: None, hosts_gone_after_ms: None }";
    assert_eq!(daemon.asked(), asked);
    let lines: Vec<Vec<_>> = text.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
    let value = |label: &str| {
        let line = lines.iter().find(|line| line[0] == label);
        line.unwrap_or_else(|| panic!("no {label} in {text}")).last().unwrap().to_string()
    };
    assert_eq!(value("needed"), "40 objects, 4.0 KiB");
    assert_eq!(value("too young"), "1 objects, 10 B");
    assert_eq!(value("condemned now"), "2 objects, 20 B");
    assert_eq!(value("condemned, waiting"), "3 objects, 30 B");
    assert_eq!(value("removed"), "4 objects, 2.0 KiB");
    assert_eq!(value("host that is gone"), "host_0123456789abcdefghjkmnpqrs");
    assert_eq!(value("missing"), SNAPSHOT);
    assert!(daemon.says(&["gc", "--remote", "--dry-run"]).contains("would be removed"));

    let args = ["gc", "--remote", "--dry-run", "--delay", "0s", "--hosts-gone-after", "40d 12h"];
    assert_eq!(
        daemon.document(&args),
        json!({
            "dry_run": true, "delay_ms": 0, "hosts_gone_after_ms": 3_499_200_000_u64,
            "needed": {"objects": 40, "bytes": 4096}, "young": {"objects": 1, "bytes": 10},
            "condemned": {"objects": 2, "bytes": 20}, "waiting": {"objects": 3, "bytes": 30},
            "removed": {"objects": 4, "bytes": 2048}, "gone_hosts": ["host_0123456789abcdefghjkmnpqrs"],
            "missing": [SNAPSHOT], "elapsed_us": 7,
        })
    );
    fails(&daemon.ctl(&["gc", "--remote", "--delay", "1ms"]), 1, "start aetherfsd with --remote");
    fails(&daemon.ctl(&["gc", "--remote", "--delay", "soon"]), 2, "--delay");
    fails(&daemon.ctl(&["gc", "--delay", "1d"]), 2, "--remote");
}

#[test]
fn gc_says_why_something_stays() {
    let daemon = Daemon::start();
    assert_eq!(daemon.says(&["gc", "--why", "work"]), "layers/abc: needed\n  by somebody: pinned\n");
    assert_eq!(daemon.asked(), "GcWhyRequest { id: \"work\" }");
    assert_eq!(
        daemon.document(&["gc", "--why", "work"]),
        json!({ "id": "work", "why": ["layers/abc: needed", "  by somebody: pinned"] })
    );
    fails(&daemon.ctl(&["gc", "--why", "nothing"]), 1, "nothing");
    fails(&daemon.ctl(&["gc", "--why", "work", "--dry-run"]), 2, "--dry-run");
}

#[test]
fn diff_has_lines_fields_histogram_patch_and_json() {
    let daemon = Daemon::start();
    assert_eq!(daemon.says(&["diff", "work"]), "M\tchanged\nD\tgone\nA\t\"new \\377\"\nR\tfrom\tto here\n");
    let raw = daemon.ctl(&["diff", "work", "-z"]).stdout;
    assert_eq!(raw, b"M\0changed\0D\0gone\0A\0new \xff\0R\0from\0to here\0");
    assert_eq!(
        daemon.says(&["diff", "work", "--stat"]),
        concat!(
            " changed         | 2 +-\n gone            | 1 -\n \"new \\377\"      | 1 +\n from => to here | 0\n",
            " 4 files changed, 2 insertions(+), 2 deletions(-)\n"
        )
    );
    let patch = daemon.says(&["diff", "work", "--patch"]);
    assert!(daemon.asked().contains("expand_renames: true"));
    assert!(
        patch
            .starts_with("diff --git a/changed b/changed\nold mode 100644\nnew mode 100755\n--- a/changed\n"),
        "{patch}"
    );
    assert!(patch.contains("similarity index 100%\nrename from from\nrename to to here\n"), "{patch}");
    let list = daemon.document(&["diff", "work", "--patch"]);
    assert_eq!(list.as_array().unwrap().len(), 4);
    assert_eq!(list[2]["path_base64"], "bmV3IP8=");
    assert_eq!(list[3]["old_path"], "from");
    assert_eq!(list[0]["new"], json!({"kind": "regular", "mode": "0755", "size": 4}));
    let joined: String = (0..4).map(|i| list[i]["patch"].as_str().unwrap()).collect();
    assert_eq!(joined, patch);
    assert_eq!(daemon.document(&["diff", "work", "--stat"])[0]["added"], 1);
}

#[test]
fn ls_and_cat_read_without_a_mount() {
    let daemon = Daemon::start();
    assert_eq!(daemon.says(&["ls", "work"]), "a file\n\"l\\303\\266nk\"\n");
    let long = daemon.says(&["ls", "work", "dir", "--long"]);
    assert!(
        long.starts_with("-rw-r-----   2 4000000  4000001            12 1970-01-01 00:00:00 a file\n"),
        "{long}"
    );
    assert!(long.ends_with(" \"l\\303\\266nk\" -> a file\n"), "{long}");
    let list = daemon.document(&["ls", "work"]);
    assert_eq!((&list[0]["mode"], &list[1]["target"]), (&json!("0640"), &json!("a file")));
    assert_eq!(daemon.ctl(&["cat", "work", "odd"]).stdout, b"\x00\xff\n");
    assert_eq!(daemon.document(&["cat", "work", "odd"])["content_base64"], "AP8K");
    fails(&daemon.ctl(&["cat", "work", "none"]), 1, "there is no such path");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let daemon = Daemon::start();
    let mut child = ctl(daemon.dir())
        .env("AETHERFS_SOCKET", daemon.socket())
        .args(["cat", "work", "big"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn seal_discard_gc_fsck_and_stats() {
    let daemon = Daemon::start();
    assert_eq!(daemon.says(&["seal", "work"]), format!("{SNAPSHOT}\n"));
    fails(&daemon.ctl(&["seal", "damaged"]), 2, "chunk abc is missing");
    assert_eq!(daemon.says(&["discard", "a", "b"]), "");
    fails(&daemon.ctl(&["discard", "mounted", "b"]), 1, "mounted: the session is mounted on /mnt/w");
    let out = daemon.ctl(&["--json", "discard", "mounted", "b"]);
    let list: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&list[0]["discarded"], &list[1]["discarded"]), (&json!(false), &json!(true)));
    assert!(daemon.says(&["gc", "--dry-run"]).starts_with("would free 5 objects, 2.0 KiB"));
    assert_eq!(daemon.document(&["gc"])["freed_bytes"], 2048);
    let out = daemon.ctl(&["fsck"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&out.stdout).starts_with("corrupt abc in packs/1 at 64: the bytes do not")
    );
    assert_eq!(daemon.document(&["fsck", "--repair"])["clean"], true);
    assert!(daemon.says(&["stats"]).contains("fuse lookup"));
    assert_eq!(daemon.document(&["stats"])["fuse_requests"], json!({"read": 9, "lookup": 8}));
    let said = daemon.says(&["stats"]);
    assert!(
        said.contains("peer https://near:7440") && said.contains("left alone for a while: no answer"),
        "{said}"
    );
    let peer = json!({
        "address": "https://near:7440",
        "hits": 5,
        "bytes": 4096,
        "misses": 1,
        "failures": 2,
        "down": "no answer",
    });
    assert_eq!(daemon.document(&["stats"])["peers"], json!([peer]));
}

#[test]
fn doctor_adds_its_own_checks_and_says_no() {
    let daemon = Daemon::start();
    let out = daemon.ctl(&["--json", "doctor"]);
    assert_eq!(out.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(document["daemon_version"], "0.0.9");
    let status = |name: &str| {
        let checks = document["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).map(|check| check["status"].clone()).unwrap()
    };
    assert_eq!(
        (status("daemon"), status("version"), status("free space")),
        (json!("ok"), json!("warn"), json!("bad"))
    );
}

#[test]
fn no_daemon_names_the_socket_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let out = ctl(dir.path()).args(["--socket", "none.sock", "list"]).output().unwrap();
    fails(
        &out,
        2,
        "no daemon answers on none.sock: there is no such socket. Start one: aetherfsd --state DIR",
    );
    let out = ctl(dir.path()).env("AETHERFS_STATE", dir.path()).arg("list").output().unwrap();
    fails(&out, 2, &format!("Start one: aetherfsd --state {} &", dir.path().display()));
    let out = ctl(dir.path()).env("AETHERFS_STATE", dir.path()).arg("doctor").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stdout).contains("no daemon answers"));
    fails(&ctl(dir.path()).arg("nonsense").output().unwrap(), 2, "unrecognized subcommand");
}
