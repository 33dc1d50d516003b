//! The catalogue: which snapshots are kept, and the names that people gave them.
//!
//! Names stand nowhere else, so a broken catalogue is put aside, never overwritten. The snapshots themselves are
//! records in the packs and are found there again.

use std::{collections::BTreeMap, io, sync::Arc};

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use crate::{
    Digest, Error, Result, SnapshotId, Time,
    database::Database,
    database::is_broken,
    disk::{Disk, Open},
    record::{u32_at, u64_at},
    store::Listed,
};

pub(crate) const CATALOGUE_PATH: &str = "store/catalogue.redb";
const CACHE_BYTES: usize = 1 << 20;
const FORMAT: u64 = 1;
/// Broken catalogues that are put aside before opening gives up.
const BROKEN_MAX: u32 = 1000;

const SNAPSHOTS: TableDefinition<&[u8; 32], &[u8; ROW_BYTES]> = TableDefinition::new("snapshots");
const NAMES: TableDefinition<&str, &[u8; 32]> = TableDefinition::new("names");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const ROW_BYTES: usize = 28;

/// What the catalogue knows of a snapshot besides its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: SnapshotId,
    pub(crate) created: Time,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// The open catalogue.
#[derive(Debug)]
pub(crate) struct Catalogue(Database);

impl Catalogue {
    /// Opens the catalogue. `found` gives the snapshots in the packs, for a catalogue that is missing or broken.
    pub(crate) fn open(disk: &Arc<dyn Disk>, found: impl FnOnce() -> Result<Vec<Row>>) -> Result<Catalogue> {
        match Catalogue::open_file(disk) {
            Err(error) if is_broken(&error) => {
                let missing =
                    matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
                let rows = found()?;
                if !missing {
                    put_aside(disk, &error)?;
                } else if !rows.is_empty() {
                    tracing::warn!(
                        "the catalogue is missing; its snapshots are found in the packs, names are lost"
                    );
                }
                Catalogue::create(disk, &rows)
            }
            other => other,
        }
    }

    fn open_file(disk: &Arc<dyn Disk>) -> Result<Catalogue> {
        let database = Database::open(disk.clone(), CATALOGUE_PATH, CACHE_BYTES)?;
        let foreign = |reason| Error::Foreign { path: disk.display(CATALOGUE_PATH), reason };
        match database.read(|t| Ok(t.open_table(META)?.get("format")?.map(|v| v.value()))) {
            Ok(Some(FORMAT)) => Ok(Catalogue(database)),
            Ok(Some(found)) if found > FORMAT => {
                Err(Error::Newer { path: database.display(), found: found as u32, supported: FORMAT as u32 })
            }
            Ok(_) => Err(foreign("no format number")),
            // A disk that does not answer says nothing about the file.
            Err(error) if is_broken(&error) => Err(foreign("not a catalogue")),
            Err(e) => Err(e),
        }
    }

    fn create(disk: &Arc<dyn Disk>, rows: &[Row]) -> Result<Catalogue> {
        Database::create(disk.clone(), CATALOGUE_PATH, CACHE_BYTES, |t| {
            t.open_table(META)?.insert("format", FORMAT)?;
            t.open_table(NAMES)?;
            let mut snapshots = t.open_table(SNAPSHOTS)?;
            for row in rows {
                snapshots.insert(&row.id.0.0, &encode(row))?;
            }
            Ok(())
        })
        .map(Catalogue)
    }

    /// Puts a snapshot in, with a name if given; a name moves from where it was. The first date stays.
    pub(crate) fn keep(&self, row: &Row, name: Option<&str>) -> Result<()> {
        self.0.write(|t| {
            let mut snapshots = t.open_table(SNAPSHOTS)?;
            if snapshots.get(&row.id.0.0)?.is_none() {
                snapshots.insert(&row.id.0.0, &encode(row))?;
            }
            if let Some(name) = name {
                t.open_table(NAMES)?.insert(name, &row.id.0.0)?;
            }
            Ok(())
        })
    }

