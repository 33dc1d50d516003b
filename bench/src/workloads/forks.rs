//! Many forks at once: made, mounted, and each of them grepped in part.

use super::scan::grep;
use crate::{
    Result,
    args::Group,
    clock,
    process::Process,
    samples::{NATIVE, Unit},
    turn::{Turn, Workload, nothing},
};

pub(crate) const WORKLOAD: Workload =
    Workload { group: Group::Forks, prepare: nothing, steps: &[forks], finish: nothing };

fn forks(turn: &mut Turn<'_>) -> Result<()> {
    let (count, part) = (turn.scale().forks, turn.stage.part.clone());
    let before = resident(turn)?;
    let mut roots = Vec::new();
    let mounted = clock::seconds(|| {
        roots = turn.side.fork(count)?;
        Ok(())
    })?;
    // A native tree has no forks.
    if turn.side.name() != NATIVE {
        turn.put(&format!("{count} forks made and mounted"), Unit::Seconds, mounted);
    }
    if let (Some(before), Some(after)) = (before, resident(turn)?) {
        let each = (after - before).max(0.0) / f64::from(count);
        turn.put("memory of the daemon for each of them, idle", Unit::Bytes, each);
    }
    let work = format!("`grep -r` in each of {count} forks, {}", part.display());
    turn.time(&work, |_| roots.iter().try_for_each(|root| grep(&root.join(&part))))?;
    turn.side.discard_forks()
}

/// Nothing where a process of its own serves every mount, which says nothing of this one.
fn resident(turn: &Turn<'_>) -> Result<Option<f64>> {
    let Some(pid) = turn.side.server().filter(|_| turn.side.serves_forks()) else {
        return Ok(None);
    };
    Ok(Some(Process::read(pid)?.rss_bytes as f64))
}
