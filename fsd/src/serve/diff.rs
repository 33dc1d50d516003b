//! What differs between two trees, as the interface lists it: in order, with both paths, and with contents on request.

use std::collections::HashMap;

use cas::{Kind, Store};
use proto::{
    DIFF_CONTENT_BYTES_MAX,
    v1::{self, ContentOmitted, DiffKind},
};
use tonic::Status;

use super::{Answer, Host, convert::file_kind, stream::Sink};
use crate::{
    fleet::heads::Head,
    session::{Difference, Found, Side, State, Target},
};

/// git looks this far for a NUL to call a file binary.
const BINARY_PROBE_BYTES: usize = 8000;

impl Host {
    pub(super) fn diff(&self, request: v1::DiffRequest, sink: &Sink<v1::DiffEntry>) -> Answer<()> {
        let v1::DiffRequest { a, b, patch, stat, expand_renames } = request;
        let store = &self.engine.store().fetching();
        let (old, new) = if b.is_empty() { self.own_sides(&a)? } else { (self.side(&b)?, self.side(&a)?) };
        let differences = self.engine.diff(&old, &new, expand_renames || patch)?;
        let moved = Moved::of(&differences);
        let with_content = patch || stat;
        for difference in differences {
            sink.send(Comparison { store, old: &old, new: &new, with_content }.entry(difference, &moved)?)?;
        }
        Ok(())
    }

    fn side(&self, id: &str) -> Answer<Side> {
        if let Some(head) = self.head_elsewhere(id)? {
            return self.side_of_head(&head);
        }
        Ok(match self.target(id)? {
            Target::Session(session) => Side { state: session.freeze(), origin: session.meta.origin },
            Target::Snapshot(id) => Side::snapshot(&self.engine.store().fetching(), id)?,
        })
    }

    /// What is published of a session of another host.
    fn side_of_head(&self, head: &Head) -> Answer<Side> {
        self.look_at(head, head.root)?;
        let state = State::of_snapshot(&self.engine.store().fetching(), head.root)?;
        Ok(Side { state, origin: head.origin })
    }

    /// A session and its base, the base first.
    fn own_sides(&self, id: &str) -> Answer<(Side, Side)> {
        if let Some(head) = self.head_elsewhere(id)? {
            self.look_at(&head, head.origin)?;
            let old = Side::snapshot(&self.engine.store().fetching(), head.origin)?;
            return Ok((old, self.side_of_head(&head)?));
        }
        match self.session_first(id)? {
            Target::Session(session) => {
                let origin = session.meta.origin;
                let old = Side::snapshot(&self.engine.store().fetching(), origin)?;
                Ok((old, Side { state: session.freeze(), origin }))
            }
            Target::Snapshot(id) => {
                let message = format!("{id} is a snapshot and has no base: name what to compare it with");
                Err(Status::failed_precondition(message))
            }
        }
    }
}

/// The renamed directories: new path to old.
struct Moved(HashMap<Vec<u8>, Vec<u8>>);

impl Moved {
    fn of(differences: &[Difference]) -> Moved {
        let dirs = differences.iter().filter_map(|difference| match difference {
            Difference::Renamed(old_path, _, path, new) if new.kind == Kind::Dir => {
                Some((path.clone(), old_path.clone()))
            }
            _ => None,
        });
        Moved(dirs.collect())
    }

    /// Where a path was on the old side; empty if it was there, too.
    fn old_path(&self, path: &[u8]) -> Vec<u8> {
        let mut end = path.len();
        while let Some(slash) = path[..end].iter().rposition(|&byte| byte == b'/') {
            if let Some(old_dir) = self.0.get(&path[..slash]) {
                return [old_dir, &path[slash..]].concat();
            }
            end = slash;
        }
        Vec::new()
    }
}

/// Both trees, and whether contents are wanted.
struct Comparison<'a> {
    store: &'a Store,
    old: &'a Side,
    new: &'a Side,
    with_content: bool,
}

