//! How much to fetch. Policy alone: values in, values out; who fetches is [`fetch`](super::fetch).
//!
//! Frames are told by their positions in the order of the tree, through all packs of a kind that a layer has: a scan does not begin anew at
//! the end of a pack.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

/// Frames that are fetched ahead of a reader at most: 32 MiB of what is in them, a third of what the cache has in memory. At least half of that is on its way: of
/// sources 3 MiB, what a line of 600 Mbit/s carries in 40 ms, of what does not compress 16 MiB.
pub(super) const WINDOW_MAX: u32 = 128;
/// A scan may leave some out: what it finds in other packs, or in the cache.
const GAP_MAX: u32 = 8;
/// Those who read many files at a time do not come in the order of the tree.
const BACK_MAX: u32 = 32;
/// Pieces of what was fetched that are remembered: of more, all are forgotten, and some may come twice.
const PIECES_MAX: usize = 1024;
/// Readers of a layer that are told apart.
const STREAMS_MAX: usize = 8;
/// This part of what a stream has read is fetched ahead of it: so much is in vain at most if it ends.
const AHEAD_PART: u32 = 4;
/// In the beginning it is as many frames as were read, up to these, so that a reader's speed doubles with each round trip. In vain are 8 MiB of what is in them at most, of
/// sources 1.5 MiB to fetch: less than a line of 1 Gbit/s carries in a round trip of 20 ms.
const EARLY_MAX: u32 = 32;
/// What is fetched ahead is asked for once so much of the window is missing, so that requests are large.
const STEP_PART: u32 = 2;

/// Who reads what a layer has of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Streams {
    /// The one that read last is the last.
    all: VecDeque<Stream>,
    /// What was fetched for any of them, as far as nothing of it was missed since: from where to where. They do not touch.
    fetched: BTreeMap<u32, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stream {
    /// Where it reads.
    at: u32,
    /// How many frames it has read in all.
    read: u32,
    /// Behind the last frame that was fetched for it.
    end: u32,
}

impl Streams {
    /// Somebody reads at a position, of so many. What to have besides, which may be nothing; [`Streams::went`] says how far that was done.
    pub fn read(&mut self, position: u32, count: u32) -> Range<u32> {
        let goes_on =
            |stream: &Stream| (stream.at.saturating_sub(BACK_MAX)..=stream.end + GAP_MAX).contains(&position);
        let stream = match self.all.iter().position(goes_on) {
            Some(nth) => self.all.remove(nth),
            None => None,
        };
        let mut stream = stream.unwrap_or(Stream { at: position, read: 0, end: position });
        // What it left out was not fetched for it, and does not count.
        stream.read += position.min(stream.end).saturating_sub(stream.at);
        stream.at = stream.at.max(position);
        stream.end = stream.end.max(position + 1);
        let window = window(stream.read);
        let end = (stream.at + 1 + window).min(count);
        let is_due = end.saturating_sub(stream.end) > window / STEP_PART;
        let range = stream.end..if is_due || end == count { end.max(stream.end) } else { stream.end };
        if self.all.len() == STREAMS_MAX {
            self.all.pop_front();
        }
        self.all.push_back(stream);
        range
    }

    /// Of what [`Streams::read`] said last, all before `end` was fetched, now or before.
    pub fn went(&mut self, end: u32) {
        if let Some(stream) = self.all.back_mut() {
            stream.end = stream.end.max(end);
        }
    }

    /// Whether a frame was fetched before, and not missed since.
    pub fn has(&self, position: u32) -> bool {
        self.fetched.range(..=position).next_back().is_some_and(|(_, end)| position < *end)
    }

    /// Frames are on their way here.
    pub fn fetched(&mut self, Range { mut start, mut end }: Range<u32>) {
        if let Some((&before, &its_end)) = self.fetched.range(..=start).next_back()
            && its_end >= start
        {
            (start, end) = (before, end.max(its_end));
        }
        while let Some((&next, &its_end)) = self.fetched.range(start..=end).next() {
            self.fetched.remove(&next);
            end = end.max(its_end);
        }
        if self.fetched.len() == PIECES_MAX {
            self.fetched.clear();
        }
        self.fetched.insert(start, end);
    }

    /// A frame is not here, nor on its way. What was fetched together with it may be gone, too: whoever reads there has it fetched anew.
    pub fn missed(&mut self, position: u32) {
        for stream in &mut self.all {
            if (stream.at..stream.end).contains(&position) {
                stream.end = position;
            }
        }
        let piece = self.fetched.range(..=position).next_back().map(|(start, end)| (*start, *end));
        if let Some((start, end)) = piece
            && position < end
        {
            self.fetched.remove(&start);
        }
    }
}

