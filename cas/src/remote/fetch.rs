//! Brings objects here that the remote store has, each once, whoever asks.
//!
//! Who needs an object that is not here gets a [`Ticket`] and goes on with something else, or waits. A few threads find out which frame
//! it is in, fetch that, with those that `ahead` says, and check every object in it against its digest. Of a frame that is
//! under way nobody asks again. A failure is told to those who asked for what failed, and to nobody else; the next one who asks tries
//! again.
//!
//! Owns its threads, the frames under way and the queue. Knows nothing of where objects go: that is the [`Landing`]'s business.

mod early;
mod together;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{
    Failure, Remote,
    ahead::Streams,
    counters::Counters,
    is_unreachable,
    known::Atlas,
    layer::{FrameName, Layer, Place},
    marks::Marks,
    name::RemoteName,
    near::{Arrivals, Near, Sought},
    pack::{Frame, Unpacker},
    peer::Name,
};
use crate::{Digest, Error, ObjectKind, Result, record::PackKind};

/// Requests at a time.
const THREADS: usize = 16;
/// Bytes of a pack that one request asks for, if it is for more than a frame.
const REQUEST_BYTES: u64 = 1 << 20;
/// And frames: one thread unpacks them, and of what compresses well a megabyte is all that is ahead of a reader.
const REQUEST_FRAMES: usize = 24;
/// Bytes of packs that are on their way, or wait for a thread, because somebody named many objects: beyond that he waits. A line of 2.2 Mbit/s has them in a
/// minute.
const NAMED_BYTES_MAX: u64 = 16 << 20;
/// Requests that wait for a thread, beyond which nothing is fetched that nobody has asked for.
const AHEAD_MAX: usize = 64;

/// Layers of which the readers are remembered: of more, they begin anew.
const LAYERS_MAX: usize = 4096;

/// When the remote store could not be reached, whoever comes within this time is told so at once: tries take long, and who needs a hundred
/// objects one after the other would wait a hundred times.
const DOWN: Duration = Duration::from_secs(2);
/// Nobody waits longer than this for an object, and as long as a look at those who wait takes to come.
const WAIT: Duration = Duration::from_secs(60);
const WATCH: Duration = Duration::from_secs(1);

/// Where fetched objects go.
pub trait Landing: Send + Sync + fmt::Debug + 'static {
    /// Takes an object, which is what it is called. When it returns, whoever asks for the object finds it. May wait, if there is no
    /// room.
    fn land(&self, kind: ObjectKind, digest: Digest, bytes: &[u8]) -> Result<()>;
    /// Takes a frame of chunks that was unpacked, as it is at this offset of its pack, and what is in it. The same otherwise.
    fn land_frame(&self, name: FrameName, offset: u64, stored: &[u8], frame: Frame) -> Result<()>;
    /// Whether the object is here already.
    fn has(&self, kind: ObjectKind, digest: Digest) -> bool;
    /// Whether all that is in a frame is here, because the frame is.
    fn has_frame(&self, name: FrameName) -> bool;
    /// Memory of a frame that is gone, for one that comes, if there is any.
    fn memory(&self) -> Vec<u8>;
}

/// Fetches; ends its threads when it is dropped.
#[derive(Debug)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    atlas: Arc<Atlas>,
    remote: Arc<dyn Remote>,
    /// Asked first.
    near: Arc<Near>,
    /// Gone at the end: what comes then goes nowhere.
    landing: Weak<dyn Landing>,
    counters: Arc<Counters>,
    marks: Marks,
    /// Nothing is locked inside it, and nothing waits under it.
    state: Mutex<State>,
    work: Condvar,
    /// Of those who wait for the end; a thread that waits for work is not woken in vain.
    ended: Condvar,
    /// There is room for more that was named.
    room: Condvar,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetcher of {:?}", self.remote)
    }
}

