//! Lives of an engine on one disk: each begins with what the one before left, goes on until something ends it, and is judged
//! by the model.

use std::sync::{Arc, atomic::AtomicBool};

use cas::{disk::Disk, sim::SimDisk};
use fsd::session::{Error, Limits, Session};

use super::{
    script::{Act, End, Script, Trouble},
    snapshots::{Snapshots, Sources},
};
use crate::{
    common::{faulty::Fault, host::Opening, setting, template::Template},
    model::{
        engine::{EngineTarget, fail},
        history::{History, moment, observe},
        notes::Attached,
        ops::Op,
        picture::{Picture, compare},
        runner::{Maybe, Runner, Stop, sessions::LIVE_MAX},
        target::{Fail, Target},
        tree::Tree,
        world::Live,
    },
};

/// Room enough for everything.
const ROOMY: u64 = 1 << 30;
/// Things that are done in a life, at most.
const ACTS_MAX: u64 = 12;
/// Starts that may fail before one is left in peace.
const STARTS_MAX: u32 = 3;
/// The number of the first inode that a session makes.
const CREATED_MIN: u64 = 1 << 62;

/// What was met, so that nobody believes a run that meets nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub acts: u64,
    pub kills: u64,
    pub power_losses: u64,
    pub failed_calls: u64,
    pub refused_calls: u64,
    pub failed_starts: u64,
}

impl Tally {
    /// By name.
    pub fn all(&self) -> [(&'static str, u64); 6] {
        [
            ("things that were done", self.acts),
            ("kills", self.kills),
            ("power losses", self.power_losses),
            ("failed calls", self.failed_calls),
            ("refused calls", self.refused_calls),
            ("failed starts", self.failed_starts),
        ]
    }

    pub fn add(&mut self, other: Tally) {
        self.acts += other.acts;
        self.kills += other.kills;
        self.power_losses += other.power_losses;
        self.failed_calls += other.failed_calls;
        self.refused_calls += other.refused_calls;
        self.failed_starts += other.failed_starts;
    }
}

/// What is planted: a fault of the disk, or one of the daemon.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    pub disk: Option<Fault>,
    /// The daemon does not notice that the machine was started again.
    pub same_boot: bool,
}

/// Bounds under which a handful of operations fills files and makes several parts.
pub fn limits() -> Limits {
    Limits {
        log_file_bytes: 8 << 10,
        log_bytes_max: 24 << 10,
        part_bytes: 1 << 10,
        segment_bytes_min: 4 << 10,
        segment_bytes_max: 32 << 10,
        idle_us: 60_000_000,
        ..Limits::default()
    }
}

/// How every engine of a seed is opened.
pub fn opening(seed: u64, planted: Planted) -> Opening {
    Opening { limits: limits(), pack_bytes_max: 24 << 10, fault: planted.disk, ..Opening::first(seed) }
}

/// What all seeds begin with.
pub struct Stage {
    template: Template,
    sources: Sources,
}

impl Stage {
    pub fn set() -> Stage {
        let template = Template::of(crate::common::base::small_tree(), &opening(0, Planted::default()));
        Stage { template, sources: Sources::make() }
    }
}

/// One seed under way.
pub struct Lives<'a> {
    stage: &'a Stage,
    script: Script,
    target: EngineTarget,
    runner: Runner,
    snapshots: Snapshots,
    planted: Planted,
    /// The position of the log when the disk filled up.
    full_from: Option<u64>,
    /// The start found the disk full, and has used up the log's reserve.
    is_bare: bool,
    /// Says what happens, for whoever looks into a failure.
    trace: bool,
    tally: Tally,
}

impl<'a> Lives<'a> {
    /// Runs a seed: a few lives, and a last look at everything.
    pub fn run(stage: &'a Stage, seed: u64, planted: Planted) -> Result<Tally, String> {
        let (target, world) = stage.template.start(opening(seed, planted));
        let mut runner = Runner::new(world);
        runner.history = Some(History::new(moment(&runner.world)));
        let mut snapshots = Snapshots::default();
        snapshots.keep(stage.template.snapshot, Arc::new(stage.template.tree.picture()));
        let script = Script::new(seed);
        let trace = setting("AETHERFS_SIMULATION_TRACE", 0) > 0;
        let mut lives = Lives {
            stage,
            script,
            target,
            runner,
            snapshots,
            planted,
            full_from: None,
            is_bare: false,
            trace,
            tally: Tally::default(),
        };
        for n in 0..1 + lives.script.random() % 3 {
            lives.live().map_err(|why| format!("life {n}: {why}"))?;
        }
        lives.look_back().map_err(|why| format!("in the end: {why}"))?;
        Ok(lives.tally)
    }

