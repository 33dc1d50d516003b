//! Operations on names: how nodes are found, made, linked, moved, removed and listed.

use cas::Kind;
use fsd::session::{ROOT, Rename};

use super::{
    super::{
        ops::{NamePick, Op, Pick},
        target::{Fail, Target},
        tree::{Body, Node, Tree},
        world::{Listing, Live, Want},
    },
    Ran, Runner, Stop,
};

impl Runner {
    /// Operations on names.
    pub(super) fn name_op<T: Target>(&mut self, target: &mut T, s: usize, op: &Op) -> Ran {
        match op {
            Op::Make(dir, name, new) => {
                let (dir, name) = self.end(target, s, *dir, *name)?;
                let made = self.change_to(
                    target,
                    s,
                    "make",
                    |tree| tree.make(dir, &name, new.clone()),
                    |target| target.make(s, dir, &name, new.clone()),
                )?;
                if let Some(seen) = made {
                    self.world.live_mut(s).kernel.looked_up(dir, &name, seen.ino);
                }
                Ok(())
            }
            Op::MakeUnnamed(dir, new) => {
                let dir = self.node(target, s, *dir, Want::Dir)?;
                let made = self.change_to(
                    target,
                    s,
                    "make unnamed",
                    |tree| tree.make_unnamed(dir, new.clone()),
                    |target| target.make_unnamed(s, dir, new.clone()),
                )?;
                if let Some(seen) = made {
                    self.world.live_mut(s).kernel.opened_unnamed(dir, seen.ino);
                }
                Ok(())
            }
            Op::Link(node, dir, name) => {
                let want = if node.child.is_multiple_of(4) { Want::Any } else { Want::File };
                let ino = match self.world.live(s).unnamed(*node) {
                    Some(ino) => ino,
                    None => self.node(target, s, *node, want)?,
                };
                let (dir, name) = self.end(target, s, *dir, *name)?;
                if !self.world.live(s).kernel.held().contains(&ino) {
                    return Ok(());
                }
                let made = self.change_to(
                    target,
                    s,
                    "link",
                    |tree| tree.link(ino, dir, &name),
                    |target| target.link(s, ino, dir, &name),
                )?;
                if made.is_some() {
                    self.world.live_mut(s).kernel.looked_up(dir, &name, ino);
                }
                Ok(())
            }
            Op::Unlink(dir, name) | Op::Rmdir(dir, name) => {
                let is_dir = matches!(op, Op::Rmdir(..));
                let empty = |node: &Node| matches!(&node.body, Body::Dir(names) if names.is_empty());
                let fits = |node: &Node| if is_dir { empty(node) } else { node.kind != Kind::Dir };
                let parent =
                    self.world.live(s).parent_of_empty(dir.child.into()).filter(|_| is_dir && !dir.held);
                let dir = match parent {
                    Some((_, path)) => self.walk(target, s, path)?,
                    None => self.node(target, s, *dir, Want::Dir)?,
                };
                let name = self.name(target, s, dir, *name, fits)?;
                let done = match is_dir {
                    true => self.change_to(
                        target,
                        s,
                        "rmdir",
                        |t| t.rmdir(dir, &name),
                        |t| t.rmdir(s, dir, &name),
                    ),
                    false => self.change_to(
                        target,
                        s,
                        "unlink",
                        |t| t.unlink(dir, &name),
                        |t| t.unlink(s, dir, &name),
                    ),
                }?;
                if done.is_some() {
                    let forgets = self.world.live_mut(s).kernel.removed(dir, &name);
                    self.forget(target, s, forgets);
                }
                Ok(())
            }
            Op::Rename(from, name, to, to_name, how) => {
                let (from, name) = self.end(target, s, *from, *name)?;
                let (to, to_name) = self.end(target, s, *to, *to_name)?;
                let (from, to) = ((from, &name[..]), (to, &to_name[..]));
                let look =
                    |tree: &Tree, end: (u64, &[u8])| tree.lookup(end.0, end.1).map(|seen| seen.ino).ok();
                let tree = &self.world.live(s).tree;
                let same = look(tree, from) == look(tree, to);
                let done = self.change_to(
                    target,
                    s,
                    "rename",
                    |tree| tree.rename(from, to, *how),
                    |target| target.rename(s, from, to, *how),
                )?;
                if done.is_some() && !same {
                    let forgets = self.world.live_mut(s).kernel.renamed(from, to, *how == Rename::Exchange);
                    self.forget(target, s, forgets);
                }
                Ok(())
            }
            _ => unreachable!("another group"),
        }
    }

