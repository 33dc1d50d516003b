//! What was measured, and what is said about it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{args::Group, process::Process};

/// The side that the others are compared with.
pub(crate) const NATIVE: &str = "native";

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) group: Group,
    pub(crate) work: String,
    pub(crate) side: String,
    pub(crate) round: u32,
    pub(crate) unit: Unit,
    pub(crate) value: f64,
    /// Where it is in a series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<u32>,
    /// What the side's daemon did for it, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) daemon: Option<Usage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Count,
}

/// What a daemon did during a piece of work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) rss_peak_bytes: u64,
    /// From the kernel, by opcode. Empty where the daemon does not count them.
    pub(crate) requests: Requests,
}

pub(crate) type Requests = BTreeMap<String, u64>;

/// A row of the report: the samples of one work, by side.
pub(crate) struct Row<'a> {
    pub(crate) work: &'a str,
    pub(crate) at: Option<u32>,
    pub(crate) unit: Unit,
    samples: Vec<&'a Sample>,
}

/// The least, the middle and the greatest of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Usage {
    pub(crate) fn between(before: (Process, Requests), after: (Process, Requests)) -> Usage {
        let requests = after.1.into_iter().map(|(opcode, count)| {
            let earlier = before.1.get(&opcode).copied().unwrap_or(0);
            (opcode, count.saturating_sub(earlier))
        });
        Usage {
            cpu_seconds: after.0.cpu_seconds - before.0.cpu_seconds,
            rss_bytes: after.0.rss_bytes,
            rss_peak_bytes: after.0.rss_peak_bytes,
            requests: requests.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// The rows of a group, in the order in which they were first measured.
pub(crate) fn rows(samples: &[Sample], group: Group) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.group == group) {
        match rows.iter_mut().find(|row| row.work == sample.work && row.at == sample.at) {
            Some(row) => row.samples.push(sample),
            None => {
                rows.push(Row { work: &sample.work, at: sample.at, unit: sample.unit, samples: vec![sample] })
            }
        }
    }
    rows
}

/// The sides of some rows; native first.
pub(crate) fn sides<'a>(rows: &[Row<'a>]) -> Vec<&'a str> {
    let mut sides: Vec<&str> = Vec::new();
    for sample in rows.iter().flat_map(|row| &row.samples) {
        if !sides.contains(&sample.side.as_str()) {
            sides.push(&sample.side);
        }
    }
    sides.sort_by_key(|side| *side != NATIVE);
    sides
}

impl<'a> Row<'a> {
    /// With its place in the series.
    pub(crate) fn title(&self) -> String {
        match self.at {
            Some(at) => format!("{}: {at}", self.work),
            None => self.work.to_owned(),
        }
    }

    pub(crate) fn of(&self, side: &str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().copied().filter(move |sample| sample.side == side)
    }

    pub(crate) fn spread(&self, side: &str) -> Option<Spread> {
        Spread::of(self.of(side).map(|sample| sample.value).collect())
    }

    /// To the native samples, each to the one of its own round.
    pub(crate) fn ratio(&self, side: &str) -> Option<Spread> {
        let ratio = |sample: &Sample| {
            let native = self.of(NATIVE).find(|native| native.round == sample.round)?;
            Some(sample.value / native.value)
        };
        Spread::of(self.of(side).filter_map(ratio).collect())
    }
}

impl Spread {
    /// Nothing of nothing.
    pub(crate) fn of(mut samples: Vec<f64>) -> Option<Spread> {
        samples.sort_by(f64::total_cmp);
        let (min, max) = (*samples.first()?, *samples.last()?);
        let median = f64::midpoint(samples[(samples.len() - 1) / 2], samples[samples.len() / 2]);
        Some(Spread { min, median, max })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(work: &str, side: &str, round: u32, value: f64) -> Sample {
        let (work, side) = (work.to_owned(), side.to_owned());
        Sample { group: Group::Scan, work, side, round, unit: Unit::Seconds, value, at: None, daemon: None }
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).map(|s| s.median), Some(2.5));
    }

    #[test]
    fn ratios_are_of_one_round() {
        let samples = [
            sample("find", "aether", 1, 2.0),
            sample("find", NATIVE, 0, 1.0),
            sample("find", NATIVE, 1, 2.0),
            sample("find", "aether", 0, 2.0),
            sample("grep", "aether", 0, 2.0),
        ];
        let rows = rows(&samples, Group::Scan);
        assert_eq!(sides(&rows), [NATIVE, "aether"]);
        assert_eq!(rows[0].ratio("aether"), Some(Spread { min: 1.0, median: 1.5, max: 2.0 }));
        assert_eq!(rows[1].ratio("aether"), None);
        assert_eq!(rows[1].spread("aether").map(|s| s.max), Some(2.0));
    }

    #[test]
    fn usage_is_a_difference() {
        let process = |cpu_seconds| Process { cpu_seconds, rss_bytes: 1, rss_peak_bytes: 2 };
        let counts = |list: &[(&str, u64)]| list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let usage = Usage::between(
            (process(1.0), counts(&[("read", 5), ("open", 1)])),
            (process(1.5), counts(&[("read", 7), ("open", 1), ("lookup", 3)])),
        );
        assert_eq!(usage.requests, counts(&[("lookup", 3), ("read", 2)]));
        assert!((usage.cpu_seconds - 0.5).abs() < 1e-9);
    }
}
