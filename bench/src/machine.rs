//! Where and of what the figures are.

use std::{fs, path::Path, process::Command, thread};

use serde::Serialize;

use crate::{Result, shell};

/// The machine and the build.
#[derive(Serialize)]
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    memory_bytes: u64,
    /// Of the working copy that this was built from; `-dirty` if it had changes.
    commit: String,
    version: &'static str,
    /// The day, as people write it.
    date: String,
}

impl Machine {
    pub(crate) fn describe() -> Result<Machine> {
        Ok(Machine {
            kernel: shell::run(Command::new("uname").arg("-r"))?,
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: thread::available_parallelism()?.get(),
            memory_bytes: memory_bytes("MemTotal"),
            commit: commit(),
            version: env!("CARGO_PKG_VERSION"),
            date: shell::run(Command::new("date").arg("+%F"))?,
        })
    }

    pub(crate) fn markdown(&self) -> String {
        let Machine { kernel, cpu, cpus, memory_bytes, commit, version, date } = self;
        let memory = memory_bytes >> 30;
        format!(
            "- machine: {cpus} x {cpu}, {memory} GiB, Linux {kernel}\n- build: aetherfs {version}, commit {commit}, {date}\n"
        )
    }
}

/// What /proc/meminfo says; 0 where it says nothing.
pub(crate) fn memory_bytes(name: &str) -> u64 {
    let kib = field("/proc/meminfo", name);
    kib.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
}

fn commit() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let args = ["describe", "--always", "--dirty", "--abbrev=12"];
    shell::run(Command::new("git").arg("-C").arg(root).args(args)).unwrap_or_else(|_| "unknown".into())
}
