//! How much to fetch. Policy alone: a value in, a value out; who fetches is [`fetch`](super::fetch).

use std::{collections::VecDeque, ops::Range};

/// Frames that are fetched at most because one was asked for: 8 MiB of what is in them.
const WINDOW_MAX: u32 = 32;
/// A scan may leave some out: what it finds in other packs, or in the cache.
const GAP_MAX: u32 = 8;
/// Readers of a pack that are told apart.
const STREAMS_MAX: usize = 8;
/// Of what a stream has fetched so far, this part is fetched ahead of it: so much is in vain at most if it ends.
const AHEAD_PART: u32 = 4;

/// The reads of one pack, as far as they came to the remote store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Streams {
    /// The one that read last is the last.
    all: VecDeque<Stream>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stream {
    /// Behind the last frame that was fetched for it.
    end: u32,
    /// How many it was in all.
    fetched: u32,
}

impl Streams {
    /// What to fetch when `frame` is missing, of so many. [`Streams::fetched`] says what of that was done.
    pub fn missing(&mut self, frame: u32, frames: u32) -> Range<u32> {
        let goes_on = |stream: &Stream| (stream.end..=stream.end + GAP_MAX).contains(&frame);
        let stream = match self.all.iter().position(goes_on) {
            Some(nth) => self.all.remove(nth),
            None => None,
        };
        let mut stream = stream.unwrap_or(Stream { end: frame, fetched: 0 });
        let ahead = (stream.fetched.div_ceil(AHEAD_PART)).min(WINDOW_MAX - 1);
        let range = frame..(frame + 1 + ahead).min(frames);
        (stream.end, stream.fetched) = (frame, stream.fetched);
        if self.all.len() == STREAMS_MAX {
            self.all.pop_front();
        }
        self.all.push_back(stream);
        range
    }

    /// Of what [`Streams::missing`] said last, all before `end` is fetched.
    pub fn fetched(&mut self, end: u32) {
        if let Some(stream) = self.all.back_mut() {
            stream.fetched += end - stream.end;
            stream.end = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(streams: &mut Streams, frame: u32) -> Range<u32> {
        let range = streams.missing(frame, 200);
        streams.fetched(range.end);
        range
    }

    #[test]
    fn scans_fetch_ahead_by_a_part_of_what_they_read_and_others_what_they_ask_for() {
        let mut streams = Streams::default();
        let (mut at, mut lens) = (0, Vec::new());
        while at < 200 {
            let range = fetch(&mut streams, at);
            lens.push(range.end - range.start);
            at = range.end;
        }
        assert_eq!(lens[..8], [1, 2, 2, 3, 3, 4, 5, 6]);
        assert!(lens.iter().all(|len| *len <= WINDOW_MAX) && lens.len() < 30, "{lens:?}");
        assert_eq!(fetch(&mut streams, 100), 100..101);
    }

    #[test]
    fn streams_that_take_turns_are_told_apart() {
        let mut streams = Streams::default();
        let (mut low, mut high) = (0, 100);
        for _ in 0..6 {
            low = fetch(&mut streams, low).end;
            high = fetch(&mut streams, high).end;
        }
        assert!(low > 12 && high > 112, "{low} {high}");
    }

    #[test]
    fn what_was_not_fetched_does_not_count() {
        let mut streams = Streams::default();
        let at = (0..4).fold(0, |at, _| fetch(&mut streams, at).end);
        assert!(streams.missing(at, 200).end > at + 2);
        streams.fetched(at + 1);
        assert!(streams.missing(at + 1, 200).end > at + 3, "it goes on behind that");
    }
}