#[derive(Default)]
struct State {
    /// Somebody waits for these.
    wanted: VecDeque<Job>,
    /// Somebody named these, with many others, and nobody waits for them alone.
    named: VecDeque<Frames>,
    /// Bytes of those, and of those of them that are under way.
    named_bytes: u64,
    /// Nobody does yet.
    ahead: VecDeque<Frames>,
    /// Objects that were asked for, until they are here.
    asked: HashMap<(PackKind, Digest), Arc<Flight>>,
    /// Frames under way, and who waits for something in each.
    frames: HashMap<(RemoteName, u32), Vec<(PackKind, Digest)>>,
    /// Who reads what of each kind a layer has, by its first pack.
    streams: HashMap<RemoteName, Streams>,
    /// The remote store could not be reached, after many tries: what it said, and when that was.
    down: Option<(Instant, Arc<Error>)>,
    is_ending: bool,
}

impl State {
    /// Why nobody need ask just now.
    fn down(&self) -> Option<Arc<Error>> {
        let (since, error) = self.down.as_ref()?;
        (now().duration_since(*since) < DOWN).then(|| Arc::clone(error))
    }
}

enum Job {
    Locate(ObjectKind, Digest),
    Fetch(Frames),
}

#[derive(Clone)]
struct Frames {
    layer: Arc<Layer>,
    pack: u32,
    range: Range<u32>,
    /// It was named with many others.
    is_named: bool,
}

impl Frames {
    fn name(&self) -> RemoteName {
        self.layer.packs()[self.pack as usize].name
    }
}

/// What became of an object that was asked for.
pub type Outcome = Result<(), Arc<Error>>;

/// An object on its way.
struct Flight {
    state: Mutex<Landed>,
    changed: Condvar,
}

#[derive(Default)]
struct Landed {
    /// When somebody began to wait, or it came to its turn.
    begun: Option<Instant>,
    outcome: Option<Outcome>,
    waiting: Vec<Box<dyn FnOnce(Outcome) + Send>>,
}

/// For who asked for an object.
#[derive(Clone)]
pub struct Ticket(Arc<Flight>);

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

impl Ticket {
    /// Waits until the object is here. Errors: `Missing`, and what the remote store says.
    pub fn wait(&self) -> Outcome {
        let mut state = self.0.state.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            self.0.changed.wait(&mut state);
        }
    }

    /// Has `then` called when it is known whether the object is here: on the thread that found out, so it must not wait for anything.
    pub fn then(&self, then: impl FnOnce(Outcome) + Send + 'static) {
        let mut state = self.0.state.lock();
        let outcome = match &state.outcome {
            None => return state.waiting.push(Box::new(then)),
            Some(outcome) => outcome.clone(),
        };
        drop(state);
        then(outcome);
    }
}

impl Flight {
    fn land(&self, outcome: &Outcome) {
        let mut state = self.state.lock();
        state.outcome = Some(outcome.clone());
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        for then in waiting {
            // The others are told all the same; the panic was in the log.
            let _ = catch_unwind(AssertUnwindSafe(|| then(outcome.clone())));
        }
    }
}

impl Fetcher {
    /// Starts its threads. Error: the system has none, or no memory.
    pub(crate) fn start(
        atlas: Arc<Atlas>,
        remote: Arc<dyn Remote>,
        near: Arc<Near>,
        landing: Weak<dyn Landing>,
        counters: Arc<Counters>,
    ) -> Result<Fetcher> {
        let (marks, state) = (Marks::default(), Mutex::default());
        let (work, ended, room) = (Condvar::new(), Condvar::new(), Condvar::new());
        let shared = Shared { atlas, remote, near, landing, counters, marks, state, work, ended, room };
        let fetcher = Fetcher { shared: Arc::new(shared) };
        let spawn = |name: &str, work: Box<dyn FnOnce(&Shared) + Send>| {
            let shared = Arc::clone(&fetcher.shared);
            let thread = thread::Builder::new().name(name.into()).spawn(move || work(&shared));
            thread.map(drop).map_err(Error::io("a thread for fetching"))
        };
        for _ in 0..THREADS {
            let mut unpacker = Unpacker::new()?;
            spawn("fetch", Box::new(move |shared| shared.run(&mut unpacker)))?;
        }
        spawn("fetch-watch", Box::new(Shared::watch))?;
        Ok(fetcher)
    }