    /// Takes a snapshot and its names out; false if it was not there.
    pub(crate) fn forget(&self, id: SnapshotId) -> Result<bool> {
        self.0.write(|t: &WriteTransaction| {
            t.open_table(NAMES)?.retain(|_, target| *target != id.0.0)?;
            let there = t.open_table(SNAPSHOTS)?.remove(&id.0.0)?.is_some();
            Ok(there)
        })
    }

    /// Whether a snapshot is in.
    pub(crate) fn contains(&self, id: SnapshotId) -> Result<bool> {
        self.0.read(|t| Ok(t.open_table(SNAPSHOTS)?.get(&id.0.0)?.is_some()))
    }

    /// How many snapshots and names there are.
    pub(crate) fn counts(&self) -> Result<(u64, u64)> {
        self.0.read(|t| Ok((t.open_table(SNAPSHOTS)?.len()?, t.open_table(NAMES)?.len()?)))
    }

    /// The snapshot of this name.
    pub(crate) fn named(&self, name: &str) -> Result<Option<SnapshotId>> {
        self.0.read(|t| Ok(t.open_table(NAMES)?.get(name)?.map(|v| SnapshotId(Digest(*v.value())))))
    }

    /// Every snapshot with its names, the newest first.
    pub(crate) fn list(&self) -> Result<Vec<Listed>> {
        let mut list = self.0.read(|t| {
            let mut names: BTreeMap<[u8; 32], Vec<String>> = BTreeMap::new();
            for row in t.open_table(NAMES)?.iter()? {
                let (name, id) = row?;
                names.entry(*id.value()).or_default().push(name.value().to_owned());
            }
            let mut list = Vec::new();
            for row in t.open_table(SNAPSHOTS)?.iter()? {
                let (id, bytes) = row?;
                let row = decode(id.value(), bytes.value());
                list.push(Listed {
                    id: row.id,
                    names: names.remove(id.value()).unwrap_or_default(),
                    created: row.created,
                    files: row.files,
                    bytes: row.bytes,
                });
            }
            Ok(list)
        })?;
        list.sort_by_key(|l| (std::cmp::Reverse(l.created), l.id));
        Ok(list)
    }
}

/// Renames a broken catalogue to a name that is free.
fn put_aside(disk: &Arc<dyn Disk>, why: &Error) -> Result<()> {
    let taken = |path: &str| disk.open(path, Open::Read).is_ok();
    let aside = (1..BROKEN_MAX).map(|n| format!("{CATALOGUE_PATH}.broken-{n}")).find(|p| !taken(p));
    let Some(aside) = aside else {
        let reason = "broken, and so many broken ones are beside it that none more is put aside";
        return Err(Error::Foreign { path: disk.display(CATALOGUE_PATH), reason });
    };
    tracing::warn!(
        error = %why,
        put_aside = ?disk.display(&aside),
        "the catalogue cannot be used; its snapshots are found in the packs, their names only in the file put aside"
    );
    disk.rename(CATALOGUE_PATH, &aside).map_err(Error::io(disk.display(CATALOGUE_PATH)))
}

fn encode(row: &Row) -> [u8; ROW_BYTES] {
    let mut bytes = [0; ROW_BYTES];
    bytes[..8].copy_from_slice(&row.created.secs.to_le_bytes());
    bytes[8..12].copy_from_slice(&row.created.nanos.to_le_bytes());
    bytes[12..20].copy_from_slice(&row.files.to_le_bytes());
    bytes[20..28].copy_from_slice(&row.bytes.to_le_bytes());
    bytes
}

fn decode(id: &[u8; 32], bytes: &[u8; ROW_BYTES]) -> Row {
    let created = Time { secs: u64_at(bytes, 0) as i64, nanos: u32_at(bytes, 8) };
    Row { id: SnapshotId(Digest(*id)), created, files: u64_at(bytes, 12), bytes: u64_at(bytes, 20) }
}
