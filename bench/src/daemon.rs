//! A daemon on a state of its own, driven as scripts do.

use std::{
    env,
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{Result, samples::Requests, shell, stop};

/// How often, 20 ms apart, a new daemon is asked whether it is there, and an old one whether it is gone.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(20);

/// Runs until it is dropped.
pub(crate) struct Daemon {
    child: Child,
    dir: PathBuf,
    settings: Settings,
}

/// What a daemon is told besides where its state and its socket are.
#[derive(Clone, Default)]
struct Settings {
    options: &'static [&'static str],
    environment: Vec<(&'static str, String)>,
}

/// Parts of packs, from the remote store.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Fetched {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    /// Of a request, in microseconds, to a factor of two.
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

impl Daemon {
    /// Starts one, with state and socket in a new directory.
    pub(crate) fn create(dir: &Path, options: &'static [&'static str]) -> Result<Daemon> {
        Daemon::create_with(dir, options, Vec::new())
    }

    /// The same, with these variables in its environment.
    pub(crate) fn create_with(
        dir: &Path,
        options: &'static [&'static str],
        environment: Vec<(&'static str, String)>,
    ) -> Result<Daemon> {
        fs::create_dir(dir)?;
        Daemon::open(dir, Settings { options, environment })
    }

    fn open(dir: &Path, settings: Settings) -> Result<Daemon> {
        let daemon = Daemon { child: spawn(dir, &settings)?, dir: dir.to_owned(), settings };
        for _ in 0..TRIES {
            if daemon.ask(&["list"]).is_ok() {
                return Ok(daemon);
            }
            stop::check()?;
            thread::sleep(PAUSE);
        }
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        Err(format!("the daemon does not answer: {log}").into())
    }

    /// Ends it and starts another one on the same state: all that it had in memory is gone.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.end();
        *self = Daemon::open(&self.dir, self.settings.clone())?;
        Ok(())
    }

    /// Ends it and gives back what it used.
    pub(crate) fn remove(self) -> Result<()> {
        let dir = self.dir.clone();
        drop(self);
        shell::remove(&dir)?;
        shell::settle()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its store, log and segments are.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// `aetherctl --json`.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<Value> {
        let mut command = Command::new(binary("aetherctl")?);
        let text = shell::run(command.arg("--socket").arg(self.dir.join("sock")).arg("--json").args(args))?;
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    pub(crate) fn import(&self, tree: &Path) -> Result<String> {
        text(&self.ask(&["import", path(tree)?])?["snapshot"])
    }

    /// A new session, and what creating it took in the daemon, in seconds.
    pub(crate) fn create_session(&self, from: &str) -> Result<(String, f64)> {
        let answer = self.ask(&["create", "--from", from])?;
        Ok((text(&answer["session"])?, seconds(&answer)?))
    }

    /// A fork, and what forking took in the daemon, in seconds.
    pub(crate) fn fork(&self, session: &str) -> Result<(String, f64)> {
        let answer = self.ask(&["fork", session])?;
        Ok((text(&answer["sessions"][0]["id"])?, seconds(&answer)?))
    }

    /// The snapshot that a session is then.
    pub(crate) fn seal(&self, session: &str) -> Result<String> {
        text(&self.ask(&["seal", session])?["snapshot"])
    }

    /// Where other hosts find it.
    pub(crate) fn publish(&self, snapshot: &str) -> Result<()> {
        self.ask(&["publish", snapshot]).map(drop)
    }

    /// Mounts it on a directory, which is made if it has to be; returns what way the requests come.
    pub(crate) fn mount(&self, session: &str, dir: &Path, options: &[&str]) -> Result<String> {
        fs::create_dir_all(dir)?;
        let mut args = vec!["mount", session, path(dir)?];
        args.extend(options);
        text(&self.ask(&args)?["transport"])
    }

    pub(crate) fn unmount(&self, dir: &Path) -> Result<()> {
        self.ask(&["unmount", path(dir)?]).map(drop)
    }

    /// What the kernel has asked it since its start.
    pub(crate) fn requests(&self) -> Result<Requests> {
        let counts = &self.ask(&["stats"])?["fuse_requests"];
        Ok(Requests::deserialize(counts)?)
    }

    /// What it has fetched from the remote store since its start.
    pub(crate) fn fetched(&self) -> Result<Fetched> {
        Ok(Fetched::deserialize(&self.ask(&["stats"])?["remote"])?)
    }

    fn end(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // If it cannot be told, it is not there any more.
        let _ = kill(pid, Signal::SIGTERM);
        for _ in 0..TRIES {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(PAUSE);
        }
        eprintln!("aether-bench: the daemon does not end; it is killed");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

/// A program of the same build.
fn binary(name: &str) -> Result<PathBuf> {
    let path = env::current_exe()?.with_file_name(name);
    match path.exists() {
        true => Ok(path),
        false => Err(format!("there is no {}: cargo build --release --bins", path.display()).into()),
    }
}

/// In a process group of its own: Ctrl-C on the terminal does not end it before its mounts are idle.
fn spawn(dir: &Path, settings: &Settings) -> Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(dir.join("log"))?;
    let mut command = Command::new(binary("aetherfsd")?);
    // Keys of whoever runs this are for other stores.
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"AWS_")) {
        command.env_remove(name);
    }
    command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
    command
        .arg("--state")
        .arg(dir.join("state"))
        .arg("--socket")
        .arg(dir.join("sock"))
        .args(settings.options);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    Ok(command.spawn()?)
}

pub(crate) fn path(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| format!("{}: not UTF-8", path.display()).into())
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{value} is no text").into())
}

fn seconds(answer: &Value) -> Result<f64> {
    let us = answer["elapsed_us"].as_u64().ok_or("no elapsed_us in the answer")?;
    Ok(us as f64 / 1e6)
}
