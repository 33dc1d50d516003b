//! Carries out operations on the model and on a target, and compares what they answer.

use std::collections::BTreeMap;

use super::{
    history::{History, moment},
    notes::Attached,
    ops::{Op, Step},
    picture::compare,
    target::{Answer, Fail, Target},
    tree::Tree,
    world::{Want, World},
};

macro_rules! ensure {
    ($good:expr, $($words:tt)+) => {
        if !$good {
            return Err(Stop::Wrong(format!($($words)+)));
        }
    };
}

mod files;
mod names;
mod notes;
pub mod sessions;

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
    /// The session may have been forked once more, with this attached.
    Forked(usize, Attached),
    /// There may be a session more, which is this.
    Created(Tree),
    /// The session may be gone.
    Discarded(usize),
}

/// The result of a step.
pub type Ran = Result<(), Stop>;

/// Runs operations on a world and its target.
pub struct Runner {
    pub world: World,
    /// An operation may answer that the disk is full, and then has changed nothing.
    pub may_be_full: bool,
    /// So may one that gives space back: what was held back for those may be used up.
    pub spent: bool,
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
        Runner { world, may_be_full: false, spent: false, refused: 0, history: None, tally: Tally::new() }
    }

    fn count(&mut self, what: &'static str, good: bool) {
        let (done, failed) = self.tally.entry(what).or_default();
        *if good { done } else { failed } += 1;
    }

    /// The disk is full, and nothing was done.
    pub fn refuse(&mut self) -> Ran {
        self.refused += 1;
        Ok(())
    }

    /// The world is now what it is.
    pub fn acknowledge(&mut self) {
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
            self.compare_notes(target, s)?;
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
            Op::Make(..)
            | Op::MakeUnnamed(..)
            | Op::Link(..)
            | Op::Unlink(..)
            | Op::Rmdir(..)
            | Op::Rename(..) => self.name_op(target, s, op),
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
            Op::Fork | Op::ForkNoted | Op::Discard | Op::Seal(_) | Op::Anchor | Op::Diff(_) => {
                self.session_op(target, s, op)
            }
            Op::Expire(_) | Op::Label(..) => self.note_op(target, s, op),
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
            (Err(Fail::NoSpace), Ok(_))
                if self.may_be_full && (self.spent || !matches!(what, "unlink" | "rmdir")) =>
            {
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
