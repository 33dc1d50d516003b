//! What was acknowledged, operation by operation, and whether a recovered state is explained by it.
//!
//! It must be the state after some operation, the last sync or a later one. One thing may be newer: bytes that were
//! overwritten in place since the last sync, because those are not ordered with the log. A byte of a file may therefore
//! be any that the file had at that offset since the last sync; names, sizes, attributes and times must all be of one
//! moment.

use std::{collections::BTreeMap, sync::Arc};

use fsd::session::{Session, SessionId};

use super::{
    engine::{EngineTarget, picture},
    notes::Attached,
    picture::{Picture, compare},
    runner::Maybe,
    tree::{Body, Tree},
    world::World,
};

/// A session as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shot {
    pub picture: Picture,
    /// The number that the next inode gets.
    pub next: u64,
    pub attached: Attached,
}

/// Every session at one moment, by the number of its creation; discarded ones are `None`.
pub type Moment = Vec<Option<Tree>>;

/// Every session as it was found, likewise.
pub type Sight = Vec<Option<Shot>>;

/// All sessions of the model.
pub fn moment(world: &World) -> Moment {
    world.sessions.iter().map(|live| live.as_ref().map(|live| live.tree.clone())).collect()
}

fn shot(target: &EngineTarget, session: &Session) -> Result<Shot, String> {
    let state = session.peek();
    let picture = picture(&target.engine, &state).map_err(|error| format!("{}: {error}", session.id()))?;
    Ok(Shot { picture, next: state.next_ino, attached: Attached::of(session) })
}

/// All sessions of an engine. Fails if one cannot be read.
pub fn observe(target: &EngineTarget) -> Result<Sight, String> {
    let sessions: BTreeMap<SessionId, _> =
        target.engine.sessions().into_iter().map(|session| (session.id(), session)).collect();
    let mut sight = Sight::new();
    for id in &target.ids {
        sight.push(sessions.get(id).map(|session| shot(target, session)).transpose()?);
    }
    // One that nobody was told of.
    for (_, session) in sessions.iter().filter(|(id, _)| !target.ids.contains(id)) {
        sight.push(Some(shot(target, session)?));
    }
    Ok(sight)
}

/// Moments since the last sync.
#[derive(Clone, Debug)]
pub struct History {
    since_sync: Vec<Moment>,
    /// What operations that failed since the last acknowledged one may have done all the same; one of them, at most.
    maybe: Vec<Moment>,
    /// Trees whose bytes a write that failed may have left in place.
    spilt: Vec<(usize, Tree)>,
}

impl History {
    /// Everything before this moment is durable.
    pub fn new(synced: Moment) -> History {
        History { since_sync: vec![synced], maybe: Vec::new(), spilt: Vec::new() }
    }

    /// An operation was acknowledged. If it changed anything, its record took the place of what a failed one left.
    pub fn push(&mut self, moment: Moment) {
        if !self.maybe.is_empty() && !is_same(&moment, self.since_sync.last().expect("never empty")) {
            self.maybe.clear();
        }
        self.since_sync.push(moment);
    }

    /// What an operation that was not acknowledged may have done.
    pub fn push_maybe(&mut self, world: &World, maybe: Option<Maybe>) {
        let mut moment = moment(world);
        match maybe {
            None => return,
            Some(Maybe::Changed(s, tree)) => {
                self.spilt.push((s, tree.clone()));
                moment[s] = Some(tree);
            }
            Some(Maybe::Forked(s, attached)) => {
                moment.push(moment[s].clone().map(|tree| Tree { attached, ..tree }));
            }
            Some(Maybe::Created(tree)) => moment.push(Some(tree)),
            Some(Maybe::Discarded(s)) => moment[s] = None,
        }
        self.maybe.push(moment);
    }

    /// The world is not quite what the last operation made of it: a write that failed left bytes in place.
    pub fn replace_last(&mut self, moment: Moment) {
        let last = self.since_sync.last_mut().expect("never empty");
        let before = std::mem::replace(last, moment);
        self.spilt.extend(before.into_iter().enumerate().filter_map(|(s, tree)| Some((s, tree?))));
    }

