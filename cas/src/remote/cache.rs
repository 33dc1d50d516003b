//! Objects of the remote store that are here: in memory those that have just come, on disk those that came before.
//!
//! The disk's part is apart from the store, so that what can be fetched again is never mixed with what cannot. Chunks come a frame at a time, and stay
//! as they came (`mirror.rs`): to write a scan down costs a fifth of its bytes, and nothing is done with them; who reads there later unpacks a frame, which
//! is in memory then for who reads what is beside it. What is no chunk, or came from another host, is in a store of its own. Both together are bounded; what
//! was read longest ago goes first, a pack at a time. Whatever goes wrong costs a fetch: what is damaged or gone counts as not here.

mod below;
mod mirror;
mod recent;

use std::{
    collections::HashSet,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use below::{Below, empty};
use mirror::{Mirror, Stored};
use parking_lot::{Condvar, Mutex};
use recent::{Arrived, Found, Pending, Recent};

use super::{
    fetch::Landing,
    known::Atlas,
    layer::{FrameName, Layer, Place},
    pack::{Frame, Unpacked, Unpacker},
    peer::Named,
};
use crate::{
    Digest, Error, Object, ObjectKind, Result, Store,
    disk::{Disk, Patience, Space},
    record::PackKind,
    store::Options,
};

/// What has come and is not on disk yet, and what was unpacked: beyond that who fetches waits, and if the disk takes no more the oldest go. More than is fetched
/// ahead of a reader, or he would find that it has gone again.
const RECENT_BYTES_MAX: usize = 96 << 20;
/// What is written together, with a sync; of a small cache a quarter. Until it is written, what was unpacked of it stays in memory, which is five times as much.
const BATCH_BYTES: u64 = 2 << 20;
/// How long it is waited for more to write together, unless somebody waits for room or for the disk.
const LINGER: Duration = Duration::from_millis(200);
/// Objects of directories that the disk's part keeps in memory: few, because who asks for them keeps them, too.
const OBJECT_CACHE_BYTES: usize = 1 << 20;
/// How often somebody looks whether the disk is getting full, or takes anything again.
const PAUSE: Duration = Duration::from_secs(5);
/// Of the disk's bytes this part, or so many if that is less, stays free of copies: for the log, and for changes.
const RESERVE_PART: u64 = 20;
const RESERVE_BYTES_MAX: u64 = 8 << 30;
/// Bytes of a pack of objects: they go as wholes. Of a small cache an eighth.
const PACK_BYTES: u64 = 32 << 20;
/// Unpackers that are kept for the next frame: each has some 150 KiB.
const UNPACKERS_MAX: usize = 4;

/// See the module. Ends its thread when it is dropped.
#[derive(Debug)]
pub struct Kept {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Knows which frame a chunk is in.
    atlas: Arc<Atlas>,
    /// Objects by themselves.
    store: Store,
    mirror: Mirror,
    bytes_max: u64,
    /// Nothing is locked inside it.
    state: Mutex<State>,
    /// There is something to write, or enough of it, or it is the end.
    work: Condvar,
    /// Something was written, or cannot be.
    changed: Condvar,
    /// A frame is unpacked, or is none.
    unpacked: Condvar,
    /// Those that nobody has just now. Nothing is locked inside it.
    unpackers: Mutex<Vec<Unpacker>>,
}

#[derive(Default)]
struct State {
    recent: Recent,
    /// The disk takes nothing for now.
    is_refused: bool,
    /// How many wait until something is written.
    waiting: u32,
    /// Frames that somebody unpacks just now.
    unpacking: HashSet<FrameName>,
    is_ending: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache of {} bytes", self.bytes_max)
    }
}