impl Comparison<'_> {
    fn entry(&self, difference: Difference, moved: &Moved) -> Answer<v1::DiffEntry> {
        let (kind, path, old_path, old, new) = match difference {
            Difference::Added(path, new) => (DiffKind::Added, path, Vec::new(), None, Some(new)),
            Difference::Deleted(path, old) => (DiffKind::Deleted, path, Vec::new(), Some(old), None),
            Difference::Modified(path, old, new) => {
                let old_path = moved.old_path(&path);
                (DiffKind::Modified, path, old_path, Some(old), Some(new))
            }
            Difference::TypeChanged(path, old, new) => {
                let old_path = moved.old_path(&path);
                (DiffKind::TypeChanged, path, old_path, Some(old), Some(new))
            }
            Difference::Renamed(old_path, old, path, new) => {
                (DiffKind::Renamed, path, old_path, Some(old), Some(new))
            }
        };
        let same_content = match (&old, &new) {
            (Some(old), Some(new)) => self.same_content(old, new)?,
            _ => false,
        };
        let with_content = self.with_content && !same_content;
        let side = |tree: &Side, found: Option<Found>| {
            found.map(|found| self.message(tree, &found, with_content)).transpose()
        };
        Ok(v1::DiffEntry {
            kind: kind.into(),
            path,
            old_path,
            old: side(self.old, old)?,
            new: side(self.new, new)?,
            same_content,
        })
    }

    /// Whether the bytes are known to be the same: they come from the same place, or are few enough to be read.
    fn same_content(&self, old: &Found, new: &Found) -> Answer<bool> {
        if old.kind != new.kind {
            return Ok(false);
        }
        match old.kind {
            Kind::Symlink => Ok(old.target()? == new.target()?),
            Kind::File if old.attrs.size != new.attrs.size => Ok(false),
            Kind::File => {
                let (a, b) = (old.file()?, new.file()?);
                let untouched = a.extents.is_empty() && b.extents.is_empty();
                if untouched && a.base == b.base && a.base_visible == b.base_visible {
                    return Ok(true);
                }
                let few = old.attrs.size <= DIFF_CONTENT_BYTES_MAX;
                Ok(few && self.bytes(self.old, old)? == self.bytes(self.new, new)?)
            }
            Kind::Dir | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => Ok(false),
        }
    }

    fn message(&self, tree: &Side, found: &Found, with_content: bool) -> Answer<v1::DiffSide> {
        let (content, omitted) =
            if with_content { self.content(tree, found)? } else { (None, ContentOmitted::Unspecified) };
        Ok(v1::DiffSide {
            kind: file_kind(found.kind).into(),
            mode: found.attrs.mode & 0o7777,
            size: found.attrs.size,
            content,
            omitted: omitted.into(),
        })
    }

    fn content(&self, tree: &Side, found: &Found) -> Answer<(Option<Vec<u8>>, ContentOmitted)> {
        match found.kind {
            Kind::Symlink => Ok((Some(found.target()?), ContentOmitted::Unspecified)),
            Kind::File if found.attrs.size > DIFF_CONTENT_BYTES_MAX => Ok((None, ContentOmitted::TooLarge)),
            Kind::File => {
                let bytes = self.bytes(tree, found)?;
                let binary = bytes[..bytes.len().min(BINARY_PROBE_BYTES)].contains(&0);
                Ok(if binary {
                    (None, ContentOmitted::Binary)
                } else {
                    (Some(bytes), ContentOmitted::Unspecified)
                })
            }
            Kind::Dir | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
                Ok((None, ContentOmitted::Unspecified))
            }
        }
    }

    /// All bytes of a file that is not too large.
    fn bytes(&self, tree: &Side, found: &Found) -> Answer<Vec<u8>> {
        let mut bytes = vec![0; found.attrs.size as usize];
        let read = tree.state.read(self.store, found, 0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_renamed_directory_says_where_a_file_was() {
        let moved = Moved([(b"new".to_vec(), b"old".to_vec()), (b"new/in".to_vec(), b"x".to_vec())].into());
        assert_eq!(moved.old_path(b"new/a/b"), b"old/a/b");
        assert_eq!(moved.old_path(b"new/in/b"), b"x/b");
        assert_eq!(moved.old_path(b"other/new/b"), b"");
        assert_eq!(moved.old_path(b"newer"), b"");
    }
}
