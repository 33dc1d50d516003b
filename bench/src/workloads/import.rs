//! A tree goes into a new store, against `cp -a`, from the same warm copy.

use super::{Bench, copy, progress, remove};
use crate::{Result, clock, daemon::Daemon, samples::Samples, shell};

pub(crate) fn run(bench: &Bench) -> Result<Vec<Samples>> {
    let mut plain = Samples::new("import, against `cp -a`");
    // An import is over when everything is on the disk.
    let mut synced = Samples::new("import, against `cp -a` and `sync`");
    let mut again = Samples::new("import of the same tree again, against `cp -a`");
    for round in 0..bench.rounds {
        progress("import", round, bench);
        let target = bench.root.join("copy");
        shell::settle()?;
        let copied = clock::seconds(|| copy(&bench.native, &target))?;
        let settled = copied + clock::seconds(shell::settle)?;
        remove(&target)?;
        shell::settle()?;

        let daemon = Daemon::start(&bench.root.join("import"))?;
        let imported = clock::seconds(|| daemon.import(&bench.native).map(drop))?;
        let repeated = clock::seconds(|| daemon.import(&bench.native).map(drop))?;
        bench.end(daemon, "import")?;
        for (samples, native, aether) in
            [(&mut plain, copied, imported), (&mut synced, settled, imported), (&mut again, copied, repeated)]
        {
            samples.native.push(native);
            samples.aether.push(aether);
        }
    }
    Ok(vec![plain, synced, again])
}
