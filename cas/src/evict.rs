//! Makes room in a store of copies: whole packs go, those first that were read longest ago.

use std::collections::BTreeSet;

use crate::{
    Error, Result, Store,
    index::{Change, Move},
    pack::PACKS_DIR,
};

impl Store {
    /// Bytes in packs.
    pub(crate) fn packed_bytes(&self) -> Result<u64> {
        Ok(self.index().packs()?.values().map(|state| state.committed).sum())
    }

    /// If packs take more than so many bytes, removes some, and a few more than needed: not to be asked again at once. Waits for writers. An error
    /// after some are gone is told when all are.
    pub(crate) fn evict(&self, bytes_max: u64) -> Result<()> {
        self.begin_era();
        let mut states: Vec<_> = self.index().packs()?.into_iter().collect();
        let mut bytes: u64 = states.iter().map(|(_, state)| state.committed).sum();
        if bytes <= bytes_max {
            return Ok(());
        }
        let goal = bytes_max - bytes_max / 16;
        let _closed = self.gate().close();
        states.sort_by_key(|(id, _)| (self.pack(*id).map_or(0, |pack| pack.last_era()), *id));
        let mut gone = BTreeSet::new();
        for (id, state) in states {
            if bytes <= goal {
                break;
            }
            gone.insert(id);
            bytes -= state.committed;
        }
        let moved = self.index().collect(|at| gone.contains(&at.pack))?;
        let moved = moved.into_iter().map(|(digest, from)| Move { digest, from, to: None }).collect();
        let packs = gone.iter().map(|id| (*id, None)).collect();
        self.index().commit(&Change { moved, packs, ..Change::default() })?;
        for (pack, committed) in self.pool().drain() {
            if !gone.contains(&pack.id) {
                self.pool().put(pack, committed);
            }
        }
        let mut outcome = Ok(());
        for id in gone {
            let Some(pack) = self.pack(id) else { continue };
            self.remove_pack(id);
            match self.disk().remove(&pack.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    outcome = Err(Error::io(pack.display())(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        let synced = self.disk().sync_dir(PACKS_DIR).map_err(Error::io(self.disk().display(PACKS_DIR)));
        outcome.and(synced)
    }
}
