//! The index: where every object is, and how much of every pack is committed. Rebuildable from the packs.
//!
//! An object is in the store if and only if it is in the index. Its table of packs is what a crash is judged by: bytes
//! of a pack behind the committed length were never acknowledged.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;
use redb::{ReadOnlyTable, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use crate::{
    Digest, Error, ObjectKind, Result,
    database::{Database, is_broken, unpanicked},
    disk::Disk,
    pack::Location,
    record::{PackKind, u32_at, u64_at},
};

pub(crate) const INDEX_PATH: &str = "store/index.redb";
/// Memory that redb may keep pages in.
const CACHE_BYTES: usize = 24 << 20;
const FORMAT: u64 = 1;

const OBJECTS: TableDefinition<&[u8; 32], &[u8; LOCATION_BYTES]> = TableDefinition::new("objects");
const PACKS: TableDefinition<u64, &[u8; PACK_STATE_BYTES]> = TableDefinition::new("packs");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const LOCATION_BYTES: usize = 21;
const PACK_STATE_BYTES: usize = 10;

/// What the index knows of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackState {
    pub(crate) kind: PackKind,
    /// Bytes that records which somebody was promised end at.
    pub(crate) committed: u64,
    /// Nothing is appended any more, whatever its size: it came out of a rebuild.
    pub(crate) closed: bool,
}

/// Changes that become durable together.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Objects to add where the index has none of that name.
    pub(crate) added: Vec<(Digest, Location)>,
    /// Objects to take out or to put elsewhere, if the index still has them where `from` says.
    pub(crate) moved: Vec<Move>,
    /// New states of packs; None for those that go.
    pub(crate) packs: BTreeMap<u64, Option<PackState>>,
}

/// A change of one object's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) digest: Digest,
    pub(crate) from: Location,
    pub(crate) to: Option<Location>,
}

/// The open index.
#[derive(Debug)]
pub(crate) struct Index {
    database: Database,
    /// The table as of the last commit: beginning a transaction costs more than a look-up.
    held: RwLock<Held>,
}

/// The table that look-ups use, and how many commits there were: a table opened before a commit is not kept behind it.
#[derive(Debug, Default)]
struct Held {
    objects: Option<Arc<ReadObjects>>,
    commits: u64,
}

struct ReadObjects(ReadOnlyTable<&'static [u8; 32], &'static [u8; LOCATION_BYTES]>);

impl std::fmt::Debug for ReadObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadObjects")
    }
}

impl Index {
    /// Opens the index file.
    pub(crate) fn open(disk: Arc<dyn Disk>) -> Result<Index> {
        let index = Index::new(Database::open(disk, INDEX_PATH, CACHE_BYTES)?);
        let format = index.database.read(|t| Ok(t.open_table(META)?.get("format")?.map(|v| v.value())));
        let foreign = |reason| Error::Foreign { path: index.database.display(), reason };
        match format {
            Ok(Some(FORMAT)) => Ok(index),
            Ok(Some(found)) if found > FORMAT => Err(Error::Newer {
                path: index.database.display(),
                found: found as u32,
                supported: FORMAT as u32,
            }),
            Ok(_) => Err(foreign("no format number")),
            // A disk that does not answer says nothing about the file.
            Err(error) if is_broken(&error) => Err(foreign("not an index")),
            Err(e) => Err(e),
        }
    }

    /// Makes an index with this content in place of the one that is there, if one is.
    pub(crate) fn create(disk: Arc<dyn Disk>, change: &Change, next_pack: u64) -> Result<Index> {
        let database = Database::create(disk, INDEX_PATH, CACHE_BYTES, |t| {
            let mut meta = t.open_table(META)?;
            meta.insert("format", FORMAT)?;
            meta.insert("next_pack", next_pack)?;
            apply(t, change)
        })?;
        Ok(Index::new(database))
    }

    fn new(database: Database) -> Index {
        Index { database, held: RwLock::default() }
    }

    /// Where `digest` is.
    pub(crate) fn locate(&self, digest: Digest) -> Result<Option<Location>> {
        let find = |table: &ReadObjects| {
            unpanicked(|| Ok(table.0.get(&digest.0)?.map(|found| decode(found.value()))))
        };
        let (held, commits) = {
            let held = self.held.read();
            (held.objects.clone(), held.commits)
        };
        // An error says that the database was reopened behind this table. The answer is in a newer one.
        if let Some(Ok(found)) = held.as_deref().map(find) {
            return found.transpose().map_err(|e| self.damaged(e));
        }
        let table = self.database.read(|t| Ok(Arc::new(ReadObjects(t.open_table(OBJECTS)?))))?;
        let found = find(&table).map_err(|e| self.database.error(e))?;
        let mut held = self.held.write();
        if held.commits == commits {
            held.objects = Some(table);
        }
        found.transpose().map_err(|e| self.damaged(e))
    }

    /// Applies `change`, durably, or nothing of it.
    pub(crate) fn commit(&self, change: &Change) -> Result<()> {
        self.renew(|| self.database.write(|t| apply(t, change)))
    }

    /// Puts `change` in place of all that the index says of objects and packs.
    pub(crate) fn replace(&self, change: &Change) -> Result<()> {
        self.renew(|| {
            self.database.write(|t| {
                t.delete_table(OBJECTS)?;
                t.delete_table(PACKS)?;
                apply(t, change)
            })
        })
    }

    /// Runs `commit`, and lets look-ups see what it did.
    fn renew(&self, commit: impl FnOnce() -> Result<()>) -> Result<()> {
        let result = commit();
        let mut held = self.held.write();
        held.commits += 1;
        held.objects = None;
        result
    }

