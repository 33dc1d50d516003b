//! Starting and stopping the real program: what it refuses, with which exit code, and what it leaves behind.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A running daemon, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn stop(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

fn aetherfsd(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aetherfsd"));
    command.env_clear().args(["--config", "/dev/null", "--state"]).arg(state).stderr(Stdio::piped());
    command
}

/// Starts the daemon and waits until it says that it is ready.
fn start(state: &Path) -> Running {
    let mut running = Running(aetherfsd(state).args(["--log-format", "json"]).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let ready = lines.find(|line| line.as_ref().unwrap().contains(r#""message":"ready""#));
    assert!(ready.is_some(), "the daemon is not ready");
    // Read on, so that it never writes into a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    running
}

fn refusal(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn state() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    (dir, path)
}

#[test]
fn a_second_daemon_is_refused_and_the_first_ends_cleanly() {
    let (_dir, state) = state();
    let first = start(&state);
    let socket = state.join("aetherfsd.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    UnixStream::connect(&socket).unwrap();

    let (code, said) = refusal(aetherfsd(&state).output().unwrap());
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("is in use by aetherfsd with pid {}", first.0.id())), "{said}");
    let other = state.with_file_name("other");
    let (code, said) = refusal(aetherfsd(&other).arg("--socket").arg(&socket).output().unwrap());
    assert_eq!(code, Some(1));
    assert!(said.contains("another daemon answers"), "{said}");

    assert_eq!(first.stop(), Some(0));
    assert!(!socket.exists());
    assert_eq!(start(&state).stop(), Some(0));
}

#[test]
fn a_killed_daemon_is_no_obstacle() {
    let (_dir, state) = state();
    drop(start(&state));
    assert!(state.join("aetherfsd.sock").exists());
    assert_eq!(start(&state).stop(), Some(0));
}

#[test]
fn states_that_are_not_ours_are_refused() {
    let (dir, state) = state();
    assert_eq!(start(&state).stop(), Some(0));
    fs::write(state.join("VERSION"), "aetherfs state 2\n").unwrap();
    let (code, said) = refusal(aetherfsd(&state).output().unwrap());
    assert_eq!(code, Some(2));
    assert!(said.contains("format 2") && said.contains("newer aetherfsd"), "{said}");

    fs::write(dir.path().join("mine"), "").unwrap();
    let (code, said) = refusal(aetherfsd(dir.path()).output().unwrap());
    assert_eq!(code, Some(2));
    assert!(said.contains("is not a state directory of aetherfs"), "{said}");
}

#[test]
fn what_cannot_be_configured_is_named() {
    let (dir, state) = state();
    let config = dir.path().join("c.toml");
    fs::write(&config, "log_level = 'info'\nsoket = '/x'\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aetherfsd"));
    let (code, said) = refusal(command.env_clear().arg("--config").arg(&config).output().unwrap());
    assert_eq!(code, Some(2));
    assert!(said.contains("line 2") && said.contains("`soket`"), "{said}");

    let (code, said) = refusal(aetherfsd(&state).args(["--log-level", "=="]).output().unwrap());
    assert_eq!(code, Some(2));
    assert!(said.contains("log level"), "{said}");
    let (code, said) = refusal(aetherfsd(&state).args(["--mount", "nobody:/tmp"]).output().unwrap());
    assert_eq!(code, Some(2));
    assert!(said.contains("--mount nobody:/tmp") && said.contains("nobody"), "{said}");
    assert!(!state.join("aetherfsd.sock").exists(), "a daemon that did not start leaves no socket");
}

#[test]
fn a_state_without_a_daemon_is_checked_and_mended() {
    let (_dir, state) = state();
    start(&state).stop();
    let check = |more: &[&str]| {
        let output = aetherfsd(&state).arg("--check").args(more).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(check(&[]), (Some(0), String::new()));
    let packs = state.join("store/packs");
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&packs).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let pack = packs.join(names().iter().find(|name| name.ends_with(".meta")).unwrap());
    let mut bytes = fs::read(&pack).unwrap();
    // The first byte of the first object: headers of pack and record have 64 bytes each.
    bytes[128] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let (code, said) = check(&[]);
    assert!(code == Some(2) && said.contains("store/packs/") && said.contains("the empty tree"), "{said}");
    let (code, said) = check(&["--repair", "--log-format", "json"]);
    assert!(code == Some(2) && said.contains(r#""clean":false"#), "{said}");
    assert!(
        names().iter().any(|name| name.ends_with(".meta.lost")),
        "what is damaged is kept: {:?}",
        names()
    );
    // What every start stores again is whole again.
    assert_eq!(check(&[]), (Some(0), String::new()));
    assert_eq!(start(&state).stop(), Some(0));
}
