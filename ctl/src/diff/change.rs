//! One difference, parsed from the daemon's message: what a status promises is there.

use proto::v1::{ContentOmitted, DiffEntry, DiffKind, DiffSide, FileKind};

use crate::failure::Failure;

/// How a path differs, with the sides that this implies.
#[derive(Debug)]
pub(crate) enum Sides {
    Added(Side),
    Deleted(Side),
    Modified(Side, Side),
    TypeChanged(Side, Side),
    Renamed(Side, Side),
}

#[derive(Debug)]
pub(crate) struct Change {
    /// On the new side; of a deletion on the old one.
    pub(crate) path: Vec<u8>,
    /// On the old side; the same as `path` unless it lies elsewhere there.
    pub(crate) old_path: Vec<u8>,
    pub(crate) sides: Sides,
    /// Both sides hold the same bytes.
    pub(crate) same_content: bool,
}

#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) content: Content,
}

/// A side's bytes, or why they are not here.
#[derive(Debug, PartialEq)]
pub(crate) enum Content {
    Text(Vec<u8>),
    TooLarge,
    Binary,
    /// Not asked for, not needed, or of a kind that has none.
    Absent,
}

/// git looks this far for a NUL to call a file binary.
const BINARY_PROBE_BYTES: usize = 8000;

impl Change {
    /// The status letter of the plain form.
    pub(crate) fn letter(&self) -> char {
        match self.sides {
            Sides::Added(_) => 'A',
            Sides::Deleted(_) => 'D',
            Sides::Modified(..) => 'M',
            Sides::TypeChanged(..) => 'T',
            Sides::Renamed(..) => 'R',
        }
    }

    pub(crate) fn old_side(&self) -> Option<&Side> {
        match &self.sides {
            Sides::Added(_) => None,
            Sides::Deleted(old)
            | Sides::Modified(old, _)
            | Sides::TypeChanged(old, _)
            | Sides::Renamed(old, _) => Some(old),
        }
    }

    pub(crate) fn new_side(&self) -> Option<&Side> {
        match &self.sides {
            Sides::Deleted(_) => None,
            Sides::Added(new)
            | Sides::Modified(_, new)
            | Sides::TypeChanged(_, new)
            | Sides::Renamed(_, new) => Some(new),
        }
    }
}

impl TryFrom<DiffEntry> for Change {
    type Error = Failure;

    fn try_from(entry: DiffEntry) -> Result<Change, Failure> {
        let kind = entry.kind();
        let DiffEntry { path, old_path, old, new, same_content, .. } = entry;
        if path.is_empty() {
            return Err(Failure::protocol("a difference without a path"));
        }
        let (old, new) = (old.map(Side::from), new.map(Side::from));
        let sides = match (kind, old, new) {
            (DiffKind::Added, None, Some(new)) => Sides::Added(new),
            (DiffKind::Deleted, Some(old), None) => Sides::Deleted(old),
            (DiffKind::Modified, Some(old), Some(new)) => Sides::Modified(old, new),
            (DiffKind::TypeChanged, Some(old), Some(new)) => Sides::TypeChanged(old, new),
            (DiffKind::Renamed, Some(old), Some(new)) if !old_path.is_empty() => Sides::Renamed(old, new),
            _ => return Err(Failure::protocol("a difference without its sides")),
        };
        let old_path = if old_path.is_empty() { path.clone() } else { old_path };
        Ok(Change { path, old_path, sides, same_content })
    }
}

impl From<DiffSide> for Side {
    fn from(side: DiffSide) -> Side {
        let kind = side.kind();
        let content = match (side.omitted(), side.content) {
            (ContentOmitted::TooLarge, _) => Content::TooLarge,
            (ContentOmitted::Binary, _) => Content::Binary,
            (ContentOmitted::Unspecified, None) => Content::Absent,
            (ContentOmitted::Unspecified, Some(bytes)) => {
                let probe = &bytes[..bytes.len().min(BINARY_PROBE_BYTES)];
                let binary = kind == FileKind::Regular && probe.contains(&0);
                if binary { Content::Binary } else { Content::Text(bytes) }
            }
        };
        Side { kind, mode: side.mode, size: side.size, content }
    }
}
