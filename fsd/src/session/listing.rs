//! Listing a directory in pieces, while it changes and while seals swap what is under it.
//!
//! A cookie says where to go on: the index of an entry in the directory's object, or the sequence of an added name, and
//! the generation that this refers to. A seal that moves added names into the base begins a new generation; who
//! began before goes on in the old one, frozen, and is shown what of it still exists. So a name that is there from the
//! beginning of a listing to its end is shown, and shown once.

use std::{collections::HashMap, ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use cas::{Entry, dir::Dir};
use parking_lot::Mutex;

use super::{
    Error, Name, Result,
    inode::ROOT,
    live::Session,
    state::{Change, DirDelta},
    tree::{DirNode, Found},
};

/// Bits of a cookie: 15 of generation, one that tells added names, 47 of index or sequence. The highest bit stays 0, because
/// `d_off` is signed.
const ADDED: u64 = 1 << 47;
const GENERATION_SHIFT: u32 = 48;
const INDEX_MASK: u64 = ADDED - 1;
/// Generations kept for slow readers of one directory; with more seals than that during one listing, it begins anew.
const FROZEN_MAX: usize = 4;

/// The directories that somebody may be in the middle of listing.
#[derive(Debug, Default)]
pub struct Listings(Mutex<HashMap<u64, Listed>>);

#[derive(Debug, Default)]
struct Listed {
    generation: u64,
    frozen: Vec<(u64, Option<Dir>, DirDelta)>,
}

impl Listings {
    /// The directory's present generation; from here on seals keep older ones.
    fn begin(&self, dir: u64) -> u64 {
        self.0.lock().entry(dir).or_default().generation
    }

    fn frozen(&self, dir: u64, generation: u64) -> Option<(Option<Dir>, DirDelta)> {
        let listings = self.0.lock();
        let (_, base, delta) = listings.get(&dir)?.frozen.iter().find(|(g, _, _)| *g == generation)?;
        Some((base.clone(), delta.clone()))
    }

    /// Whether somebody may be in the middle of listing it.
    pub(super) fn contains(&self, dir: u64) -> bool {
        self.0.lock().contains_key(&dir)
    }

    /// A seal is about to move the directory's changes into its base: what it was becomes a generation of its own.
    pub(super) fn freeze(&self, dir: u64, base: Option<Dir>, delta: DirDelta) {
        if let Some(listed) = self.0.lock().get_mut(&dir) {
            if listed.frozen.len() == FROZEN_MAX {
                listed.frozen.remove(0);
            }
            listed.frozen.push((listed.generation, base, delta));
            listed.generation = (listed.generation + 1) & 0x7fff;
        }
    }

    /// Nobody knows the directory any more.
    pub(super) fn forget(&self, dir: u64) {
        self.0.lock().remove(&dir);
    }

    /// Nobody knows anything any more.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Receives an entry: its name, what it stands for, the cookie behind it. False: no room, it was not taken.
pub type Sink<'s> = dyn FnMut(&[u8], &Found, u64) -> bool + 's;

impl Session {
    /// Lists a directory from `cookie` on (0: from the start), without `.` and `..`, until it ends or `sink` is full. With
    /// `remember` every entry taken counts as looked up. Errors: `NotADirectory`, `Stale`.
    pub fn list(&self, dir: u64, cookie: u64, remember: bool, sink: &mut Sink<'_>) -> Result<()> {
        let state = self.state.read();
        let now = self.dir(&state, dir)?;
        let current = self.listings.begin(dir);
        let mut sink = |name: &[u8], found: &Found, next: u64| {
            let taken = sink(name, found, next);
            if taken && remember {
                self.remember(found);
            }
            taken
        };
        let wanted = if cookie == 0 { current } else { cookie >> GENERATION_SHIFT };
        if wanted != current
            && let Some((base, delta)) = self.listings.frozen(dir, wanted)
        {
            let then = DirNode { ino: dir, base };
            return walk(&then, Some(&delta), wanted, cookie, &mut |name, _, next| match state
                .child(&now, &Name::parse(name)?)?
            {
                Some(found) => Ok(sink(name, &found, next)),
                None => Ok(true),
            });
        }
        let cookie = if wanted == current { cookie } else { 0 };
        let delta = state.dirs.get(&dir);
        walk(&now, delta, current, cookie, &mut |name, place, next| {
            let (At::Base(_, _, Entry { ino, .. }) | At::Added(ino)) = place;
            if !state.stands(ino, dir) {
                return Ok(true);
            }
            let found = match place {
                At::Base(base, index, entry) => state.of_entry(base, index, &entry, dir),
                At::Added(ino) => match state.inodes.get(&ino) {
                    Some(inode) => Found { parent: dir, ..Found::changed(ino, inode) },
                    None => return Ok(true),
                },
            };
            Ok(sink(name, &found, next))
        })
    }

    /// The way from the root to a directory, found by looking through those above it. Errors: `NotFound`, it is nowhere by now; `Stale`.
    pub fn path_of(&self, dir: u64) -> Result<PathBuf> {
        let (mut at, mut names) = (dir, Vec::new());
        while at != ROOT {
            let parent = self.stat(at)?.parent;
            let mut name = None;
            self.list(parent, 0, false, &mut |entry, found, _| {
                if found.ino == at {
                    name = Some(entry.to_vec());
                }
                name.is_none()
            })?;
            if !self.known.contains(parent) {
                self.listings.forget(parent);
            }
            names.push(name.ok_or(Error::NotFound)?);
            at = parent;
        }
        Ok(names.iter().rev().map(|name| OsStr::from_bytes(name)).collect())
    }
}

/// What an entry of a listing refers to: one of the base, or an inode.
enum At<'d> {
    Base(&'d Dir, u32, Entry<'d>),
    Added(u64),
}

/// Is given a name, what it refers to and the cookie behind it; says whether to go on.
type Visit<'v> = dyn FnMut(&[u8], At<'_>, u64) -> Result<bool> + 'v;

/// The entries of a directory from a cookie on: the names of the base that are not gone, then those it does not have.
fn walk(
    dir: &DirNode,
    delta: Option<&DirDelta>,
    generation: u64,
    cookie: u64,
    sink: &mut Visit<'_>,
) -> Result<()> {
    let prefix = generation << GENERATION_SHIFT;
    let from = cookie & INDEX_MASK;
    let in_added = cookie & ADDED != 0;
    if let Some(base) = dir.base.as_ref().filter(|_| !in_added) {
        for index in from as u32..base.count() {
            let entry = base.entry(index)?;
            let at = match delta.and_then(|delta| delta.names.get(entry.name)) {
                None => At::Base(base, index, entry),
                // Replaced: it stays where it was, so that nobody is shown it twice.
                Some(Change::Added { ino, .. }) => At::Added(*ino),
                Some(Change::Gone) => continue,
            };
            // An index plus one is never 0, so no cookie handed out means "from the start".
            if !sink(entry.name, at, prefix | (index as u64 + 1))? {
                return Ok(());
            }
        }
    }
    let Some(delta) = delta else { return Ok(()) };
    for (&seq, name) in delta.added.range(if in_added { from } else { 0 }..) {
        let shown = match &dir.base {
            Some(base) => base.find(name.as_bytes())?.is_some(),
            None => false,
        };
        if let Some(Change::Added { ino, .. }) = delta.names.get(name)
            && !shown
            && !sink(name.as_bytes(), At::Added(*ino), prefix | ADDED | (seq + 1))?
        {
            return Ok(());
        }
    }
    Ok(())
}