    /// Has an object brought here.
    pub fn fetch(&self, kind: ObjectKind, digest: Digest) -> Ticket {
        let (flight, is_new) = self.shared.begin_flight((PackKind::of(kind), digest), Some(now()));
        if is_new {
            self.shared.enqueue(kind, digest);
        }
        Ticket(flight)
    }

    /// Nothing is fetched from here on, and whoever waits is told so.
    pub fn end(&self) {
        let mut state = self.shared.state.lock();
        state.is_ending = true;
        let asked = std::mem::take(&mut state.asked);
        drop(state);
        self.shared.work.notify_all();
        self.shared.ended.notify_all();
        self.shared.room.notify_all();
        asked.into_values().for_each(|flight| flight.land(&Err(Arc::new(Error::Cancelled))));
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether one request may ask for these frames of a pack.
fn is_one_request(layer: &Layer, pack: u32, frames: Range<u32>) -> bool {
    frames.len() <= REQUEST_FRAMES && layer.stored_bytes(pack, frames) <= REQUEST_BYTES
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long requests take, and how long nobody asks: it decides nothing that is kept"
)]
fn now() -> Instant {
    Instant::now()
}

/// A panic, of which the log says more.
fn mistake() -> Error {
    Error::Malformed { what: "frame", reason: "or a mistake of ours: see the log" }
}

impl Shared {
    fn run(&self, unpacker: &mut Unpacker) {
        while let Some((job, down)) = self.next() {
            // Whoever waits for it is told, whatever happens.
            let work = AssertUnwindSafe(|| match (&job, down) {
                (Job::Locate(kind, digest), down) => self.locate(*kind, *digest, down, unpacker),
                (Job::Fetch(frames), Some(error)) => self.give_up(frames, &error),
                (Job::Fetch(frames), None) => self.fetch(frames, unpacker),
            });
            if catch_unwind(work).is_err()
                && let Job::Locate(kind, digest) = &job
            {
                self.landed(&[(PackKind::of(*kind), *digest)], &Err(Arc::new(Error::Missing(*digest))));
            }
            if let Job::Fetch(frames) = &job {
                self.make_room(frames);
            }
        }
    }

    /// The next job, and why it is in vain, if it is.
    fn next(&self) -> Option<(Job, Option<Arc<Error>>)> {
        let mut state = self.state.lock();
        loop {
            if state.is_ending {
                return None;
            }
            let job = state.wanted.pop_front();
            let job = job.or_else(|| state.named.pop_front().map(Job::Fetch));
            let job = job.or_else(|| state.ahead.pop_front().map(Job::Fetch));
            if let Some(job) = job {
                return Some((job, state.down()));
            }
            self.work.wait(&mut state);
        }
    }

    /// Tells those who have waited for too long. A folder that hangs may answer hours later, or never.
    fn watch(&self) {
        let mut state = self.state.lock();
        while !state.is_ending {
            let now = now();
            let is_late = |flight: &Flight| {
                flight.state.lock().begun.is_some_and(|begun| now.duration_since(begun) > WAIT)
            };
            let mut late: HashSet<_> =
                state.asked.iter().filter(|(_, flight)| is_late(flight)).map(|(key, _)| *key).collect();
            // A request that hangs keeps its thread, and nobody else: its frames may be asked for again, and who came later hears of it now.
            let hung = state.frames.extract_if(|_, waiting| waiting.iter().any(|key| late.contains(key)));
            let waiting: Vec<_> = hung.flat_map(|(_, waiting)| waiting).collect();
            late.extend(waiting);
            let late: Vec<_> = late.iter().filter_map(|key| state.asked.remove(key)).collect();
            if !late.is_empty() {
                drop(state);
                let reason = format!("no answer within {} s", WAIT.as_secs());
                let failure = Failure::Unreachable { object: format!("{:?}", self.remote), reason };
                let error = Arc::new(Error::from(failure));
                tracing::warn!(objects = late.len(), %error, "cannot be fetched");
                late.iter().for_each(|flight| flight.land(&Err(Arc::clone(&error))));
                state = self.state.lock();
            }
            self.ended.wait_for(&mut state, WATCH);
        }
    }

