//! What was measured, round by round, and what is said about it.

use serde::Serialize;

/// One line of the report.
#[derive(Serialize)]
pub(crate) struct Samples {
    pub(crate) name: String,
    /// Seconds, a round each. Empty where the file system underneath knows no such thing.
    pub(crate) native: Vec<f64>,
    pub(crate) aether: Vec<f64>,
}

/// The least, the middle and the greatest of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Samples {
    pub(crate) fn new(name: impl Into<String>) -> Samples {
        Samples { name: name.into(), native: Vec::new(), aether: Vec::new() }
    }

    /// Of each round's own pair.
    pub(crate) fn ratios(&self) -> Option<Spread> {
        let ratios: Vec<_> =
            self.aether.iter().zip(&self.native).map(|(aether, native)| aether / native).collect();
        Spread::of(&ratios)
    }
}

impl Spread {
    /// Nothing of nothing.
    pub(crate) fn of(samples: &[f64]) -> Option<Spread> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Spread { min, median, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).map(|s| s.median), Some(2.5));
    }

    #[test]
    fn ratios_are_of_pairs() {
        let samples = Samples { name: String::new(), native: vec![1.0, 2.0], aether: vec![2.0, 2.0] };
        assert_eq!(samples.ratios(), Some(Spread { min: 1.0, median: 1.5, max: 2.0 }));
    }
}