    pub(super) fn list<T: Target>(
        &mut self,
        target: &mut T,
        s: usize,
        dir: Pick,
        piece: usize,
        plus: bool,
    ) -> Ran {
        let dir = self.node(target, s, dir, Want::Dir)?;
        let live = self.world.live_mut(s);
        live.kernel.pin(dir);
        let always = live.tree.names(dir).expect("a directory").keys().cloned().collect();
        live.listings.push(Listing { dir, cookie: 0, piece, plus, always, shown: Vec::new() });
        self.more(target, s, live_last(self.world.live(s)))
    }

    /// One more piece of a listing; at its end it must have shown what it had to.
    pub(super) fn more<T: Target>(&mut self, target: &mut T, s: usize, n: usize) -> Ran {
        let live = self.world.live_mut(s);
        let at = n % live.listings.len().max(1);
        let Some(listing) = live.listings.get_mut(at) else { return Ok(()) };
        let entries = match target.list(s, listing.dir, listing.cookie, listing.piece, listing.plus) {
            Err(Fail::Disk) => return Err(Stop::Crashed(None)),
            other => other.map_err(|fail| Stop::Wrong(format!("list: {fail:?}")))?,
        };
        let now = live.tree.names(listing.dir).expect("a directory");
        for (name, ino, next) in &entries {
            let (is, shown) = (now.get(name), String::from_utf8_lossy(name));
            ensure!(
                is == Some(ino) && *next != 0,
                "list shows {shown} as {ino}, it is {is:?}; cookie {next}"
            );
            if listing.plus {
                live.kernel.looked_up(listing.dir, name, *ino);
            }
            listing.shown.push(name.clone());
            listing.cookie = *next;
        }
        if !entries.is_empty() {
            return Ok(());
        }
        let listing = live.listings.swap_remove(at);
        self.tally.entry("listing").or_default().0 += 1;
        let forgets = live.kernel.unpin(listing.dir);
        self.forget(target, s, forgets);
        for name in listing.always {
            let times = listing.shown.iter().filter(|shown| **shown == name).count();
            ensure!(times == 1, "list shows {} {times} times", String::from_utf8_lossy(&name));
        }
        Ok(())
    }

    /// Finds the node that is meant, looking up the names on the way that a kernel would not know.
    pub(super) fn node<T: Target>(
        &mut self,
        target: &mut T,
        s: usize,
        pick: Pick,
        want: Want,
    ) -> Result<u64, Stop> {
        match self.world.live(s).node(pick, want) {
            (_, Some(path)) => self.walk(target, s, path),
            (held, None) => Ok(held),
        }
    }

    pub(super) fn walk<T: Target>(
        &mut self,
        target: &mut T,
        s: usize,
        path: Vec<Vec<u8>>,
    ) -> Result<u64, Stop> {
        let mut at = ROOT;
        for name in path {
            at = self.look(target, s, at, &name)?.expect("the model has it");
        }
        Ok(at)
    }

    /// A directory, and a name in it.
    pub(super) fn end<T: Target>(
        &mut self,
        target: &mut T,
        s: usize,
        dir: Pick,
        name: NamePick,
    ) -> Result<(u64, Vec<u8>), Stop> {
        let dir = self.node(target, s, dir, Want::Dir)?;
        Ok((dir, self.name(target, s, dir, name, |_| true)?))
    }

    /// A name in a directory, which a kernel looks up before it changes it.
    pub(super) fn name<T: Target>(
        &mut self,
        target: &mut T,
        s: usize,
        dir: u64,
        name: NamePick,
        fits: impl Fn(&Node) -> bool,
    ) -> Result<Vec<u8>, Stop> {
        let name = self.world.live(s).name(dir, name, fits);
        self.look(target, s, dir, &name)?;
        Ok(name)
    }

    pub(super) fn look<T: Target>(
        &mut self,
        target: &mut T,
        s: usize,
        dir: u64,
        name: &[u8],
    ) -> Result<Option<u64>, Stop> {
        if let Some(ino) = self.world.live(s).kernel.cached(dir, name) {
            return Ok(Some(ino));
        }
        let want = self.world.live(s).tree.lookup(dir, name);
        self.same(target.lookup(s, dir, name), want, "lookup")?;
        if let Ok(seen) = want {
            self.world.live_mut(s).kernel.looked_up(dir, name, seen.ino);
        }
        Ok(want.ok().map(|seen| seen.ino))
    }
}

/// The number of the listing that began last.
fn live_last(live: &Live) -> usize {
    live.listings.len() - 1
}
