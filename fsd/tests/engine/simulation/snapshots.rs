//! The kept snapshots as they should be: those that somebody was promised, and those that may be there.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use cas::SnapshotId;
use fsd::session::{Engine, State};
use tempfile::TempDir;

use crate::{
    common::{host::Opening, template::Template},
    model::{
        engine::picture,
        picture::{Picture, compare},
        tree::Tree,
    },
};

/// Snapshots that are kept, or may be.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Whether it was promised, and what is in it.
    known: BTreeMap<SnapshotId, (bool, Arc<Picture>)>,
    /// What is in those whose making was not acknowledged.
    maybe: Vec<Arc<Picture>>,
}

impl Snapshots {
    /// It is kept.
    pub fn keep(&mut self, id: SnapshotId, picture: Arc<Picture>) {
        self.known.insert(id, (true, picture));
    }

    /// One of these may be kept; nobody was told its ID.
    pub fn maybe_keep(&mut self, picture: Arc<Picture>) {
        self.maybe.push(picture);
    }

    /// It is kept no more.
    pub fn forget(&mut self, id: SnapshotId) {
        self.known.remove(&id);
    }

    /// It may be kept no more.
    pub fn maybe_forget(&mut self, id: SnapshotId) {
        self.known.get_mut(&id).expect("it was kept").0 = false;
    }

    /// The `n`-th of those that were promised.
    pub fn pick(&self, n: u64) -> Option<(SnapshotId, Arc<Picture>)> {
        let sure: Vec<_> = self.known.iter().filter(|(_, (sure, _))| *sure).collect();
        let (id, (_, picture)) = sure.get(n as usize % sure.len().max(1))?;
        Some((**id, Arc::clone(picture)))
    }

    /// Compares the list of the store with what should be on it; with `whole`, every tree too.
    pub fn check(&mut self, engine: &Engine, whole: bool) -> Result<(), String> {
        let listed: Vec<SnapshotId> =
            engine.store().list().map_err(|error| error.to_string())?.into_iter().map(|l| l.id).collect();
        if let Some((id, _)) = self.known.iter().find(|(id, (sure, _))| *sure && !listed.contains(id)) {
            return Err(format!("{id} was kept and is gone"));
        }
        for id in listed {
            let known = self.known.get(&id).map(|(_, picture)| Arc::clone(picture));
            if known.is_some() && !whole {
                continue;
            }
            let is = read(engine, id)?;
            match known {
                Some(should) => compare(&is, &should).map_err(|why| format!("{id}: {why}"))?,
                None => {
                    let should = self.maybe.iter().find(|picture| ***picture == is);
                    let should = should.ok_or_else(|| format!("{id} was forgotten, or never kept"))?;
                    self.known.insert(id, (false, Arc::clone(should)));
                }
            }
        }
        Ok(())
    }
}

/// The tree of a snapshot.
pub fn read(engine: &Engine, id: SnapshotId) -> Result<Picture, String> {
    let state = State::of_snapshot(engine.store(), id).map_err(|error| format!("{id}: {error}"))?;
    picture(engine, &state).map_err(|error| format!("{id}: {error}"))
}

/// Directories of this host to import, and what an import gives.
pub struct Sources {
    _dir: TempDir,
    pub all: Vec<(PathBuf, SnapshotId, Arc<Picture>)>,
}

impl Sources {
    /// Makes them.
    pub fn make() -> Sources {
        let dir = tempfile::tempdir().unwrap();
        let engine = Template::of(Tree::empty(2, crate::common::base::root_attrs()), &Opening::first(0));
        let engine = Opening::first(0).open_sim(&engine.disk().0).unwrap();
        let mut all = Vec::new();
        for n in 0..3u8 {
            let path = dir.path().join(format!("source {n}"));
            std::fs::create_dir_all(path.join("sub")).unwrap();
            std::fs::write(path.join("one"), vec![n; 3000]).unwrap();
            std::fs::write(path.join("sub/two"), format!("source {n}")).unwrap();
            std::fs::hard_link(path.join("one"), path.join("sub/three")).unwrap();
            let imported = engine.import(&path, None, &|_| {}, &AtomicBool::new(false)).unwrap();
            let picture = read(&engine, imported.id).unwrap();
            all.push((path, imported.id, Arc::new(picture)));
        }
        Sources { _dir: dir, all }
    }
}
