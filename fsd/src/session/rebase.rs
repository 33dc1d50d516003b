//! The live state over the base that a seal gave: what did not change since the cut is part of that, what did is told as
//! a difference from it. Pure but for reads of the new dir objects.

use std::{collections::HashMap, sync::Arc};

use cas::{
    Digest, SnapshotId, Store,
    dir::{Dir, Totals},
};

use super::{
    Name, Result,
    inode::{BaseDir, Body, Inode, ROOT},
    state::{Change, DirDelta, State},
    tree::Place,
};

/// The directories that a seal wrote: number to object.
#[derive(Debug, Default)]
pub(super) struct SealedDirs(pub(super) HashMap<u64, (Digest, Totals)>);

/// A name in the new base of an inode that the cut had changed, or of a directory that was written.
#[derive(Debug)]
pub(super) struct Moved {
    /// The inode.
    pub(super) ino: u64,
    /// Its entry.
    pub(super) place: Place,
    /// The directory that the entry is in.
    pub(super) parent: u64,
}

impl SealedDirs {
    /// Where the inodes that the cut had changed are in the new base.
    pub(super) fn places(&self, store: &Store, cut: &State) -> Result<Vec<Moved>> {
        let mut places = Vec::new();
        for (&parent, (digest, _)) in &self.0 {
            let dir = Dir::open(store, *digest)?;
            for index in 0..dir.count() {
                let ino = dir.entry(index)?.ino;
                if cut.inodes.contains_key(&ino) || self.0.contains_key(&ino) {
                    places.push(Moved { ino, place: Place { dir: dir.clone(), index }, parent });
                }
            }
        }
        Ok(places)
    }

    /// The live state over the new base: only what changed since the cut is left of it.
    pub(super) fn rebase(
        &self,
        live: &State,
        cut: &State,
        base: SnapshotId,
        moved: &[Moved],
    ) -> Result<State> {
        let mut inodes = imbl::OrdMap::new();
        let mut before = cut.inodes.iter().peekable();
        for (&ino, inode) in &live.inodes {
            // Both are in order: the session waits for this, and a look-up for each would take ten times as long.
            while before.next_if(|(other, _)| **other < ino).is_some() {}
            let same = |(other, before): &(&u64, &Arc<Inode>)| **other == ino && Arc::ptr_eq(before, inode);
            let unchanged = before.peek().is_some_and(same);
            if live.orphans.contains(&ino) {
                // Without what is above it: it has no place there any more.
                inodes.insert(ino, Arc::clone(inode));
            } else if ino == ROOT || !unchanged {
                self.keep(&mut inodes, live, ino);
            }
        }
        let mut dirs = imbl::OrdMap::new();
        for (&dir, delta) in &live.dirs {
            if live.orphans.contains(&dir) {
                dirs.insert(dir, delta.clone());
                continue;
            }
            let rest = match cut.dirs.get(&dir) {
                Some(before) => since(delta, before),
                None => delta.clone(),
            };
            if !rest.names.is_empty() {
                self.keep(&mut inodes, live, dir);
                dirs.insert(dir, rest);
            }
        }
        let (orphans, next_ino, epoch) = (live.orphans.clone(), live.next_ino, live.epoch);
        let mut state = State { base, inodes, dirs, orphans, next_ino, epoch };
        self.keep_linked(&mut state, live, moved)?;
        Ok(state)
    }

    /// Of an inode that has, or had, several names the parent is a hint: it may be where a name was that is gone. Where the
    /// new base has several names for it, a seal looks for all of them. Where it has one, nothing tells that there may be
    /// more to it, so the directory of that one is kept.
    fn keep_linked(&self, state: &mut State, live: &State, moved: &[Moved]) -> Result<()> {
        let is_linked = |moved: &&Moved| state.inodes.get(&moved.ino).is_some_and(|inode| inode.linked);
        let linked: Vec<&Moved> = moved.iter().filter(is_linked).collect();
        if linked.is_empty() {
            return Ok(());
        }
        let by_ino: HashMap<u64, &Moved> = moved.iter().map(|moved| (moved.ino, moved)).collect();
        for name in linked {
            if name.place.dir.entry(name.place.index)?.attrs.nlink == 1 && stands(state, live, &by_ino, name)?
            {
                self.keep_dir(&mut state.inodes, live, &by_ino, name.parent)?;
            }
        }
        Ok(())
    }

    /// Keeps a directory that has a name in the new base, and those above it, changed or not.
    fn keep_dir(
        &self,
        inodes: &mut imbl::OrdMap<u64, Arc<Inode>>,
        live: &State,
        by_ino: &HashMap<u64, &Moved>,
        dir: u64,
    ) -> Result<()> {
        let mut at = dir;
        while !inodes.contains_key(&at) && !live.inodes.contains_key(&at) {
            let Some(Moved { place, parent, .. }) = by_ino.get(&at) else { return Ok(()) };
            inodes.insert(at, Arc::new(Inode::of_entry(&place.dir.entry(place.index)?, *parent)));
            at = *parent;
        }
        self.keep(inodes, live, at);
        Ok(())
    }

    /// Keeps an inode, and its ancestors with it, over the new base.
    fn keep(&self, inodes: &mut imbl::OrdMap<u64, Arc<Inode>>, live: &State, ino: u64) {
        let mut at = ino;
        while !inodes.contains_key(&at) {
            // A linked inode's parent is a hint that may be gone.
            let Some(inode) = live.inodes.get(&at) else { return };
            let inode = match self.0.get(&at) {
                Some((digest, _)) => {
                    Arc::new(Inode { body: Body::Dir(Some(BaseDir::new(*digest))), ..(**inode).clone() })
                }
                None => Arc::clone(inode),
            };
            let parent = inode.parent;
            inodes.insert(at, inode);
            at = parent;
        }
    }
}

/// Whether a name of the new base is still one of the live state.
fn stands(state: &State, live: &State, by_ino: &HashMap<u64, &Moved>, moved: &Moved) -> Result<bool> {
    let mut at = moved;
    loop {
        let entry = at.place.dir.entry(at.place.index)?;
        match state.change_of(at.parent, &Name::parse(entry.name)?) {
            Some(Change::Gone) => return Ok(false),
            Some(Change::Added { ino, .. }) if ino != at.ino => return Ok(false),
            Some(Change::Added { .. }) | None => {}
        }
        if at.parent == ROOT || live.inodes.contains_key(&at.parent) {
            return Ok(!live.orphans.contains(&at.parent));
        }
        // Untouched, or removed: its own name tells.
        match by_ino.get(&at.parent) {
            Some(dir) => at = dir,
            None => return Ok(false),
        }
    }
}

/// What of `live` is left when `before` is part of the base.
fn since(live: &DirDelta, before: &DirDelta) -> DirDelta {
    let mut rest = live.clone();
    if live.names.ptr_eq(&before.names) {
        return DirDelta { next_seq: live.next_seq, ..DirDelta::default() };
    }
    for (name, was) in &before.names {
        match (was, live.names.get(name)) {
            // The new base has it as it is.
            (Change::Added { ino: a, .. }, Some(Change::Added { ino: b, seq })) if a == b => {
                rest.added.remove(seq);
                rest.names.remove(name);
            }
            // The new base has another, or one that is gone since.
            (Change::Added { .. }, Some(_)) => {}
            (Change::Added { .. }, None) => {
                rest.names.insert(name.clone(), Change::Gone);
            }
            // The new base has it no more, and neither has the session.
            (Change::Gone, Some(Change::Gone)) => {
                rest.names.remove(name);
            }
            (Change::Gone, _) => {}
        }
    }
    rest
}
