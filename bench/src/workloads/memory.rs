//! What the process that answers for the file system holds in memory: after its start, and after a look at everything.

use super::scan::{find, grep};
use crate::{
    Result,
    args::Group,
    process::Process,
    samples::Unit,
    turn::{Turn, Workload, nothing},
};

pub(crate) const WORKLOAD: Workload =
    Workload { group: Group::Memory, prepare: nothing, steps: &[resident], finish: nothing };

fn resident(turn: &mut Turn<'_>) -> Result<()> {
    if turn.side.server().is_none() {
        return Ok(());
    }
    turn.side.cold(turn.stage.scale)?;
    put(turn, "resident, just mounted", |process| process.rss_bytes)?;
    find(&turn.root())?;
    put(turn, "resident after `find -size`", |process| process.rss_bytes)?;
    grep(&turn.root())?;
    put(turn, "resident after `grep -r`", |process| process.rss_bytes)?;
    put(turn, "peak", |process| process.rss_peak_bytes)
}

fn put(turn: &mut Turn<'_>, work: &str, bytes: impl FnOnce(Process) -> u64) -> Result<()> {
    // A new mount may be by a new process.
    let pid = turn.side.server().ok_or("the process is gone")?;
    let value = bytes(Process::read(pid)?) as f64;
    turn.put(work, Unit::Bytes, value);
    Ok(())
}
