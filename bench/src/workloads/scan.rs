//! The whole tree is looked at: `find -size` and `grep -r`, without any cache, in a new mount, and warm.

use std::{path::Path, process::Command};

use crate::{
    Result,
    args::Group,
    shell,
    turn::{Turn, Workload, nothing},
};

pub(crate) const WORKLOAD: Workload = Workload {
    group: Group::Scan,
    prepare: nothing,
    steps: &[cold_find, cold_grep, new_find, new_grep],
    finish: nothing,
};

fn cold_find(turn: &mut Turn<'_>) -> Result<()> {
    turn.side.cold(turn.stage.scale)?;
    turn.time("`find -size`, no cache", find)
}

fn cold_grep(turn: &mut Turn<'_>) -> Result<()> {
    turn.side.cold(turn.stage.scale)?;
    turn.time("`grep -r`, no cache", grep)
}

fn new_find(turn: &mut Turn<'_>) -> Result<()> {
    turn.side.renew(turn.stage.scale)?;
    turn.time("`find -size`, new mount", find)?;
    find(&turn.root())?;
    turn.time("`find -size`, warm", find)
}

/// Four passes: a daemon may go on learning in the second, and the kernel asks for attributes again after a first read, and for
/// those of directories after it listed them again.
fn new_grep(turn: &mut Turn<'_>) -> Result<()> {
    turn.side.renew(turn.stage.scale)?;
    turn.time("`grep -r`, new mount", grep)?;
    turn.time("`grep -r`, new mount, second pass", grep)?;
    turn.time("`grep -r`, new mount, third pass", grep)?;
    turn.time("`grep -r`, new mount, fourth pass", grep)
}

pub(super) fn find(dir: &Path) -> Result<()> {
    shell::search(Command::new("find").arg(dir).args(["-name", ".git", "-prune", "-o", "-size", "+1000k"]))
}

/// The sources alone: what git made of them is loose objects that nobody greps.
pub(super) fn grep(dir: &Path) -> Result<()> {
    let mut grep = Command::new("grep");
    shell::search(
        grep.args(["-r", "--exclude-dir=.git", "-e", "a string that is in no file of any tree"]).arg(dir),
    )
}
