//! Leases: what each host reads of the remote store, said there in an object, so that [gc](super::gc) keeps it.
//!
//! Nobody is locked out by it. Who is about to rely on something first says so, and then looks whether it is condemned; gc first condemns,
//! and then looks who relies on it. Each writes before it reads, so of two that meet at least one sees the other. docs/format.md is normative.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Failure, Remote, each,
    name::{LEASES, MARKS, RemoteName, mark},
};
use crate::{
    Digest, Error, Result, SnapshotId,
    fields::{array, u16_at, u32_at, u64_at},
};

const MAGIC: u32 = u32::from_le_bytes(*b"AFls");
const VERSION: u16 = 1;
const HEADER: usize = 16;
const SNAPSHOT: usize = 32;
const LAYER: usize = 16;
const SUM: usize = 8;
// magic, version and zeros; snapshots, layers.
const _: () = assert!(HEADER == 8 + 4 + 4);
/// Snapshots, and layers, that a lease names.
const EACH_MAX: usize = 1 << 18;
/// Bytes of the largest lease.
pub const LEASE_BYTES_MAX: u64 = (HEADER + EACH_MAX * (SNAPSHOT + LAYER) + SUM) as u64;

/// What a lease names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leased {
    /// A snapshot, with all its manifests.
    Snapshot(SnapshotId),
    /// A layer of a snapshot that is being published, and has no manifest yet.
    Layer(RemoteName),
}

/// The bytes of a lease.
pub(crate) fn encode(leased: &BTreeSet<Leased>) -> Result<Vec<u8>> {
    let (mut snapshots, mut layers) = (Vec::new(), Vec::new());
    for one in leased {
        match one {
            Leased::Snapshot(id) => snapshots.push(id.0.0),
            Leased::Layer(name) => layers.push(name.0),
        }
    }
    if snapshots.len().max(layers.len()) > EACH_MAX {
        return Err(Error::Malformed { what: "lease", reason: "more than one can name" });
    }
    let len = HEADER + snapshots.len() * SNAPSHOT + layers.len() * LAYER + SUM;
    let mut out = Vec::with_capacity(len);
    out.extend(MAGIC.to_le_bytes());
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 2]);
    out.extend((snapshots.len() as u32).to_le_bytes());
    out.extend((layers.len() as u32).to_le_bytes());
    out.extend(snapshots.as_flattened());
    out.extend(layers.as_flattened());
    out.extend(xxh3_64(&out).to_le_bytes());
    Ok(out)
}

/// What a lease names. Its inverse: in order, and nothing twice.
pub(crate) fn decode(bytes: &[u8]) -> Result<BTreeSet<Leased>> {
    let malformed = |reason| Error::Malformed { what: "lease", reason };
    if bytes.len() < HEADER + SUM || u32_at(bytes, 0) != MAGIC || u16_at(bytes, 4) != VERSION {
        return Err(malformed("not a lease of version 1"));
    }
    let (body, sum) = bytes.split_at(bytes.len() - SUM);
    if u64_at(sum, 0) != xxh3_64(body) || body[6..8] != [0; 2] {
        return Err(malformed("the checksum is wrong"));
    }
    let (snapshots, layers) = (u32_at(body, 8) as usize, u32_at(body, 12) as usize);
    if snapshots.max(layers) > EACH_MAX || body.len() != HEADER + snapshots * SNAPSHOT + layers * LAYER {
        return Err(malformed("another length than it says"));
    }
    let (snapshots, layers) = body[HEADER..].split_at(snapshots * SNAPSHOT);
    let snapshots = snapshots.chunks_exact(SNAPSHOT).map(|id| SnapshotId(Digest(array(id, 0))));
    let layers = layers.chunks_exact(LAYER).map(|name| RemoteName(array(name, 0)));
    let leased: Vec<_> = snapshots.map(Leased::Snapshot).chain(layers.map(Leased::Layer)).collect();
    if !leased.is_sorted_by(|one, next| one < next) {
        return Err(malformed("not in order"));
    }
    Ok(leased.into_iter().collect())
}

