//! The report: Markdown for people, JSON for later comparisons.

use std::{
    fmt::{self, Write},
    path::Path,
};

use serde::Serialize;

use crate::{
    Result,
    machine::Machine,
    samples::{Samples, Spread},
};

#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    tree: String,
    tree_bytes: u64,
    rounds: u32,
    file_system: String,
    /// Seconds.
    samples: Vec<Samples>,
}

impl Report {
    pub(crate) fn new(
        machine: Machine,
        tree: &Path,
        tree_bytes: u64,
        rounds: u32,
        file_system: String,
    ) -> Report {
        let tree = tree.display().to_string();
        Report { machine, tree, tree_bytes, rounds, file_system, samples: Vec::new() }
    }

    pub(crate) fn extend(&mut self, samples: Vec<Samples>) {
        self.samples.extend(samples);
    }

    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(crate) fn markdown(&self) -> Result<String> {
        let mut out = self.machine.markdown();
        writeln!(out, "- tree: {}, {} MiB; {} rounds", self.tree, self.tree_bytes >> 20, self.rounds)?;
        writeln!(out, "- state and native copy on: {}\n", self.file_system)?;
        writeln!(out, "| work | native | AetherFS | ratio: min / median / max |\n|---|---|---|---|")?;
        for line in &self.samples {
            let native = Spread::of(&line.native).map_or("-".into(), times);
            let aether = Spread::of(&line.aether).map_or("-".into(), times);
            let ratio = line
                .ratios()
                .map_or("-".into(), |r| format!("{:.2} / {:.2} / {:.2}", r.min, r.median, r.max));
            writeln!(out, "| {} | {native} | {aether} | {ratio} |", line.name)?;
        }
        writeln!(out, "\nRaw samples, in seconds:\n\n```json")?;
        for line in &self.samples {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        }
        writeln!(out, "```")?;
        Ok(out)
    }
}

fn times(spread: Spread) -> String {
    format!("{} / {} / {}", Seconds(spread.min), Seconds(spread.median), Seconds(spread.max))
}

/// In the unit that reads best.
struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s < 1e-3 => write!(f, "{:.0} us", s * 1e6),
            s if s < 1.0 => write!(f, "{:.1} ms", s * 1e3),
            s => write!(f, "{s:.2} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let all = [0.000_012, 0.0034, 0.56, 7.89].map(|s| Seconds(s).to_string());
        assert_eq!(all, ["12 us", "3.4 ms", "560.0 ms", "7.89 s"]);
    }
}
