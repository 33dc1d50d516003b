//! Objects of the remote store that are here: in memory those that have just come, on disk those that came before.
//!
//! The disk's part is a store of its own beside the other, so that what can be fetched again is never mixed with what cannot. It is
//! bounded, and what was read longest ago goes first, a pack at a time. Whatever goes wrong with it costs a fetch: what is damaged or gone
//! counts as not here.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Weak},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{fetch::Landing, peer::Named};
use crate::{
    Digest, Error, Object, ObjectKind, Result, Store,
    disk::{Disk, DiskFile, Open, Patience, Space},
    store::Options,
};

/// Where it is.
const DIR: &str = "cache";
/// Objects that have come and are not on disk yet: beyond that who fetches waits, and if the disk takes no more the oldest go.
const RECENT_BYTES_MAX: usize = 64 << 20;
/// What is written together, with a sync; of a small cache a quarter.
const BATCH_BYTES: u64 = 8 << 20;
/// Objects of directories that the disk's part keeps in memory: few, because who asks for them keeps them, too.
const OBJECT_CACHE_BYTES: usize = 1 << 20;
/// How often somebody looks whether the disk is getting full, or takes anything again.
const PAUSE: Duration = Duration::from_secs(5);
/// Of the disk's bytes this part, or so many if that is less, stays free of copies: for the log, and for changes.
const RESERVE_PART: u64 = 20;
const RESERVE_BYTES_MAX: u64 = 8 << 30;
/// Bytes of a pack: they go as wholes. Of a small cache an eighth.
const PACK_BYTES: u64 = 32 << 20;

/// See the module. Ends its thread when it is dropped.
#[derive(Debug)]
pub struct Kept {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    store: Store,
    bytes_max: u64,
    /// Nothing is locked inside it.
    recent: Mutex<Recent>,
    changed: Condvar,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache of {} bytes", self.bytes_max)
    }
}

#[derive(Default)]
struct Recent {
    objects: HashMap<Digest, (ObjectKind, Object)>,
    /// The same, oldest first.
    order: VecDeque<Digest>,
    bytes: usize,
    /// The disk takes nothing for now.
    is_refused: bool,
    is_ending: bool,
}

impl Kept {
    /// Opens the cache in the folder `cache` of a disk, or makes an empty one. If what is there cannot be used, it goes. Errors: the
    /// disk's, and that the system has no thread.
    pub fn open(disk: &Arc<dyn Disk>, bytes_max: u64) -> Result<Kept> {
        let below: Arc<dyn Disk> = Arc::new(Below(Arc::clone(disk)));
        let options = Options {
            pack_bytes_max: PACK_BYTES.min(bytes_max / 8),
            object_cache_bytes: OBJECT_CACHE_BYTES,
            ..Options::default()
        };
        let store = match Store::open_with(Arc::clone(&below), options) {
            Ok(store) => store,
            Err(error) => {
                tracing::warn!(%error, "the cache of the remote store is of no use; it begins anew");
                empty(&below)?;
                Store::open_with(below, options)?
            }
        };
        let shared = Arc::new(Shared { store, bytes_max, recent: Mutex::default(), changed: Condvar::new() });
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
        self.shared.recent(digest).or_else(|| {
            let found = self.shared.store.object(kind, digest);
            found.map_err(|error| self.shared.disown(digest, &error)).ok()
        })
    }