/// The lease of this host.
#[derive(Debug)]
pub(crate) struct Lease {
    remote: Arc<dyn Remote>,
    naming: Naming,
    wanted: Mutex<Wanted>,
    /// What the store has of it, if that is known. Held while it is written: who comes meanwhile waits, and finds his own in it.
    said: Mutex<Option<Said>>,
}

/// How a host names what it has in the remote store.
pub struct Naming {
    /// The host: no other one has this name.
    pub host: RemoteName,
    /// Makes names that nobody ever had.
    pub fresh: Box<dyn Fn() -> RemoteName + Send + Sync>,
}

impl fmt::Debug for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)
    }
}

/// What is in the object that was written last.
#[derive(Debug)]
struct Said {
    object: String,
    /// The one before.
    before: Option<String>,
    leased: BTreeSet<Leased>,
}

#[derive(Debug, Default)]
struct Wanted {
    /// What sessions and snapshots of this host stand on.
    kept: BTreeSet<SnapshotId>,
    /// What somebody is about to do something with, and how many.
    held: HashMap<Leased, usize>,
}

impl Wanted {
    fn all(&self) -> BTreeSet<Leased> {
        self.kept.iter().copied().map(Leased::Snapshot).chain(self.held.keys().copied()).collect()
    }
}

/// Keeps something in the lease for as long as it is there.
#[derive(Debug)]
pub struct Held {
    lease: Arc<Lease>,
    what: Vec<Leased>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut wanted = self.lease.wanted.lock();
        for what in &self.what {
            if let Some(count) = wanted.held.get_mut(what) {
                *count -= 1;
                if *count == 0 {
                    wanted.held.remove(what);
                }
            }
        }
    }
}

impl Lease {
    /// The lease of a host.
    pub(crate) fn new(remote: Arc<dyn Remote>, naming: Naming) -> Arc<Lease> {
        Arc::new(Lease { remote, naming, wanted: Mutex::default(), said: Mutex::new(None) })
    }

    /// Has something be in the lease, once [`Lease::say`] has said so.
    pub(crate) fn hold(self: &Arc<Lease>, what: Vec<Leased>) -> Held {
        let mut wanted = self.wanted.lock();
        what.iter().for_each(|what| *wanted.held.entry(*what).or_default() += 1);
        drop(wanted);
        Held { lease: Arc::clone(self), what }
    }

    /// From here on a snapshot stays in the lease.
    pub(crate) fn keep(&self, id: SnapshotId) {
        self.wanted.lock().kept.insert(id);
    }

    /// The lease need not have a snapshot any more. The store hears of that when it is next written.
    pub(crate) fn let_go(&self, id: SnapshotId) {
        self.wanted.lock().kept.remove(&id);
    }

    /// It is another store, which has no lease of this host.
    pub(crate) fn forget(&self) {
        self.wanted.lock().kept.clear();
        *self.said.lock() = None;
    }

    /// Makes the store have all that is to be in the lease.
    pub(crate) fn say(&self) -> Result<()> {
        let mut said = self.said.lock();
        let wanted = self.wanted.lock().all();
        match &*said {
            Some(said) if wanted.is_subset(&said.leased) => Ok(()),
            _ => self.write(&mut said, wanted),
        }
    }

    /// Writes it anew, so that it is young, has nothing that it need not have, and is the only one of this host.
    pub(crate) fn renew(&self) -> Result<()> {
        let mut said = self.said.lock();
        let wanted = self.wanted.lock().all();
        if wanted.is_empty() && said.as_ref().is_some_and(|said| said.leased.is_empty()) {
            return Ok(());
        }
        self.write(&mut said, wanted)?;
        let now = said.as_ref().map(|said| said.object.as_str());
        let tidied = self.remote.list(&self.folder()).and_then(|there| {
            let mut old = there.iter().filter(|object| Some(object.as_str()) != now);
            old.try_for_each(|object| self.remote.remove(object))
        });
        if let Err(error) = tidied {
            tracing::warn!(%error, "older leases of this host stay, and with them what they name");
        }
        Ok(())
    }

