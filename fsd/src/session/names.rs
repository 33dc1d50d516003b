//! Operations on names: look up, make, link, remove, rename.

use std::sync::Arc;

use cas::{Attrs, Kind, Time, xattrs::Xattrs};

use super::{
    Error, Name, Result, acl,
    extent::FileBody,
    inode::{Body, INO_END, Inode, NOWHERE, XattrSet},
    live::{Change, Session},
    log::Purpose,
    state::Effect,
    tree::{DirNode, Found, Source},
};

/// The longest symlink target, in bytes (PATH_MAX without its NUL).
pub const TARGET_BYTES_MAX: usize = 4095;
/// Set-group-ID: on a directory, what is made in it gets its group.
const S_ISGID: u32 = 0o2000;

/// What to make.
#[derive(Clone, Debug)]
pub struct New {
    /// Anything but a symlink, unless `target` is given.
    pub kind: Kind,
    /// Permission bits as asked for.
    pub mode: u32,
    /// Permission bits to leave out, unless the directory has a default access control list, which then decides.
    pub umask: u32,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory's set-group-ID bit decides.
    pub gid: u32,
    /// Device number, for devices.
    pub rdev: u64,
    /// A symlink's target.
    pub target: Option<Vec<u8>>,
}

/// How to treat a target of a rename that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    /// Replace it.
    Replace,
    /// Fail with `Exists`.
    NoReplace,
    /// Swap the two; both must exist.
    Exchange,
}

impl Session {
    /// What `name` in the directory `dir` stands for, remembered for the holder. Errors: `NotFound`, `NotADirectory`, `Stale`.
    pub fn lookup(&self, dir: u64, name: &Name) -> Result<Found> {
        let state = self.state.read();
        let dir = self.dir(&state, dir)?;
        let found = state.child(&dir, name)?.ok_or(Error::NotFound)?;
        self.remember(&found);
        Ok(found)
    }

    /// Tells the table of known inodes that the holder was told of this one. Called under the state's lock, so that nothing
    /// can take the inode away in between.
    pub(super) fn remember(&self, found: &Found) {
        let place = match &found.source {
            Source::Base(place) => Some(place.clone()),
            Source::Changed(_) => None,
        };
        self.known.remember(found.ino, place, found.parent);
    }

    /// The holder forgot the inode `count` times. One without a name ends when nobody knows it any more.
    pub fn forget(&self, ino: u64, count: u64) {
        if !self.known.forget(ino, count) {
            return;
        }
        self.listings.forget(ino);
        if self.state.read().orphans.contains(&ino) {
            let mut state = self.state.write();
            if state.orphans.contains(&ino) && !self.known.contains(ino) {
                // Not recorded: a replay lets go of all orphans in the end.
                state.apply(&Effect::Drop(ino));
            }
        }
    }

    /// The holder is gone, and with it everything it knew.
    pub fn forget_all(&self) {
        let mut state = self.state.write();
        self.known.clear();
        self.listings.clear();
        state.drop_orphans();
    }

    /// Makes a file of any kind, and remembers it for the holder. Errors: `Exists`, `NotADirectory`, `NotFound` in a removed
    /// directory, `TooLarge`, `NoSpace` (of inode numbers too, as a file system says that has no more inodes).
    pub fn make(&self, dir: u64, name: &Name, new: New) -> Result<Found> {
        let now = self.shared.clock.now();
        let mut change = self.begin()?;
        let dir = change.dir(dir)?;
        if change.state.child(&dir, name)?.is_some() {
            return Err(Error::Exists);
        }
        let parent = change.found(dir.ino)?;
        let ino = change.next_ino()?;
        let inode = Arc::new(change.new_inode(new, &parent, now)?);
        change.adopt(&parent)?;
        change.push(Effect::Inode(ino, Arc::clone(&inode)));
        change.push(Effect::Add { dir: dir.ino, name: name.clone(), ino });
        change.touch_dir(parent, (inode.kind == Kind::Dir) as i64, now);
        self.commit_remembered(change, ino, dir.ino)?;
        Ok(Found::changed(ino, &inode))
    }

