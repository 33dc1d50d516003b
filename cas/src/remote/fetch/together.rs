//! Many objects that somebody knows to be needed: asked for together, so that what lies side by side comes in one request, and
//! nothing comes that nobody named.
//!
//! Who reads as he goes is guessed ahead of by [`ahead`](super::super::ahead); here there is nothing to guess, and the guesses of others are left alone.

use std::{collections::hash_map::Entry, sync::Arc, time::Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{
    Fetcher, Flight, Frames, Job, Landed, NAMED_BYTES_MAX, Shared, State, Ticket, WAIT, is_one_request, now,
};
use crate::{
    Digest, Error, ObjectKind,
    record::PackKind,
    remote::{layer::Place, name::RemoteName},
};

/// Objects whose frames are asked for at once, before it is looked again whether there is room.
const TURN: usize = 128;

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
        if shared.near.has_hosts() {
            return self.fetch_each(kind, digests);
        }
        let (mut tickets, mut located) = (Vec::with_capacity(digests.len()), Vec::new());
        for digest in digests {
            let key = (PackKind::of(kind), *digest);
            let (flight, is_new) = shared.begin_flight(key, None);
            tickets.push(Ticket(flight));
            if !is_new {
                continue;
            }
            match shared.atlas.locate(kind, *digest) {
                Ok(Some((layer, Place { pack, frame }))) => {
                    let frames = Frames { layer, pack, range: frame..frame + 1, is_named: true };
                    located.push(Located { key, frames });
                }
                Ok(None) => shared.landed(&[key], &Err(Arc::new(Error::Missing(*digest)))),
                Err(error) => shared.landed(&[key], &Err(Arc::new(error))),
            }
        }
        shared.want(located);
        tickets
    }

    /// The same where there are other hosts: which of them has an object is asked one by one, of some at a time.
    fn fetch_each(&self, kind: ObjectKind, digests: &[Digest]) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> = Vec::with_capacity(digests.len());
        for digest in digests {
            if let Some(before) = tickets.len().checked_sub(TURN) {
                // What became of it is told to who asked.
                let _ = tickets[before].wait();
            }
            tickets.push(self.fetch(kind, *digest));
        }
        tickets
    }
}

impl Shared {
    /// Who waits for an object, and whether it is to be looked for: nobody waits for it yet, or nobody did from some time on, as who comes now does. One that need not
    /// be asked for has landed.
    pub(super) fn begin_flight(
        &self,
        key: (PackKind, Digest),
        begun: Option<Instant>,
    ) -> (Arc<Flight>, bool) {
        let mut state = self.state.lock();
        if let Some(flight) = state.asked.get(&key) {
            let is_first = begun.is_some_and(|begun| flight.begins(begun));
            return (Arc::clone(flight), is_first);
        }
        let landed = Landed { begun, ..Landed::default() };
        let flight = Arc::new(Flight { state: Mutex::new(landed), changed: Condvar::new() });
        let refused = match state.is_ending {
            true => Some(Arc::new(Error::Cancelled)),
            // Other hosts may have it all the same.
            false if self.near.has_hosts() => None,
            false => state.down(),
        };
        if let Some(error) = refused {
            drop(state);
            flight.land(&Err(error));
            return (flight, false);
        }
        self.counters.fetched();
        state.asked.insert(key, Arc::clone(&flight));
        (flight, true)
    }

    /// Has frames fetched in the order of their packs, several with one request where they lie side by side. Waits while enough of what was named is on its way.
    fn want(&self, mut located: Vec<Located>) {
        located.sort_by_key(|one| one.frames.at());
        for turn in located.chunks(TURN) {
            let mut state = self.with_room();
            let mut request: Option<Frames> = None;
            for Located { key, frames } in turn {
                if !state.begin_wait(*key) || state.joins(frames.at(), *key) {
                    continue;
                }
                match &mut request {
                    Some(open) if open.takes(frames) => open.range.end = frames.range.end,
                    _ => state.name(request.replace(frames.clone())),
                }
            }
            state.name(request);
            drop(state);
            self.work.notify_all();
        }
    }

    /// The state, when there is room for more that is named, or none for longer than anybody waits.
    fn with_room(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let is_full = |state: &mut State| state.named_bytes >= NAMED_BYTES_MAX && !state.is_ending;
        self.room.wait_while_for(&mut state, is_full, WAIT);
        state
    }

    /// Frames were fetched, or cannot be.
    pub(super) fn make_room(&self, frames: &Frames) {
        if frames.is_named {
            self.state.lock().named_bytes -= frames.bytes();
        }
        self.room.notify_all();
    }
}

impl State {
    /// Enters who waits for a frame. True: it is under way, or about to be, with others.
    pub(super) fn joins(&mut self, frame: (RemoteName, u32), key: (PackKind, Digest)) -> bool {
        match self.frames.entry(frame) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push(key);
                true
            }
            Entry::Vacant(place) => {
                place.insert(vec![key]);
                false
            }
        }
    }

    /// Somebody waits for a frame alone: if it is about to be fetched, that is next.
    pub(super) fn hurry(&mut self, frame: (RemoteName, u32)) {
        let State { wanted, named, ahead, .. } = self;
        let is_it = |queued: &Frames| queued.name() == frame.0 && queued.range.contains(&frame.1);
        for queue in [named, ahead] {
            let queued = queue.iter().position(is_it).and_then(|nth| queue.remove(nth));
            wanted.extend(queued.map(Job::Fetch));
        }
    }

    /// Puts frames into the queue of what was named, if there are any.
    fn name(&mut self, frames: Option<Frames>) {
        if let Some(frames) = frames {
            self.named_bytes += frames.bytes();
            self.named.push_back(frames);
        }
    }

    /// From now on an object is waited for. False: it has come.
    fn begin_wait(&self, key: (PackKind, Digest)) -> bool {
        let flight = self.asked.get(&key);
        flight.inspect(|flight| _ = flight.begins(now())).is_some()
    }
}

impl Flight {
    /// Somebody waits for it from now on. False: somebody did.
    fn begins(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let is_first = state.begun.is_none();
        state.begun.get_or_insert(now);
        is_first
    }
}

impl Frames {
    /// By what the first of them is known.
    fn at(&self) -> (RemoteName, u32) {
        (self.name(), self.range.start)
    }

    fn bytes(&self) -> u64 {
        self.layer.stored_bytes(self.pack, self.range.clone())
    }

    /// Whether one request may be for these and `next`.
    fn takes(&self, next: &Frames) -> bool {
        self.name() == next.name()
            && self.range.end == next.range.start
            && is_one_request(&self.layer, self.pack, self.range.start..next.range.end)
    }
}