    /// Under another name each time: gc removes those that are old, and must not meet one that was just written.
    fn write(&self, said: &mut Option<Said>, leased: BTreeSet<Leased>) -> Result<()> {
        let object = format!("{}{}", self.folder(), (self.naming.fresh)());
        self.remote.write(&object, encode(&leased)?)?;
        // The one before stays meanwhile: a listing that is under way may not find the new one.
        let before = said.take();
        let older = before.as_ref().and_then(|before| before.before.clone());
        *said = Some(Said { object, leased, before: before.map(|before| before.object) });
        if let Some(Err(error)) = older.map(|older| self.remote.remove(&older)) {
            tracing::debug!(%error, "an old lease stays until it is renewed");
        }
        Ok(())
    }

    fn folder(&self) -> String {
        format!("{LEASES}{}/", self.naming.host)
    }
}

/// What of some objects cannot be relied on, by who has said before, in the store, that he does.
#[derive(Debug, Default)]
pub(crate) struct Unfit {
    /// Marked. They may be there for long all the same.
    pub(crate) condemned: BTreeSet<String>,
    /// Not there, of the others.
    pub(crate) absent: BTreeSet<String>,
}

impl Unfit {
    pub(crate) fn of(remote: &dyn Remote, objects: &BTreeSet<String>) -> Result<Unfit> {
        // Marks first: one is removed only when its object is.
        let marks: HashSet<String> = remote.list(MARKS)?.into_iter().collect();
        let (condemned, rest): (BTreeSet<_>, BTreeSet<_>) =
            objects.iter().cloned().partition(|object| marks.contains(&mark(object)));
        Ok(Unfit { condemned, absent: absent(remote, &rest)? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.condemned.is_empty() && self.absent.is_empty()
    }

    pub(crate) fn all(self) -> BTreeSet<String> {
        self.condemned.into_iter().chain(self.absent).collect()
    }
}

/// Those of some objects that are not there.
pub(crate) fn absent(remote: &dyn Remote, objects: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let objects: Vec<_> = objects.iter().collect();
    let are_absent = each(&objects, |object| match remote.read(object, 0..1) {
        Ok(_) => Ok(false),
        Err(Failure::NotFound(_)) => Ok(true),
        Err(failure) => Err(failure),
    })?;
    let absent = objects.into_iter().zip(are_absent).filter(|(_, is_absent)| *is_absent);
    Ok(absent.map(|(object, _)| object.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_read_as_it_was_written_and_no_other_is() {
        let snapshots = (0..3).map(|n| Leased::Snapshot(SnapshotId(Digest([n; 32]))));
        let leased: BTreeSet<_> = snapshots.chain([Leased::Layer(RemoteName([7; 16]))]).collect();
        let bytes = encode(&leased).unwrap();
        assert_eq!(decode(&bytes).unwrap(), leased);
        assert_eq!(decode(&encode(&BTreeSet::new()).unwrap()).unwrap(), BTreeSet::new());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(decode(&flipped).is_err() && decode(&bytes[..at]).is_err(), "at {at}");
        }
    }

    #[test]
    fn a_lease_has_one_spelling() {
        // Any order was taken once, and names that came twice.
        let spelled = |snapshots: &[u8], layers: &[u8]| {
            let mut bytes = encode(&BTreeSet::new()).unwrap()[..8].to_vec();
            bytes.extend([snapshots.len() as u32, layers.len() as u32].map(u32::to_le_bytes).as_flattened());
            bytes.extend(snapshots.iter().flat_map(|id| [*id; SNAPSHOT]));
            bytes.extend(layers.iter().flat_map(|name| [*name; LAYER]));
            bytes.extend(xxh3_64(&bytes).to_le_bytes());
            bytes
        };
        let right = spelled(&[1, 2], &[1, 2]);
        assert_eq!(encode(&decode(&right).unwrap()).unwrap(), right);
        for (snapshots, layers) in [([2, 1], [1, 2]), ([1, 2], [2, 1]), ([1, 1], [1, 2]), ([1, 2], [2, 2])] {
            assert!(decode(&spelled(&snapshots, &layers)).is_err(), "{snapshots:?}, {layers:?}");
        }
    }
}
