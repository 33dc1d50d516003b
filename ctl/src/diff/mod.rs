//! What the daemon says differs, turned into lines, a patch or a histogram. Pure: no I/O but the caller's.

pub(crate) mod change;
pub(crate) mod hunks;
pub(crate) mod patch;
pub(crate) mod stat;

#[cfg(test)]
mod git_tests;
