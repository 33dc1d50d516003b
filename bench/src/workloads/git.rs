//! `git status`, without any cache, in a new mount, and warm; `git checkout` between two commits.

use std::path::Path;

use crate::{
    Result,
    args::Group,
    repository::{AFTER, BEFORE, git},
    turn::{Turn, Workload, nothing},
};

pub(crate) const WORKLOAD: Workload = Workload {
    group: Group::Git,
    // Reads every file, because in a copy all have other times and numbers than the index says, and writes a new index.
    prepare: |turn| status(turn.side.root()),
    steps: &[cold_status, new_status, checkout],
    finish: nothing,
};

fn cold_status(turn: &mut Turn<'_>) -> Result<()> {
    turn.side.cold(turn.stage.scale)?;
    turn.time("`git status`, no cache", status)
}

fn new_status(turn: &mut Turn<'_>) -> Result<()> {
    turn.side.renew(turn.stage.scale)?;
    turn.time("`git status`, new mount", status)?;
    status(&turn.root())?;
    turn.time("`git status`, warm", status)
}

fn checkout(turn: &mut Turn<'_>) -> Result<()> {
    turn.time("`git checkout`, a tenth of all files", |root| git(root, &["checkout", "-q", AFTER]))?;
    turn.time("`git checkout` back", |root| git(root, &["checkout", "-q", BEFORE]))
}

fn status(root: &Path) -> Result<()> {
    git(root, &["status", "--porcelain"])
}