    /// Makes a regular file without a name, near `dir`, and remembers it for the holder: it is gone when that forgets it,
    /// unless [`Session::link`] gives it a name. Errors: `NotADirectory`, `NotFound` for a removed directory, `NoSpace`.
    pub fn make_unnamed(&self, dir: u64, new: New) -> Result<Found> {
        let now = self.shared.clock.now();
        let mut change = self.begin()?;
        let dir = change.dir(dir)?;
        let parent = change.found(dir.ino)?;
        let ino = change.next_ino()?;
        let mut inode = change.new_inode(New { kind: Kind::File, ..new }, &parent, now)?;
        inode.parent = NOWHERE;
        inode.attrs.nlink = 0;
        let inode = Arc::new(inode);
        change.push(Effect::Inode(ino, Arc::clone(&inode)));
        change.push(Effect::Orphan(ino));
        self.commit_remembered(change, ino, NOWHERE)?;
        Ok(Found::changed(ino, &inode))
    }

    /// Commits a change that tells the holder of an inode. The holder's count goes up first, because the commit gives the
    /// state's lock back; a failed one takes it down again.
    fn commit_remembered(&self, change: Change<'_>, ino: u64, parent: u64) -> Result<()> {
        self.known.remember(ino, None, parent);
        change.commit(Purpose::Grow).inspect_err(|_| {
            self.known.forget(ino, 1);
        })
    }

    /// Gives an inode one more name, or one that was made without any its first. Errors: `NotPermitted` for directories,
    /// `Exists`, `NotFound` for an inode whose names are all gone.
    pub fn link(&self, ino: u64, dir: u64, name: &Name) -> Result<Found> {
        let now = self.shared.clock.now();
        let mut change = self.begin()?;
        let dir = change.dir(dir)?;
        let found = change.found(ino)?;
        if found.kind == Kind::Dir {
            return Err(Error::NotPermitted);
        }
        let is_first = found.parent == NOWHERE;
        if change.state.orphans.contains(&ino) && !is_first {
            return Err(Error::NotFound);
        }
        if change.state.child(&dir, name)?.is_some() {
            return Err(Error::Exists);
        }
        let nlink = found.attrs.nlink.checked_add(1).ok_or(Error::TooManyLinks)?;
        let parent = change.found(dir.ino)?;
        change.adopt(&parent)?;
        change.adopt(&found)?;
        let attrs = Attrs { nlink, ctime: now, ..found.attrs };
        let home = if is_first { dir.ino } else { found.parent };
        change.push(if is_first { Effect::Parent(ino, home) } else { Effect::Linked(ino) });
        change.set_attrs(found.clone(), attrs);
        change.push(Effect::Add { dir: dir.ino, name: name.clone(), ino });
        change.touch_dir(parent, 0, now);
        self.commit_remembered(change, ino, home)?;
        Ok(Found { attrs, parent: home, ..found })
    }

    /// Removes a name of anything but a directory. Errors: `NotFound`, `IsADirectory`.
    pub fn unlink(&self, dir: u64, name: &Name) -> Result<()> {
        let now = self.shared.clock.now();
        let mut change = self.begin()?;
        let dir = change.dir(dir)?;
        let found = change.state.child(&dir, name)?.ok_or(Error::NotFound)?;
        if found.kind == Kind::Dir {
            return Err(Error::IsADirectory);
        }
        let parent = change.found(dir.ino)?;
        change.adopt(&parent)?;
        change.take_name(&dir, name, &found)?;
        change.lose_name(found, now)?;
        change.touch_dir(parent, 0, now);
        change.commit(Purpose::Shrink)
    }

    /// Removes an empty directory. Errors: `NotFound`, `NotADirectory`, `NotEmpty`.
    pub fn rmdir(&self, dir: u64, name: &Name) -> Result<()> {
        let now = self.shared.clock.now();
        let mut change = self.begin()?;
        let dir = change.dir(dir)?;
        let found = change.state.child(&dir, name)?.ok_or(Error::NotFound)?;
        change.check_empty(&found)?;
        let parent = change.found(dir.ino)?;
        change.adopt(&parent)?;
        change.take_name(&dir, name, &found)?;
        change.lose_name(found, now)?;
        change.touch_dir(parent, -1, now);
        change.commit(Purpose::Shrink)
    }

