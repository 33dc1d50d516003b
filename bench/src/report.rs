//! The report: Markdown for people, JSON for later comparisons.

use std::fmt::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    Result,
    args::{Args, Group},
    machine::Machine,
    plot::{self, Plot},
    samples::{NATIVE, Row, Sample, Spread, Unit, Usage, rows, sides},
    sides::Missing,
    stage::Stage,
};

/// How to read the tables.
pub(crate) const CELLS: &str = "\
Cells are min / median / max: of native the value; of the others the ratio to it, round by round, or their own value
with its unit where native has none.
";
/// Opcodes named in a line.
const OPCODES_MAX: usize = 6;

#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    tree: String,
    tree_files: u64,
    tree_bytes: u64,
    tracked_files: usize,
    rounds: u32,
    quick: bool,
    file_system: String,
    missing: Vec<Missing>,
    samples: Vec<Sample>,
}

impl Report {
    pub(crate) fn new(
        machine: Machine,
        stage: &Stage,
        file_system: String,
        args: &Args,
        missing: Vec<Missing>,
        samples: Vec<Sample>,
    ) -> Report {
        Report {
            machine,
            tree: stage.tree.name.clone(),
            tree_files: stage.tree.files,
            tree_bytes: stage.tree.bytes,
            tracked_files: stage.tracked_files,
            rounds: stage.rounds,
            quick: args.quick,
            file_system,
            missing,
            samples,
        }
    }

    /// Whether anything was measured.
    pub(crate) fn has_samples(&self) -> bool {
        !self.samples.is_empty()
    }

    pub(crate) fn plots(&self) -> Result<Vec<Plot>> {
        let groups = Group::value_variants().iter();
        let plots: Result<Vec<_>> = groups.map(|group| plot::of(&self.samples, *group)).collect();
        Ok(plots?.into_iter().flatten().collect())
    }

    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// All of it, with the plots beside it.
    pub(crate) fn markdown(&self) -> Result<String> {
        let mut out = self.head(None)? + "\n" + CELLS;
        for group in Group::value_variants() {
            out.extend(self.section(*group, "", "")?);
        }
        Ok(out)
    }

    /// The groups that were measured, each with where and of what its figures are; with the plots in the directory `plots`.
    pub(crate) fn sections(&self, plots: &str) -> Result<Vec<(Group, String)>> {
        let mut sections = Vec::new();
        for group in Group::value_variants() {
            let section = self.section(*group, &(self.head(Some(*group))? + "\n"), plots)?;
            sections.extend(section.map(|section| (*group, section)));
        }
        Ok(sections)
    }

    /// Where and of what the figures are: all, or those of one group.
    fn head(&self, group: Option<Group>) -> Result<String> {
        let mut out = self.machine.markdown();
        let mib = self.tree_bytes >> 20;
        writeln!(out, "- tree: {}, {} files, {mib} MiB; {} rounds", self.tree, self.tree_files, self.rounds)?;
        writeln!(out, "- files in git: {}", self.tracked_files)?;
        writeln!(out, "- everything on: {}", self.file_system)?;
        if self.quick {
            writeln!(out, "- `--quick`: too little of everything to say how fast it is")?;
        }
        let others =
            Group::value_variants().iter().filter(|other| group.is_some_and(|group| group != **other));
        let others: Vec<_> = others.map(|other| other.name()).collect();
        for Missing { what, why } in self.missing.iter().filter(|missing| !others.contains(&missing.what)) {
            writeln!(out, "- not measured: {what} ({why})")?;
        }
        Ok(out)
    }

    /// A group's figures behind `head`; None if it was not measured.
    fn section(&self, group: Group, head: &str, plots: &str) -> Result<Option<String>> {
        let rows = rows(&self.samples, group);
        if rows.is_empty() {
            return Ok(None);
        }
        let sides = sides(&rows);
        let mut out = format!("\n{}\n\n{head}", heading(group));
        writeln!(out, "| work | {} |\n|---|{}", sides.join(" | "), "---|".repeat(sides.len()))?;
        for row in &rows {
            let cells: Vec<_> = sides.iter().map(|side| cell(row, side)).collect();
            writeln!(out, "| {} | {} |", row.title(), cells.join(" | "))?;
        }
        for plot in plot::of(&self.samples, group)? {
            writeln!(out, "\n![{}]({plots}{})", group.help(), plot.name)?;
        }
        let served: Vec<_> = rows.iter().flat_map(|row| served(row, &sides)).collect();
        if !served.is_empty() {
            writeln!(
                out,
                "\n| in the daemon, last round | side | CPU | requests | of them |\n|---|---|---|---|---|"
            )?;
            for line in served {
                writeln!(out, "{line}")?;
            }
        }
        Ok(Some(out))
    }
}

/// The line that a group's figures begin with.
pub(crate) fn heading(group: Group) -> String {
    format!("## {}: {}", group.name(), group.help())
}

