//! What changes names: make, link, unlink, rmdir, rename.

use std::{collections::BTreeMap, sync::Arc};

use cas::{Attrs, Kind};
use fsd::session::{New, ROOT, Rename};

use super::{
    super::target::{Answer, Fail, Seen},
    Body, NOWHERE, Node, Tree,
};

const S_ISGID: u32 = 0o2000;

impl Tree {
    /// A directory's names changed, and the number of its subdirectories by `subdirs`.
    fn touch(&mut self, dir: u64, subdirs: i32) {
        let now = self.now;
        let attrs = &mut self.edit(dir).attrs;
        attrs.nlink = attrs.nlink.saturating_add_signed(subdirs);
        (attrs.mtime, attrs.ctime) = (now, now);
    }

    pub fn make(&mut self, dir: u64, name: &[u8], new: New) -> Answer<Seen> {
        if self.live_dir(dir)?.contains_key(name) {
            return Err(Fail::Exists);
        }
        let is_dir = new.kind == Kind::Dir;
        if new.kind == Kind::Symlink && new.target.as_ref().is_none_or(Vec::is_empty) {
            return Err(Fail::Invalid);
        }
        let ino = self.add(dir, new)?;
        self.edit(ino).parent = dir;
        self.edit(ino).attrs.nlink = if is_dir { 2 } else { 1 };
        self.names_mut(dir).insert(name.to_vec(), ino);
        self.touch(dir, is_dir as i32);
        self.stat(ino)
    }

    pub fn make_unnamed(&mut self, dir: u64, new: New) -> Answer<Seen> {
        self.live_dir(dir)?;
        let ino = self.add(dir, new)?;
        self.stat(ino)
    }

    /// Adds a node without a name, near `dir`.
    fn add(&mut self, dir: u64, new: New) -> Answer<u64> {
        let (parent, is_dir) = (self.node(dir)?.attrs, new.kind == Kind::Dir);
        let target = new.target.unwrap_or_default();
        let inherits = parent.mode & S_ISGID != 0;
        let device = matches!(new.kind, Kind::CharDevice | Kind::BlockDevice);
        let attrs = Attrs {
            mode: (new.mode & 0o7777) | if inherits && is_dir { S_ISGID } else { 0 },
            uid: new.uid,
            gid: if inherits { parent.gid } else { new.gid },
            nlink: 0,
            rdev: if device { new.rdev } else { 0 },
            size: target.len() as u64,
            mtime: self.now,
            ctime: self.now,
        };
        let body = match new.kind {
            Kind::File => Body::File(Arc::default()),
            Kind::Dir => Body::Dir(BTreeMap::new()),
            Kind::Symlink => Body::Symlink(target),
            _ => Body::Special,
        };
        let ino = self.next;
        self.next += 1;
        let node = Node { kind: new.kind, attrs, body, xattrs: BTreeMap::new(), parent: NOWHERE };
        self.nodes.insert(ino, Arc::new(node));
        Ok(ino)
    }

    pub fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Answer<Seen> {
        self.live_dir(dir)?;
        let node = self.node(ino)?;
        if node.kind == Kind::Dir {
            return Err(Fail::NotPermitted);
        }
        if node.attrs.nlink == 0 && node.parent != NOWHERE {
            return Err(Fail::NotFound);
        }
        if self.names(dir)?.contains_key(name) {
            return Err(Fail::Exists);
        }
        let now = self.now;
        let node = self.edit(ino);
        (node.attrs.nlink, node.attrs.ctime) = (node.attrs.nlink + 1, now);
        if node.parent == NOWHERE {
            node.parent = dir;
        }
        self.names_mut(dir).insert(name.to_vec(), ino);
        self.touch(dir, 0);
        self.stat(ino)
    }

    fn lose(&mut self, ino: u64) {
        let now = self.now;
        let node = self.edit(ino);
        node.attrs.nlink = if node.kind == Kind::Dir { 0 } else { node.attrs.nlink - 1 };
        node.attrs.ctime = now;
    }

    pub fn unlink(&mut self, dir: u64, name: &[u8]) -> Answer<()> {
        let ino = *self.live_dir(dir)?.get(name).ok_or(Fail::NotFound)?;
        if self.node(ino)?.kind == Kind::Dir {
            return Err(Fail::IsADirectory);
        }
        self.names_mut(dir).remove(name);
        self.lose(ino);
        self.touch(dir, 0);
        Ok(())
    }

    pub fn rmdir(&mut self, dir: u64, name: &[u8]) -> Answer<()> {
        let ino = *self.live_dir(dir)?.get(name).ok_or(Fail::NotFound)?;
        if !self.names(ino)?.is_empty() {
            return Err(Fail::NotEmpty);
        }
        self.names_mut(dir).remove(name);
        self.lose(ino);
        self.touch(dir, -1);
        Ok(())
    }

    fn is_inside(&self, mut dir: u64, ancestor: u64) -> bool {
        loop {
            match dir {
                _ if dir == ancestor => return true,
                ROOT => return false,
                _ => dir = self.nodes[&dir].parent,
            }
        }
    }

    pub fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), how: Rename) -> Answer<()> {
        self.live_dir(from.0)?;
        self.live_dir(to.0)?;
        let source = *self.names(from.0)?.get(from.1).ok_or(Fail::NotFound)?;
        let target = self.names(to.0)?.get(to.1).copied();
        match (how, target) {
            (Rename::NoReplace, Some(_)) => return Err(Fail::Exists),
            (Rename::Exchange, None) => return Err(Fail::NotFound),
            (_, Some(target)) if target == source => return Ok(()),
            _ => {}
        }
        let is_dir = |ino: u64| self.nodes[&ino].kind == Kind::Dir;
        let source_dir = is_dir(source);
        if source_dir && self.is_inside(to.0, source) {
            return Err(Fail::Invalid);
        }
        let target_dir = target.is_some_and(is_dir);
        if how == Rename::Exchange {
            if target_dir && self.is_inside(from.0, target.expect("checked")) {
                return Err(Fail::Invalid);
            }
            self.put(from, target.expect("checked"));
            self.put(to, source);
            let balance = target_dir as i32 - source_dir as i32;
            self.touch(from.0, if from.0 == to.0 { 0 } else { balance });
            self.touch(to.0, if from.0 == to.0 { 0 } else { -balance });
            return Ok(());
        }
        if let Some(target) = target {
            match (source_dir, target_dir) {
                (true, true) if !self.names(target)?.is_empty() => return Err(Fail::NotEmpty),
                (true, false) => return Err(Fail::NotADirectory),
                (false, true) => return Err(Fail::IsADirectory),
                _ => {}
            }
            self.lose(target);
        }
        self.names_mut(from.0).remove(from.1);
        self.put(to, source);
        self.touch(from.0, -(source_dir as i32));
        self.touch(to.0, source_dir as i32 - target_dir as i32);
        Ok(())
    }

    fn put(&mut self, (dir, name): (u64, &[u8]), ino: u64) {
        self.names_mut(dir).insert(name.to_vec(), ino);
        let now = self.now;
        let node = self.edit(ino);
        (node.parent, node.attrs.ctime) = (dir, now);
    }
}
