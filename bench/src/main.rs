//! Workloads on a mounted session and on the file system under it, in one run on one machine.
//!
//! The state and the native copy are on one file system of the benchmark's own: an ext4 with a journal on a loop device. The
//! two sides take turns, so that what else the machine does falls on both. Needs root, and the release's binaries beside
//! this one.

#![forbid(unsafe_code)]

mod clock;
mod daemon;
mod machine;
mod report;
mod samples;
mod shell;
mod volume;
mod workloads;

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};

use machine::Machine;
use report::Report;
use volume::Volume;
use workloads::Bench;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measure a mounted session against the file system under it
#[derive(Parser)]
#[command(name = "aether-bench", version)]
struct Args {
    /// The tree to work on; it is only read
    #[arg(long, value_name = "DIR", default_value = "/usr/share")]
    tree: PathBuf,
    /// How often each side is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Write the report as JSON, raw samples included
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One group of workloads alone
    #[arg(long, value_name = "NAME")]
    only: Option<Group>,
    /// Where the benchmark's file system is made, in a directory that is removed in the end; what lies below it counts
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    work: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Import against `cp -a`
    Import,
    /// Create and fork, at depths and with changes
    Lifecycle,
    /// find and grep, in a new mount and again
    Scan,
    /// untar, rm -r, small and large writes
    Write,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("aether-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let tree = args.tree.canonicalize().map_err(|e| format!("{}: {e}", args.tree.display()))?;
    let work = tempfile::Builder::new().prefix("aether-bench.").tempdir_in(&args.work)?;
    let tree_bytes = shell::bytes_of(&tree)?;
    let volume = Volume::create(work.path(), tree_bytes)?;
    let mut report = Report::new(Machine::describe()?, &tree, tree_bytes, args.rounds, volume.describe());
    eprintln!("copying {} to the benchmark's file system", tree.display());
    let bench = Bench::new(volume.root(), &tree, args.rounds)?;
    let wanted = |group| args.only.is_none_or(|only| only == group);
    if wanted(Group::Import) {
        report.extend(workloads::import::run(&bench)?);
    }
    if wanted(Group::Lifecycle) {
        report.extend(workloads::lifecycle::run(&bench)?);
    }
    if wanted(Group::Scan) {
        report.extend(workloads::scan::run(&bench)?);
    }
    if wanted(Group::Write) {
        report.extend(workloads::write::run(&bench)?);
    }
    volume.remove()?;
    print!("{}", report.markdown()?);
    if let Some(path) = &args.json {
        fs::write(path, report.json()?).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