    /// Moves a name. Errors: `NotFound`, `Exists`, `NotEmpty`, `IsADirectory`, `NotADirectory`, and `Invalid` for a directory
    /// that would end up inside itself.
    pub fn rename(&self, from: u64, name: &Name, to: u64, to_name: &Name, how: Rename) -> Result<()> {
        let now = self.shared.clock.now();
        let mut change = self.begin()?;
        let (from, to) = (change.dir(from)?, change.dir(to)?);
        let source = change.state.child(&from, name)?.ok_or(Error::NotFound)?;
        let target = change.state.child(&to, to_name)?;
        match (how, &target) {
            (Rename::NoReplace, Some(_)) => return Err(Error::Exists),
            (Rename::Exchange, None) => return Err(Error::NotFound),
            // Two names of one inode: POSIX wants nothing to happen.
            (_, Some(target)) if target.ino == source.ino => return Ok(()),
            _ => {}
        }
        change.check_not_inside(&source, to.ino)?;
        match target {
            Some(target) if how == Rename::Exchange => {
                change.check_not_inside(&target, from.ino)?;
                change.exchange((&from, name, source), (&to, to_name, target), now)?;
            }
            target => change.replace((&from, name, source), (&to, to_name, target), now)?,
        }
        change.commit(Purpose::Shrink)
    }
}

/// A new inode with these permission bits and attributes, in the directory `parent`.
fn new_inode(new: New, mode: u32, xattrs: Xattrs, parent: &Found, now: Time) -> Result<Inode> {
    let target = new.target.unwrap_or_default();
    if target.len() > TARGET_BYTES_MAX {
        return Err(Error::TooLarge(TARGET_BYTES_MAX as u64));
    }
    let inherits = parent.attrs.mode & S_ISGID != 0;
    let is_dir = new.kind == Kind::Dir;
    let mode = mode & 0o7777 | if inherits && is_dir { S_ISGID } else { 0 };
    let size = target.len() as u64;
    let body = match new.kind {
        Kind::File => Body::File(FileBody::default()),
        Kind::Dir => Body::Dir(None),
        Kind::Symlink if target.is_empty() || target.contains(&0) => {
            return Err(Error::Invalid("a symbolic link needs a target"));
        }
        Kind::Symlink => Body::Symlink(target.into()),
        Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => Body::Special,
    };
    let device = matches!(new.kind, Kind::CharDevice | Kind::BlockDevice);
    Ok(Inode {
        parent: parent.ino,
        kind: new.kind,
        linked: false,
        attrs: Attrs {
            mode,
            uid: new.uid,
            gid: if inherits { parent.attrs.gid } else { new.gid },
            nlink: if is_dir { 2 } else { 1 },
            rdev: if device { new.rdev } else { 0 },
            size,
            mtime: now,
            ctime: now,
        },
        atime: now,
        xattrs: if xattrs.is_empty() { XattrSet::Base(None) } else { XattrSet::Own(Arc::new(xattrs)) },
        body,
    })
}

/// One end of a rename: the directory, the name in it, what the name stands for.
type End<'e, T> = (&'e DirNode, &'e Name, T);