    /// A life, from a started engine to the next one.
    fn live(&mut self) -> Result<(), String> {
        let trouble = self.script.trouble();
        self.say(|| format!("a life with {trouble:?}"));
        self.runner.may_be_full = matches!(trouble, Trouble::Full(..));
        self.is_bare = self.target.engine.durability().log.is_low();
        self.target.disk.set_space_free(ROOMY);
        trouble.arm(&self.target.disk);
        for at in 0..1 + self.script.random() % ACTS_MAX {
            let act = self.script.act();
            for act in [act].into_iter().chain(self.script.note()) {
                self.act(&act).map_err(|why| format!("{trouble:?}, {at}: {act:?}: {why}"))?;
                if self.target.disk.is_down() {
                    break;
                }
            }
            if self.target.disk.is_down() {
                break;
            }
        }
        self.target.disk.clear_faults();
        let said = |why| format!("{trouble:?}: {why}");
        if self.runner.may_be_full && !self.target.disk.is_down() {
            self.make_room(trouble).map_err(said)?;
        }
        (self.runner.may_be_full, self.full_from) = (false, None);
        let power = match self.script.end() {
            End::Kill => false,
            End::Power => true,
            End::Close => {
                if !self.target.disk.is_down() && self.target.engine.close().is_ok() {
                    self.history().synced();
                }
                true
            }
        };
        self.start_again(power).map_err(said)
    }

    /// The disk has room again: everything works as before, but for syncs once one of them has failed.
    fn make_room(&mut self, trouble: Trouble) -> Result<(), String> {
        self.target.disk.set_space_free(ROOMY);
        self.target.tick().expect("a tick");
        self.runner.may_be_full = false;
        self.runner.compare_all(&mut self.target).map_err(|stop| format!("{stop:?}"))?;
        if self.target.engine.durability().log.is_low() {
            return Err("there is room again, and still only what frees space is accepted".into());
        }
        match self.target.sync() {
            Ok(()) => self.history().synced(),
            Err(Fail::Disk) if !matches!(trouble, Trouble::Full(..)) => {}
            Err(fail) => return Err(format!("a sync with room again: {fail:?}")),
        }
        Ok(())
    }

    fn history(&mut self) -> &mut History {
        self.runner.history.as_mut().expect("set at the start")
    }

    /// Does something, and judges the answer.
    fn act(&mut self, act: &Act) -> Result<(), String> {
        self.tally.acts += 1;
        self.note_room();
        let (armed, refused) = (self.target.disk.is_armed(), self.runner.refused);
        let ran = match act {
            Act::Step(step) => self.runner.step(&mut self.target, step),
            Act::Import(n) => self.import(*n),
            Act::Keep(n) => self.keep(*n),
            Act::Forget(n) => self.forget(*n),
            Act::Create(n) => self.create(*n),
        };
        self.say(|| format!("{act:?}: {ran:?}"));
        match ran {
            Ok(()) if self.runner.refused > refused => {
                self.tally.refused_calls += 1;
                self.unchanged()
            }
            Ok(()) => Ok(()),
            Err(Stop::Wrong(why)) => Err(why),
            Err(Stop::Crashed(maybe)) => {
                self.tally.failed_calls += 1;
                let came = armed && !self.target.disk.is_armed();
                let sticks = matches!(act, Act::Step(step) if matches!(step.op, Op::Sync | Op::Gc));
                if !came && !sticks && !self.target.disk.is_down() {
                    return Err("it fails although the disk works".into());
                }
                self.failed(maybe)
            }
        }
    }

    /// Once the disk is full, removals still work until about a file of the log is filled: the reserve, if there is one.
    fn note_room(&mut self) {
        let log = &self.target.engine.durability().log;
        let position = log.position();
        // Without its reserve the log takes no chances, whatever took the reserve away.
        self.runner.may_be_full |= log.is_low();
        self.is_bare &= log.is_low();
        if self.runner.may_be_full && !self.target.disk.is_armed() {
            self.full_from.get_or_insert(position);
        }
        let is_used_up = |from| position > from + limits().log_file_bytes / 2;
        self.runner.spent = self.is_bare || self.full_from.is_some_and(is_used_up);
    }

