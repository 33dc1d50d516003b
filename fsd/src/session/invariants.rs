//! Whether a replayed state is one that a session can be in. What live operations keep true by themselves is checked here
//! once, so that walks end and sums do not overflow whatever a log says. Costs a look at each change, reads nothing.
//!
//! A state in which nothing can be trusted is refused. One in which a directory hangs in the air loses that directory: no
//! path led there, and the rest of the host's sessions need not wait for it.

use std::collections::HashSet;

use cas::Kind;

use super::{
    FILE_BYTES_MAX,
    extent::FileBody,
    inode::{Body, CREATED_MIN, INO_END, Inode, ROOT},
    state::State,
};

/// Lets go of what no path leads to in a state whose orphans were dropped, and says which directories that were. Fails, with
/// words for a person, if the state cannot be used at all.
pub(super) fn mend(state: &mut State) -> Result<Vec<u64>, &'static str> {
    check(state)?;
    let adrift = adrift(state);
    for ino in &adrift {
        state.inodes.remove(ino);
        state.dirs.remove(ino);
    }
    Ok(adrift)
}

fn check(state: &State) -> Result<(), &'static str> {
    // One that says that it is nowhere would be taken for one that never had a name.
    if state.inodes.get(&ROOT).is_none_or(|root| root.kind != Kind::Dir || root.parent != ROOT) {
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
    Ok(())
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

/// The changed directories from which no way leads up to the root: their parents are gone, or they are inside themselves.
fn adrift(state: &State) -> Vec<u64> {
    let is_dir = |ino: &u64| state.inodes.get(ino).is_some_and(|inode| inode.kind == Kind::Dir);
    let (mut below, mut adrift) = (HashSet::from([ROOT]), HashSet::new());
    for &ino in state.inodes.keys().filter(|ino| is_dir(ino)) {
        let (mut at, mut way) = (ino, HashSet::new());
        let ends_well = loop {
            if below.contains(&at) {
                break true;
            }
            if adrift.contains(&at) || !way.insert(at) {
                break false;
            }
            match state.inodes.get(&at) {
                Some(inode) if inode.kind == Kind::Dir => at = inode.parent,
                Some(_) | None => break false,
            }
        };
        if ends_well { below.extend(way) } else { adrift.extend(way) }
    }
    // The last step may have led to nothing, or to what is no directory.
    let mut dirs: Vec<u64> = adrift.into_iter().filter(is_dir).collect();
    dirs.sort_unstable();
    dirs
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
    fn directories_that_no_way_leads_to_are_let_go_of() {
        let adrift = |inodes: &[(u64, Inode)]| mend(&mut state(inodes, &[])).unwrap();
        assert_eq!(adrift(&[(2, dir(ROOT)), (3, dir(2))]), [0; 0]);
        assert_eq!(
            adrift(&[(2, dir(3)), (3, dir(2)), (4, dir(2)), (5, dir(ROOT))]),
            [2, 3, 4],
            "in themselves"
        );
        assert_eq!(adrift(&[(2, dir(2))]), [2], "inside itself");
        assert_eq!(adrift(&[(2, dir(9)), (3, dir(2))]), [2, 3], "nowhere");
        assert_eq!(adrift(&[(2, dir(3)), (3, file(0, 0..0))]), [2], "in a file");
        let mut left = state(&[(2, dir(2)), (3, file(0, 0..0))], &[3]);
        mend(&mut left).unwrap();
        assert!(mend(&mut left).unwrap().is_empty() && left.inodes.contains_key(&3));
    }

    /// Found by fuzzing: a root that said that it was nowhere was lost with the next start but one.
    #[test]
    fn the_root_is_its_own_parent() {
        let mut state = state(&[], &[]);
        state.apply(&Effect::Parent(ROOT, 0));
        assert!(mend(&mut state).is_err());
    }

    #[test]
    fn a_directory_is_in_one_place() {
        let state = state(&[(2, dir(ROOT)), (3, dir(2)), (4, file(0, 0..0))], &[2, 3, 4, 77]);
        let stands = [2, 3, 4, 77, ROOT].map(|ino| state.stands(ino, ROOT));
        assert_eq!(stands, [true, false, true, true, false]);
    }

    #[test]
    fn numbers_stay_in_their_range() {
        assert!(said(&[(0, dir(ROOT))], &[]).is_err());
        assert!(said(&[(u64::MAX, dir(ROOT))], &[]).is_err());
    }
}