impl Change<'_> {
    /// The number of the next inode. Error: `NoSpace` when they have run out.
    fn next_ino(&self) -> Result<u64> {
        let ino = self.state.next_ino;
        if ino < INO_END { Ok(ino) } else { Err(Error::NoSpace) }
    }

    fn new_inode(&self, new: New, parent: &Found, now: Time) -> Result<Inode> {
        let inherited = match new.kind {
            Kind::Symlink => (new.mode, Xattrs::new()),
            // Hardly any directory has attributes.
            _ if !parent.has_xattrs() => (new.mode & !new.umask, Xattrs::new()),
            kind => {
                let of_parent = parent.xattrs(&self.session.shared.store)?;
                acl::inherit(&of_parent, kind == Kind::Dir, new.mode, new.umask)
            }
        };
        new_inode(new, inherited.0, inherited.1, parent, now)
    }

    /// A directory's names changed: its times, and its links by as many subdirectories as came or went.
    fn touch_dir(&mut self, dir: Found, subdirs: i64, now: Time) {
        let nlink = dir.attrs.nlink.saturating_add_signed(subdirs as i32);
        let attrs = Attrs { nlink, mtime: now, ctime: now, ..dir.attrs };
        self.set_attrs(dir, attrs);
    }

    /// The name, which stands for what was found there, does so no more.
    fn take_name(&mut self, dir: &DirNode, name: &Name, found: &Found) -> Result<()> {
        let in_base = match (&found.source, &dir.base) {
            // Untouched, so it was found in the base.
            (Source::Base(_), _) => true,
            (Source::Changed(_), Some(base)) => base.find(name.as_bytes())?.is_some(),
            (Source::Changed(_), None) => false,
        };
        let (dir, name) = (dir.ino, name.clone());
        self.push(if in_base { Effect::Hide { dir, name } } else { Effect::Remove { dir, name } });
        Ok(())
    }

    /// An inode has one name less; without any it stays for as long as somebody knows it.
    fn lose_name(&mut self, found: Found, now: Time) -> Result<()> {
        let nlink = if found.kind == Kind::Dir { 0 } else { found.attrs.nlink.saturating_sub(1) };
        if nlink == 0 && !self.session.known.contains(found.ino) {
            self.push(Effect::Drop(found.ino));
            return Ok(());
        }
        self.adopt(&found)?;
        let (ino, attrs) = (found.ino, Attrs { nlink, ctime: now, ..found.attrs });
        self.set_attrs(found, attrs);
        if nlink == 0 {
            self.push(Effect::Orphan(ino));
        }
        Ok(())
    }

    fn check_empty(&self, found: &Found) -> Result<()> {
        let dir = self.state.open_dir(&self.session.shared.store, found)?;
        if self.state.is_empty_dir(&dir) { Ok(()) } else { Err(Error::NotEmpty) }
    }

    /// A directory must not become its own descendant.
    fn check_not_inside(&self, moved: &Found, dir: u64) -> Result<()> {
        if moved.kind != Kind::Dir {
            return Ok(());
        }
        let mut at = dir;
        while at != super::inode::ROOT {
            if at == moved.ino {
                return Err(Error::Invalid("a directory cannot be moved into itself"));
            }
            at = self.found(at)?.parent;
        }
        Ok(())
    }

    fn replace(
        &mut self,
        (from, name, source): End<'_, Found>,
        (to, to_name, target): End<'_, Option<Found>>,
        now: Time,
    ) -> Result<()> {
        let moves_dir = source.kind == Kind::Dir;
        if let Some(target) = &target {
            match (moves_dir, target.kind == Kind::Dir) {
                (true, true) => self.check_empty(target)?,
                (true, false) => return Err(Error::NotADirectory),
                (false, true) => return Err(Error::IsADirectory),
                (false, false) => {}
            }
        }
        let (old, new) = self.both(from, to)?;
        old.iter().chain([&new, &source]).try_for_each(|found| self.adopt(found))?;
        self.take_name(from, name, &source)?;
        let replaced_dir = target.as_ref().is_some_and(|target| target.kind == Kind::Dir) as i64;
        if let Some(target) = target {
            self.lose_name(target, now)?;
        }
        self.move_to(source, to.ino, to_name, now);
        let moved_dir = moves_dir as i64;
        match old {
            None => self.touch_dir(new, -replaced_dir, now),
            Some(old) => {
                self.touch_dir(old, -moved_dir, now);
                self.touch_dir(new, moved_dir - replaced_dir, now);
            }
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        (from, name, source): End<'_, Found>,
        (to, to_name, target): End<'_, Found>,
        now: Time,
    ) -> Result<()> {
        let (old, new) = self.both(from, to)?;
        old.iter().chain([&new, &source, &target]).try_for_each(|found| self.adopt(found))?;
        let balance = (target.kind == Kind::Dir) as i64 - (source.kind == Kind::Dir) as i64;
        self.move_to(source, to.ino, to_name, now);
        self.move_to(target, from.ino, name, now);
        match old {
            None => self.touch_dir(new, 0, now),
            Some(old) => {
                self.touch_dir(old, balance, now);
                self.touch_dir(new, -balance, now);
            }
        }
        Ok(())
    }

    /// The directories of a rename; of one within a directory the second alone.
    fn both(&self, from: &DirNode, to: &DirNode) -> Result<(Option<Found>, Found)> {
        let old = (from.ino != to.ino).then(|| self.found(from.ino)).transpose()?;
        Ok((old, self.found(to.ino)?))
    }

    fn move_to(&mut self, found: Found, dir: u64, name: &Name, now: Time) {
        self.push(Effect::Add { dir, name: name.clone(), ino: found.ino });
        self.push(Effect::Parent(found.ino, dir));
        let attrs = Attrs { ctime: now, ..found.attrs };
        self.set_attrs(found, attrs);
    }
}
