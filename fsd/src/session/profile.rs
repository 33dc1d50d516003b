//! What was read of a session, by the names of now: its [`Accesses`] with paths to them. Pure but for reads of the store.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use cas::{Kind, Store};

use super::{
    Name, Result,
    accesses::Access,
    inode::{Body, ROOT},
    live::Session,
    state::State,
    tree::{Found, Source},
};

/// Ranges that one entry has at most.
pub const ENTRY_RANGES_MAX: usize = 32;
/// Bytes of a path: nobody could name a longer one, though there may be some.
pub const ENTRY_PATH_BYTES_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Profile {
    /// In the order of the first time.
    accesses: Vec<Access>,
    places: HashMap<u64, Place>,
    /// Whether there was no room for all that was read.
    pub is_full: bool,
}

/// An entry: a file, or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileEntry {
    /// From the root down.
    pub path: Vec<u8>,
    /// Of a file, what was read; `None`, the end of the file. Empty for a directory.
    pub ranges: Vec<(u64, Option<u64>)>,
}

/// Where an inode is, and what there is to read.
#[derive(Debug)]
struct Place {
    parent: u64,
    name: Option<Name>,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Dir,
    /// A file of so many bytes.
    File(u64),
    /// What has nothing that a store could have.
    Own,
}

impl Session {
    /// What was read of it so far. Looks into all directories that were looked into; `store` waits for what is not here.
    pub fn profile(&self, store: &Store) -> Result<Profile> {
        let Some(accesses) = self.accesses() else { return Ok(Profile::default()) };
        let (accesses, is_full) = accesses.all();
        let wanted = accesses.iter().map(|access| access.ino).collect();
        let places = places(&self.peek(), store, &wanted)?;
        Ok(Profile { accesses, places, is_full })
    }
}

/// Finds inodes by a walk through those directories that are among them, as whoever read them came by.
fn places(state: &State, store: &Store, wanted: &HashSet<u64>) -> Result<HashMap<u64, Place>> {
    let mut places = HashMap::from([(ROOT, Place { parent: ROOT, name: None, what: What::Dir })]);
    let mut stack = vec![Found::changed(ROOT, state.root())];
    while let Some(dir) = stack.pop() {
        let node = state.open_dir(store, &dir)?;
        for (name, found) in state.entries(&node)? {
            // Of several names of a file the first one will do.
            if !wanted.contains(&found.ino) || places.contains_key(&found.ino) {
                continue;
            }
            let what = match found.kind {
                Kind::Dir if is_made_here(&found) => What::Own,
                Kind::Dir => What::Dir,
                Kind::File if found.file()?.base.is_some() => What::File(found.attrs.size),
                _ => What::Own,
            };
            places.insert(found.ino, Place { parent: dir.ino, name: Some(name), what });
            if found.kind == Kind::Dir {
                stack.push(found);
            }
        }
    }
    Ok(places)
}

/// Whether the session has made a directory itself, and nobody has sealed it.
fn is_made_here(dir: &Found) -> bool {
    matches!(&dir.source, Source::Changed(inode) if matches!(inode.body, Body::Dir(None)))
}

impl Profile {
    /// Accesses to what has no name any more, or one that is too long to be told.
    pub fn gone(&self) -> u64 {
        self.accesses.iter().filter(|access| self.path(access.ino).is_none()).count() as u64
    }

    /// Its entries. What the session has written itself and not sealed is not among them: no other host has it.
    pub fn entries(&self) -> impl Iterator<Item = ProfileEntry> {
        let mut accesses = self.accesses.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let first = accesses.next()?;
                let Some(place) = self.places.get(&first.ino) else { continue };
                let Some(path) = self.path(first.ino) else { continue };
                let ranges = match place.what {
                    What::Own => continue,
                    What::Dir => Vec::new(),
                    What::File(size) => {
                        let mut ranges = first.ranges();
                        // Large files that are read on and on are one entry.
                        while let Some(next) =
                            accesses.next_if(|next| next.ino == first.ino && goes_on(&ranges, next))
                        {
                            join(&mut ranges, next.ranges());
                        }
                        let ranges = within(&ranges, size);
                        if ranges.is_empty() {
                            continue;
                        }
                        ranges
                    }
                };
                return Some(ProfileEntry { path, ranges });
            }
        })
    }

    /// Of an inode that has a place, if it is not too long.
    fn path(&self, ino: u64) -> Option<Vec<u8>> {
        let (mut names, mut bytes, mut at) = (Vec::new(), 0, self.places.get(&ino)?);
        while let Some(name) = &at.name {
            names.push(name.as_bytes());
            bytes += name.as_bytes().len() + 1;
            // The slash in front of the first one is not there.
            if bytes > ENTRY_PATH_BYTES_MAX + 1 {
                return None;
            }
            at = self.places.get(&at.parent)?;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }
}

/// Whether the next region begins where these ranges end, and all have room in one entry.
fn goes_on(ranges: &[Range<u64>], next: &Access) -> bool {
    let next = next.ranges();
    let touches = ranges.last().zip(next.first()).is_some_and(|(last, first)| last.end == first.start);
    touches && ranges.len() + next.len() <= ENTRY_RANGES_MAX
}

fn join(ranges: &mut Vec<Range<u64>>, next: Vec<Range<u64>>) {
    let mut next = next.into_iter();
    if let (Some(last), Some(first)) = (ranges.last_mut(), next.next()) {
        last.end = first.end;
    }
    ranges.extend(next);
}

/// What of ranges is in a file of this size: one that has its end is for that end, wherever it may be in another version of the file.
fn within(ranges: &[Range<u64>], size: u64) -> Vec<(u64, Option<u64>)> {
    let ranges = ranges.iter().filter(|range| range.start < size);
    ranges.map(|range| (range.start, (range.end < size).then_some(range.end))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_nobody_could_name_are_left_out() {
        let place =
            |parent, name: &[u8], what| Place { parent, name: Some(Name::parse(name).unwrap()), what };
        let mut profile = Profile::default();
        profile.places.insert(ROOT, Place { parent: ROOT, name: None, what: What::Dir });
        for depth in 0..20 {
            let (ino, parent) = (100 + depth, if depth == 0 { ROOT } else { 99 + depth });
            profile.places.insert(ino, place(parent, &[b'd'; 255], What::Dir));
        }
        assert_eq!(profile.path(ROOT).unwrap(), b"");
        assert_eq!(profile.path(115).unwrap().len(), 16 * 256 - 1);
        assert!((116..120).all(|ino| profile.path(ino).is_none()));
        profile.places.insert(200, place(115, b"f", What::Dir));
        assert!(profile.path(200).is_none(), "4097 bytes");
        assert!(profile.path(300).is_none(), "it is gone");
    }

    #[test]
    fn ranges_end_with_the_file() {
        assert_eq!(within(&[0..10, 20..30], 35), [(0, Some(10)), (20, Some(30))]);
        assert_eq!(within(&[0..10, 20..30], 30), [(0, Some(10)), (20, None)]);
        assert_eq!(within(&[0..10, 20..30], 5), [(0, None)]);
        assert_eq!(within(&[0..10, 20..30], 0), []);
    }

    #[test]
    fn regions_that_touch_are_one() {
        let mut ranges = vec![0..5, 7..10];
        join(&mut ranges, vec![10..12, 14..15]);
        assert_eq!(ranges, [0..5, 7..12, 14..15]);
    }
}