impl Kept {
    /// Opens the cache in the folder `cache` of a disk, or makes an empty one. If what is there cannot be used, it goes. Errors: the
    /// disk's, and that the system has no thread.
    pub(crate) fn open(disk: &Arc<dyn Disk>, atlas: Arc<Atlas>, bytes_max: u64) -> Result<Kept> {
        let below: Arc<dyn Disk> = Arc::new(Below(Arc::clone(disk)));
        let options = Options {
            pack_bytes_max: PACK_BYTES.min(bytes_max / 8),
            object_cache_bytes: OBJECT_CACHE_BYTES,
            ..Options::default()
        };
        let open = || Ok((Store::open_with(Arc::clone(&below), options)?, Mirror::open(Arc::clone(&below))?));
        let (store, mirror) = match open() {
            Ok(opened) => opened,
            Err(error) => {
                let error: Error = error;
                tracing::warn!(%error, "the cache of the remote store is of no use; it begins anew");
                empty(&below)?;
                open()?
            }
        };
        let (work, changed, unpacked) = (Condvar::new(), Condvar::new(), Condvar::new());
        let (state, unpackers) = (Mutex::default(), Mutex::default());
        let shared = Shared { atlas, store, mirror, bytes_max, state, work, changed, unpacked, unpackers };
        let shared = Arc::new(shared);
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new().name("cache".into()).spawn(move || own.run());
        let thread = Some(thread.map_err(Error::io("a thread for the cache"))?);
        Ok(Kept { shared, thread })
    }

    /// Where fetched objects go, as long as this is there.
    pub fn landing(&self) -> Weak<dyn Landing> {
        let landing: Weak<Shared> = Arc::downgrade(&self.shared);
        landing
    }

    /// An object, if it is here.
    pub fn object(&self, kind: ObjectKind, digest: Digest) -> Option<Object> {
        if let Some(found) = self.shared.recent(digest) {
            return Some(found.object());
        }
        match self.shared.store.object(kind, digest) {
            Ok(object) => Some(object),
            Err(error) => {
                self.shared.disown(digest, &error);
                self.shared.unpacked(kind, digest).map(Found::object)
            }
        }
    }

