//! A daemon on a state of its own, driven as scripts do.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{Result, shell};

/// How often, 20 ms apart, a new daemon is asked whether it is there, and an old one whether it is gone.
const TRIES: u32 = 1000;

/// Runs until it is dropped.
pub(crate) struct Daemon {
    child: Child,
    binaries: PathBuf,
    dir: PathBuf,
}

impl Daemon {
    /// Starts one, with state and socket in a new directory.
    pub(crate) fn start(dir: &Path) -> Result<Daemon> {
        fs::create_dir(dir)?;
        let binaries = env::current_exe()?.parent().ok_or("this program is nowhere")?.to_owned();
        let log = File::create(dir.join("log"))?;
        let child = Command::new(binaries.join("aetherfsd"))
            .arg("--state")
            .arg(dir.join("state"))
            .arg("--socket")
            .arg(dir.join("sock"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| {
                format!(
                    "{}: {e}; build it: cargo build --release --bins",
                    binaries.join("aetherfsd").display()
                )
            })?;
        let daemon = Daemon { child, binaries, dir: dir.to_owned() };
        for _ in 0..TRIES {
            if daemon.ask(&["list"]).is_ok() {
                return Ok(daemon);
            }
            thread::sleep(Duration::from_millis(20));
        }
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        Err(format!("the daemon does not answer: {log}").into())
    }

    /// `aetherctl --json`.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<Value> {
        let mut command = Command::new(self.binaries.join("aetherctl"));
        let text = shell::run(command.arg("--socket").arg(self.dir.join("sock")).arg("--json").args(args))?;
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    pub(crate) fn import(&self, tree: &Path) -> Result<String> {
        text(&self.ask(&["import", path(tree)?])?["snapshot"])
    }

    /// A new session, and what creating it took in the daemon, in seconds.
    pub(crate) fn create(&self, from: &str) -> Result<(String, f64)> {
        let answer = self.ask(&["create", "--from", from])?;
        Ok((text(&answer["session"])?, seconds(&answer)?))
    }

    /// A fork, and what forking took in the daemon, in seconds.
    pub(crate) fn fork(&self, session: &str) -> Result<(String, f64)> {
        let answer = self.ask(&["fork", session])?;
        Ok((text(&answer["sessions"][0]["id"])?, seconds(&answer)?))
    }

    /// Mounts it on a directory in the daemon's, which is made if it has to be.
    pub(crate) fn mount(&self, session: &str, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        self.ask(&["mount", session, path(&dir)?])?;
        Ok(dir)
    }

    pub(crate) fn unmount(&self, dir: &Path) -> Result<()> {
        self.ask(&["unmount", path(dir)?]).map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        for _ in 0..TRIES {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| format!("{}: not UTF-8", path.display()).into())
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{value} is no text").into())
}

fn seconds(answer: &Value) -> Result<f64> {
    let us = answer["elapsed_us"].as_u64().ok_or("no elapsed_us in the answer")?;
    Ok(us as f64 / 1e6)
}
