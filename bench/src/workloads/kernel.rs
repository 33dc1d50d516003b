//! The kernel's smallest configuration is built, with as many jobs as there are processors, beside the sources.

use std::{fs, path::Path, process::Command, thread};

use crate::{
    Result,
    args::Group,
    shell,
    turn::{Turn, Workload, begin_scratch, end_scratch},
};

pub(crate) const WORKLOAD: Workload =
    Workload { group: Group::Kernel, prepare: begin_scratch, steps: &[build], finish: end_scratch };

/// Whether the tree is one.
pub(crate) fn is_kernel(tree: &Path) -> bool {
    tree.join("Kconfig").exists() && tree.join("kernel/configs/tiny.config").exists()
}

fn build(turn: &mut Turn<'_>) -> Result<()> {
    let output = turn.scratch().join("kernel");
    fs::create_dir(&output)?;
    shell::run(make(&turn.root(), &output).arg("tinyconfig"))?;
    let jobs = thread::available_parallelism()?;
    let work = format!("kernel `tinyconfig`, `make -j{jobs}`");
    turn.time(&work, |root| shell::run(make(root, &output).arg(format!("-j{jobs}"))).map(drop))?;
    shell::remove(&output)
}

fn make(root: &Path, output: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-s").arg("-C").arg(root).arg(format!("O={}", output.display()));
    make
}
