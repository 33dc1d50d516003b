//! The sessions as they should be: a tree and a kernel's view of it for each, and how a random number becomes a node.

use std::collections::BTreeSet;

use cas::Kind;
use fsd::session::ROOT;

use super::{
    history::Shot,
    kernel::Kernel,
    notes::Attached,
    ops::{NamePick, Pick, pool},
    picture::Picture,
    tree::{NOWHERE, Node, Tree},
};

/// What kind of node an operation is for. When there is none, it gets another and must fail as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Dir,
    File,
    /// Something with extended attributes.
    Attributed,
    Any,
}

/// A session that lives.
#[derive(Clone, Debug)]
pub struct Live {
    pub tree: Tree,
    pub kernel: Kernel,
    pub listings: Vec<Listing>,
    /// The file that was written last.
    pub hot: Option<u64>,
}

/// A listing under way.
#[derive(Clone, Debug)]
pub struct Listing {
    pub dir: u64,
    pub cookie: u64,
    pub piece: usize,
    pub plus: bool,
    /// Names that were there from its beginning on: to be shown, once.
    pub always: BTreeSet<Vec<u8>>,
    pub shown: Vec<Vec<u8>>,
}

/// All sessions, by the number of their creation; discarded ones are `None`.
#[derive(Clone, Debug)]
pub struct World {
    pub sessions: Vec<Option<Live>>,
    /// What all of them go back to.
    pub origin: Picture,
}

/// A node and the names that lead to it.
pub type Place = (u64, Vec<Vec<u8>>);

impl World {
    /// One session over `base`.
    pub fn new(base: &Tree) -> World {
        World { sessions: vec![Some(Live::new(base.clone()))], origin: base.picture() }
    }

    /// A session was forked.
    pub fn fork(&mut self, s: usize) {
        self.fork_noted(s, Attached::default());
    }

    /// A session was forked, with something attached.
    pub fn fork_noted(&mut self, s: usize, attached: Attached) {
        let live = self.live(s);
        let tree = Tree { attached, ..live.tree.clone() };
        let fork = Live { hot: live.hot, ..Live::new(tree) };
        self.sessions.push(Some(fork));
    }

    /// The numbers of those that live.
    pub fn living(&self) -> Vec<usize> {
        (0..self.sessions.len()).filter(|s| self.sessions[*s].is_some()).collect()
    }

    pub fn live(&self, s: usize) -> &Live {
        self.sessions[s].as_ref().expect("a session that lives")
    }

    pub fn live_mut(&mut self, s: usize) -> &mut Live {
        self.sessions[s].as_mut().expect("a session that lives")
    }

    /// What was found after power loss is what is from now on.
    pub fn adopt(&mut self, found: &[Option<Shot>]) {
        let tree =
            |shot: &Shot| Tree { attached: shot.attached.clone(), ..Tree::of(&shot.picture, shot.next) };
        let live = |shot: &Shot| Live::new(tree(shot));
        self.sessions = found.iter().map(|shot| shot.as_ref().map(live)).collect();
    }

    /// The process died: nobody holds anything, and what only holders kept is gone.
    pub fn forget_all(&mut self) {
        self.sessions
            .iter_mut()
            .flatten()
            .for_each(|live| *live = Live { hot: live.hot, ..Live::new(live.tree.clone()) });
    }
}

impl Live {
    /// A session that nobody holds anything of.
    pub fn new(tree: Tree) -> Live {
        Live { tree, kernel: Kernel::default(), listings: Vec::new(), hot: None }
    }

    /// The session has this tree from now on.
    pub fn set_tree(&mut self, tree: Tree) {
        self.tree = tree;
        for listing in &mut self.listings {
            let now = self.tree.names(listing.dir).expect("a directory");
            listing.always.retain(|name| now.contains_key(name));
        }
    }

    /// The node that is meant. `None` for the names if it is held and need not be looked up.
    pub fn node(&self, pick: Pick, want: Want) -> (u64, Option<Vec<Vec<u8>>>) {
        let fits = |ino: &u64| match (want, &self.tree.nodes[ino]) {
            (Want::Any, _) => true,
            (Want::Dir, node) => node.kind == Kind::Dir,
            (Want::File, node) => node.kind == Kind::File,
            (Want::Attributed, node) => !node.xattrs.is_empty(),
        };
        if want == Want::File
            && pick.child.is_multiple_of(4)
            && let Some((ino, path)) = self.hot.and_then(|ino| self.find(ino))
        {
            return (ino, Some(path));
        }
        if pick.held {
            let held: Vec<u64> = self.kernel.held().into_iter().filter(fits).collect();
            if !held.is_empty() {
                return (held[pick.child as usize % held.len()], None);
            }
        }
        let (ino, path) = self.place(pick, want, fits);
        (ino, Some(path))
    }

