//! Whether a replayed state is one that a session can be in. What live operations keep true by themselves is checked here
//! once, so that walks end and sums do not overflow whatever a log says. Costs a look at each change, reads nothing.

use std::collections::HashSet;

use cas::Kind;

use super::{
    FILE_BYTES_MAX,
    extent::FileBody,
    inode::{Body, CREATED_MIN, INO_END, Inode, ROOT},
    state::State,
};

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

/// A directory stands where it says that it does, and has one name.
fn check_names(state: &State) -> Result<(), &'static str> {
    let mut named = HashSet::new();
    for (&dir, delta) in &state.dirs {
        for (_, ino) in delta.names.values().filter_map(|change| change.added()) {
            // A name that stands for nothing is an error for who looks it up, and no reason to refuse all the rest.
            let Some(inode) = state.inodes.get(&ino).filter(|inode| inode.kind == Kind::Dir) else {
                continue;
            };
            if inode.parent != dir || ino == ROOT || !named.insert(ino) {
                return Err("a directory is in two places");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{ops::Range, sync::Arc};

    use cas::{Attrs, Digest, SnapshotId, Time};

    use super::*;
    use crate::session::{
        Name,
        extent::{Data, Extent, Extents},
        inode::XattrSet,
        state::Effect,
    };

    fn inode(kind: Kind, parent: u64, size: u64, body: Body) -> Inode {
        let time = Time::default();
        let attrs = Attrs { mode: 0, uid: 0, gid: 0, nlink: 2, rdev: 0, size, mtime: time, ctime: time };
        Inode { parent, kind, linked: false, attrs, atime: time, xattrs: XattrSet::Base(None), body }
    }

    fn dir(parent: u64) -> Inode {
        inode(Kind::Dir, parent, 0, Body::Dir(None))
    }

    fn file(size: u64, hole: Range<u64>) -> Inode {
        let mut extents = Extents::default();
        if !hole.is_empty() {
            extents.insert(hole.start, Extent { len: hole.end - hole.start, data: Data::Hole });
        }
        inode(Kind::File, ROOT, size, Body::File(FileBody { extents, ..FileBody::default() }))
    }

    /// A root and these, with a name of the root's for each inode in `named`.
    fn state(inodes: &[(u64, Inode)], named: &[u64]) -> State {
        let (base, next_ino) = (SnapshotId(Digest([1; 32])), CREATED_MIN);
        let (dirs, orphans) = (Default::default(), Default::default());
        let mut state = State { base, inodes: Default::default(), dirs, orphans, next_ino, epoch: 0 };
        state.apply(&Effect::Inode(ROOT, Arc::new(dir(ROOT))));
        for (ino, inode) in inodes {
            state.apply(&Effect::Inode(*ino, Arc::new(inode.clone())));
        }
        for ino in named {
            let name = Name::parse(ino.to_string().as_bytes()).unwrap();
            state.apply(&Effect::Add { dir: ROOT, name, ino: *ino });
        }
        state
    }

    fn said(inodes: &[(u64, Inode)], named: &[u64]) -> Result<(), &'static str> {
        check(&state(inodes, named))
    }

    #[test]
    fn what_sessions_do_is_accepted() {
        assert_eq!(said(&[(2, dir(ROOT)), (3, dir(2)), (4, file(10, 0..10))], &[2, 4]), Ok(()));
        assert_eq!(said(&[], &[77]), Ok(()), "a name of nothing is trouble for one name alone");
    }

    /// A write behind a file's end, in a log with good checksums, made the count of its data bytes go on for ever.
    #[test]
    fn bytes_behind_the_end_are_refused() {
        assert!(said(&[(2, file(10, 5..11))], &[2]).is_err());
        assert!(said(&[(2, file(u64::MAX, 0..1))], &[2]).is_err());
    }

    #[test]
    fn directories_are_below_the_root_and_in_one_place() {
        assert!(said(&[(2, dir(3)), (3, dir(2))], &[]).is_err(), "inside themselves");
        assert!(said(&[(2, dir(2))], &[]).is_err(), "inside itself");
        assert!(said(&[(2, dir(9))], &[]).is_err(), "nowhere");
        assert!(said(&[(2, dir(3)), (3, file(0, 0..0))], &[]).is_err(), "in a file");
        assert!(said(&[(2, dir(ROOT)), (3, dir(2))], &[2, 3]).is_err(), "in two places");
        assert!(said(&[], &[ROOT]).is_err(), "the root in itself");
        let mut twice = state(&[(2, dir(ROOT))], &[2]);
        twice.apply(&Effect::Add { dir: ROOT, name: Name::parse(b"again").unwrap(), ino: 2 });
        assert!(check(&twice).is_err(), "a rename of one of its names would leave it in two places");
    }

    #[test]
    fn numbers_stay_in_their_range() {
        assert!(said(&[(0, dir(ROOT))], &[]).is_err());
        assert!(said(&[(u64::MAX, dir(ROOT))], &[]).is_err());
    }
}
