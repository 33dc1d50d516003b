//! What is measured: a group a file. Each returns the report's lines.

pub(crate) mod import;
pub(crate) mod lifecycle;
pub(crate) mod scan;
pub(crate) mod write;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Result, clock, daemon::Daemon, samples::Samples, shell};

/// What the workloads share.
pub(crate) struct Bench {
    /// The volume.
    root: PathBuf,
    /// The tree's copy on it.
    native: PathBuf,
    rounds: u32,
}

impl Bench {
    /// Copies the tree to the volume.
    pub(crate) fn new(root: &Path, tree: &Path, rounds: u32) -> Result<Bench> {
        let native = root.join("native");
        copy(tree, &native)?;
        shell::settle()?;
        Ok(Bench { root: root.to_owned(), native, rounds })
    }

    /// A daemon with the tree imported, and the snapshot.
    fn imported(&self, name: &str) -> Result<(Daemon, String)> {
        let daemon = Daemon::start(&self.root.join(name))?;
        let snapshot = daemon.import(&self.native)?;
        shell::settle()?;
        Ok((daemon, snapshot))
    }

    /// Stops a daemon and gives back what it used.
    fn end(&self, daemon: Daemon, name: &str) -> Result<()> {
        drop(daemon);
        remove(&self.root.join(name))?;
        shell::settle()
    }
}

/// Does the same on both sides, and puts down what each took.
fn both(
    samples: &mut Samples,
    native: &Path,
    aether: &Path,
    work: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    samples.native.push(clock::seconds(|| work(native))?);
    samples.aether.push(clock::seconds(|| work(aether))?);
    Ok(())
}

/// Shows on stderr how far the run is.
fn progress(what: &str, round: u32, bench: &Bench) {
    eprintln!("{what}: round {} of {}", round + 1, bench.rounds);
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    shell::run(Command::new("cp").args(["-a", "--"]).arg(from).arg(to)).map(drop)
}

fn remove(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir).map_err(|e| format!("removing {}: {e}", dir.display()).into())
}
