//! Carries out operations on the model and on a target, and compares what they answer.

use std::collections::BTreeMap;

use cas::Kind;
use fsd::session::{ROOT, Rename};

use super::{
    differ,
    history::{History, moment},
    ops::{NamePick, Op, Pick, Step},
    picture::compare,
    target::{Against, Answer, Fail, Target},
    tree::{Body, Node, Tree},
    world::{Listing, Live, Want, World},
};

/// Sessions that live at the same time, at most.
const LIVE_MAX: usize = 5;

/// Why a run ends early.
#[derive(Debug)]
pub enum Stop {
    /// The target is not what the model says.
    Wrong(String),
    /// The disk failed. What the operation under way may have done all the same.
    Crashed(Option<Maybe>),
}

/// A change that nobody acknowledged.
#[derive(Debug)]
pub enum Maybe {
    /// The session may be this.
    Changed(usize, Tree),
    /// The session may have been forked once more.
    Forked(usize),
    /// The session may be gone.
    Discarded(usize),
}

/// The result of a step.
pub type Ran = Result<(), Stop>;

macro_rules! ensure {
    ($good:expr, $($words:tt)+) => {
        if !$good {
            return Err(Stop::Wrong(format!($($words)+)));
        }
    };
}

/// Runs operations on a world and its target.
pub struct Runner {
    pub world: World,
    /// An operation may answer that the disk is full, and then has changed nothing.
    pub may_be_full: bool,
    /// Operations that did.
    pub refused: u64,
    /// What was acknowledged, if anybody wants to know.
    pub history: Option<History>,
    /// How often each operation succeeded, and how often it failed as it should.
    pub tally: Tally,
}

/// By operation: successes and failures.
pub type Tally = BTreeMap<&'static str, (u64, u64)>;

impl Runner {
    /// Works on `world`.
    pub fn new(world: World) -> Runner {
        Runner { world, may_be_full: false, refused: 0, history: None, tally: Tally::new() }
    }

    fn count(&mut self, what: &'static str, good: bool) {
        let (done, failed) = self.tally.entry(what).or_default();
        *if good { done } else { failed } += 1;
    }

    fn refuse(&mut self) -> Ran {
        self.refused += 1;
        Ok(())
    }

    fn acknowledge(&mut self) {
        if let Some(history) = &mut self.history {
            history.push(moment(&self.world));
        }
    }

    /// Carries out one step.
    pub fn step<T: Target>(&mut self, target: &mut T, step: &Step) -> Ran {
        let living = self.world.living();
        self.op(target, living[step.session as usize % living.len()], &step.op)
    }

    /// Compares every session as a whole, and looks inside.
    pub fn compare_all<T: Target>(&mut self, target: &mut T) -> Ran {
        for s in self.world.living() {
            let live = self.world.live(s);
            let is = target.picture(s).map_err(|fail| Stop::Wrong(format!("session {s}: {fail:?}")))?;
            compare(&is, &live.tree.picture()).map_err(|why| Stop::Wrong(format!("session {s}: {why}")))?;
            target.check(s, &live.kernel.held()).map_err(|why| Stop::Wrong(format!("session {s}: {why}")))?;
        }
        Ok(())
    }

