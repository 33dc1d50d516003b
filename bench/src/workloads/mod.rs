//! What is measured: a group a file.

mod cargo;
mod fork;
mod forks;
mod git;
mod import;
mod kernel;
mod latency;
mod memory;
mod read;
mod remote;
mod scan;
mod write;

use crate::{
    Result,
    args::{Args, Group},
    bucket,
    samples::Sample,
    sides::{Missing, Sides},
    stage::Stage,
    turn::{Workload, missing},
};

/// The side's name where it does not matter how a session is mounted.
const AETHER: &str = "aether";

/// By all sides in turns.
const WORKLOADS: &[&Workload] = &[
    &scan::WORKLOAD,
    &git::WORKLOAD,
    &write::WORKLOAD,
    &read::WORKLOAD,
    &latency::WORKLOAD,
    &memory::WORKLOAD,
    &forks::WORKLOAD,
    &cargo::WORKLOAD,
    &kernel::WORKLOAD,
];

/// Does all that is wanted, and says what cannot be measured. Error: what ended a group; nothing of that is in `samples`.
pub(crate) fn run(
    stage: &Stage,
    args: &Args,
    absent: &mut Vec<Missing>,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    if args.wants(Group::Import) {
        whole(samples, |samples| import::run(stage, samples))?;
    }
    if args.wants(Group::Fork) {
        whole(samples, |samples| fork::run(stage, samples))?;
    }
    if args.wants(Group::Remote) {
        match bucket::program() {
            Ok(program) => whole(samples, |samples| remote::run(stage, &program, samples))?,
            Err(e) => absent.push(missing(Group::Remote, e.to_string())),
        }
    }
    let mut wanted: Vec<&Workload> =
        WORKLOADS.iter().copied().filter(|work| args.wants(work.group)).collect();
    wanted.retain(|work| match why_not(stage, work.group) {
        Some(why) => {
            absent.push(missing(work.group, why));
            false
        }
        None => true,
    });
    if !wanted.is_empty() {
        stage.progress.say("preparing the sides");
        let mut sides = Sides::create(&stage.tree.root, &stage.volume, &args.without)?;
        absent.append(&mut sides.missing);
        for workload in wanted {
            whole(samples, |samples| workload.run(stage, &mut sides.all, samples))?;
        }
    }
    Ok(())
}

/// All samples of a group, or none of it.
fn whole(samples: &mut Vec<Sample>, run: impl FnOnce(&mut Vec<Sample>) -> Result<()>) -> Result<()> {
    let before = samples.len();
    run(samples).inspect_err(|_| samples.truncate(before))
}

/// What a group lacks here.
fn why_not(stage: &Stage, group: Group) -> Option<String> {
    match group {
        Group::Kernel if !kernel::is_kernel(&stage.tree.root) => Some("the tree is no kernel".into()),
        Group::Cargo => cargo::sources().err().map(|e| e.to_string()),
        _ => None,
    }
}
