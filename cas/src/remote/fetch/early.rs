//! What is fetched before somebody waits for it: frames behind those that a reader reads.
//!
//! How much that is [`ahead`](super::super::ahead) decides. That a reader has come to what was fetched early is seen by
//! [marks](super::super::marks): then more is fetched, and a reader as fast as the line waits for nothing.

use std::{ops::Range, sync::Arc, time::Duration};

use super::{AHEAD_MAX, Fetcher, Frames, LAYERS_MAX, Shared, State, is_one_request};
use crate::{
    Digest,
    remote::{
        ahead::Streams,
        layer::{Layer, Place},
    },
};

/// How long what nobody waits for is waited for.
const GOODBYE: Duration = Duration::from_secs(5);

impl Fetcher {
    /// What came until now was brought for who will read it: when he does, nothing is fetched ahead of him because of that. Nothing that nobody waits for is
    /// begun any more, and what is under way is waited for, for a while.
    pub fn forget_readers(&self) {
        let mut state = self.shared.state.lock();
        state.drop_queued();
        let is_busy = |state: &mut State| state.frames.values().any(Vec::is_empty) && !state.is_ending;
        self.shared.room.wait_while_for(&mut state, is_busy, GOODBYE);
        drop(state);
        self.shared.marks.forget();
    }

    /// Somebody has read an object that was here. If it came ahead of its reader, more is fetched.
    pub fn passed(&self, digest: Digest) {
        if let Some((layer, place)) = self.shared.marks.take(digest) {
            self.shared.go_ahead(&mut self.shared.state.lock(), &layer, place);
        }
    }
}

impl Shared {
    /// Has fetched what a reader will need who is at a place.
    pub(super) fn go_ahead(&self, state: &mut State, layer: &Arc<Layer>, place: Place) {
        let count = layer.run(place.pack).1;
        let Range { start, end } = state.streams(layer, place.pack).read(layer.position(place), count);
        let mut went = start;
        'all: for (pack, range) in layer.frames_at(place.pack, start..end) {
            let mut from = range.start;
            while from < range.end {
                if state.ahead.len() >= AHEAD_MAX {
                    break 'all;
                }
                let piece = state.piece(layer, pack, from..range.end);
                from = piece.end + u32::from(piece.is_empty());
                if !piece.is_empty() {
                    state.fetch_ahead(Frames {
                        layer: Arc::clone(layer),
                        pack,
                        range: piece,
                        is_named: false,
                    });
                    self.work.notify_one();
                }
                went = layer.position(Place { pack, frame: from });
            }
        }
        state.streams(layer, place.pack).went(went);
    }
}

impl State {
    /// Who reads what a layer has of the kind of one of its packs.
    pub(super) fn streams(&mut self, layer: &Layer, pack: u32) -> &mut Streams {
        let run = layer.run(pack).0;
        if self.streams.len() == LAYERS_MAX && !self.streams.contains_key(&run) {
            self.streams.clear();
        }
        self.streams.entry(run).or_default()
    }

    /// From the first of these frames on, as many as one request asks for and nobody has asked for.
    fn piece(&mut self, layer: &Layer, pack: u32, range: Range<u32>) -> Range<u32> {
        let name = layer.packs()[pack as usize].name;
        let begin = layer.position(Place { pack, frame: 0 });
        let streams = self.streams.get(&layer.run(pack).0);
        let is_free = |frame: u32| {
            !self.frames.contains_key(&(name, frame))
                && streams.is_none_or(|streams| !streams.has(begin + frame))
        };
        let start = range.start;
        let fits = |frame: u32| frame == start || is_one_request(layer, pack, start..frame + 1);
        let count = range.take_while(|frame| is_free(*frame) && fits(*frame)).count() as u32;
        start..start + count
    }

    /// Empties the queue of what nobody waits for; where somebody does by now, who named it with others, it stays.
    fn drop_queued(&mut self) {
        let State { ahead, frames, .. } = self;
        ahead.retain(|queued| {
            let places = queued.range.clone().map(|frame| (queued.name(), frame));
            let is_needed = places.clone().any(|place| frames.get(&place).is_some_and(|who| !who.is_empty()));
            if !is_needed {
                places.for_each(|place| drop(frames.remove(&place)));
            }
            is_needed
        });
    }

    /// Puts frames into the queue that nobody waits for.
    fn fetch_ahead(&mut self, frames: Frames) {
        let name = frames.name();
        self.frames.extend(frames.range.clone().map(|frame| ((name, frame), Vec::new())));
        let position = |frame| frames.layer.position(Place { pack: frames.pack, frame });
        let positions = position(frames.range.start)..position(frames.range.end);
        self.streams(&frames.layer, frames.pack).fetched(positions);
        self.ahead.push_back(frames);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ObjectKind,
        record::PackKind,
        remote::{name::RemoteName, pack::Builder},
    };

    /// A fetch that ends drops what was guessed, and another one may have named some of that meanwhile: it waited for a minute, and failed.
    #[test]
    fn what_somebody_waits_for_stays_in_the_queue() {
        let mut builder = Builder::new(PackKind::Data).unwrap();
        let digests: Vec<_> = (0..4_u8)
            .map(|nth| {
                let bytes = vec![nth; 300_000];
                let digest = Digest::of(&bytes);
                builder.add(ObjectKind::Chunk, digest, &bytes).unwrap();
                digest
            })
            .collect();
        let layer = Arc::new(Layer::of_pack(RemoteName([1; 16]), &builder.finish().unwrap()));
        let frames = |range| Frames { layer: Arc::clone(&layer), pack: 0, range, is_named: false };
        let mut state = State::default();
        state.fetch_ahead(frames(0..2));
        state.fetch_ahead(frames(2..4));
        let key = (PackKind::Data, digests[3]);
        assert!(state.joins((RemoteName([1; 16]), 3), key), "it is in the queue");
        state.drop_queued();
        assert_eq!((state.ahead.len(), &state.ahead[0].range), (1, &(2..4)));
        assert_eq!(state.frames.len(), 2);
        assert_eq!(state.frames[&(RemoteName([1; 16]), 3)], [key]);
    }
}