    fn op<T: Target>(&mut self, target: &mut T, s: usize, op: &Op) -> Ran {
        if self.world.sessions[s].is_none() {
            return Ok(());
        }
        match op {
            Op::Stat(pick) => {
                let ino = self.node(target, s, *pick, Want::Any)?;
                let want = self.world.live(s).tree.stat(ino);
                self.same(target.stat(s, ino), want, "stat")
            }
            Op::Read(pick, offset, len) => {
                let ino = self.node(target, s, *pick, Want::File)?;
                let want = self.world.live(s).tree.read(ino, (*offset).into(), *len as usize);
                self.same(target.read(s, ino, (*offset).into(), *len as usize), want, "read")
            }
            Op::Seek(pick, offset, what) => {
                let ino = self.node(target, s, *pick, Want::File)?;
                let size = self.world.live(s).tree.bytes(ino).map_or(0, |bytes| bytes.len() as u32);
                let offset = &(offset % (size + 2));
                let answer = target.seek(s, ino, (*offset).into(), *what);
                self.count("seek", answer.is_ok());
                let checked = self.world.live(s).tree.check_seek(ino, (*offset).into(), *what, answer);
                checked.map_err(|why| {
                    if answer == Err(Fail::Disk) { Stop::Crashed(None) } else { Stop::Wrong(why) }
                })
            }
            Op::Make(..) | Op::Link(..) | Op::Unlink(..) | Op::Rmdir(..) | Op::Rename(..) => {
                self.name_op(target, s, op)
            }
            Op::List(dir, piece, plus) => self.list(target, s, *dir, (*piece).into(), *plus),
            Op::More(n) => self.more(target, s, (*n).into()),
            Op::Open(n) => {
                self.world.live_mut(s).kernel.open((*n).into());
                Ok(())
            }
            Op::Close(n) => {
                let forgets = self.world.live_mut(s).kernel.close((*n).into());
                self.forget(target, s, forgets);
                Ok(())
            }
            Op::Shrink(n) => {
                let forgets = self.world.live_mut(s).kernel.shrink((*n).into());
                self.forget(target, s, forgets);
                Ok(())
            }
            Op::Fork | Op::Discard | Op::Seal(_) | Op::Anchor | Op::Diff(_) => self.session_op(target, s, op),
            Op::Sync => {
                self.done(target.sync(), "sync")?;
                self.history.iter_mut().for_each(History::synced);
                Ok(())
            }
            Op::Gc => self.done(target.gc(), "gc"),
            Op::Tick => self.done(target.tick(), "tick"),
            Op::Reopen => {
                self.count("reopen", true);
                target.reopen();
                self.history.iter_mut().for_each(History::synced);
                self.world.forget_all();
                self.compare_all(target)
            }
            _ => self.file_op(target, s, op),
        }
    }

    /// Operations on what is in an inode.
    fn file_op<T: Target>(&mut self, target: &mut T, s: usize, op: &Op) -> Ran {
        let wide = |n: &u32| u64::from(*n);
        match op {
            Op::Write(pick, offset, len, fill) => {
                let ino = self.node(target, s, *pick, Want::File)?;
                let data = pattern(*len as usize, *fill);
                self.world.live_mut(s).hot = Some(ino);
                self.change(
                    target,
                    s,
                    "write",
                    |tree| tree.write(ino, wide(offset), &data),
                    |target| target.write(s, ino, wide(offset), &data),
                )
            }
            Op::Allocate(pick, offset, len, how) => {
                let ino = self.node(target, s, *pick, Want::File)?;
                let (offset, len) = (wide(offset), wide(len).max(1));
                self.change(
                    target,
                    s,
                    "allocate",
                    |tree| tree.allocate(ino, offset, len, *how),
                    |target| target.allocate(s, ino, offset, len, *how),
                )
            }
            Op::Copy(pick, offset, other, at, len) => {
                let from = self.node(target, s, *pick, Want::File)?;
                let to = self.node(target, s, *other, Want::File)?;
                let model = |tree: &mut Tree| {
                    let data = tree.read(from, wide(offset), *len as usize)?;
                    tree.write(to, wide(at), &data)?;
                    Ok(data.len() as u64)
                };
                self.change(target, s, "copy", model, |target| {
                    target.copy(s, (from, wide(offset)), (to, wide(at)), wide(len))
                })
            }
            Op::SetAttrs(pick, set) => {
                let want = if set.size.is_some() { Want::File } else { Want::Any };
                let ino = self.node(target, s, *pick, want)?;
                self.change(
                    target,
                    s,
                    "setattr",
                    |tree| tree.set_attrs(ino, *set),
                    |target| target.set_attrs(s, ino, *set),
                )
            }
            Op::SetXattr(pick, name, len, how) => {
                let ino = self.node(target, s, *pick, Want::Any)?;
                let (name, value) = (xattr_name(*name), pattern((*len).into(), *name));
                self.change(
                    target,
                    s,
                    "setxattr",
                    |tree| tree.set_xattr(ino, &name, &value, *how),
                    |target| target.set_xattr(s, ino, &name, &value, *how),
                )?;
                let xattrs = &self.world.live(s).tree.nodes[&ino].xattrs;
                let want = xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                self.same(target.xattrs(s, ino), Ok(want), "listxattr")
            }
            Op::RemoveXattr(pick, name) => {
                let ino = self.node(target, s, *pick, Want::Attributed)?;
                let there = self.world.live(s).tree.nodes[&ino].xattrs.keys().next().filter(|_| *name > 0);
                let name = there.cloned().unwrap_or_else(|| xattr_name(*name));
                self.change(
                    target,
                    s,
                    "removexattr",
                    |tree| tree.remove_xattr(ino, &name),
                    |target| target.remove_xattr(s, ino, &name),
                )
            }
            _ => unreachable!("another group"),
        }
    }

