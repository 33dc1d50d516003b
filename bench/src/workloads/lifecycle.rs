//! Sessions are created and forked: as deep as 200 forks, with as many as 10,000 changed files. What the daemon measured.

use std::fs;

use super::{Bench, progress};
use crate::{Result, daemon::Daemon, samples::Samples};

const DEPTH: u32 = 200;
const CHANGED_FILES: u32 = 10_000;
/// Calls in one round: a single one says little.
const CALLS: u32 = 10;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Samples>> {
    let (daemon, snapshot) = bench.imported("lifecycle")?;
    let mut create = Samples::new("create a session");
    for round in 0..bench.rounds {
        progress("create", round, bench);
        for _ in 0..CALLS {
            create.aether.push(daemon.create(&snapshot)?.1);
        }
    }
    let mut lines = vec![create];
    for changed in [0, CHANGED_FILES] {
        let (session, _) = daemon.create(&snapshot)?;
        // Mounted, as sessions are when they are forked.
        let dir = daemon.mount(&session, &format!("mnt{changed}"))?;
        change(&dir.join("changed"), changed)?;
        lines.push(forks(bench, &daemon, &session, format!("fork at depth 1, {changed} changed files"))?);
        let mut deep = session;
        for _ in 1..DEPTH {
            deep = daemon.fork(&deep)?.0;
        }
        lines.push(forks(bench, &daemon, &deep, format!("fork at depth {DEPTH}, {changed} changed files"))?);
        daemon.unmount(&dir)?;
    }
    bench.end(daemon, "lifecycle")?;
    Ok(lines)
}

fn forks(bench: &Bench, daemon: &Daemon, session: &str, name: String) -> Result<Samples> {
    let mut samples = Samples::new(name);
    for round in 0..bench.rounds {
        progress(&samples.name, round, bench);
        for _ in 0..CALLS {
            samples.aether.push(daemon.fork(session)?.1);
        }
    }
    Ok(samples)
}

fn change(dir: &std::path::Path, files: u32) -> Result<()> {
    fs::create_dir(dir)?;
    for n in 0..files {
        let part = dir.join((n / 100).to_string());
        if n % 100 == 0 {
            fs::create_dir(&part)?;
        }
        fs::write(part.join(n.to_string()), format!("file {n}\n"))?;
    }
    Ok(())
}
