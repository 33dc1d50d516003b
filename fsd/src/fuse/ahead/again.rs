//! Which directories the reader lists once more, and when. Policy alone; who lists them is [`walk`](super::walk).
//!
//! Of files that were read ahead when their READs are through, a window later: before the scan comes by. Of files that are left to
//! the scan when that has come by, for the next one.

use std::{collections::VecDeque, path::PathBuf};

/// Windows whose directories wait. Beyond that the next scan asks for the attributes of the oldest.
const BATCHES_MAX: usize = 64;

/// A directory that the walk is through with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub path: PathBuf,
    /// Some of its files are read by the scan.
    pub is_scans: bool,
}

/// Those that wait, by window.
#[derive(Debug, Default)]
pub(super) struct Again {
    read: VecDeque<(u64, Vec<PathBuf>)>,
    scans: VecDeque<(u64, Vec<PathBuf>)>,
}

impl Again {
    /// The walk was through with these in this window.
    pub fn add(&mut self, window: u64, dirs: Vec<Left>) {
        let (scans, read) = dirs.into_iter().partition::<Vec<_>, _>(|left| left.is_scans);
        for (queue, dirs) in [(&mut self.scans, scans), (&mut self.read, read)] {
            if queue.len() == BATCHES_MAX {
                queue.pop_front();
            }
            queue.push_back((window, dirs.into_iter().map(|left| left.path).collect()));
        }
    }

    /// Those to be listed now, after so many windows, of which the scan has passed so many. `has_time`: what only the next scan needs may
    /// come, too.
    pub fn due(&mut self, windows: u64, passed: u64, has_time: bool) -> Vec<PathBuf> {
        let mut due = Vec::new();
        while let Some((_, dirs)) = self.read.pop_front_if(|(window, _)| *window < windows) {
            due.extend(dirs);
        }
        while let Some((_, dirs)) = self.scans.pop_front_if(|(window, _)| has_time && *window <= passed) {
            due.extend(dirs);
        }
        due
    }

    /// All that are left.
    pub fn all(self) -> Vec<PathBuf> {
        self.read.into_iter().chain(self.scans).flat_map(|(_, dirs)| dirs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(path: &str, is_scans: bool) -> Left {
        Left { path: path.into(), is_scans }
    }

    #[test]
    fn directories_are_due_a_window_later_or_when_the_scan_has_come_by() {
        let mut again = Again::default();
        again.add(1, vec![left("1s", true)]);
        again.add(2, vec![left("2s", true), left("2r", false)]);
        again.add(3, vec![left("3r", false)]);
        let mut due = |windows, passed, has_time| {
            again
                .due(windows, passed, has_time)
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(due(3, 0, true), ["2r"], "what waits for the scan holds up nothing");
        assert_eq!(due(4, 1, false), ["3r"], "there is no time for what only the next scan needs");
        assert_eq!(due(4, 1, true), ["1s"]);
        assert_eq!(due(9, 1, true), [""; 0]);
        assert_eq!(again.all(), [PathBuf::from("2s")]);
    }

    #[test]
    fn there_is_a_bound() {
        let mut again = Again::default();
        (0..2 * BATCHES_MAX as u64).for_each(|nth| again.add(nth, vec![left("s", true), left("r", false)]));
        assert_eq!(again.all().len(), 2 * BATCHES_MAX);
    }
}
