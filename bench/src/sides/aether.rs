//! AetherFS: a daemon of its own, the tree imported, a session mounted. A side for each way that it can be mounted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Side;
use crate::{
    Result,
    daemon::{Daemon, path},
    samples::Requests,
};

/// A way to mount a session.
#[derive(Clone, Copy)]
pub(super) struct Mode {
    name: &'static str,
    /// Of `aetherctl mount`, and of `aetherfsd` for the forks, which it mounts by itself.
    options: &'static [&'static str],
}

pub(super) const DEV_FUSE: Mode = Mode { name: "aether dev-fuse", options: &["--transport", "dev-fuse"] };
pub(super) const IO_URING: Mode = Mode { name: "aether io-uring", options: &["--transport", "io-uring"] };

pub(super) struct Aether {
    mode: Mode,
    daemon: Daemon,
    session: String,
    dir: PathBuf,
    root: PathBuf,
}

impl Aether {
    pub(super) fn create(mode: Mode, tree: &Path, dir: &Path) -> Result<Aether> {
        fs::create_dir(dir)?;
        let daemon = Daemon::create(&dir.join("daemon"), mode.options)?;
        let snapshot = daemon.import(tree)?;
        let (session, _) = daemon.create_session(&snapshot)?;
        let side = Aether { mode, daemon, session, dir: dir.to_owned(), root: dir.join("root") };
        side.mount_with(&[])?;
        Ok(side)
    }

    fn mount_with(&self, more: &[&str]) -> Result<()> {
        let options = [self.mode.options, more].concat();
        let transport = self.daemon.mount(&self.session, &self.root, &options)?;
        match self.mode.options {
            ["--transport", wanted] if !same_transport(wanted, &transport) => {
                Err(format!("the daemon mounted through {transport} instead").into())
            }
            _ => Ok(()),
        }
    }

    fn forks_dir(&self) -> PathBuf {
        self.dir.join("forks")
    }
}

impl Side for Aether {
    fn name(&self) -> &str {
        self.mode.name
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn mount(&mut self) -> Result<()> {
        self.mount_with(&[])
    }

    fn mount_without_xattrs(&mut self) -> Result<()> {
        self.mount_with(&["--no-xattrs"])
    }

    fn unmount(&mut self) -> Result<()> {
        self.daemon.unmount(&self.root)
    }

    fn restart(&mut self) -> Result<()> {
        self.daemon.restart()
    }

    fn backing(&self) -> Vec<PathBuf> {
        vec![self.daemon.state()]
    }

    fn seal(&mut self) -> Result<()> {
        self.daemon.seal(&self.session).map(drop)
    }

    fn fork(&mut self, count: u32) -> Result<Vec<PathBuf>> {
        let dir = self.forks_dir();
        fs::create_dir_all(&dir)?;
        self.daemon.ask(&["fork", &self.session, "--count", &count.to_string(), "--mount", path(&dir)?])?;
        fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn discard_forks(&mut self) -> Result<()> {
        for entry in fs::read_dir(self.forks_dir())? {
            let entry = entry?;
            let fork = entry.file_name().into_string().map_err(|_| "a fork's name is an ID")?;
            self.daemon.ask(&["discard", "--force", &fork])?;
            fs::remove_dir(entry.path())?;
        }
        Ok(())
    }

    fn server(&self) -> Option<u32> {
        Some(self.daemon.pid())
    }

    fn serves_forks(&self) -> bool {
        true
    }

    fn requests(&self) -> Result<Requests> {
        self.daemon.requests()
    }
}

/// The daemon says `/dev/fuse` for what the option calls `dev-fuse`.
fn same_transport(option: &str, answer: &str) -> bool {
    let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    letters(option) == letters(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_told_apart() {
        assert!(same_transport("dev-fuse", "/dev/fuse"));
        assert!(same_transport("io-uring", "io_uring"));
        assert!(!same_transport("io-uring", "/dev/fuse"));
    }
}
