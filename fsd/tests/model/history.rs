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
    picture::{Picture, compare},
    runner::Maybe,
    world::{Live, World},
};

/// A session at one moment.
#[derive(Clone, Debug)]
pub struct Shot {
    pub picture: Picture,
    /// The number that the next inode gets.
    pub next: u64,
}

/// Every session at one moment, by the number of its creation; discarded ones are `None`.
pub type Moment = Vec<Option<Shot>>;

/// All sessions of the model.
pub fn moment(world: &World) -> Moment {
    let shot = |live: &Live| Shot { picture: live.tree.picture(), next: live.tree.next };
    world.sessions.iter().map(|live| live.as_ref().map(shot)).collect()
}

fn shot(target: &EngineTarget, session: &Session) -> Result<Shot, String> {
    let state = session.peek();
    let picture = picture(&target.engine, &state).map_err(|error| format!("{}: {error}", session.id()))?;
    Ok(Shot { picture, next: state.next_ino })
}

/// All sessions of an engine. Fails if one cannot be read.
pub fn observe(target: &EngineTarget) -> Result<Moment, String> {
    let sessions: BTreeMap<SessionId, _> =
        target.engine.sessions().into_iter().map(|session| (session.id(), session)).collect();
    let mut moment = Moment::new();
    for id in &target.ids {
        moment.push(sessions.get(id).map(|session| shot(target, session)).transpose()?);
    }
    // A fork that nobody was told of.
    for (_, session) in sessions.iter().filter(|(id, _)| !target.ids.contains(id)) {
        moment.push(Some(shot(target, session)?));
    }
    Ok(moment)
}

/// Moments since the last sync.
#[derive(Clone, Debug)]
pub struct History {
    since_sync: Vec<Moment>,
}

impl History {
    /// Everything before this moment is durable.
    pub fn new(synced: Moment) -> History {
        History { since_sync: vec![synced] }
    }

    /// An operation was acknowledged.
    pub fn push(&mut self, moment: Moment) {
        self.since_sync.push(moment);
    }

    /// What an operation that was not acknowledged may have done.
    pub fn push_maybe(&mut self, world: &World, maybe: Option<Maybe>) {
        let mut world = world.clone();
        match maybe {
            None => return,
            Some(Maybe::Changed(s, tree)) => world.live_mut(s).tree = tree,
            Some(Maybe::Forked(s)) => {
                let tree = world.live(s).tree.clone();
                world.sessions.push(Some(Live::new(tree)));
            }
            Some(Maybe::Discarded(s)) => world.sessions[s] = None,
        }
        self.push(moment(&world));
    }

    /// Everything so far is durable.
    pub fn synced(&mut self) {
        self.since_sync.drain(..self.since_sync.len() - 1);
    }

    /// Which moment a recovered state is, the latest first.
    pub fn explain(&self, is: &Moment) -> Result<(), String> {
        let mut why = Vec::new();
        for (k, moment) in self.since_sync.iter().enumerate().rev() {
            match self.matches(is, moment) {
                Ok(()) => return Ok(()),
                Err(reason) => why.push(format!("after {k} operations: {reason}")),
            }
        }
        Err(why.join("\n"))
    }

    fn matches(&self, is: &Moment, moment: &Moment) -> Result<(), String> {
        for s in 0..is.len().max(moment.len()) {
            match (is.get(s).cloned().flatten(), moment.get(s).cloned().flatten()) {
                (None, None) => {}
                (Some(mut is), Some(moment)) => {
                    self.forgive_bytes(s, &mut is.picture, &moment.picture);
                    compare(&is.picture, &moment.picture).map_err(|why| format!("session {s}: {why}"))?;
                    if is.next != moment.next {
                        return Err(format!(
                            "session {s} goes on with inode {}, not {}",
                            is.next, moment.next
                        ));
                    }
                }
                (is, moment) => return Err(format!("session {s}: {} {}", is.is_some(), moment.is_some())),
            }
        }
        Ok(())
    }

    /// Puts the moment's bytes where the file has others that it had at that offset at some moment since the last sync.
    fn forgive_bytes(&self, s: usize, is: &mut Picture, moment: &Picture) {
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
        let shots = self.since_sync.iter().filter_map(|moment| moment.get(s)?.as_ref());
        let items = shots.flat_map(|shot| shot.picture.values().filter(|item| item.seen.ino == ino));
        items.map(|item| Arc::clone(&item.bytes)).collect()
    }
}