/// Frames to have ahead of who has read so many.
fn window(read: u32) -> u32 {
    read.min(EARLY_MAX).max(read.div_ceil(AHEAD_PART)).min(WINDOW_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u32 = 4000;

    fn read(streams: &mut Streams, position: u32) -> Range<u32> {
        let range = streams.read(position, COUNT);
        streams.went(range.end);
        range
    }

    #[test]
    fn a_scan_is_kept_ahead_of_by_a_part_of_what_it_has_read() {
        let (mut streams, mut end, mut steps) = (Streams::default(), 0, Vec::new());
        for at in 0..COUNT {
            let range = read(&mut streams, at);
            if !range.is_empty() {
                steps.push(range.end - range.start);
                end = range.end;
            }
            let ahead = end.saturating_sub(at + 1);
            let part = if at <= EARLY_MAX { at } else { EARLY_MAX.max(at.div_ceil(AHEAD_PART)) };
            assert!(ahead <= part.min(WINDOW_MAX), "{ahead} ahead of {at}");
            assert!(at < 8 || at + 8 > COUNT || ahead > 0, "it waits at {at}");
        }
        assert_eq!(end, COUNT);
        assert!(
            steps.iter().all(|step| *step <= WINDOW_MAX) && steps.len() < 160,
            "{}: {steps:?}",
            steps.len()
        );
    }

    #[test]
    fn what_is_ahead_doubles_in_the_beginning() {
        let (mut streams, mut trips, mut at, mut end) = (Streams::default(), 0, 0, 0);
        while end < 2 * EARLY_MAX {
            // What came with the last round trip is read, and what is behind it is asked for.
            let came = end;
            (at..=came)
                .for_each(|position| end = end.max(position + 1).max(read(&mut streams, position).end));
            (at, trips) = (came + 1, trips + 1);
        }
        assert!(trips <= EARLY_MAX.ilog2() + 3, "{trips} round trips");
    }

    #[test]
    fn who_reads_here_and_there_has_nothing_fetched_ahead() {
        let mut streams = Streams::default();
        assert!((0..100).all(|nth| read(&mut streams, nth * 37 % COUNT).is_empty()));
    }

    #[test]
    fn streams_that_take_turns_are_told_apart() {
        let mut streams = Streams::default();
        let (mut low, mut high) = (0, 0);
        for at in 0..40 {
            low = low.max(read(&mut streams, at).end);
            high = high.max(read(&mut streams, 1000 + at).end);
        }
        assert!(low > 45 && high > 1045, "{low} {high}");
    }

    #[test]
    fn what_was_not_fetched_does_not_count() {
        let mut streams = Streams::default();
        for at in 0..40 {
            read(&mut streams, at);
        }
        let range = streams.read(78, COUNT);
        assert!(range.start > 78 && range.len() > 4, "{range:?}");
        streams.went(range.start + 1);
        assert_eq!(streams.read(79, COUNT).start, range.start + 1, "it goes on behind that");
    }

    #[test]
    fn a_scan_by_many_at_a_time_is_one() {
        let mut streams = Streams::default();
        for at in 0..COUNT / 2 {
            read(&mut streams, at ^ 3);
        }
        assert_eq!(streams.all.len(), 1);
        assert!(streams.all[0].end > COUNT / 2 + WINDOW_MAX / 2, "{streams:?}");
    }

    #[test]
    fn what_did_not_come_is_fetched_ahead_again() {
        let mut streams = Streams::default();
        for at in 0..400 {
            let range = read(&mut streams, at);
            streams.fetched(range);
        }
        let end = streams.all[0].end;
        assert!(end > 450 && streams.has(450), "{end}");
        streams.missed(450);
        assert!(!streams.has(450));
        let range = streams.read(450, COUNT);
        assert!(range.start == 451 && range.end > end, "{range:?}");
    }

    #[test]
    fn nothing_is_behind_the_end() {
        let mut streams = Streams::default();
        (0..COUNT).for_each(|at| assert!(read(&mut streams, at).end <= COUNT));
    }

    #[test]
    fn what_was_fetched_is_known_until_some_of_it_is_missed() {
        let mut streams = Streams::default();
        let known = |streams: &Streams| (0..40).filter(|at| streams.has(*at)).collect::<Vec<_>>();
        for range in [4..8, 20..22, 8..9, 2..4, 12..13, 13..21, 30..31, 25..35] {
            let mut all: Vec<_> = known(&streams).into_iter().chain(range.clone()).collect();
            streams.fetched(range);
            all.sort_unstable();
            all.dedup();
            assert_eq!(known(&streams), all);
        }
        assert_eq!(streams.fetched, BTreeMap::from([(2, 9), (12, 22), (25, 35)]));
        streams.missed(10);
        streams.missed(21);
        assert_eq!(streams.fetched, BTreeMap::from([(2, 9), (25, 35)]));
        (0..3 * PIECES_MAX as u32).for_each(|nth| streams.fetched(100 + 2 * nth..101 + 2 * nth));
        assert!(streams.fetched.len() <= PIECES_MAX);
    }
}
