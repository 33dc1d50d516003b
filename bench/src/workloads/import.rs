//! A tree goes into a new store, against `cp -a`, from the same warm copy.

use super::AETHER;
use crate::{
    Result,
    args::Group,
    clock,
    daemon::Daemon,
    samples::{NATIVE, Sample, Unit},
    shell,
    stage::Stage,
    stop,
};

pub(crate) fn run(stage: &Stage, samples: &mut Vec<Sample>) -> Result<()> {
    stage.progress.expect(u64::from(stage.rounds));
    for round in 0..stage.rounds {
        stop::check()?;
        stage.progress.step(&format!("import, round {}/{}", round + 1, stage.rounds));
        let mut put = |work: &str, side: &str, value| {
            let (work, side) = (work.to_owned(), side.to_owned());
            let (group, unit) = (Group::Import, Unit::Seconds);
            samples.push(Sample { group, work, side, round, unit, value, at: None, daemon: None });
        };
        let (copied, settled) = copy(stage)?;
        let (imported, repeated) = import(stage)?;
        // An import is over when everything is on the disk.
        for (work, native, aether) in [
            ("import, against `cp -a`", copied, imported),
            ("import, against `cp -a` and `sync`", settled, imported),
            ("import of what is there already, against `cp -a`", copied, repeated),
        ] {
            put(work, NATIVE, native);
            put(work, AETHER, aether);
        }
    }
    Ok(())
}

/// Without and with the time until all is on the disk.
fn copy(stage: &Stage) -> Result<(f64, f64)> {
    let target = stage.volume.join("copy");
    shell::read_all(&[&stage.tree.root])?;
    shell::settle()?;
    let copied = clock::seconds(|| shell::copy(&stage.tree.root, &target))?;
    let settled = copied + clock::seconds(shell::settle)?;
    shell::remove(&target)?;
    shell::settle()?;
    Ok((copied, settled))
}

/// The first time and again.
fn import(stage: &Stage) -> Result<(f64, f64)> {
    let daemon = Daemon::create(&stage.volume.join("import"), &[])?;
    let import = || daemon.import(&stage.tree.root).map(drop);
    let times = (clock::seconds(import)?, clock::seconds(import)?);
    daemon.remove()?;
    Ok(times)
}
