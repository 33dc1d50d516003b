//! Brings packs and index together when the store is opened: what a crash left half done is cut off, and an index that
//! is missing, damaged or older than the packs is made anew from them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    Digest, Error, Result,
    database::{is_broken, is_refused},
    disk::Disk,
    index::{Change, INDEX_PATH, Index, PackState},
    pack::{Location, PACKS_DIR, Pack, pack_path, parse_pack_name},
    record::{ALIGN, PACK_HEADER, PackKind},
    scan::{Found, scan},
};

/// Numbers that are left out when nobody remembers which were used.
const REBUILD_SKIP: u64 = 1 << 20;

/// Opens the index of the packs on `disk`, or makes it from them.
pub(crate) fn open_index(disk: &Arc<dyn Disk>) -> Result<Index> {
    let files = pack_files(disk)?;
    match Index::open(disk.clone()) {
        Ok(index) => {
            let next = index.next_pack()?;
            // A number is taken durably before its file is made. A file beyond them is from a later index than this.
            if files.keys().all(|id| *id < next) {
                return Ok(index);
            }
            drop(index);
            tracing::warn!("the index is older than the packs; it is rebuilt from them");
        }
        Err(error) if files.is_empty() && is_missing(disk)? => {
            tracing::debug!(%error, "a new store");
            return Index::create(disk.clone(), &Change::default(), 1);
        }
        // Nothing is lost with an index, so trouble that may pass is reason enough.
        Err(error) if is_broken(&error) || is_refused(&error) => {
            tracing::warn!(%error, "the index cannot be used; it is rebuilt from the packs");
        }
        Err(error) => return Err(error),
    }
    rebuild_index(disk)
}

/// Makes the index anew from what stands in the packs.
pub(crate) fn rebuild_index(disk: &Arc<dyn Disk>) -> Result<Index> {
    let files = pack_files(disk)?;
    let packs: Vec<Pack> = files.iter().map(|(id, kind)| Pack::open(disk.clone(), *id, *kind)).collect();
    let change = survey(&packs, &|pack| pack.len())?;
    // What a killed writer left may be in memory alone, and from here on the index vouches for it.
    packs.iter().try_for_each(Pack::sync)?;
    disk.sync_dir(PACKS_DIR).map_err(Error::io(disk.display(PACKS_DIR)))?;
    let highest = files.keys().last().copied();
    let index = Index::create(disk.clone(), &change, highest.map_or(1, |id| id + REBUILD_SKIP))?;
    tracing::warn!(objects = change.added.len(), packs = packs.len(), "the index was rebuilt");
    Ok(index)
}

/// What an index of `packs`, each up to the length that `end` gives, has to say.
pub(crate) fn survey(packs: &[Pack], end: &dyn Fn(&Pack) -> Result<u64>) -> Result<Change> {
    let mut objects: HashMap<Digest, Location> = HashMap::new();
    let mut change = Change::default();
    for pack in packs {
        let committed = end(pack)?;
        // The padding of the last record may be torn off, or part of the header: no record may begin behind that.
        let mut closed = committed < PACK_HEADER as u64 || !committed.is_multiple_of(ALIGN);
        scan(pack, committed, &mut |found| {
            match found {
                Found::Record { at, digest, intact, .. } => {
                    closed |= !intact;
                    // A damaged record is not named: whoever puts the object again must not find that it is there already.
                    if intact {
                        objects.entry(digest).or_insert(at);
                    }
                }
                Found::Bad { offset, len, reason } => {
                    closed = true;
                    tracing::warn!(pack = ?pack.display(), offset, len, reason, "no record can be read here");
                }
            }
            Ok(())
        })?;
        change.packs.insert(pack.id, Some(PackState { kind: pack.kind, committed, closed }));
    }
    change.added = objects.into_iter().collect();
    change.added.sort_unstable_by_key(|(digest, _)| *digest);
    Ok(change)
}

/// Removes the files of packs that the index does not know: their writer never finished, or gc had replaced them.
pub(crate) fn remove_strays(disk: &Arc<dyn Disk>, packs: &BTreeMap<u64, PackState>) -> Result<()> {
    let strays: Vec<_> = pack_files(disk)?.into_iter().filter(|(id, _)| !packs.contains_key(id)).collect();
    for (id, kind) in &strays {
        let path = pack_path(*id, *kind);
        tracing::info!(pack = ?disk.display(&path), "removing a pack that was never committed");
        disk.remove(&path).map_err(Error::io(disk.display(&path)))?;
    }
    if !strays.is_empty() {
        disk.sync_dir(PACKS_DIR).map_err(Error::io(disk.display(PACKS_DIR)))?;
    }
    Ok(())
}

fn pack_files(disk: &Arc<dyn Disk>) -> Result<BTreeMap<u64, PackKind>> {
    let names = disk.list(PACKS_DIR).map_err(Error::io(disk.display(PACKS_DIR)))?;
    Ok(names.iter().filter_map(|name| parse_pack_name(name)).collect())
}

fn is_missing(disk: &Arc<dyn Disk>) -> Result<bool> {
    let (dir, name) = INDEX_PATH.rsplit_once('/').unwrap_or_default();
    let names = disk.list(dir).map_err(Error::io(disk.display(dir)))?;
    Ok(!names.iter().any(|n| n == name))
}