    /// Every pack.
    pub(crate) fn packs(&self) -> Result<BTreeMap<u64, PackState>> {
        let packs = self.database.read(|t| {
            let table = t.open_table(PACKS)?;
            table
                .iter()?
                .map(|row| row.map(|(id, v)| (id.value(), *v.value())))
                .collect::<Result<Vec<_>, _>>()
                .map_err(redb::Error::from)
        })?;
        packs
            .into_iter()
            .map(|(id, bytes)| {
                Ok((id, PackState::decode(&bytes).ok_or_else(|| self.damaged("kind of pack"))?))
            })
            .collect()
    }

    /// What the index says of one pack.
    pub(crate) fn pack(&self, id: u64) -> Result<Option<PackState>> {
        let bytes = self.database.read(|t| Ok(t.open_table(PACKS)?.get(id)?.map(|v| *v.value())))?;
        bytes.map(|b| PackState::decode(&b).ok_or_else(|| self.damaged("kind of pack"))).transpose()
    }

    /// Takes `count` numbers for packs that no pack had or will have.
    pub(crate) fn reserve_packs(&self, count: u64) -> Result<u64> {
        self.database.write(|t| {
            let mut meta = t.open_table(META)?;
            let next = meta.get("next_pack")?.map_or(1, |v| v.value());
            meta.insert("next_pack", next + count)?;
            Ok(next)
        })
    }

    /// The number that no pack has reached yet.
    pub(crate) fn next_pack(&self) -> Result<u64> {
        self.database.read(|t| Ok(t.open_table(META)?.get("next_pack")?.map_or(1, |v| v.value())))
    }

    /// Snapshots of the catalogue that were missing when the index was last made from the packs.
    pub(crate) fn lacking(&self) -> Result<u64> {
        self.database.read(|t| Ok(t.open_table(META)?.get("lacking")?.map_or(0, |v| v.value())))
    }

    /// Remembers that making the index anew does not bring so many snapshots back.
    pub(crate) fn set_lacking(&self, count: u64) -> Result<()> {
        self.database.write(|t| t.open_table(META)?.insert("lacking", count).map(drop).map_err(Into::into))
    }

    /// How many objects there are.
    pub(crate) fn count(&self) -> Result<u64> {
        self.database.read(|t| Ok(t.open_table(OBJECTS)?.len()?))
    }

    /// Every object that `wanted` lets through, by digest.
    pub(crate) fn collect(&self, wanted: impl Fn(&Location) -> bool) -> Result<Vec<(Digest, Location)>> {
        let found = self.database.read(|t| {
            let mut found = Vec::new();
            for row in t.open_table(OBJECTS)?.iter()? {
                let (digest, bytes) = row?;
                match decode(bytes.value()) {
                    Ok(at) if wanted(&at) => found.push((Digest(*digest.value()), at)),
                    Ok(_) => {}
                    Err(reason) => return Err(redb::Error::Corrupted(reason.to_owned())),
                }
            }
            Ok(found)
        })?;
        Ok(found)
    }

    fn damaged(&self, reason: &'static str) -> Error {
        Error::Foreign { path: self.database.display(), reason }
    }
}

impl PackState {
    fn encode(&self) -> [u8; PACK_STATE_BYTES] {
        let mut bytes = [0; PACK_STATE_BYTES];
        bytes[..8].copy_from_slice(&self.committed.to_le_bytes());
        bytes[8] = self.kind as u8;
        bytes[9] = u8::from(self.closed);
        bytes
    }

    fn decode(bytes: &[u8; PACK_STATE_BYTES]) -> Option<PackState> {
        let kind = PackKind::from_u8(bytes[8])?;
        Some(PackState { kind, committed: u64_at(bytes, 0), closed: bytes[9] != 0 })
    }
}

fn apply(t: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    let mut objects = t.open_table(OBJECTS)?;
    for (digest, at) in &change.added {
        let first = objects.insert(&digest.0, &encode(at))?.map(|old| *old.value());
        if let Some(first) = first {
            // Another writer was faster with the same object. Readers know its copy already.
            objects.insert(&digest.0, &first)?;
        }
    }
    for Move { digest, from, to } in &change.moved {
        let there = objects.get(&digest.0)?.is_some_and(|v| *v.value() == encode(from));
        match to {
            Some(to) if there => drop(objects.insert(&digest.0, &encode(to))?),
            None if there => drop(objects.remove(&digest.0)?),
            Some(_) | None => {}
        }
    }
    let mut packs = t.open_table(PACKS)?;
    for (id, state) in &change.packs {
        match state {
            Some(state) => drop(packs.insert(id, &state.encode())?),
            None => drop(packs.remove(id)?),
        }
    }
    Ok(())
}

fn encode(at: &Location) -> [u8; LOCATION_BYTES] {
    let mut bytes = [0; LOCATION_BYTES];
    bytes[..8].copy_from_slice(&at.pack.to_le_bytes());
    bytes[8..16].copy_from_slice(&at.offset.to_le_bytes());
    bytes[16..20].copy_from_slice(&at.len.to_le_bytes());
    bytes[20] = at.kind as u8;
    bytes
}

fn decode(bytes: &[u8; LOCATION_BYTES]) -> Result<Location, &'static str> {
    let kind = ObjectKind::from_u8(bytes[20]).ok_or("unknown kind of object")?;
    Ok(Location { pack: u64_at(bytes, 0), offset: u64_at(bytes, 8), len: u32_at(bytes, 16), kind })
}
