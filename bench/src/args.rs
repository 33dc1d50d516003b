//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  tools/bench                                 everything, on Debian's linux-source-6.1: hours
  tools/bench --quick                         most of it, on few files: minutes
  tools/bench --only scan --only git          two groups alone
  tools/bench --tree ~/src/monorepo --rounds 5 --only latency
  tools/bench --only kernel --without fuse-overlayfs
  tools/bench --publish --only fork           and the group's figures into docs/benchmarks.md";

/// Measure mounted sessions against the file system under them and against overlays, in one run
///
/// Every side works on the same tree, on one file system of the benchmark's own; the sides take turns. Needs root.
#[derive(Debug, Parser)]
#[command(name = "aether-bench", bin_name = "tools/bench", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Few files, short series, two rounds: to see that everything runs, not how fast
    #[arg(long)]
    pub(crate) quick: bool,
    /// The tree to work on; it is only read [default: Debian's linux-source-6.1; with --quick part of /usr/share]
    #[arg(long, value_name = "DIR")]
    pub(crate) tree: Option<PathBuf>,
    /// One group of workloads; repeatable [default: all, with --quick all but kernel and remote]
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<Group>,
    /// A side to leave out; repeatable. The native one is always there
    #[arg(long, value_name = "SIDE")]
    pub(crate) without: Vec<Rival>,
    /// How often each side is measured [default: 5, with --quick 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Where samples.json, report.md and the plots go [default: bench in the build's directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Put the figures into docs/benchmarks.md, too, in place of older ones of the same groups, and the plots beside it
    #[arg(long)]
    pub(crate) publish: bool,
    /// Where the benchmark's file system is made, in a directory that is removed in the end; what lies below it counts
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) work: PathBuf,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Group {
    /// Import against `cp -a`
    Import,
    /// Create and fork: against the tree's size, the depth, and the number of changed files
    Fork,
    /// Thirty forks mounted, each grepped
    Forks,
    /// find and grep: without any cache, in a new mount, and warm
    Scan,
    /// git status and git checkout
    Git,
    /// untar, cp -r, rm -r, small and large writes
    Write,
    /// Sequential, random and mapped reads of a large file, by fio
    Read,
    /// Single operations: p50, mean and p99
    Latency,
    /// What the daemon holds in memory
    Memory,
    /// A published snapshot on a host that has nothing of it, 20 ms from the store
    Remote,
    /// cargo build of a crate with its dependencies
    Cargo,
    /// The kernel's tinyconfig
    Kernel,
}

/// What is measured beside the native file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rival {
    /// The kernel's overlayfs over another copy
    Overlayfs,
    /// fuse-overlayfs over another copy
    FuseOverlayfs,
    /// AetherFS through /dev/fuse
    AetherDevFuse,
    /// AetherFS through io_uring
    AetherIoUring,
}

impl Args {
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 })
    }

    pub(crate) fn wants(&self, group: Group) -> bool {
        match self.only.is_empty() {
            // One takes long, the other needs a server that is compiled first.
            true => !self.quick || !matches!(group, Group::Kernel | Group::Remote),
            false => self.only.contains(&group),
        }
    }
}

impl Rival {
    pub(crate) fn name(self) -> String {
        name(self)
    }
}

impl Group {
    pub(crate) fn name(self) -> String {
        name(self)
    }

    /// What it is about, for people.
    pub(crate) fn help(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }
}

/// As on the command line.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_chosen() {
        let parse = |words: &str| Args::parse_from(words.split(' '));
        let args = parse("bench --only scan --only git --quick");
        assert!(args.wants(Group::Scan) && args.wants(Group::Git) && !args.wants(Group::Write));
        assert_eq!(args.rounds(), 2);
        assert!(!parse("bench --quick").wants(Group::Kernel) && !parse("bench --quick").wants(Group::Remote));
        assert!(parse("bench --quick --only kernel").wants(Group::Kernel));
        assert!(parse("bench --rounds 7").wants(Group::Kernel));
        assert!(Args::try_parse_from(["bench", "--only", "nothing"]).is_err());
        assert!(Args::try_parse_from(["bench", "--without", "native"]).is_err());
        let without = parse("bench --without fuse-overlayfs --without aether-dev-fuse").without;
        assert_eq!(without, [Rival::FuseOverlayfs, Rival::AetherDevFuse]);
        assert_eq!((Group::Scan.name().as_str(), Group::Cargo.name().as_str()), ("scan", "cargo"));
    }
}