fn cell(row: &Row<'_>, side: &str) -> String {
    let ratio = row.ratio(side).filter(|_| side != NATIVE);
    match (ratio, row.spread(side)) {
        (Some(Spread { min, median, max }), _) => format!("{min:.2} / **{median:.2}** / {max:.2}"),
        (None, Some(spread)) => {
            let [min, median, max] =
                [spread.min, spread.median, spread.max].map(|value| Quantity(row.unit, value));
            format!("{min} / **{median}** / {max}")
        }
        (None, None) => "-".into(),
    }
}

fn served(row: &Row<'_>, sides: &[&str]) -> Vec<String> {
    let line = |side: &&str| {
        let usage = row.of(side).filter_map(|sample| sample.daemon.as_ref()).last()?;
        let total: u64 = usage.requests.values().sum();
        let (cpu, total) = (
            Quantity(Unit::Seconds, usage.cpu_seconds),
            if total == 0 { "-".into() } else { total.to_string() },
        );
        Some(format!("| {} | {side} | {cpu} | {total} | {} |", row.title(), opcodes(usage)))
    };
    sides.iter().filter_map(line).collect()
}

/// The most frequent ones.
fn opcodes(usage: &Usage) -> String {
    let mut counts: Vec<_> = usage.requests.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<_> =
        counts.iter().take(OPCODES_MAX).map(|(opcode, count)| format!("{opcode} {count}")).collect();
    words.join(", ")
}

/// In the unit that reads best.
pub(crate) struct Quantity(pub(crate) Unit, pub(crate) f64);

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Unit::Seconds, 0.0) => write!(f, "0"),
            (Unit::Seconds, s) if s < 1e-5 => write!(f, "{:.2} us", s * 1e6),
            (Unit::Seconds, s) if s < 1e-3 => write!(f, "{:.0} us", s * 1e6),
            (Unit::Seconds, s) if s < 1.0 => write!(f, "{:.1} ms", s * 1e3),
            (Unit::Seconds, s) => write!(f, "{s:.2} s"),
            (Unit::Bytes, bytes) if bytes < 1024.0 * 1024.0 => write!(f, "{:.0} KiB", bytes / 1024.0),
            (Unit::Bytes, bytes) => write!(f, "{:.1} MiB", bytes / 1024.0 / 1024.0),
            (Unit::Count, count) => write!(f, "{count:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::tests::sample;

    #[test]
    fn a_group_says_where_its_figures_are_from() {
        let report = Report {
            machine: Machine::describe().unwrap(),
            tree: "a-tree".into(),
            tree_files: 5,
            tree_bytes: 7 << 20,
            tracked_files: 4,
            rounds: 3,
            quick: false,
            file_system: "ext4".into(),
            missing: vec![
                crate::turn::missing(Group::Cargo, "no crates"),
                crate::turn::missing(Group::Scan, "late"),
            ],
            samples: vec![sample("find", NATIVE, 0, 2.0), sample("find", "aether", 0, 3.0)],
        };
        let sections = report.sections("plots/").unwrap();
        let [(Group::Scan, text)] = &sections[..] else { panic!("{sections:?}") };
        assert!(text.starts_with(&format!("\n{}\n\n- ", heading(Group::Scan))));
        assert!(text.contains("a-tree, 5 files, 7 MiB; 3 rounds") && text.contains("(plots/scan.svg)"));
        assert!(text.contains("scan (late)") && !text.contains("no crates"));
        let whole = report.markdown().unwrap();
        assert!(whole.contains("no crates") && whole.contains(CELLS) && whole.contains("(scan.svg)"));
    }

    #[test]
    fn quantities_have_units() {
        let times =
            [0.000_001_5, 0.000_12, 0.0034, 0.56, 7.89].map(|s| Quantity(Unit::Seconds, s).to_string());
        assert_eq!(times, ["1.50 us", "120 us", "3.4 ms", "560.0 ms", "7.89 s"]);
        let sizes = [2048.0, 3_145_728.0].map(|bytes| Quantity(Unit::Bytes, bytes).to_string());
        assert_eq!(sizes, ["2 KiB", "3.0 MiB"]);
        assert_eq!(Quantity(Unit::Count, 12.0).to_string(), "12");
    }

    #[test]
    fn cells_are_values_or_ratios() {
        let samples = [
            sample("find", NATIVE, 0, 2.0),
            sample("find", "aether", 0, 3.0),
            sample("fork", "aether", 0, 0.5),
        ];
        let rows = rows(&samples, Group::Scan);
        assert_eq!(cell(&rows[0], NATIVE), "2.00 s / **2.00 s** / 2.00 s");
        assert_eq!(cell(&rows[0], "aether"), "1.50 / **1.50** / 1.50");
        assert_eq!(cell(&rows[1], "aether"), "500.0 ms / **500.0 ms** / 500.0 ms");
        assert_eq!(cell(&rows[1], NATIVE), "-");
    }
}
