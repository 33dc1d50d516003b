//! The whole tree is looked at: `find -size`, and `grep -r` in a new mount and again. The store is in the page cache.

use std::{path::Path, process::Command};

use super::{Bench, both, progress};
use crate::{Result, samples::Samples, shell};

pub(crate) fn run(bench: &Bench) -> Result<Vec<Samples>> {
    let mut cold_find = Samples::new("`find -size`, new mount, against warm");
    let mut find_again = Samples::new("`find -size`, warm");
    let mut passes =
        ["first", "second", "third"].map(|nth| Samples::new(format!("`grep -r`, new mount, {nth} pass")));
    let (daemon, snapshot) = bench.imported("scan")?;
    let (session, _) = daemon.create(&snapshot)?;
    // Warms the native side, which stays as it is; the other side begins with a new mount in every round.
    grep(&bench.native)?;
    find(&bench.native)?;
    for round in 0..bench.rounds {
        progress("scan", round, bench);
        let dir = daemon.mount(&session, "mnt")?;
        both(&mut cold_find, &bench.native, &dir, find)?;
        daemon.unmount(&dir)?;
        daemon.mount(&session, "mnt")?;
        for pass in &mut passes {
            both(pass, &bench.native, &dir, grep)?;
        }
        both(&mut find_again, &bench.native, &dir, find)?;
        daemon.unmount(&dir)?;
    }
    bench.end(daemon, "scan")?;
    Ok([cold_find, find_again].into_iter().chain(passes).collect())
}

fn find(dir: &Path) -> Result<()> {
    shell::search(Command::new("find").arg(dir).args(["-size", "+1000k"]))
}

fn grep(dir: &Path) -> Result<()> {
    shell::search(Command::new("grep").args(["-r", "-e", "a string that is in no file of any tree"]).arg(dir))
}