    /// A call failed. If the disk works again, nothing has changed but bytes that were being overwritten.
    fn failed(&mut self, maybe: Option<Maybe>) -> Result<(), String> {
        let overwritten = match &maybe {
            Some(Maybe::Changed(s, _)) => Some(*s),
            _ => None,
        };
        let world = &self.runner.world;
        self.runner.history.as_mut().expect("set at the start").push_maybe(world, maybe);
        if self.target.disk.is_down() {
            return Ok(());
        }
        if let Some(s) = overwritten {
            let is = self.target.picture(s).map_err(|fail| format!("session {s}: {fail:?}"))?;
            let live = self.runner.world.live(s);
            let should = live.tree.picture();
            if is != should {
                let mut forgiven = is.clone();
                self.runner.history.as_ref().expect("set").forgive_bytes(s, &mut forgiven, &should);
                compare(&forgiven, &should)
                    .map_err(|why| format!("a failed call changed session {s}: {why}"))?;
                self.runner.world.live_mut(s).tree.take_bytes(&is);
                self.spill();
            }
        }
        self.unchanged()
    }

    /// Bytes stand there that no acknowledged operation wrote.
    fn spill(&mut self) {
        let moment = moment(&self.runner.world);
        self.history().replace_last(moment);
    }

    /// Compares everything, unless that would itself meet what is still to come.
    fn unchanged(&mut self) -> Result<(), String> {
        if self.target.disk.is_armed() {
            return Ok(());
        }
        self.runner.compare_all(&mut self.target).map_err(|stop| format!("after a failed call: {stop:?}"))
    }

    fn import(&mut self, n: u64) -> Result<(), Stop> {
        let stage = self.stage;
        let (path, id, picture) = &stage.sources.all[n as usize % stage.sources.all.len()];
        match self.target.engine.import(path, None, &|_| {}, &AtomicBool::new(false)) {
            Ok(imported) if imported.id == *id => self.snapshots.keep(*id, Arc::clone(picture)),
            Ok(imported) => return Err(Stop::Wrong(format!("imported {}, not {id}", imported.id))),
            Err(error) => {
                self.snapshots.maybe_keep(Arc::clone(picture));
                return self.refusal(error, None);
            }
        }
        Ok(())
    }

    fn keep(&mut self, n: u64) -> Result<(), Stop> {
        let (s, session) = self.session(n);
        let should = Arc::new(self.runner.world.live(s).tree.picture());
        match self.target.engine.seal(&session, true, &mut |_| {}) {
            Ok(sealed) => {
                self.snapshots.keep(sealed.snapshot, Arc::clone(&should));
                let is = super::snapshots::read(&self.target.engine, sealed.snapshot).map_err(|why| {
                    if self.target.disk.is_armed() { Stop::Wrong(why) } else { Stop::Crashed(None) }
                })?;
                compare(&is, &should).map_err(|why| Stop::Wrong(format!("kept: {why}")))
            }
            Err(error) => {
                self.snapshots.maybe_keep(should);
                self.refusal(error, None)
            }
        }
    }

    fn forget(&mut self, n: u64) -> Result<(), Stop> {
        let Some((id, _)) = self.snapshots.pick(n) else { return Ok(()) };
        let in_use = self.target.engine.sessions().iter().any(|session| session.meta.origin == id);
        match self.target.engine.forget_snapshot(id) {
            Err(Error::InUse(..)) if in_use => Ok(()),
            Ok(()) if !in_use => {
                self.snapshots.forget(id);
                Ok(())
            }
            Err(error) if !in_use => {
                self.snapshots.maybe_forget(id);
                self.refusal(error, None)
            }
            other => Err(Stop::Wrong(format!("forgetting {id}, in use: {in_use}: {other:?}"))),
        }
    }

    fn create(&mut self, n: u64) -> Result<(), Stop> {
        if self.runner.world.living().len() >= LIVE_MAX {
            return Ok(());
        }
        let from = self.snapshots.pick(n).filter(|_| !n.is_multiple_of(3));
        let now = self.target.set_time();
        let attached = if self.script.has_notes() { Attached::given() } else { Attached::default() };
        let notes = attached.notes();
        let tree = match &from {
            Some((_, picture)) => Tree::of(picture, next_ino(picture)),
            None => Tree::empty(
                CREATED_MIN,
                cas::Attrs {
                    mode: 0o755,
                    uid: 3,
                    gid: 4,
                    nlink: 2,
                    rdev: 0,
                    size: 0,
                    mtime: now,
                    ctime: now,
                },
            ),
        };
        let tree = Tree { attached, ..tree };
        match self.target.engine.create_noted(from.map(|(id, _)| id), None, notes, (3, 4)) {
            Ok(session) => {
                self.target.ids.push(session.id());
                self.runner.world.sessions.push(Some(Live::new(tree)));
                self.runner.acknowledge();
                Ok(())
            }
            Err(error) => self.refusal(error, Some(Maybe::Created(tree))),
        }
    }