    /// For every second pick a held file that never had a name, if there is any.
    pub fn unnamed(&self, pick: Pick) -> Option<u64> {
        let never_named = |ino: &u64| self.tree.nodes[ino].parent == NOWHERE;
        let unnamed: Vec<u64> = self.kernel.held().into_iter().filter(never_named).collect();
        let picked = unnamed.get(pick.dir as usize % unnamed.len().max(1)).copied();
        picked.filter(|_| pick.child.is_multiple_of(2))
    }

    fn place(&self, pick: Pick, want: Want, fits: impl Fn(&u64) -> bool) -> Place {
        let dirs = self.dirs();
        let listed = |dir: &&Place| self.listings.iter().any(|listing| listing.dir == dir.0);
        let (dir, path) = match dirs.iter().find(listed).filter(|_| pick.dir.is_multiple_of(3)) {
            Some(listed) => listed,
            None => &dirs[pick.dir as usize % dirs.len()],
        };
        if want == Want::Dir {
            return (*dir, path.clone());
        }
        let fitting = |dir: u64| -> Vec<(&Vec<u8>, u64)> {
            let names = self.tree.names(dir).expect("a directory");
            names.iter().map(|(name, ino)| (name, *ino)).filter(|(_, ino)| fits(ino)).collect()
        };
        let first = [(*dir, path.clone())];
        let Some((dir, path)) = first.iter().chain(&dirs).find(|dir| !fitting(dir.0).is_empty()) else {
            return (*dir, path.clone());
        };
        let children = fitting(*dir);
        let (name, ino) = children[pick.child as usize % children.len()];
        (ino, path.iter().chain([name]).cloned().collect())
    }

    /// An inode that has a name, with the first of them.
    fn find(&self, ino: u64) -> Option<Place> {
        self.dirs().into_iter().find_map(|(dir, mut path)| {
            let names = self.tree.names(dir).expect("a directory");
            let (name, _) = names.iter().find(|(_, at)| **at == ino)?;
            path.push(name.clone());
            Some((ino, path))
        })
    }

    /// All directories that can be reached, the root first.
    fn dirs(&self) -> Vec<Place> {
        let mut dirs: Vec<Place> = vec![(ROOT, Vec::new())];
        let mut next = 0;
        while next < dirs.len() {
            let (dir, path) = dirs[next].clone();
            next += 1;
            for (name, ino) in self.tree.names(dir).expect("a directory") {
                if self.tree.nodes[ino].kind == Kind::Dir {
                    dirs.push((*ino, path.iter().chain([name]).cloned().collect()));
                }
            }
        }
        dirs
    }

    /// The name that is meant: one of something that fits, if there is any.
    pub fn name(&self, dir: u64, pick: NamePick, fits: impl Fn(&Node) -> bool) -> Vec<u8> {
        let NamePick::There(n) = pick else { return pool_name(pick) };
        let Ok(names) = self.tree.names(dir) else { return pool_name(pick) };
        let fitting: Vec<&Vec<u8>> =
            names.iter().filter(|(_, ino)| fits(&self.tree.nodes[ino])).map(|(name, _)| name).collect();
        let all: Vec<&Vec<u8>> = names.keys().collect();
        let from = if fitting.is_empty() { all } else { fitting };
        from.get(n as usize % from.len().max(1)).map_or_else(|| pool_name(pick), |name| (*name).clone())
    }

    /// A directory that has an empty one in it, if there is any.
    pub fn parent_of_empty(&self, n: usize) -> Option<Place> {
        let empty = |dir: &Place| self.tree.names(dir.0).expect("a directory").is_empty();
        let parents: Vec<Place> = self.dirs().into_iter().skip(1).filter(empty).collect();
        let (ino, mut path) = parents.get(n % parents.len().max(1))?.clone();
        path.pop();
        Some((self.tree.nodes[&ino].parent, path))
    }
}

fn pool_name(pick: NamePick) -> Vec<u8> {
    match pick {
        NamePick::Pool(n) => pool(n),
        NamePick::There(n) => pool(n as u8),
    }
}
