//! A simulated disk with a base in its store, made once for all tests of a program.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use cas::{SnapshotId, sim::SimDisk};

use super::{
    base,
    host::{Opening, again},
};
use crate::model::{engine::EngineTarget, tree::Tree, world::World};

/// A disk, and what is on it.
pub struct Template {
    disk: SimDisk,
    pub snapshot: SnapshotId,
    pub tree: Tree,
}

impl Template {
    /// The one that all tests share.
    pub fn get() -> &'static Template {
        static TEMPLATE: OnceLock<Template> = OnceLock::new();
        TEMPLATE.get_or_init(|| Template::of(base::tree(), &Opening::first(0)))
    }

    /// A disk with an engine's state on it, and `tree` in its store.
    pub fn of(tree: Tree, opening: &Opening) -> Template {
        let disk = SimDisk::new(0);
        let engine = opening.open_sim(&disk).unwrap();
        let snapshot = base::store(engine.store(), &tree);
        engine.close().unwrap();
        drop(engine);
        Template { disk: disk.kill(), snapshot, tree }
    }

    /// A disk of a host that has never seen `tree`; another one has published it.
    pub fn elsewhere(tree: Tree, opening: &Opening) -> Template {
        let there = opening.open_sim(&SimDisk::new(1)).unwrap();
        let snapshot = base::store(there.store(), &tree);
        let name = || there.entropy().remote_name();
        there.store().publish(snapshot, &[], &name, &|_| {}, &|| false).unwrap();
        let disk = SimDisk::new(0);
        let here = opening.open_sim(&disk).unwrap();
        here.adopt(snapshot).unwrap();
        here.close().unwrap();
        drop(here);
        Template { disk: disk.kill(), snapshot, tree }
    }

    /// A copy of the disk, and the base in it.
    pub fn disk(&self) -> (SimDisk, SnapshotId) {
        (self.disk.kill(), self.snapshot)
    }

    /// The same in a directory of this host.
    pub fn start_in(&self, dir: &Path) -> (EngineTarget, World) {
        let opening = Opening::first(7);
        let engine = Arc::new(opening.open_dir(dir).unwrap());
        let snapshot = base::store(engine.store(), &self.tree);
        assert_eq!(snapshot, self.snapshot, "one tree has one ID, wherever it is stored");
        let session = engine.create(Some(snapshot), None, (0, 0)).unwrap();
        let ids = vec![session.id()];
        (EngineTarget { disk: SimDisk::new(0), opening, engine, ids }, World::new(&self.tree))
    }

    /// A copy of the disk, with one durable session over the base, and the model of it.
    pub fn start(&self, opening: Opening) -> (EngineTarget, World) {
        let mut target = EngineTarget::open(self.disk.kill(), opening, Vec::new()).unwrap();
        let engine = &target.engine;
        let session = again(engine.store(), || engine.create(Some(self.snapshot), None, (0, 0))).unwrap();
        target.ids.push(session.id());
        target.engine.durability().sync().unwrap();
        (target, World::new(&self.tree))
    }
}