    /// Operations on names.
    fn name_op<T: Target>(&mut self, target: &mut T, s: usize, op: &Op) -> Ran {
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
            Op::Link(node, dir, name) => {
                let want = if node.child.is_multiple_of(4) { Want::Any } else { Want::File };
                let ino = self.node(target, s, *node, want)?;
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

    /// Operations on a session as a whole.
    fn session_op<T: Target>(&mut self, target: &mut T, s: usize, op: &Op) -> Ran {
        match op {
            Op::Fork => {
                if self.world.living().len() >= LIVE_MAX {
                    return Ok(());
                }
                match target.fork(s) {
                    Err(Fail::Disk) => return Err(Stop::Crashed(Some(Maybe::Forked(s)))),
                    Err(Fail::NoSpace) if self.may_be_full => return self.refuse(),
                    other => ensure!(other.is_ok(), "fork: {other:?}"),
                }
                self.count("fork", true);
                self.world.fork(s);
                self.acknowledge();
                Ok(())
            }
            Op::Discard => {
                if self.world.living().len() == 1 {
                    return Ok(());
                }
                match target.discard(s) {
                    Err(Fail::Disk) => return Err(Stop::Crashed(Some(Maybe::Discarded(s)))),
                    other => ensure!(other.is_ok(), "discard: {other:?}"),
                }
                self.count("discard", true);
                self.world.sessions[s] = None;
                self.acknowledge();
                Ok(())
            }
            Op::Seal(during) => {
                let before = self.world.live(s).tree.clone();
                let mut ran = Ok(());
                let sealed = target.seal(s, &mut |target| {
                    ran = during.iter().try_for_each(|op| self.op(target, s, op));
                });
                ran?;
                match sealed {
                    Err(Fail::Disk) => Err(Stop::Crashed(None)),
                    Err(Fail::NoSpace) if self.may_be_full => self.refuse(),
                    Err(fail) => Err(Stop::Wrong(format!("seal: {fail:?}"))),
                    Ok(sealed) => {
                        self.count("seal", true);
                        let compared = compare(&sealed, &before.picture());
                        compared.map_err(|why| Stop::Wrong(format!("sealed: {why}")))?;
                        let is = target.picture(s).map_err(|_| Stop::Crashed(None))?;
                        let compared = compare(&is, &self.world.live(s).tree.picture());
                        compared.map_err(|why| Stop::Wrong(format!("after a seal: {why}")))
                    }
                }
            }
            Op::Anchor => self.done(target.anchor(s), "anchor"),
            Op::Diff(other) => {
                let living = self.world.living();
                let other = other.map(|n| living[n as usize % living.len()]);
                let against = other.map_or(Against::Origin, Against::Session);
                let changes = match target.diff(s, against) {
                    Err(Fail::Disk) => return Err(Stop::Crashed(None)),
                    Err(fail) => return Err(Stop::Wrong(format!("diff: {fail:?}"))),
                    Ok(changes) => changes,
                };
                self.count("diff", !changes.is_empty());
                let new = self.world.live(s).tree.picture();
                let old = match other {
                    None => self.world.origin.clone(),
                    Some(other) => self.world.live(other).tree.picture(),
                };
                differ::check(&old, &new, &changes).map_err(|why| {
                    Stop::Wrong(format!("diff of {s} against {against:?}: {why}\n{changes:?}"))
                })
            }
            _ => unreachable!("another group"),
        }
    }

    fn list<T: Target>(&mut self, target: &mut T, s: usize, dir: Pick, piece: usize, plus: bool) -> Ran {
        let dir = self.node(target, s, dir, Want::Dir)?;
        let live = self.world.live_mut(s);
        live.kernel.pin(dir);
        let always = live.tree.names(dir).expect("a directory").keys().cloned().collect();
        live.listings.push(Listing { dir, cookie: 0, piece, plus, always, shown: Vec::new() });
        self.more(target, s, live_last(self.world.live(s)))
    }

    /// One more piece of a listing; at its end it must have shown what it had to.
    fn more<T: Target>(&mut self, target: &mut T, s: usize, n: usize) -> Ran {
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
    fn node<T: Target>(&mut self, target: &mut T, s: usize, pick: Pick, want: Want) -> Result<u64, Stop> {
        match self.world.live(s).node(pick, want) {
            (_, Some(path)) => self.walk(target, s, path),
            (held, None) => Ok(held),
        }
    }

    fn walk<T: Target>(&mut self, target: &mut T, s: usize, path: Vec<Vec<u8>>) -> Result<u64, Stop> {
        let mut at = ROOT;
        for name in path {
            at = self.look(target, s, at, &name)?.expect("the model has it");
        }
        Ok(at)
    }

    /// A directory, and a name in it.
    fn end<T: Target>(
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
    fn name<T: Target>(
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

    fn look<T: Target>(
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

    fn forget<T: Target>(&mut self, target: &mut T, s: usize, forgets: Vec<(u64, u64)>) {
        forgets.into_iter().for_each(|(ino, lookups)| target.forget(s, ino, lookups));
    }

    fn change<T: Target, A: PartialEq + std::fmt::Debug>(
        &mut self,
        target: &mut T,
        s: usize,
        what: &'static str,
        model: impl FnOnce(&mut Tree) -> Answer<A>,
        real: impl FnOnce(&mut T) -> Answer<A>,
    ) -> Ran {
        self.change_to(target, s, what, model, real).map(drop)
    }

    /// Carries out a change on both. What they agree on, if it is no failure.
    fn change_to<T: Target, A: PartialEq + std::fmt::Debug>(
        &mut self,
        target: &mut T,
        s: usize,
        what: &'static str,
        model: impl FnOnce(&mut Tree) -> Answer<A>,
        real: impl FnOnce(&mut T) -> Answer<A>,
    ) -> Result<Option<A>, Stop> {
        let mut after = self.world.live(s).tree.clone();
        after.now = target.set_time();
        let want = model(&mut after);
        let got = real(target);
        match (&got, &want) {
            (Err(Fail::Disk), Ok(_)) => return Err(Stop::Crashed(Some(Maybe::Changed(s, after)))),
            (Err(Fail::Disk), Err(_)) => return Err(Stop::Crashed(None)),
            (Err(Fail::NoSpace), Ok(_)) if self.may_be_full && !matches!(what, "unlink" | "rmdir") => {
                self.refuse()?;
                return Ok(None);
            }
            _ => ensure!(got == want, "session {s}: {what} gave\n  {got:?}, should give\n  {want:?}"),
        }
        self.count(what, want.is_ok());
        if want.is_ok() {
            self.world.live_mut(s).set_tree(after);
            self.acknowledge();
        }
        Ok(want.ok())
    }

    fn same<A: PartialEq + std::fmt::Debug>(
        &mut self,
        got: Answer<A>,
        want: Answer<A>,
        what: &'static str,
    ) -> Ran {
        if let Err(Fail::Disk) = got {
            return Err(Stop::Crashed(None));
        }
        ensure!(got == want, "{what} gave\n  {got:?}, should give\n  {want:?}");
        self.count(what, want.is_ok());
        Ok(())
    }

    fn done(&mut self, got: Answer<()>, what: &'static str) -> Ran {
        match got {
            Err(Fail::NoSpace) if self.may_be_full => self.refuse(),
            got => self.same(got, Ok(()), what),
        }
    }
}

/// The number of the listing that began last.
fn live_last(live: &Live) -> usize {
    live.listings.len() - 1
}

/// Bytes that tell where they belong.
fn pattern(len: usize, fill: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ ((i >> 8) as u8) ^ fill).collect()
}

fn xattr_name(n: u8) -> Vec<u8> {
    format!("user.attribute{n}").into_bytes()
}