    /// Reads part of a chunk, if it is here: see [`Store::read_chunk`]. Error: `NotNow`, for who does not wait; and `Malformed`.
    pub fn read_chunk(
        &self,
        patience: Patience,
        digest: Digest,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<bool> {
        if let Some(object) = self.shared.recent(digest) {
            let part = object.get(offset as usize..).and_then(|rest| rest.get(..buf.len()));
            let too_short = Error::Malformed { what: "chunk", reason: "shorter than what refers to it says" };
            buf.copy_from_slice(part.ok_or(too_short)?);
            return Ok(true);
        }
        match self.shared.store.read_chunk_with(patience, digest, offset, buf) {
            Ok(()) => Ok(true),
            Err(error @ (Error::NotNow | Error::Malformed { .. })) => Err(error),
            Err(error) => {
                self.shared.disown(digest, &error);
                Ok(false)
            }
        }
    }

    /// Bytes of an object, if it is here.
    pub fn object_len(&self, digest: Digest) -> Option<u32> {
        let recent = self.shared.recent(digest).map(|object| object.len() as u32);
        recent.or_else(|| self.shared.store.object_len(digest).ok().flatten())
    }

    /// What came behind an object: see [`Store::following`].
    pub fn following(&self, digest: Digest, count_max: usize) -> Result<Vec<Named>> {
        self.shared.store.following(digest, count_max)
    }

    /// Bytes on disk, and how many may be.
    pub fn bytes(&self) -> Result<(u64, u64)> {
        Ok((self.shared.store.packed_bytes()?, self.shared.bytes_max))
    }

    /// Waits until all that has come is on disk, or the disk refused it, or so much time has passed.
    pub fn settle(&self, patience: Duration) {
        let due = now() + patience;
        let mut recent = self.shared.recent.lock();
        while !recent.order.is_empty() && !recent.is_refused {
            if self.shared.changed.wait_until(&mut recent, due).timed_out() {
                return;
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.shared.recent.lock().is_ending = true;
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

/// Removes the cache's files.
fn empty(below: &Arc<dyn Disk>) -> Result<()> {
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        for name in below.list(&dir).map_err(Error::io(below.display(&dir)))? {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            match below.remove(&path) {
                Ok(()) => {}
                Err(_) if below.list(&path).is_ok() => dirs.push(path),
                Err(error) => return Err(Error::io(below.display(&path))(error)),
            }
        }
    }
    Ok(())
}

impl Landing for Shared {
    fn land(&self, kind: ObjectKind, digest: Digest, bytes: &[u8]) -> Result<()> {
        if self.has(digest) {
            return Ok(());
        }
        let object = Object::new(bytes.to_vec());
        let mut recent = self.recent.lock();
        while recent.bytes + bytes.len() > RECENT_BYTES_MAX && !recent.order.is_empty() && !recent.is_ending {
            match recent.is_refused {
                true => recent.remove_oldest(),
                false => self.changed.wait(&mut recent),
            }
        }
        if recent.objects.insert(digest, (kind, object)).is_none() {
            recent.bytes += bytes.len();
            recent.order.push_back(digest);
        }
        drop(recent);
        self.changed.notify_all();
        Ok(())
    }

    fn has(&self, digest: Digest) -> bool {
        let is_recent = self.recent.lock().objects.contains_key(&digest);
        is_recent || self.store.object_len(digest).is_ok_and(|len| len.is_some())
    }
}

impl Shared {
    fn recent(&self, digest: Digest) -> Option<Object> {
        self.recent.lock().objects.get(&digest).map(|(_, object)| object.clone())
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

    /// How much it may take, with so much of it there: less than it was told where the disk would get too full.
    fn bound(&self, cached: u64) -> u64 {
        let Ok(Space { free_bytes, total_bytes }) = self.store.disk().space() else { return self.bytes_max };
        let reserve = (total_bytes / RESERVE_PART).min(RESERVE_BYTES_MAX);
        self.bytes_max.min((cached + free_bytes).saturating_sub(reserve))
    }

    /// Writes what comes, and makes room where others need it.
    fn run(&self) {
        while let Some(batch) = self.batch() {
            let written =
                catch_unwind(AssertUnwindSafe(|| self.write(&batch))).unwrap_or(Err(Error::Cancelled));
            let mut recent = self.recent.lock();
            if let Err(error) = &written
                && !recent.is_refused
            {
                tracing::warn!(%error, "the cache takes nothing: what is fetched is fetched again");
            }
            recent.is_refused = written.is_err();
            if written.is_ok() {
                batch.iter().for_each(|(_, digest, _)| recent.remove(*digest));
            }
            drop(recent);
            self.changed.notify_all();
        }
    }

    /// What to write next, nothing if nothing came for a while; `None` at the end.
    fn batch(&self) -> Option<Vec<(ObjectKind, Digest, Object)>> {
        let mut recent = self.recent.lock();
        // What was refused is tried again after a while, whatever comes meanwhile.
        let due = now() + PAUSE;
        while recent.order.is_empty() || recent.is_refused {
            if recent.is_ending {
                return None;
            }
            if self.changed.wait_until(&mut recent, due).timed_out() {
                break;
            }
        }
        let (mut bytes, bytes_max) = (0, BATCH_BYTES.min(self.bytes_max / 4));
        let all = recent.order.iter().map(|digest| (digest, &recent.objects[digest]));
        let some = all.take_while(|(_, (_, object))| {
            let len = object.len() as u64;
            bytes += len;
            bytes <= bytes_max || bytes == len
        });
        Some(some.map(|(digest, (kind, object))| (*kind, *digest, object.clone())).collect())
    }

    fn write(&self, batch: &[(ObjectKind, Digest, Object)]) -> Result<()> {
        let bytes: u64 = batch.iter().map(|(_, _, object)| object.len() as u64).sum();
        let bound = self.bound(self.store.packed_bytes()?);
        self.store.evict(bound.saturating_sub(bytes))?;
        if batch.is_empty() {
            return Ok(());
        }
        if bound < bytes {
            return Err(Error::io(self.store.disk().display(""))(io::ErrorKind::StorageFull.into()));
        }
        let mut writer = self.store.writer()?;
        for (kind, digest, object) in batch {
            writer.put_object(*kind, *digest, object)?;
        }
        writer.finish()?;
        Ok(())
    }
}

impl Recent {
    fn remove(&mut self, digest: Digest) {
        if let Some((_, object)) = self.objects.remove(&digest) {
            self.bytes -= object.len();
            // Nearly always the oldest.
            match self.order.front() {
                Some(oldest) if *oldest == digest => drop(self.order.pop_front()),
                _ => self.order.retain(|other| *other != digest),
            }
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(digest) = self.order.front().copied() {
            self.remove(digest);
        }
    }
}

/// The folder `cache` of a disk, as a disk.
#[derive(Debug)]
struct Below(Arc<dyn Disk>);

impl Below {
    fn path(path: &str) -> String {
        match path {
            "" => DIR.to_owned(),
            path => format!("{DIR}/{path}"),
        }
    }
}

impl Disk for Below {
    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(&Below::path(path), how)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.0.list(&Below::path(path))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.0.create_dir(&Below::path(path))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(&Below::path(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(&Below::path(from), &Below::path(to))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.0.sync_dir(&Below::path(path))
    }

    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }

    fn display(&self, path: &str) -> PathBuf {
        self.0.display(&Below::path(path))
    }
}