    /// Has an object looked for by one of the threads.
    fn enqueue(&self, kind: ObjectKind, digest: Digest) {
        self.state.lock().wanted.push_back(Job::Locate(kind, digest));
        self.work.notify_one();
    }

    /// Finds out where an object is, and has its frame fetched, unless the remote store is `down`.
    fn locate(&self, kind: ObjectKind, digest: Digest, down: Option<Arc<Error>>, unpacker: &mut Unpacker) {
        let key = (PackKind::of(kind), digest);
        // It may have come with others meanwhile.
        if self.landing.upgrade().is_some_and(|landing| landing.has(kind, digest)) {
            return self.landed(&[key], &Ok(()));
        }
        let Sought::Missed(missed) = self.near.seek((kind, digest), self) else { return };
        if let Some(error) = down {
            return self.tell(&[key], &Err(error));
        }
        match self.atlas.locate(kind, digest) {
            Ok(Some((layer, place))) => {
                if let Some(first) = self.begin(key, layer, place) {
                    self.fetch(&first, unpacker);
                }
            }
            // A host that cannot be reached says nothing of the remote store.
            Ok(None) => self.tell(&[key], &Err(Arc::new(missed.unwrap_or(Error::Missing(digest))))),
            Err(error) => self.landed(&[key], &Err(Arc::new(error))),
        }
    }

    /// Enters who waits for a frame. Returns what to fetch now, unless the frame is under way; what comes with it is for others.
    fn begin(&self, key: (PackKind, Digest), layer: Arc<Layer>, place: Place) -> Option<Frames> {
        let Place { pack, frame } = place;
        let first = Frames { layer, pack, range: frame..frame + 1, is_named: false };
        let name = first.name();
        let mut state = self.state.lock();
        let is_new = !state.joins((name, frame), key);
        // Now somebody waits for it: it is no longer behind what nobody does.
        state.hurry((name, frame));
        if is_new {
            let position = first.layer.position(place);
            let streams = state.streams(&first.layer, pack);
            streams.missed(position);
            streams.fetched(position..position + 1);
        }
        self.go_ahead(&mut state, &first.layer, place);
        is_new.then_some(first)
    }

    /// Fetches those of some frames that are not here, and tells those who wait for what is in them.
    fn fetch(&self, frames: &Frames, unpacker: &mut Unpacker) {
        let Some(landing) = self.landing.upgrade() else {
            return self.give_up(frames, &Arc::new(Error::Cancelled));
        };
        // Nobody waits for what is here, but somebody may have asked for it before it was.
        let is_here = |frame: &u32| landing.has_frame((frames.name(), *frame));
        let mut rest = frames.range.clone();
        while let Some(first) = rest.next() {
            let here = is_here(&first);
            let count = 1 + rest.clone().take_while(|frame| is_here(frame) == here).count() as u32;
            rest.start = first + count;
            let piece = Frames { range: first..rest.start, ..frames.clone() };
            match here {
                true => piece.range.clone().for_each(|frame| self.done(&piece, frame, &Ok(()))),
                false => self.bring(&*landing, &piece, unpacker),
            }
        }
    }

