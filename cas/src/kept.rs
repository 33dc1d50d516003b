//! The snapshots that a store keeps, as people and gc ask for them.
//!
//! Joins the catalogue, which knows what is kept, with the objects, which know what it is.

use crate::{Digest, Error, ObjectKind, Result, SnapshotId, Store, Time, base32, catalogue::Row, dir::Dir};

/// Characters behind `snp_` that a person must type at least.
const PREFIX_CHARS_MIN: usize = 8;
/// Snapshots that an error names.
const CANDIDATES_MAX: usize = 8;

/// A snapshot as the catalogue lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its ID.
    pub id: SnapshotId,
    /// Names that stand for it.
    pub names: Vec<String>,
    /// When it was first kept.
    pub created: Time,
    /// Names in the tree.
    pub files: u64,
    /// Bytes of its regular files, by size.
    pub bytes: u64,
}

impl Store {
    /// Snapshots that are kept, the newest first.
    pub fn list(&self) -> Result<Vec<Listed>> {
        self.catalogue().list()
    }

    /// How many snapshots are kept, and how many names they have in all. Costs the same however many.
    pub fn kept_counts(&self) -> Result<(u64, u64)> {
        self.catalogue().counts()
    }

    /// Puts `id` in the catalogue (kept by gc until removed), with a name if given; a name moves from where it was.
    pub fn keep(&self, id: SnapshotId, name: Option<&str>, created: Time) -> Result<()> {
        let totals = Dir::open(self, self.snapshot(id)?.dir)?.totals();
        self.catalogue().keep(&Row { id, created, files: totals.files, bytes: totals.bytes }, name)
    }

    /// The snapshot that this name stands for.
    pub fn named(&self, name: &str) -> Result<Option<SnapshotId>> {
        self.catalogue().named(name)
    }

    /// The snapshot that a person means: a whole ID, or its beginning if only one snapshot of the catalogue has it.
    /// Characters that look alike are forgiven; the prefix `snp_` is not part of the 8 that are needed.
    pub fn unique_snapshot(&self, text: &str) -> Result<SnapshotId> {
        let digits = text.strip_prefix(SnapshotId::PREFIX).and_then(base32::canonical);
        let digits = digits.ok_or_else(|| Error::NotASnapshot(text.to_owned()))?;
        if digits.len() < PREFIX_CHARS_MIN {
            return Err(Error::ShortSnapshot(text.to_owned()));
        }
        let prefix = format!("{}{digits}", SnapshotId::PREFIX);
        if digits.len() >= SnapshotId::CHARS {
            let id: SnapshotId = prefix.parse().map_err(|()| Error::NotASnapshot(text.to_owned()))?;
            let there = self.index().locate(id.0)?.is_some();
            return if there { Ok(id) } else { Err(Error::UnknownSnapshot(id)) };
        }
        let mut candidates: Vec<SnapshotId> = self.list()?.into_iter().map(|l| l.id).collect();
        candidates.retain(|id| id.to_string().starts_with(&prefix));
        match candidates[..] {
            [] => Err(Error::NoSuchSnapshot(text.to_owned())),
            [id] => Ok(id),
            [..] => {
                candidates.truncate(CANDIDATES_MAX);
                Err(Error::AmbiguousSnapshot { prefix: text.to_owned(), candidates })
            }
        }
    }

    /// Whether the catalogue has it, so that gc leaves it alone.
    pub fn keeps(&self, id: SnapshotId) -> Result<bool> {
        self.catalogue().contains(id)
    }

    /// Takes a snapshot and its names out of the catalogue; its space comes back with the next gc.
    pub fn forget(&self, id: SnapshotId) -> Result<()> {
        if self.catalogue().forget(id)? { Ok(()) } else { Err(Error::UnknownSnapshot(id)) }
    }

    /// Snapshots of the catalogue that the index does not know.
    pub(crate) fn lacking(&self) -> Result<u64> {
        let mut lacking = 0;
        for listed in self.list()? {
            lacking += u64::from(self.index().locate(listed.id.0)?.is_none());
        }
        Ok(lacking)
    }

    /// The snapshots in the packs, for a new catalogue. When they were made is lost; the root's last change is near it.
    pub(crate) fn found_snapshots(&self) -> Result<Vec<Row>> {
        let records = self.index().collect(|at| at.kind == ObjectKind::Snapshot)?;
        let describe = |id: SnapshotId| {
            let snapshot = self.snapshot(id)?;
            let totals = Dir::open(self, snapshot.dir)?.totals();
            Ok::<_, Error>(Row {
                id,
                created: snapshot.attrs.ctime,
                files: totals.files,
                bytes: totals.bytes,
            })
        };
        let row = |digest: Digest| {
            let id = SnapshotId(digest);
            describe(id).unwrap_or_else(|error| {
                tracing::warn!(snapshot = %id, %error, "a snapshot without a readable root is kept nevertheless");
                Row { id, created: Time::default(), files: 0, bytes: 0 }
            })
        };
        Ok(records.into_iter().map(|(digest, _)| row(digest)).collect())
    }
}
