//! What a kernel holds of a mounted session: names it looked up, files that are open, and how often it was told of each
//! inode. Decides which inodes may be named, and when they are forgotten.

use std::collections::BTreeMap;

use fsd::session::ROOT;

/// A name that was looked up. It keeps the directory it is in from being forgotten.
#[derive(Clone, Debug)]
struct Dentry {
    dir: u64,
    /// `None` once the name is gone while the file is still open.
    name: Option<Vec<u8>>,
    ino: u64,
    opens: u32,
    /// Listings of it that are under way.
    pins: u32,
}

impl Dentry {
    fn in_use(&self) -> bool {
        self.opens + self.pins > 0
    }
}

/// The names and inodes that are held.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    dentries: Vec<Dentry>,
    lookups: BTreeMap<u64, u64>,
}

/// Inodes to be forgotten, and how many look-ups of each.
pub type Forgets = Vec<(u64, u64)>;

impl Kernel {
    /// The inode that a looked-up name stands for.
    pub fn cached(&self, dir: u64, name: &[u8]) -> Option<u64> {
        self.at(dir, name).map(|i| self.dentries[i].ino)
    }

    fn at(&self, dir: u64, name: &[u8]) -> Option<usize> {
        self.dentries.iter().position(|d| d.dir == dir && d.name.as_deref() == Some(name))
    }

    /// The target was asked for a name, and counted.
    pub fn looked_up(&mut self, dir: u64, name: &[u8], ino: u64) {
        *self.lookups.entry(ino).or_default() += 1;
        if self.at(dir, name).is_none() {
            self.dentries.push(Dentry { dir, name: Some(name.to_vec()), ino, opens: 0, pins: 0 });
        }
    }

    /// A file without a name was made in a directory, and is open.
    pub fn opened_unnamed(&mut self, dir: u64, ino: u64) {
        self.lookups.insert(ino, 1);
        self.dentries.push(Dentry { dir, name: None, ino, opens: 1, pins: 0 });
    }

    /// Inodes that may be named, the root and those without a name included.
    pub fn held(&self) -> Vec<u64> {
        let mut held: Vec<u64> = self.lookups.keys().copied().collect();
        held.push(ROOT);
        held
    }

    /// Opens the file behind the `n`-th name.
    pub fn open(&mut self, n: usize) {
        let count = self.dentries.len();
        if let Some(dentry) = self.dentries.get_mut(n % count.max(1)) {
            dentry.opens += 1;
        }
    }

    /// Closes the `n`-th open file.
    pub fn close(&mut self, n: usize) -> Forgets {
        let open: Vec<usize> = (0..self.dentries.len()).filter(|i| self.dentries[*i].opens > 0).collect();
        let Some(&i) = open.get(n % open.len().max(1)) else { return Vec::new() };
        self.dentries[i].opens -= 1;
        if self.dentries[i].name.is_none() { self.try_drop(i) } else { Vec::new() }
    }

    /// A listing of a directory begins.
    pub fn pin(&mut self, ino: u64) {
        if let Some(dentry) = self.dentries.iter_mut().find(|d| d.ino == ino) {
            dentry.pins += 1;
        }
    }

    /// A listing of a directory ends.
    pub fn unpin(&mut self, ino: u64) -> Forgets {
        let Some(i) = self.dentries.iter().position(|d| d.ino == ino) else { return Vec::new() };
        self.dentries[i].pins -= 1;
        if self.dentries[i].name.is_none() { self.try_drop(i) } else { Vec::new() }
    }

    /// Lets go of the `n`-th name, as memory pressure does, and of all below it.
    pub fn shrink(&mut self, n: usize) -> Forgets {
        let Some(dentry) = self.dentries.get(n % self.dentries.len().max(1)) else { return Vec::new() };
        let (dir, name) = (dentry.dir, dentry.name.clone());
        let mut forgets = Vec::new();
        self.shrink_below(dentry.ino, &mut forgets);
        if let Some(i) = name.and_then(|name| self.at(dir, &name)) {
            forgets.extend(self.try_drop(i));
        }
        forgets
    }

    fn shrink_below(&mut self, dir: u64, forgets: &mut Forgets) {
        let below: Vec<(u64, Option<Vec<u8>>)> =
            self.dentries.iter().filter(|d| d.dir == dir).map(|d| (d.ino, d.name.clone())).collect();
        for (ino, name) in below {
            self.shrink_below(ino, forgets);
            if let Some(i) = name.and_then(|name| self.at(dir, &name)) {
                forgets.extend(self.try_drop(i));
            }
        }
    }

    fn try_drop(&mut self, i: usize) -> Forgets {
        let pinned = self.dentries[i].in_use() || self.dentries.iter().any(|d| d.dir == self.dentries[i].ino);
        if pinned { Vec::new() } else { self.drop_at(i) }
    }

    fn drop_at(&mut self, i: usize) -> Forgets {
        let dentry = self.dentries.remove(i);
        let mut forgets = Vec::new();
        if !self.dentries.iter().any(|d| d.ino == dentry.ino)
            && let Some(lookups) = self.lookups.remove(&dentry.ino)
        {
            forgets.push((dentry.ino, lookups));
        }
        // A removed directory stays only for what was open in it.
        if let Some(parent) = self.dentries.iter().position(|d| d.ino == dentry.dir && d.name.is_none())
            && !self.dentries[parent].in_use()
            && !self.dentries.iter().any(|d| d.dir == dentry.dir)
        {
            forgets.extend(self.drop_at(parent));
        }
        forgets
    }

    /// A name was removed.
    pub fn removed(&mut self, dir: u64, name: &[u8]) -> Forgets {
        let Some(i) = self.at(dir, name) else { return Vec::new() };
        self.dentries[i].name = None;
        self.try_drop(i)
    }

    /// A name was moved over another, or swapped with it.
    pub fn renamed(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), exchange: bool) -> Forgets {
        let (source, target) = (self.at(from.0, from.1), self.at(to.0, to.1));
        // The source first: once the target is dropped, positions shift.
        if let Some(i) = source {
            (self.dentries[i].dir, self.dentries[i].name) = (to.0, Some(to.1.to_vec()));
        }
        match target {
            Some(i) if exchange => {
                (self.dentries[i].dir, self.dentries[i].name) = (from.0, Some(from.1.to_vec()));
                Vec::new()
            }
            Some(i) => {
                self.dentries[i].name = None;
                self.try_drop(i)
            }
            None => Vec::new(),
        }
    }
}
