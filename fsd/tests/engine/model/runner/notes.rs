//! Operations on what is attached to sessions.

use super::{
    super::{ops::Op, target::Target},
    Ran, Runner, Stop,
};

impl Runner {
    /// Changes what is attached to a session.
    pub(super) fn note_op<T: Target>(&mut self, target: &mut T, s: usize, op: &Op) -> Ran {
        match op {
            Op::Expire(seconds) => self.change(
                target,
                s,
                "expire",
                |tree| tree.attached.expire(tree.now, *seconds),
                |target| target.expire(s, *seconds),
            ),
            Op::Label(key, value) => {
                let (key, value) = (format!("k{key}"), value.map(|n| "v".repeat(n as usize % 257)));
                self.change(
                    target,
                    s,
                    "label",
                    |tree| tree.attached.label(&key, value.as_deref()),
                    |target| target.label(s, &key, value.as_deref()),
                )
            }
            _ => unreachable!("another group"),
        }
    }

    /// Compares what is attached to a session.
    pub(super) fn compare_notes<T: Target>(&self, target: &mut T, s: usize) -> Ran {
        let (is, should) = (target.attached(s), &self.world.live(s).tree.attached);
        match is == *should {
            true => Ok(()),
            false => Err(Stop::Wrong(format!("session {s} has {is:?}, should have {should:?}"))),
        }
    }
}
