//! Workloads on mounted sessions, on overlays, and on the file system under them, in one run on one machine.
//!
//! All state and all copies are on one file system of the benchmark's own: an ext4 with a journal on a loop device. The sides
//! take turns, so that what else the machine does falls on all. Needs root, and the release's binaries beside this one.

#![forbid(unsafe_code)]

mod args;
mod bucket;
mod clock;
mod daemon;
mod kernel;
mod machine;
mod mount;
mod noise;
mod plot;
mod process;
mod progress;
mod proxy;
mod publish;
mod report;
mod repository;
mod samples;
mod scale;
mod shell;
mod sides;
mod stage;
mod stop;
mod tree;
mod turn;
mod volume;
mod workloads;

use std::{error::Error, fs, path::Path, process::ExitCode};

use clap::Parser;

use args::Args;
use kernel::Parameter;
use machine::Machine;
use progress::Progress;
use report::Report;
use scale::Scale;
use stage::Stage;
use volume::Volume;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// FUSE over io_uring is offered to mounts only while this says Y.
const ENABLE_URING: &str = "/sys/module/fuse/parameters/enable_uring";

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // What an interrupted program says is not why it ended.
        Err(_) if stop::check().is_err() => {
            eprintln!("aether-bench: interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("aether-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err("only root can mount and drop caches".into());
    }
    stop::on_signals()?;
    // The daemon may not have the transport, or the kernel may not: the sides find out.
    let _enable_uring = Parameter::set(Path::new(ENABLE_URING), "Y").ok();
    let (report, outcome) = measure(args)?;
    if outcome.is_ok() || report.has_samples() {
        hand_out(args, &report)?;
    }
    outcome
}

/// Writes the report and what belongs to it, prints it, and publishes it if that is wanted.
fn hand_out(args: &Args, report: &Report) -> Result<()> {
    let out = match &args.out {
        Some(dir) => dir.clone(),
        None => tree::cache()?.with_file_name("bench"),
    };
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    fs::write(out.join("samples.json"), report.json()?)?;
    fs::write(out.join("report.md"), report.markdown()?)?;
    let plots = report.plots()?;
    for plot in &plots {
        fs::write(out.join(&plot.name), &plot.svg)?;
    }
    print!("{}", report.markdown()?);
    eprintln!("written: {}", out.display());
    match args.publish {
        true => publish::run(report, &plots),
        false => Ok(()),
    }
}

/// What was measured, and how the run ended: groups that were finished by then count in any case.
fn measure(args: &Args) -> Result<(Report, Result<()>)> {
    let scale = if args.quick { &Scale::QUICK } else { &Scale::FULL };
    let progress = Progress::start();
    let machine = Machine::describe()?;
    progress.say("looking at the tree");
    let source = tree::source(args.tree.as_deref(), args.quick)?;
    let work = tempfile::Builder::new().prefix("aether-bench.").tempdir_in(&args.work)?;
    let source_bytes = shell::bytes_of(&source)?;
    // Declared first, so unmounted last.
    let volume = Volume::create(work.path(), scale.volume_bytes_min, source_bytes)?;
    let stage = Stage::create(volume.root(), &source, scale, args.rounds(), progress)?;
    let (mut missing, mut samples) = (Vec::new(), Vec::new());
    let outcome = workloads::run(&stage, args, &mut missing, &mut samples);
    let report = Report::new(machine, &stage, volume.describe(), args, missing, samples);
    drop(stage);
    volume.remove()?;
    Ok((report, outcome))
}
