//! Operations on whole sessions: fork, discard, seal, anchor, diff.

use super::{
    super::{
        differ,
        notes::Attached,
        ops::Op,
        picture::compare,
        target::{Against, Fail, Target},
    },
    Maybe, Ran, Runner, Stop,
};

/// Sessions that live at the same time, at most.
pub const LIVE_MAX: usize = 5;

impl Runner {
    /// What makes several records may use the reserve up with one of them.
    fn note_low<T: Target>(&mut self, target: &T) {
        self.may_be_full |= target.is_low();
    }

    /// Operations on a session as a whole.
    pub(super) fn session_op<T: Target>(&mut self, target: &mut T, s: usize, op: &Op) -> Ran {
        match op {
            Op::Fork | Op::ForkNoted => {
                let attached = match op {
                    Op::Fork => Attached::default(),
                    _ => Attached::given(),
                };
                if self.world.living().len() >= LIVE_MAX {
                    return Ok(());
                }
                match target.fork_noted(s, &attached) {
                    Err(Fail::Disk) => return Err(Stop::Crashed(Some(Maybe::Forked(s, attached)))),
                    Err(Fail::NoSpace) if self.may_be_full => return self.refuse(),
                    other => ensure!(other.is_ok(), "fork: {other:?}"),
                }
                self.count("fork", true);
                self.world.fork_noted(s, attached);
                self.acknowledge();
                Ok(())
            }
            Op::Discard => {
                if self.world.living().len() == 1 {
                    return Ok(());
                }
                match target.discard(s) {
                    Err(Fail::Disk) => return Err(Stop::Crashed(Some(Maybe::Discarded(s)))),
                    Err(Fail::NoSpace) if self.may_be_full && self.spent => return self.refuse(),
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
                self.note_low(target);
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
            Op::Anchor => {
                let written = target.anchor(s);
                self.note_low(target);
                self.done(written, "anchor")
            }
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
}
