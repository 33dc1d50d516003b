//! `cargo build` of a real crate with its dependencies, offline, from the same prepared sources on every side.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Result,
    args::Group,
    shell, tree,
    turn::{Turn, Workload, begin_scratch, end_scratch},
};

pub(crate) const WORKLOAD: Workload = Workload {
    group: Group::Cargo,
    prepare: |turn| {
        begin_scratch(turn)?;
        shell::copy(&sources()?, &project(turn))
    },
    steps: &[build],
    finish: end_scratch,
};

/// `grep` is the library under ripgrep: some thirty crates.
const MANIFEST: &str = "\
[package]
name = \"bench\"
version = \"0.0.0\"
edition = \"2021\"

[dependencies]
grep = \"=0.3.2\"

[workspace]
";
const MAIN: &str = "fn main() { println!(\"{}\", grep::regex::RegexMatcher::new(\"a\").is_ok()) }\n";

/// Fetches the sources; the only time that the network is needed, and once for all runs.
pub(crate) fn sources() -> Result<PathBuf> {
    let cache = tree::cache()?;
    let sources = cache.join("cargo-project");
    if !sources.exists() {
        // Renamed when it is whole.
        let parts = tempfile::tempdir_in(&cache)?;
        let project = parts.path().join("project");
        fs::create_dir_all(project.join("src"))?;
        fs::create_dir(project.join(".cargo"))?;
        fs::write(project.join("Cargo.toml"), MANIFEST)?;
        fs::write(project.join("src/main.rs"), MAIN)?;
        let settings = shell::run(cargo(&project).args(["vendor", "--quiet"]))?;
        fs::write(project.join(".cargo/config.toml"), settings)?;
        fs::rename(&project, &sources)?;
    }
    Ok(sources)
}

fn build(turn: &mut Turn<'_>) -> Result<()> {
    let (project, package) = (project(turn), turn.scale().cargo_package);
    let work = match package {
        "bench" => "`cargo build` of ripgrep's library".to_owned(),
        one => format!("`cargo build` of {one}"),
    };
    turn.time(&work, |_| shell::run(cargo(&project).args(["build", "--offline", "-p", package])).map(drop))?;
    shell::remove(&project.join("target"))
}

fn project(turn: &Turn<'_>) -> PathBuf {
    turn.scratch().join("cargo-project")
}

/// Without what a cargo that runs the benchmark has set.
fn cargo(dir: &Path) -> Command {
    let mut command = Command::new("cargo");
    for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
        command.env_remove(name);
    }
    command.current_dir(dir);
    command
}