    /// Everything so far is durable.
    pub fn synced(&mut self) {
        self.since_sync.drain(..self.since_sync.len() - 1);
        self.spilt.clear();
    }

    /// The same if only the process dies: nothing acknowledged is lost.
    pub fn killed(&self) -> History {
        let last = self.since_sync.last().expect("never empty").clone();
        History { since_sync: vec![last], maybe: self.maybe.clone(), spilt: self.spilt.clone() }
    }

    /// Which moment a recovered state is, the latest first.
    pub fn explain(&self, is: &Sight) -> Result<(), String> {
        let mut why = Vec::new();
        let last = self.since_sync.len() - 1;
        let maybe = self.maybe.iter().map(|moment| (last + 1, moment));
        for (k, moment) in maybe.chain(self.since_sync.iter().enumerate().rev()) {
            match self.matches(is, moment) {
                Ok(()) => return Ok(()),
                Err(reason) => why.push(format!("after {k} operations: {reason}")),
            }
        }
        Err(why.join("\n"))
    }

    fn matches(&self, is: &Sight, moment: &Moment) -> Result<(), String> {
        for s in 0..is.len().max(moment.len()) {
            match (is.get(s).and_then(Option::as_ref), moment.get(s).and_then(Option::as_ref)) {
                (None, None) => {}
                (Some(is), Some(tree)) => {
                    if is.next != tree.next {
                        return Err(format!("session {s} goes on with inode {}, not {}", is.next, tree.next));
                    }
                    if is.attached != tree.attached {
                        let (is, should) = (&is.attached, &tree.attached);
                        return Err(format!("session {s} has {is:?}, not {should:?}"));
                    }
                    let should = tree.picture();
                    if is.picture == should {
                        continue;
                    }
                    let mut forgiven = is.picture.clone();
                    self.forgive_bytes(s, &mut forgiven, &should);
                    compare(&forgiven, &should).map_err(|why| format!("session {s}: {why}"))?;
                }
                (is, tree) => return Err(format!("session {s}: {} {}", is.is_some(), tree.is_some())),
            }
        }
        Ok(())
    }

    /// Puts the moment's bytes where the file has others that it had at that offset at some moment since the last sync.
    pub fn forgive_bytes(&self, s: usize, is: &mut Picture, moment: &Picture) {
        for (path, item) in is.iter_mut() {
            let Some(want) = moment.get(path) else { continue };
            if item.bytes == want.bytes || item.bytes.len() != want.bytes.len() {
                continue;
            }
            let versions: Vec<Arc<Vec<u8>>> = self.versions(s, item.seen.ino);
            let bytes = Arc::make_mut(&mut item.bytes);
            for (at, (byte, want)) in bytes.iter_mut().zip(want.bytes.iter()).enumerate() {
                if byte != want && versions.iter().any(|version| version.get(at) == Some(byte)) {
                    *byte = *want;
                }
            }
        }
    }

    fn versions(&self, s: usize, ino: u64) -> Vec<Arc<Vec<u8>>> {
        let trees = self.since_sync.iter().chain(&self.maybe).filter_map(|moment| moment.get(s)?.as_ref());
        let spilt = self.spilt.iter().filter(|(of, _)| *of == s).map(|(_, tree)| tree);
        let bytes = |tree: &Tree| match &tree.nodes.get(&ino)?.body {
            Body::File(bytes) => Some(Arc::clone(bytes)),
            _ => None,
        };
        trees.chain(spilt).filter_map(bytes).collect()
    }
}

/// Whether nothing happened between two moments.
fn is_same(a: &Moment, b: &Moment) -> bool {
    let same_tree = |a: &Tree, b: &Tree| {
        a.attached == b.attached
            && a.nodes.len() == b.nodes.len()
            && a.nodes.iter().zip(&b.nodes).all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(a.1, b.1))
    };
    let same = |(a, b): (&Option<Tree>, &Option<Tree>)| match (a, b) {
        (Some(a), Some(b)) => same_tree(a, b),
        (None, None) => true,
        _ => false,
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}
