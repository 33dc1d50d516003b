//! Where else the hard-linked inodes that changed have names: a change to one is a change to every directory that has a name
//! for it, touched or not. Pure but for reads of the store.
//!
//! A changed inode knows one directory at most that has a name for it, and that one may be gone. So all its names are looked
//! for, and in the tree as it is, not in the base: a directory of the base that was removed may have held another one that
//! was moved out of it and stays. The untouched directories are those that are reached from a changed one through
//! names of the base that still stand.
//!
//! The totals of the base lead to names whose inode has several of them there. An inode that has, or had, several names and of
//! which the base has one only is found otherwise: the directory of that name is itself among the changed ones, since the
//! inode joined them with it (`Change::adopt`) or since a seal kept it (`SealedDirs::rebase`).

use std::collections::{HashMap, HashSet};

use cas::{Digest, Node, Store, dir::Dir};

use super::{
    Result,
    inode::Body,
    state::State,
    tree::{Found, Place},
};

/// Untouched directories: number to that of the directory above and the object in the base.
pub(super) type LinkedDirs = HashMap<u64, (u64, Digest)>;

/// Finds the untouched directories that have a name for a changed inode with several names, and the untouched ones above
/// them. Costs nothing where no such inode changed; looks only into subtrees whose totals say that there are such names.
pub(super) fn linked_dirs(store: &Store, state: &State) -> Result<LinkedDirs> {
    let linked: HashSet<u64> =
        state.inodes.iter().filter(|(_, inode)| inode.linked).map(|(ino, _)| *ino).collect();
    let mut search = Search { store, state, linked, above: LinkedDirs::new(), found: LinkedDirs::new() };
    if search.linked.is_empty() {
        return Ok(search.found);
    }
    for (&ino, inode) in state.inodes.iter().filter(|(ino, _)| !state.orphans.contains(*ino)) {
        if let Body::Dir(Some(base)) = &inode.body {
            search.below(ino, base.open(store)?)?;
        }
    }
    Ok(search.found)
}

/// The way from an untouched directory up to the changed one that it is reached from, itself included. Looks through the
/// whole tree: it is for the one case in which nobody knows better. `None` if there is no such directory.
pub(super) fn way_up(store: &Store, state: &State, dir: u64) -> Result<Option<Vec<Found>>> {
    let mut above: HashMap<u64, (u64, Place)> = HashMap::new();
    let mut queue = Vec::new();
    for (&ino, inode) in state.inodes.iter().filter(|(ino, _)| !state.orphans.contains(*ino)) {
        if let Body::Dir(Some(base)) = &inode.body {
            queue.push((ino, base.open(store)?));
        }
    }
    while let Some((at, object)) = queue.pop() {
        let delta = state.dirs.get(&at);
        for index in 0..object.count() {
            let entry = object.entry(index)?;
            let Node::Dir(digest) = entry.node else { continue };
            let stands = delta.is_none_or(|delta| !delta.names.contains_key(entry.name));
            if stands && !state.inodes.contains_key(&entry.ino) {
                above.insert(entry.ino, (at, Place { dir: object.clone(), index }));
                queue.push((entry.ino, Dir::open(store, digest)?));
            }
        }
        if above.contains_key(&dir) {
            break;
        }
    }
    let (mut way, mut at) = (Vec::new(), dir);
    while let Some((parent, place)) = above.remove(&at) {
        way.push(Found::base(place, parent)?);
        at = parent;
    }
    Ok(Some(way).filter(|way| !way.is_empty()))
}

struct Search<'a> {
    store: &'a Store,
    state: &'a State,
    /// Changed inodes with several names.
    linked: HashSet<u64>,
    /// Untouched directories that were met.
    above: LinkedDirs,
    /// Those of them that have a name that is looked for, or are above one.
    found: LinkedDirs,
}

impl Search<'_> {
    /// Looks through a changed directory and the untouched ones that are reached from it. No recursion: trees may be deeper
    /// than a stack.
    fn below(&mut self, ino: u64, dir: Dir) -> Result<()> {
        let mut queue = Vec::from_iter((dir.totals().links > 0).then_some((ino, dir)));
        while let Some((at, dir)) = queue.pop() {
            let delta = self.state.dirs.get(&at);
            let mut holds = false;
            for index in 0..dir.count() {
                let entry = dir.entry(index)?;
                holds |= self.linked.contains(&entry.ino);
                let Node::Dir(digest) = entry.node else { continue };
                let stands = delta.is_none_or(|delta| !delta.names.contains_key(entry.name));
                // A changed directory is looked through by itself, wherever it is now.
                if stands && !self.state.inodes.contains_key(&entry.ino) {
                    let below = Dir::open(self.store, digest)?;
                    if below.totals().links > 0 {
                        self.above.insert(entry.ino, (at, digest));
                        queue.push((entry.ino, below));
                    }
                }
            }
            if holds {
                self.mark(at);
            }
        }
        Ok(())
    }

    /// Adds a directory and those above it, up to the changed one that it was reached from.
    fn mark(&mut self, dir: u64) {
        let mut at = dir;
        while !self.state.inodes.contains_key(&at) && !self.found.contains_key(&at) {
            let place = self.above[&at];
            self.found.insert(at, place);
            at = place.0;
        }
    }
}
