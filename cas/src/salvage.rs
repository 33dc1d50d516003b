//! Copies what is intact out of damaged packs, and sets their files aside: nothing that could still be looked at is
//! deleted.

use crate::{
    Error, Result, Store,
    fsck::FsckReport,
    gc::Targets,
    index::{Change, Move},
    pack::{Location, PACKS_DIR},
};

impl Store {
    /// Moves every object that the index names in these packs to new ones, and renames their files to `.lost`. The caller
    /// keeps writers away, and has made the index name intact records alone. The report is told which files were set aside, and
    /// which packs could not be.
    pub(crate) fn salvage(&self, packs: &[u64], report: &mut FsckReport) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let open = self.pool().drain();
        let mut targets = Targets::default();
        let result = packs.iter().try_for_each(|id| self.salvage_one(*id, &mut targets, report));
        for appender in targets.all() {
            self.give_back(appender)?;
        }
        for (pack, committed) in open {
            if self.pack(pack.id).is_some() {
                self.pool().put(pack, committed);
            }
        }
        result
    }

    fn salvage_one(&self, id: u64, targets: &mut Targets, report: &mut FsckReport) -> Result<()> {
        let Some(pack) = self.pack(id) else { return Ok(()) };
        let mut objects = self.index().collect(|at| at.pack == id)?;
        objects.sort_unstable_by_key(|(_, at)| at.offset);
        let mut change = Change::default();
        for (digest, from) in objects {
            let object = match pack.object(digest, &from, None) {
                Ok(object) => object,
                // It broke since it was surveyed: the next fsck tells of it.
                Err(error @ Error::Corrupt { .. }) => {
                    tracing::warn!(%error, "a pack goes on failing, and stays as it is");
                    report.left.push(pack.display());
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let target = targets.room(self, pack.kind, from.span())?;
            let to: Location = target.append(from.kind, digest, &object, self.options().batch_bytes)?;
            change.moved.push(Move { digest, from, to: Some(to) });
        }
        targets.sync(self, &mut change)?;
        if let Err(error) = self.index().commit(&change) {
            self.settle(targets.all_mut(), &change);
            return Err(error);
        }
        targets.committed();
        // The index forgets the pack last: an open removes the files of packs that it does not know.
        let lost = format!("{}.lost", pack.path());
        match self.disk().rename(&pack.path(), &lost) {
            Ok(()) => report.set_aside.push(self.disk().display(&lost)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(pack.display())(error)),
        }
        self.disk().sync_dir(PACKS_DIR).map_err(Error::io(self.disk().display(PACKS_DIR)))?;
        let mut change = Change::default();
        change.packs.insert(id, None);
        self.index().commit(&change)?;
        self.remove_pack(id);
        Ok(())
    }
}
