//! Whether a replayed state is one that a session can be in. What live operations keep true by themselves is checked here
//! once, so that walks end and sums do not overflow whatever a log says. Costs a look at each change, reads nothing.

use std::{collections::HashSet, sync::Arc};

use cas::Kind;

use super::{
    FILE_BYTES_MAX, INODES_MAX,
    extent::FileBody,
    inode::{Body, CREATED_MIN, Inode, ROOT},
    state::State,
};

/// No inode has this number or a higher one.
pub(super) const INO_END: u64 = CREATED_MIN + INODES_MAX;

/// What is wrong with a state whose orphans were dropped, in words for a person.
pub(super) fn check(state: &State) -> Result<(), &'static str> {
    if state.inodes.get(&ROOT).is_none_or(|root| root.kind != Kind::Dir) {
        return Err("it has no root directory");
    }
    if !(CREATED_MIN..=INO_END).contains(&state.next_ino) {
        return Err("the number of its next inode is out of range");
    }
    for (&ino, inode) in &state.inodes {
        if !(ROOT..INO_END).contains(&ino) {
            return Err("an inode number is out of range");
        }
        check_file(inode)?;
    }
    check_parents(state)?;
    check_names(state)
}

/// Every extent lies within its file.
fn check_file(inode: &Inode) -> Result<(), &'static str> {
    if inode.attrs.size > FILE_BYTES_MAX {
        return Err("a file is larger than any can be");
    }
    let Body::File(FileBody { base, base_visible, extents }) = &inode.body else { return Ok(()) };
    if *base_visible > base.map_or(0, |blob| blob.size) {
        return Err("a file shows more of its base than there is");
    }
    match extents.iter().last() {
        Some((start, extent)) if start + extent.len > inode.attrs.size => {
            Err("a file has bytes behind its end")
        }
        _ => Ok(()),
    }
}

/// Every changed directory is below the root.
fn check_parents(state: &State) -> Result<(), &'static str> {
    let mut below = HashSet::from([ROOT]);
    for (&ino, _) in state.inodes.iter().filter(|(_, inode)| inode.kind == Kind::Dir) {
        let (mut at, mut way) = (ino, Vec::new());
        while below.insert(at) {
            way.push(at);
            at = match state.inodes.get(&at) {
                Some(inode) if inode.kind == Kind::Dir => inode.parent,
                Some(_) | None => return Err("a changed directory is not below the root"),
            };
        }
        // It met one that was known before, or itself.
        if way.contains(&at) {
            return Err("a directory is inside itself");
        }
    }
    Ok(())
}

/// A directory stands where it says that it does, and so has one name.
fn check_names(state: &State) -> Result<(), &'static str> {
    for (&dir, delta) in &state.dirs {
        for (_, ino) in delta.names.values().filter_map(|change| change.added()) {
            // A name that stands for nothing is an error for who looks it up, and no reason to refuse all the rest.
            let elsewhere =
                |inode: &Arc<Inode>| inode.kind == Kind::Dir && (inode.parent != dir || ino == ROOT);
            if state.inodes.get(&ino).is_some_and(elsewhere) {
                return Err("a directory is in two places");
            }
        }
    }
    Ok(())
}
