//! A workload is done by all sides, which take turns: so what else the machine does falls on all of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Result,
    args::Group,
    clock, kernel,
    samples::{Sample, Unit},
    scale::Scale,
    shell,
    sides::{Missing, Side},
    stage::Stage,
    stop,
};

/// What one side does in its turn.
pub(crate) type Step = fn(&mut Turn<'_>) -> Result<()>;

pub(crate) struct Workload {
    pub(crate) group: Group,
    /// By each side, before the first round.
    pub(crate) prepare: Step,
    /// Every step by all sides before the next one; all steps in a round.
    pub(crate) steps: &'static [Step],
    /// By each side, after the last round.
    pub(crate) finish: Step,
}

pub(crate) fn nothing(_: &mut Turn<'_>) -> Result<()> {
    Ok(())
}

pub(crate) fn begin_scratch(turn: &mut Turn<'_>) -> Result<()> {
    Ok(fs::create_dir(turn.scratch())?)
}

pub(crate) fn end_scratch(turn: &mut Turn<'_>) -> Result<()> {
    shell::remove(&turn.scratch())
}

/// One side's.
pub(crate) struct Turn<'a> {
    pub(crate) side: &'a mut dyn Side,
    pub(crate) stage: &'a Stage,
    pub(crate) round: u32,
    group: Group,
    samples: &'a mut Vec<Sample>,
}

impl Workload {
    pub(crate) fn run(
        &self,
        stage: &Stage,
        sides: &mut [Box<dyn Side>],
        samples: &mut Vec<Sample>,
    ) -> Result<()> {
        let name = self.group.name();
        stage.progress.expect(u64::from(stage.rounds) * (self.steps.len() * sides.len()) as u64);
        for side in &mut *sides {
            stage.progress.say(&format!("{name}: preparing {}", side.name()));
            self.turn(stage, side.as_mut(), 0, samples, self.prepare)?;
        }
        let count = sides.len();
        for round in 0..stage.rounds {
            for (nth, step) in self.steps.iter().enumerate() {
                // Another one first in every round: who comes second may find something that the first one left.
                for place in 0..count {
                    let side = &mut sides[(round as usize + place) % count];
                    let (nth, of) = (nth + 1, self.steps.len());
                    let side_name = side.name();
                    let at = format!("{name} {nth}/{of}, round {}/{}: {side_name}", round + 1, stage.rounds);
                    stage.progress.step(&at);
                    self.turn(stage, side.as_mut(), round, samples, *step)?;
                }
            }
        }
        for side in &mut *sides {
            self.turn(stage, side.as_mut(), 0, samples, self.finish)?;
        }
        Ok(())
    }

    fn turn(
        &self,
        stage: &Stage,
        side: &mut dyn Side,
        round: u32,
        samples: &mut Vec<Sample>,
        step: Step,
    ) -> Result<()> {
        stop::check()?;
        shell::settle()?;
        kernel::touch_memory(stage.scale.touched_bytes_max);
        let context = format!("{}, {}", self.group.name(), side.name());
        let mut turn = Turn { side, stage, round, group: self.group, samples };
        step(&mut turn).map_err(|e| format!("{context}: {e}").into())
    }
}

impl Turn<'_> {
    pub(crate) fn root(&self) -> PathBuf {
        self.side.root().to_owned()
    }

    pub(crate) fn scale(&self) -> &'static Scale {
        self.stage.scale
    }

    /// A directory in the tree for what is written; there between `begin_scratch` and `end_scratch`.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.side.root().join("aether-bench.tmp")
    }

    /// Does something in the tree and puts down how long it took.
    pub(crate) fn time(&mut self, work: &str, act: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.measure(work, |root| clock::seconds(|| act(root)))
    }

    /// The same, with a time that the work itself measures.
    pub(crate) fn measure(&mut self, work: &str, act: impl FnOnce(&Path) -> Result<f64>) -> Result<()> {
        let (value, daemon) = self.side.with_usage(act)?;
        self.samples.push(Sample { daemon, ..self.sample(work, Unit::Seconds, value) });
        stop::check()
    }

    /// Puts down what was found out otherwise.
    pub(crate) fn put(&mut self, work: &str, unit: Unit, value: f64) {
        self.samples.push(self.sample(work, unit, value));
    }

    fn sample(&self, work: &str, unit: Unit, value: f64) -> Sample {
        let (work, side) = (work.to_owned(), self.side.name().to_owned());
        Sample { group: self.group, work, side, round: self.round, unit, value, at: None, daemon: None }
    }
}

/// Something that a whole group needs and that is not here.
pub(crate) fn missing(group: Group, why: impl Into<String>) -> Missing {
    Missing { what: group.name(), why: why.into() }
}