    /// Fetches frames by one request.
    fn bring(&self, landing: &dyn Landing, frames: &Frames, unpacker: &mut Unpacker) {
        let range = frames.layer.range(frames.pack, frames.range.clone());
        let object = frames.name().pack();
        let begun = now();
        let fetched = catch_unwind(AssertUnwindSafe(|| self.remote.read(&object, range.clone())));
        let took = now().duration_since(begun);
        let fetched = match fetched {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(failure)) => Err(Arc::new(Error::from(failure))),
            Err(_) => Err(Arc::new(mistake())),
        };
        self.counters.request(took, fetched.as_ref().ok().map(|bytes| bytes.len() as u64));
        let bytes = match fetched {
            Ok(bytes) => bytes,
            Err(error) => return self.give_up(frames, &error),
        };
        for frame in frames.range.clone() {
            let Range { start, end } = frames.layer.range(frames.pack, frame..frame + 1);
            let stored = &bytes[(start - range.start) as usize..(end - range.start) as usize];
            let work = AssertUnwindSafe(|| self.unpack(landing, frames, frame, stored, unpacker));
            let unpacked = catch_unwind(work).unwrap_or_else(|_| Err(mistake()));
            self.done(frames, frame, &unpacked.map_err(Arc::new));
        }
    }

    /// What becomes of frames that do not come.
    fn give_up(&self, frames: &Frames, error: &Arc<Error>) {
        frames.range.clone().for_each(|frame| self.done(frames, frame, &Err(Arc::clone(error))));
    }

    /// A frame is here, or will not come.
    fn done(&self, frames: &Frames, frame: u32, outcome: &Outcome) {
        let waiting = self.state.lock().frames.remove(&(frames.name(), frame)).unwrap_or_default();
        // Of what nobody waits for nobody needs to hear.
        if let Err(error) = outcome
            && !waiting.is_empty()
        {
            let object = self.remote.display(&frames.name().pack());
            tracing::warn!(object, frame, waiting = waiting.len(), %error, "cannot be fetched");
        }
        self.landed(&waiting, outcome);
    }

    fn unpack(
        &self,
        landing: &dyn Landing,
        frames: &Frames,
        frame: u32,
        stored: &[u8],
        unpacker: &mut Unpacker,
    ) -> Result<()> {
        let (layer, place) = (&frames.layer, Place { pack: frames.pack, frame });
        let kind = layer.packs()[place.pack as usize].kind;
        let unpacked = unpacker.unpack(kind, layer.lens(place), stored, landing.memory())?;
        let is_ahead = || {
            let state = self.state.lock();
            state.frames.get(&(frames.name(), frame)).is_some_and(Vec::is_empty)
        };
        if let Some(first) = unpacked.objects.first()
            && is_ahead()
        {
            self.marks.put(first.digest, layer, place);
        }
        match kind {
            PackKind::Data => {
                let offset = layer.range(place.pack, frame..frame + 1).start;
                landing.land_frame(layer.frame_name(place), offset, stored, unpacked)
            }
            PackKind::Meta => unpacked.objects.iter().try_for_each(|object| {
                landing.land(object.kind, object.digest, &unpacked.bytes[object.range.clone()])
            }),
        }
    }

    fn landed(&self, keys: &[(PackKind, Digest)], outcome: &Outcome) {
        if let Err(error) = outcome
            && is_unreachable(error)
        {
            self.state.lock().down = Some((now(), Arc::clone(error)));
        }
        self.tell(keys, outcome);
    }

    /// Tells those who wait for these.
    fn tell(&self, keys: &[(PackKind, Digest)], outcome: &Outcome) {
        for key in keys {
            let flight = self.state.lock().asked.remove(key);
            if let Some(flight) = flight {
                flight.land(outcome);
            }
        }
    }
}

impl Arrivals for Shared {
    fn land(&self, (kind, digest): Name, bytes: &[u8]) -> Result<()> {
        self.landing.upgrade().ok_or(Error::Cancelled)?.land(kind, digest, bytes)
    }

    fn tell(&self, (kind, digest): Name) {
        Shared::tell(self, &[(PackKind::of(kind), digest)], &Ok(()));
    }

    fn again(&self, (kind, digest): Name) {
        self.enqueue(kind, digest);
    }
}