    /// The session that is meant.
    fn session(&self, n: u64) -> (usize, Arc<Session>) {
        let living = self.runner.world.living();
        let s = living[n as usize % living.len()];
        (s, self.target.session(s))
    }

    /// A call that failed: on a full disk it has changed nothing.
    fn refusal(&mut self, error: Error, maybe: Option<Maybe>) -> Result<(), Stop> {
        let text = error.to_string();
        match fail(error) {
            Fail::NoSpace if self.runner.may_be_full => self.runner.refuse(),
            Fail::Disk => Err(Stop::Crashed(maybe)),
            _ => Err(Stop::Wrong(text)),
        }
    }

    /// The process ends, and another one starts on what it left, in spite of more trouble.
    fn start_again(&mut self, power: bool) -> Result<(), String> {
        let mut lost_power = power;
        let mut disk = self.end(power);
        for attempt in 0.. {
            let trouble = match attempt {
                n if n < STARTS_MAX && self.script.one_in(2) => self.script.trouble(),
                _ => Trouble::None,
            };
            disk.set_space_free(ROOMY);
            trouble.arm(&disk);
            let opened =
                EngineTarget::open(disk.clone(), self.target.opening.clone(), self.target.ids.clone());
            disk.clear_faults();
            self.say(|| format!("a start with {trouble:?}: {:?}", opened.as_ref().map(|_| ())));
            match opened {
                Ok(target) if !disk.is_down() => {
                    disk.set_space_free(ROOMY);
                    self.target = target;
                    break;
                }
                Ok(_) => {}
                Err(error) => {
                    let text = format!("it does not open ({trouble:?}): {error}");
                    let expected = match fail(error) {
                        Fail::Disk => trouble != Trouble::None,
                        Fail::NoSpace => matches!(trouble, Trouble::Full(..)),
                        _ => false,
                    };
                    if !expected {
                        return Err(text);
                    }
                    self.tally.failed_starts += 1;
                }
            }
            let power = self.script.one_in(2);
            lost_power |= power;
            self.target.disk = disk;
            disk = self.end(power);
        }
        self.judge(lost_power)
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{}", what());
        }
    }

    /// What a kill, or power loss, leaves of the disk.
    fn end(&mut self, power: bool) -> SimDisk {
        self.say(|| format!("power loss: {power}"));
        match power {
            true => {
                self.tally.power_losses += 1;
                if !self.planted.same_boot {
                    self.target.opening = self.target.opening.rebooted();
                }
                self.target.disk.crash(&mut || self.script.random())
            }
            false => {
                self.tally.kills += 1;
                self.target.disk.kill()
            }
        }
    }

    /// Compares what came back with what may, and goes on from there.
    fn judge(&mut self, lost_power: bool) -> Result<(), String> {
        let found = observe(&self.target)?;
        let history = self.runner.history.take().expect("set at the start");
        let history = if lost_power { history } else { history.killed() };
        let how = if lost_power { "power was lost" } else { "it was killed" };
        history.explain(&found).map_err(|why| format!("{how}:\n{why}"))?;
        let unknown = self.target.engine.sessions().into_iter().map(|session| session.id());
        let unknown: Vec<_> = unknown.filter(|id| !self.target.ids.contains(id)).collect();
        self.target.ids.extend(unknown);
        self.target.ids.truncate(found.len());
        self.runner.world.adopt(&found);
        self.runner.history = Some(History::new(moment(&self.runner.world)));
        let whole = self.script.one_in(3);
        self.snapshots.check(&self.target.engine, whole).map_err(|why| format!("{how}: {why}"))
    }

    /// At the end all works as if nothing had happened, and what was let go of is gone.
    fn look_back(&mut self) -> Result<(), String> {
        self.runner.compare_all(&mut self.target).map_err(|stop| format!("{stop:?}"))?;
        self.snapshots.check(&self.target.engine, true)?;
        if !self.script.one_in(4) {
            return Ok(());
        }
        let said = |error: Error| error.to_string();
        let engine = Arc::clone(&self.target.engine);
        engine.sessions().iter().try_for_each(|session| engine.discard(session)).map_err(said)?;
        engine.gc(false, &mut |_| {}).map_err(said)?;
        engine.durability().settle().map_err(said)?;
        engine.tidy();
        let left = self.target.disk.list("segments").expect("it is there");
        if !left.is_empty() {
            return Err(format!("no session is left, but segments are: {left:?}"));
        }
        self.snapshots.check(&engine, true)
    }
}

/// The number that the first inode made over a snapshot gets.
fn next_ino(picture: &Picture) -> u64 {
    let highest = picture.values().map(|item| item.seen.ino).max().unwrap_or(0);
    (highest + 1).max(CREATED_MIN)
}
