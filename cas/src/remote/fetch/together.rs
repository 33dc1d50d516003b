//! Many objects that somebody knows to be needed: asked for together, so that what lies side by side comes in one request, and
//! nothing comes that nobody named.
//!
//! Who reads as he goes is guessed ahead of by [`ahead`](super::super::ahead); here there is nothing to guess, and the guesses of others are left alone.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{Fetcher, Flight, Frames, Job, REQUEST_BYTES, Shared, State, Ticket, now};
use crate::{Digest, Error, ObjectKind, record::PackKind, remote::name::RemoteName};

/// An object, and the frame that it is in.
struct Located {
    key: (PackKind, Digest),
    /// Of one frame.
    frames: Frames,
}

impl Fetcher {
    /// Has objects of a kind brought here; gives a ticket for each, in their order. Asks the remote store where they are, if that is not
    /// known yet, and waits for it. Where there are other hosts, those are asked first.
    pub(crate) fn fetch_together(&self, kind: ObjectKind, digests: &[Digest]) -> Vec<Ticket> {
        let shared = &self.shared;
        let (mut tickets, mut located) = (Vec::with_capacity(digests.len()), Vec::new());
        for digest in digests {
            let key = (PackKind::of(kind), *digest);
            let (flight, is_new) = shared.begin_flight(key);
            tickets.push(Ticket(flight));
            if !is_new {
                continue;
            }
            if shared.near.has_hosts() {
                // Which has it they are asked one by one, some at a time.
                shared.enqueue(kind, *digest);
            } else {
                match shared.atlas.locate(kind, *digest) {
                    Ok(Some((layer, place))) => {
                        let range = place.frame..place.frame + 1;
                        located.push(Located { key, frames: Frames { layer, pack: place.pack, range } });
                    }
                    Ok(None) => shared.landed(&[key], &Err(Arc::new(Error::Missing(*digest)))),
                    Err(error) => shared.landed(&[key], &Err(Arc::new(error))),
                }
            }
        }
        shared.want(located);
        tickets
    }
}

impl Shared {
    /// Who waits for an object, and whether he is the first. One that need not be asked for has landed.
    pub(super) fn begin_flight(&self, key: (PackKind, Digest)) -> (Arc<Flight>, bool) {
        let mut state = self.state.lock();
        if let Some(flight) = state.asked.get(&key) {
            return (Arc::clone(flight), false);
        }
        let flight = Arc::new(Flight { begun: now(), state: Mutex::default(), changed: Condvar::new() });
        let refused = if state.is_ending { Some(Arc::new(Error::Cancelled)) } else { state.down() };
        if let Some(error) = refused {
            drop(state);
            flight.land(&Err(error));
            return (flight, false);
        }
        self.counters.fetched();
        state.asked.insert(key, Arc::clone(&flight));
        (flight, true)
    }

    /// Has frames fetched in the order of their packs, several with one request where they lie side by side.
    fn want(&self, mut located: Vec<Located>) {
        let at = |frames: &Frames| (frames.name(), frames.range.start);
        located.sort_by_key(|one| at(&one.frames));
        let mut state = self.state.lock();
        let mut request: Option<Frames> = None;
        for Located { key, frames } in located {
            if state.joins(at(&frames), key) {
                continue;
            }
            match &mut request {
                Some(open) if open.takes(&frames) => open.range.end = frames.range.end,
                _ => state.wanted.extend(request.replace(frames).map(Job::Fetch)),
            }
        }
        state.wanted.extend(request.map(Job::Fetch));
        drop(state);
        self.work.notify_all();
    }
}

impl State {
    /// Enters who waits for a frame. True: it is under way, or about to be, with others.
    pub(super) fn joins(&mut self, frame: (RemoteName, u32), key: (PackKind, Digest)) -> bool {
        let Some(waiting) = self.frames.get_mut(&frame) else {
            self.frames.insert(frame, vec![key]);
            return false;
        };
        waiting.push(key);
        // As of any other that somebody waits for by now: it is no longer behind what nobody does.
        let queued = |ahead: &Frames| ahead.name() == frame.0 && ahead.range.contains(&frame.1);
        if let Some(nth) = self.ahead.iter().position(queued) {
            self.wanted.extend(self.ahead.remove(nth).map(Job::Fetch));
        }
        true
    }
}

impl Frames {
    /// Whether one request may be for these and `next`.
    fn takes(&self, next: &Frames) -> bool {
        self.name() == next.name()
            && self.range.end == next.range.start
            && self.layer.stored_bytes(self.pack, self.range.start..next.range.end) <= REQUEST_BYTES
    }
}
