//! Snapshots of this host that hang on another one: what is not here of them is there, and in no remote store that would be known to have it.
//!
//! A session that was opened from a peer hangs, and so does whatever is sealed on top of it; until all of it was fetched. Who collects or checks has to know, because
//! what such a tree lacks here is no damage; and the other host is told from time to time that it is needed. One file, written whole, on the disk before anything is built
//! on what it says. docs/format.md is normative.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::{Mutex, RwLock};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Digest, Error, Result, SnapshotId,
    disk::{Disk, put_whole, read_whole},
    fields::{array, u16_at, u32_at, u64_at},
};

const DIR: &str = "store/peers";
const NEW: &str = "store/peers/new";
const FILE: &str = "store/peers/hanging";
const MAGIC: u32 = u32::from_le_bytes(*b"AFhg");
const VERSION: u16 = 1;
const HEADER: usize = 12;
/// Of an entry, what is in front of the place: two snapshots, a length.
const FIXED: usize = 32 + 32 + 2;
const SUM: usize = 8;
/// Snapshots that hang at a time.
pub const HANGING_MAX: usize = 1 << 16;
/// Bytes of a place.
pub const PLACE_BYTES_MAX: usize = 1024;
const FILE_BYTES_MAX: u64 = (HEADER + HANGING_MAX * (FIXED + PLACE_BYTES_MAX) + SUM) as u64;

/// What something hangs on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Where, for whoever can ask there. Nothing here looks into it.
    pub place: String,
    /// Which snapshot of that host.
    pub snapshot: SnapshotId,
}

type Entries = BTreeMap<SnapshotId, Origin>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hanging {
    disk: Arc<dyn Disk>,
    /// Held while the file is written.
    writing: Mutex<()>,
    entries: RwLock<Entries>,
}

impl Hanging {
    /// What is remembered. What cannot be read is told, and forgotten: then gc keeps everything. Error: the disk's.
    pub(crate) fn open(disk: Arc<dyn Disk>) -> Result<Hanging> {
        let bytes = read_whole(&*disk, FILE, FILE_BYTES_MAX).map_err(Error::io(disk.display(FILE)))?;
        let entries = bytes.map_or(Ok(Entries::new()), |bytes| decode(&bytes));
        let entries = entries.unwrap_or_else(|error| {
            tracing::error!(file = %disk.display(FILE).display(), %error, "what hangs on peers is not known any more; open those sessions anew");
            Entries::new()
        });
        Ok(Hanging { disk, writing: Mutex::default(), entries: RwLock::new(entries) })
    }

    /// What a snapshot hangs on.
    pub(crate) fn origin(&self, id: SnapshotId) -> Option<Origin> {
        self.entries.read().get(&id).cloned()
    }

    /// How many hang.
    pub(crate) fn count(&self) -> usize {
        self.entries.read().len()
    }

    /// All that is hung on.
    pub(crate) fn origins(&self) -> Vec<Origin> {
        let mut origins: Vec<_> = self.entries.read().values().cloned().collect();
        origins.sort_unstable();
        origins.dedup();
        origins
    }

    /// From here on these hang on that. What hangs already goes on to hang on what it does: so hosts that open of each other what they opened hang in no circle,
    /// in which each would have the next one keep it for ever. Durable when it returns. Errors: the disk's, `HangingFull`.
    pub(crate) fn hang(&self, ids: &[SnapshotId], origin: &Origin) -> Result<()> {
        if origin.place.len() > PLACE_BYTES_MAX {
            return Err(Error::Malformed { what: "place of a session", reason: "longer than 1024 bytes" });
        }
        self.change(|entries| {
            for id in ids {
                entries.entry(*id).or_insert_with(|| origin.clone());
            }
        })
    }

    /// Keeps those alone of which this is right.
    pub(crate) fn retain(&self, is_right: impl Fn(SnapshotId) -> bool) -> Result<()> {
        self.change(|entries| entries.retain(|id, _| is_right(*id)))
    }

    fn change(&self, change: impl FnOnce(&mut Entries)) -> Result<()> {
        let _one = self.writing.lock();
        let before = self.entries.read().clone();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok(());
        }
        if after.len() > HANGING_MAX {
            return Err(Error::HangingFull { max: HANGING_MAX });
        }
        let io = |error| Error::io(self.disk.display(FILE))(error);
        self.disk.create_dir(DIR).and_then(|()| self.disk.sync_dir("store")).map_err(io)?;
        put_whole(&*self.disk, DIR, NEW, FILE, &encode(&after)).map_err(io)?;
        *self.entries.write() = after;
        Ok(())
    }
}

