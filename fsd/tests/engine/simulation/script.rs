//! What happens in a seed: operations on sessions and snapshots, and what goes wrong meanwhile. All of it from one sequence
//! of numbers; sizes are small, so that a seed costs little.

use cas::sim::{Failure, SimDisk};
use fsd::session::SetAttrs;
use proptest::{
    strategy::{BoxedStrategy, Strategy, ValueTree},
    test_runner::TestRunner,
};

use crate::{
    common::{random, seeded},
    model::{
        notes,
        ops::{self, Op, Step},
    },
};

/// Offsets and lengths in files stay below these.
const OFFSET_MAX: u32 = 9000;
const LEN_MAX: u32 = 6000;

/// Something that is done.
#[derive(Clone, Debug)]
pub enum Act {
    /// An operation on one session.
    Step(Step),
    /// Imports the `n`-th source.
    Import(u64),
    /// Seals a session and keeps the snapshot.
    Keep(u64),
    /// Takes a kept snapshot off the list.
    Forget(u64),
    /// Makes a session of a kept snapshot, or of nothing.
    Create(u64),
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Everything ends behind so many calls that change the disk.
    Cut(u64),
    /// The call behind so many that change the disk fails so.
    Fail(u64, Failure),
    /// The call behind so many that read fails.
    Blind(u64),
    /// Behind so many calls that change it the disk has room for so many bytes.
    Full(u64, u64),
}

impl Trouble {
    /// Orders it.
    pub fn arm(self, disk: &SimDisk) {
        match self {
            Trouble::None => {}
            Trouble::Cut(n) => disk.crash_after(n),
            Trouble::Fail(n, failure) => disk.fail_with(n + 1, failure),
            Trouble::Blind(n) => disk.fail_read_after(n + 1),
            Trouble::Full(n, bytes) => disk.fill_after(n + 1, bytes),
        }
    }
}

/// How a life of the process ends, if the disk does not end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is killed.
    Kill,
    /// The power goes.
    Power,
    /// It ends in good order, then the power goes.
    Close,
}

/// The numbers of a seed, and operations made of them.
pub struct Script {
    chance: u64,
    runner: TestRunner,
    steps: BoxedStrategy<Step>,
    /// What is attached to sessions, in every second seed: numbers of their own, so that what a seed found before there were any it still finds.
    notes: Option<(TestRunner, BoxedStrategy<Step>)>,
}

impl Script {
    /// The script of a seed.
    pub fn new(seed: u64) -> Script {
        let has_notes = !seed.is_multiple_of(2);
        let notes = has_notes.then(|| (seeded(seed, 2), notes::note_step().boxed()));
        Script { chance: seed, runner: seeded(seed, 1), steps: ops::step().boxed(), notes }
    }

    /// The next number.
    pub fn random(&mut self) -> u64 {
        random(&mut self.chance)
    }

    /// One time in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.random().is_multiple_of(n)
    }

    /// Whether things are attached to sessions in this seed.
    pub fn has_notes(&self) -> bool {
        self.notes.is_some()
    }

    /// What is attached next, if anything is.
    pub fn note(&mut self) -> Option<Act> {
        let (runner, steps) = self.notes.as_mut()?;
        let step = steps.new_tree(runner).expect("nothing is filtered").current();
        (step.session < 86).then_some(Act::Step(step))
    }

    /// The next thing that is done.
    pub fn act(&mut self) -> Act {
        let n = self.random() >> 8;
        match self.random() % 64 {
            0 => Act::Import(n),
            1..=3 => Act::Keep(n),
            4 | 5 => Act::Forget(n),
            6 | 7 => Act::Create(n),
            _ => Act::Step(self.step()),
        }
    }

    /// The next operation that changes something.
    fn step(&mut self) -> Step {
        loop {
            let step = self.steps.new_tree(&mut self.runner).expect("nothing is filtered").current();
            if let Some(op) = small(step.op) {
                return Step { session: step.session, op };
            }
        }
    }

    /// What goes wrong next. Small numbers are as likely as large ones.
    pub fn trouble(&mut self) -> Trouble {
        let bits = self.random() % 8;
        let n = self.random() % (1 << bits);
        match self.random() % 8 {
            0 | 1 => Trouble::None,
            2 | 3 => Trouble::Cut(n),
            4 => Trouble::Fail(n, Failure::Io),
            5 => Trouble::Fail(n, if self.one_in(2) { Failure::Short } else { Failure::Late }),
            6 => Trouble::Blind(n * 2),
            _ => Trouble::Full(n, self.random() % 40_000),
        }
    }

    /// How a life ends.
    pub fn end(&mut self) -> End {
        match self.random() % 5 {
            0 | 1 => End::Kill,
            2 | 3 => End::Power,
            _ => End::Close,
        }
    }
}

/// An operation that changes something, and little; `None` for others.
fn small(op: Op) -> Option<Op> {
    let (at, of) = (|offset: u32| offset % OFFSET_MAX, |len: u32| len % LEN_MAX);
    Some(match op {
        Op::Stat(_) | Op::Read(..) | Op::Seek(..) | Op::List(..) | Op::More(_) | Op::Diff(_) | Op::Reopen => {
            return None;
        }
        Op::Write(pick, offset, len, fill) => Op::Write(pick, at(offset), of(len), fill),
        Op::Allocate(pick, offset, len, how) => Op::Allocate(pick, at(offset), of(len), how),
        Op::Copy(pick, offset, to, to_offset, len) => Op::Copy(pick, at(offset), to, at(to_offset), of(len)),
        Op::SetAttrs(pick, set) => {
            Op::SetAttrs(pick, SetAttrs { size: set.size.map(|size| size % u64::from(OFFSET_MAX)), ..set })
        }
        Op::Seal(during) => Op::Seal(during.into_iter().filter_map(small).collect()),
        other => other,
    })
}