    /// Reads part of a chunk, if it is here: see [`Store::read_chunk`]. Error: `NotNow`, for who does not wait; and `Malformed`.
    pub(crate) fn read_chunk(
        &self,
        patience: Patience,
        digest: Digest,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<bool> {
        let fill = |found: &Found, buf: &mut [u8]| {
            let part = found.bytes().get(offset as usize..).and_then(|rest| rest.get(..buf.len()));
            let too_short = Error::Malformed { what: "chunk", reason: "shorter than what refers to it says" };
            buf.copy_from_slice(part.ok_or(too_short)?);
            Ok(true)
        };
        if let Some(found) = self.shared.recent(digest) {
            return fill(&found, buf);
        }
        match self.shared.store.read_chunk_with(patience, digest, offset, buf) {
            Ok(()) => return Ok(true),
            Err(error @ (Error::NotNow | Error::Malformed { .. })) => return Err(error),
            Err(error) => self.shared.disown(digest, &error),
        }
        if patience == Patience::Now && self.shared.may_be_on_disk(digest) {
            return Err(Error::NotNow);
        }
        self.shared.unpacked(ObjectKind::Chunk, digest).map_or(Ok(false), |found| fill(&found, buf))
    }

    /// Whether an object is here.
    pub fn has(&self, kind: ObjectKind, digest: Digest) -> bool {
        self.shared.has(kind, digest)
    }

    /// Bytes of an object, if it is here.
    pub fn object_len(&self, kind: ObjectKind, digest: Digest) -> Option<u32> {
        let len = |found: Found| found.bytes().len() as u32;
        let recent = self.shared.recent(digest).map(len);
        recent
            .or_else(|| self.shared.store.object_len(digest).ok().flatten())
            .or_else(|| self.shared.unpacked(kind, digest).map(len))
    }

    /// What came behind an object: see [`Store::following`].
    pub fn following(&self, digest: Digest, count_max: usize) -> Result<Vec<Named>> {
        let alone = self.shared.store.following(digest, count_max)?;
        Ok(if alone.is_empty() { self.shared.behind(digest, count_max) } else { alone })
    }

    /// Bytes on disk, and how many may be.
    pub fn bytes(&self) -> Result<(u64, u64)> {
        Ok((self.shared.stored_bytes()?, self.shared.bytes_max))
    }

    /// Waits until all that has come is on disk, or the disk refused it, or so much time has passed.
    pub fn settle(&self, patience: Duration) {
        let due = now() + patience;
        let mut state = self.shared.state.lock();
        while !state.recent.is_settled() && !state.is_refused {
            state.waiting += 1;
            self.shared.work.notify_one();
            let is_over = self.shared.changed.wait_until(&mut state, due).timed_out();
            state.waiting -= 1;
            if is_over {
                return;
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.shared.state.lock().is_ending = true;
        self.shared.work.notify_one();
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It says by itself what it cannot write.
            let _ = thread.join();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long to wait: it decides nothing that is kept")]
fn now() -> Instant {
    Instant::now()
}

impl Landing for Shared {
    fn land(&self, kind: ObjectKind, digest: Digest, bytes: &[u8]) -> Result<()> {
        if self.has(kind, digest) {
            return Ok(());
        }
        let object = Object::new(bytes.to_vec());
        self.with_room(object.len(), |recent| recent.put(kind, digest, object));
        Ok(())
    }

    fn land_frame(&self, name: FrameName, offset: u64, stored: &[u8], frame: Frame) -> Result<()> {
        let (arrived, stored) = (Arrived::new(name, frame), Arc::from(stored));
        self.with_room(arrived.memory_bytes(), |recent| recent.put_new(&arrived, offset, stored));
        Ok(())
    }

    fn has(&self, kind: ObjectKind, digest: Digest) -> bool {
        let is_here = self.state.lock().recent.has(digest)
            || self.store.object_len(digest).is_ok_and(|len| len.is_some());
        is_here
            || self.place(kind, digest).is_some_and(|(layer, place)| self.has_frame(layer.frame_name(place)))
    }

    fn has_frame(&self, name: FrameName) -> bool {
        self.mirror.has(name) || self.state.lock().recent.frame(name).is_some()
    }

    fn memory(&self) -> Vec<u8> {
        self.state.lock().recent.memory()
    }
}

impl Shared {
    /// Runs `put` when there is room for so many bytes in memory, or it is the end.
    fn with_room(&self, bytes: usize, put: impl FnOnce(&mut Recent)) {
        let mut state = self.state.lock();
        while !state.recent.make_room(bytes, RECENT_BYTES_MAX)
            && !state.recent.is_settled()
            && !state.is_ending
        {
            match state.is_refused {
                true => state.recent.drop_oldest(),
                false => {
                    state.waiting += 1;
                    self.work.notify_one();
                    self.changed.wait(&mut state);
                    state.waiting -= 1;
                }
            }
        }
        let was_settled = state.recent.is_settled();
        put(&mut state.recent);
        let is_due = was_settled || state.recent.pending_bytes() as u64 >= self.batch_bytes();
        drop(state);
        if is_due {
            self.work.notify_one();
        }
    }

    /// An object, if it is in memory.
    fn recent(&self, digest: Digest) -> Option<Found> {
        self.state.lock().recent.get(digest)
    }

    /// Whether a chunk may be in a frame on the disk, for who does not want to wait until that is known.
    fn may_be_on_disk(&self, digest: Digest) -> bool {
        let place = self.atlas.place_in_memory(ObjectKind::Chunk, digest);
        !self.mirror.is_empty() && place.is_none_or(|(layer, place)| self.mirror.has(layer.frame_name(place)))
    }

    /// Which frame a chunk is in, if that is known here.
    fn place(&self, kind: ObjectKind, digest: Digest) -> Option<(Arc<Layer>, Place)> {
        // Nothing else stays in frames.
        if PackKind::of(kind) == PackKind::Data { self.atlas.place_here(kind, digest) } else { None }
    }

    /// A chunk out of its frame, if that is here.
    fn unpacked(&self, kind: ObjectKind, digest: Digest) -> Option<Found> {
        let (layer, place) = self.place(kind, digest)?;
        self.arrived(&layer, place)?.find(digest)
    }

    /// A frame, if it is here. Many who want it at the same time have it unpacked once.
    fn arrived(&self, layer: &Layer, place: Place) -> Option<Arc<Arrived>> {
        let name = layer.frame_name(place);
        let is_on_disk = self.mirror.has(name);
        let mut state = self.state.lock();
        loop {
            if let Some(arrived) = state.recent.frame(name) {
                return Some(Arc::clone(arrived));
            }
            if !is_on_disk {
                return None;
            }
            if state.unpacking.insert(name) {
                break;
            }
            self.unpacked.wait(&mut state);
        }
        drop(state);
        let frame = catch_unwind(AssertUnwindSafe(|| self.read_frame(layer, place))).unwrap_or(None);
        let mut state = self.state.lock();
        state.unpacking.remove(&name);
        let arrived = frame.map(|frame| Arrived::new(name, frame));
        if let Some(arrived) = &arrived
            // Without room it goes as soon as it was read.
            && state.recent.make_room(arrived.memory_bytes(), RECENT_BYTES_MAX)
        {
            state.recent.put_again(arrived);
        }
        drop(state);
        self.unpacked.notify_all();
        arrived
    }

    /// A frame that is on the disk. What is no frame is not here any more.
    fn read_frame(&self, layer: &Layer, place: Place) -> Option<Frame> {
        let name = layer.frame_name(place);
        let range = layer.range(place.pack, place.frame..place.frame + 1);
        let read = self.mirror.read(name, range).and_then(|stored| self.unpack(layer, place, &stored));
        read.inspect_err(|error| {
            // It may have made room meanwhile.
            if self.mirror.has(name) {
                tracing::warn!(%error, "damaged in the cache; it is fetched again");
            }
            if let Err(error) = self.mirror.disown(name) {
                tracing::warn!(%error, "the cache takes nothing");
            }
        })
        .ok()
    }

    fn unpack(&self, layer: &Layer, place: Place, stored: &[u8]) -> Result<Frame> {
        let spare = self.unpackers.lock().pop();
        let mut unpacker = spare.map_or_else(Unpacker::new, Ok)?;
        let memory = self.memory();
        let frame = unpacker.unpack(PackKind::Data, layer.lens(place), stored, memory);
        let mut spare = self.unpackers.lock();
        if spare.len() < UNPACKERS_MAX {
            spare.push(unpacker);
        }
        frame
    }

    /// What is behind a chunk in its frame and in the next ones, as far as they are here.
    fn behind(&self, digest: Digest, count_max: usize) -> Vec<Named> {
        let Some((layer, mut place)) = self.place(ObjectKind::Chunk, digest) else { return Vec::new() };
        let (mut named, mut after) = (Vec::new(), Some(digest));
        while place.frame < layer.frame_count(place.pack) && named.len() < count_max {
            let Some(arrived) = self.arrived(&layer, place) else { break };
            let objects = &arrived.frame.objects;
            let nth = objects.iter().position(|object| Some(object.digest) == after);
            let rest = &objects[nth.map_or(0, |nth| nth + 1)..];
            let name = |object: &Unpacked| Named {
                name: (object.kind, object.digest),
                len: object.range.len() as u32,
            };
            named.extend(rest.iter().map(name).take(count_max - named.len()));
            after = None;
            place.frame += 1;
        }
        named
    }

    /// If what the disk has of an object cannot be read, it counts as not here from now on.
    fn disown(&self, digest: Digest, error: &Error) {
        if matches!(error, Error::Missing(_)) {
            return;
        }
        tracing::warn!(%error, "damaged in the cache; it is fetched again");
        if let Err(error) = self.store.disown(digest) {
            tracing::warn!(%error, "the cache's index takes nothing");
        }
    }

    /// Bytes on disk.
    fn stored_bytes(&self) -> Result<u64> {
        Ok(self.store.packed_bytes()? + self.mirror.bytes())
    }

    /// How much it may take, with so much of it there: less than it was told where the disk would get too full.
    fn bound(&self, cached: u64) -> u64 {
        let Ok(Space { free_bytes, total_bytes }) = self.store.disk().space() else { return self.bytes_max };
        let reserve = (total_bytes / RESERVE_PART).min(RESERVE_BYTES_MAX);
        self.bytes_max.min((cached + free_bytes).saturating_sub(reserve))
    }

    /// Writes what comes, and makes room where others need it.
    fn run(&self) {
        while let Some((batch, end)) = self.batch() {
            let written =
                catch_unwind(AssertUnwindSafe(|| self.write(&batch))).unwrap_or(Err(Error::Cancelled));
            let mut state = self.state.lock();
            if let Err(error) = &written
                && !state.is_refused
            {
                tracing::warn!(%error, "the cache takes nothing: what is fetched is fetched again");
            }
            state.is_refused = written.is_err();
            match batch.is_empty() {
                // Nothing came for a while, and who reads now reads something else.
                true => state.recent.rest(),
                false if written.is_ok() => state.recent.written(end),
                false => {}
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// What to write next, nothing if nothing came for a while; `None` at the end.
    fn batch(&self) -> Option<(Vec<Pending>, u64)> {
        let mut state = self.state.lock();
        // What was refused is tried again after a while, whatever comes meanwhile.
        let due = now() + PAUSE;
        while state.recent.is_settled() || state.is_refused {
            if state.is_ending {
                return None;
            }
            if self.work.wait_until(&mut state, due).timed_out() {
                break;
            }
        }
        let due = now() + LINGER;
        let is_enough = |state: &State| {
            let is_awaited = state.waiting > 0 || state.is_ending || state.is_refused;
            is_awaited || state.recent.pending_bytes() as u64 >= self.batch_bytes()
        };
        while !state.recent.is_settled() && !is_enough(&state) {
            if self.work.wait_until(&mut state, due).timed_out() {
                break;
            }
        }
        Some(state.recent.batch(self.batch_bytes()))
    }

    fn batch_bytes(&self) -> u64 {
        BATCH_BYTES.min(self.bytes_max / 4)
    }

    fn write(&self, batch: &[Pending]) -> Result<()> {
        let bytes: u64 = batch.iter().map(|pending| pending.bytes() as u64).sum();
        let bound = self.bound(self.stored_bytes()?);
        self.evict(bound.saturating_sub(bytes))?;
        if batch.is_empty() {
            return Ok(());
        }
        if bound < bytes {
            return Err(Error::io(self.store.disk().display(""))(io::ErrorKind::StorageFull.into()));
        }
        let mut frames = Vec::new();
        let mut writer = None;
        for pending in batch {
            match pending {
                Pending::Frame(arrived, offset, bytes) => {
                    frames.push(Stored { name: arrived.name, offset: *offset, bytes });
                }
                Pending::Object(kind, digest, object) => {
                    let writer = match &mut writer {
                        Some(writer) => writer,
                        none => none.insert(self.store.writer()?),
                    };
                    writer.put_object(*kind, *digest, object)?;
                }
            }
        }
        writer.map_or(Ok(()), |writer| writer.finish().map(drop))?;
        self.mirror.write(&frames)
    }

    /// Removes what was used longest ago if there is more than so many bytes: of what there is more of.
    fn evict(&self, bytes_max: u64) -> Result<()> {
        let (objects, frames) = (self.store.packed_bytes()?, self.mirror.bytes());
        let rest = |other: u64| bytes_max.saturating_sub(other);
        match objects > frames {
            true => self.store.evict(rest(frames).max(bytes_max / 2))?,
            false => self.mirror.evict(rest(objects).max(bytes_max / 2))?,
        }
        // It was not enough only if there was more than half of the other one, too.
        match objects > frames {
            true => self.mirror.evict(rest(self.store.packed_bytes()?)),
            false => self.store.evict(rest(self.mirror.bytes())),
        }
    }
}