fn encode(entries: &Entries) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(MAGIC.to_le_bytes());
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 2]);
    out.extend((entries.len() as u32).to_le_bytes());
    for (id, origin) in entries {
        out.extend(id.0.0);
        out.extend(origin.snapshot.0.0);
        out.extend((origin.place.len() as u16).to_le_bytes());
        out.extend(origin.place.as_bytes());
    }
    out.extend(xxh3_64(&out).to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<Entries> {
    let malformed = |reason| Error::Malformed { what: "list of what hangs on peers", reason };
    if bytes.len() < HEADER + SUM || u32_at(bytes, 0) != MAGIC || u16_at(bytes, 4) != VERSION {
        return Err(malformed("not a list of version 1"));
    }
    let (body, sum) = bytes.split_at(bytes.len() - SUM);
    if u64_at(sum, 0) != xxh3_64(body) || body[6..8] != [0; 2] {
        return Err(malformed("the checksum is wrong"));
    }
    let (count, mut rest) = (u32_at(body, 8) as usize, &body[HEADER..]);
    let mut entries = Entries::new();
    while !rest.is_empty() {
        let (fixed, behind) =
            rest.split_at_checked(FIXED).ok_or_else(|| malformed("an entry is cut short"))?;
        let len = usize::from(u16_at(fixed, 64));
        let (place, behind) =
            behind.split_at_checked(len).ok_or_else(|| malformed("an entry is cut short"))?;
        let place = std::str::from_utf8(place).map_err(|_| malformed("a place is not UTF-8"))?;
        let (id, snapshot) = (SnapshotId(Digest(array(fixed, 0))), SnapshotId(Digest(array(fixed, 32))));
        if len > PLACE_BYTES_MAX || entries.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(malformed("entries are out of order, or a place is too long"));
        }
        entries.insert(id, Origin { place: place.to_owned(), snapshot });
        rest = behind;
    }
    if entries.len() != count || count > HANGING_MAX {
        return Err(malformed("another number of entries than it says"));
    }
    Ok(entries)
}

/// A door for the fuzz targets: what is accepted is written again as the same bytes.
#[cfg(any(test, feature = "simulation"))]
pub fn fuzz_list(bytes: &[u8]) {
    if let Ok(entries) = decode(bytes) {
        assert_eq!(encode(&entries), bytes, "a list has one spelling");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    fn snapshot(nth: u8) -> SnapshotId {
        SnapshotId(Digest([nth; 32]))
    }

    fn origin(place: &str) -> Origin {
        Origin { place: place.to_owned(), snapshot: snapshot(9) }
    }

    #[test]
    fn what_hangs_survives_power_loss() {
        let disk = SimDisk::new(1);
        disk.create_dir("store").unwrap();
        disk.sync_dir("").unwrap();
        let open = |disk: &SimDisk| Hanging::open(Arc::new(disk.clone())).unwrap();
        let hanging = open(&disk);
        hanging.hang(&[snapshot(1), snapshot(2)], &origin("a")).unwrap();
        hanging.hang(&[snapshot(3)], &origin("b")).unwrap();
        hanging.retain(|id| id != snapshot(2)).unwrap();
        let after = open(&disk.crash(&mut || 1));
        assert_eq!(after.origin(snapshot(1)), Some(origin("a")));
        assert_eq!((after.origin(snapshot(2)), after.origin(snapshot(3))), (None, Some(origin("b"))));
        assert_eq!(after.origins(), [origin("a"), origin("b")]);
        assert!(hanging.hang(&[snapshot(4)], &origin(&"x".repeat(1025))).is_err());
    }

    #[test]
    fn what_hangs_stays_with_whom_it_was_opened_from() {
        let disk = SimDisk::new(1);
        disk.create_dir("store").unwrap();
        let hanging = Hanging::open(Arc::new(disk)).unwrap();
        hanging.hang(&[snapshot(1)], &origin("a")).unwrap();
        hanging.hang(&[snapshot(1), snapshot(2)], &origin("b")).unwrap();
        assert_eq!(hanging.origin(snapshot(1)), Some(origin("a")));
        assert_eq!(hanging.origin(snapshot(2)), Some(origin("b")));
        // Once it hangs no more, it is open to all again.
        hanging.retain(|id| id != snapshot(1)).unwrap();
        hanging.hang(&[snapshot(1)], &origin("b")).unwrap();
        assert_eq!(hanging.origin(snapshot(1)), Some(origin("b")));
    }

    #[test]
    fn a_full_list_says_what_makes_room() {
        let disk = SimDisk::new(1);
        disk.create_dir("store").unwrap();
        let hanging = Hanging::open(Arc::new(disk)).unwrap();
        let ids: Vec<_> =
            (0..=HANGING_MAX as u32).map(|nth| SnapshotId(Digest::of(&nth.to_le_bytes()))).collect();
        hanging.hang(&ids[1..], &origin("a")).unwrap();
        let full = hanging.hang(&ids[..1], &origin("a")).unwrap_err();
        assert!(matches!(full, Error::HangingFull { max: HANGING_MAX }), "{full}");
        assert!(full.to_string().contains("aetherctl gc"), "{full}");
        // What is there already needs no room.
        hanging.hang(&ids[1..2], &origin("b")).unwrap();
        assert_eq!(hanging.count(), HANGING_MAX);
    }

    #[test]
    fn a_damaged_list_is_none() {
        let entries = Entries::from([(snapshot(1), origin("a")), (snapshot(2), origin("b"))]);
        let bytes = encode(&entries);
        assert_eq!(decode(&bytes).unwrap(), entries);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(decode(&flipped).is_err() && decode(&bytes[..at]).is_err(), "at {at}");
        }
    }
}
