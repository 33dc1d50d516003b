//! Gives back the space of objects that nothing refers to.
//!
//! Marks from the catalogue and the given roots, then removes packs with nothing live and copies the live part of packs
//! that are worth it. Writers wait, readers never do: an object's bytes are in its new place, durably, before the index
//! says so, and in the old one until after. Any doubt keeps bytes.

use std::collections::BTreeMap;

use crate::{
    Content, Digest, Error, Result, SnapshotId, Store,
    index::{Change, Move, PackState},
    pack::Location,
    pool::Appender,
    reach::{Problem, Reach},
    record::{PACK_HEADER, PackKind},
};

/// A pack is rewritten if more than one part in this many of it is dead,
const DEAD_PART: u64 = 10;
/// or more bytes than this.
const DEAD_BYTES: u64 = 1 << 20;

/// What is live beside the catalogue's snapshots.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Bases of sessions.
    pub snapshots: Vec<SnapshotId>,
    /// Contents that unsealed changes refer to.
    pub contents: Vec<Content>,
    /// Extended attributes that unsealed changes refer to.
    pub xattrs: Vec<Digest>,
    /// Directories that unsealed changes refer to.
    pub dirs: Vec<Digest>,
    /// Dir objects that somebody remembers and will open again: they are kept, and not what only they refer to.
    pub dir_objects: Vec<Digest>,
    /// The same, of sessions over a snapshot that hangs on another host: what is not here of it is there.
    pub hanging: Option<Box<Roots>>,
}

/// How far gc is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GcProgress {
    /// Looking for what is live; so many objects so far.
    Marking {
        /// Objects reached.
        objects: u64,
    },
    /// Copying the live part of packs.
    Rewriting {
        /// Packs that are done.
        packs: u64,
        /// Packs in all.
        of: u64,
    },
}

/// What gc did, or (dry) would do.
#[derive(Clone, Debug, Default)]
pub struct GcReport {
    /// Objects that something refers to.
    pub live_objects: u64,
    /// Their bytes in packs.
    pub live_bytes: u64,
    /// Objects that nothing refers to.
    pub dead_objects: u64,
    /// Bytes in packs that are not live: those objects, and copies that lost a race.
    pub dead_bytes: u64,
    /// Bytes that came back to the disk.
    pub freed_bytes: u64,
    /// Packs that had nothing live.
    pub packs_removed: u64,
    /// Packs whose live part was copied.
    pub packs_rewritten: u64,
    /// Live objects that cannot be read. If any of them refers to others, nothing was removed: see `refused`.
    pub problems: Vec<Problem>,
    /// What is live is not known for certain, so nothing was removed.
    pub refused: bool,
}

/// A pack and the objects that the index has there.
#[derive(Debug)]
struct Census {
    state: PackState,
    live: Vec<(Digest, Location)>,
    live_bytes: u64,
    dead: Vec<(Digest, Location)>,
}

impl Store {
    /// Gives back what neither the catalogue nor the roots refer to. Waits for writers and [`crate::store::Hold`]s to
    /// end, and keeps new ones waiting. `roots` is asked when none is left, so that it cannot miss what they made.
    pub fn gc(
        &self,
        roots: impl FnOnce() -> Result<Roots>,
        dry_run: bool,
        progress: &mut dyn FnMut(GcProgress),
    ) -> Result<GcReport> {
        // While nobody has to wait for it.
        self.know_elsewhere();
        if dry_run {
            return self.collect(roots, dry_run, progress);
        }
        let census = self.begin_census();
        let report = self.collect(roots, dry_run, progress)?;
        if !report.refused && report.problems.is_empty() {
            // Nobody misses it if it fails: the remote store keeps more than it must.
            if let Err(error) = self.end_census(census) {
                tracing::warn!(%error, "what this host needs of the remote store cannot be told apart");
            }
        }
        Ok(report)
    }

    fn collect(
        &self,
        roots: impl FnOnce() -> Result<Roots>,
        dry_run: bool,
        progress: &mut dyn FnMut(GcProgress),
    ) -> Result<GcReport> {
        let _closed = self.gate().close();
        let no_damage = |_| None;
        let mut reach = Reach::new(self, &no_damage);
        self.mark(&mut reach, &roots()?, progress)?;
        let census = self.census(&reach)?;
        let mut report = account(&census, &reach);
        if report.refused {
            return Ok(report);
        }
        let (empty, wasteful) = choose(&census);
        if dry_run {
            report.packs_removed = empty.len() as u64;
            report.packs_rewritten = wasteful.len() as u64;
            // A pack that was cut short has fewer bytes than its header and its records would take.
            let freed = |id| census[id].state.committed.saturating_sub(census[id].live_bytes);
            report.freed_bytes = empty.iter().chain(&wasteful).map(freed).sum();
            return Ok(report);
        }
        // What others could append to may be about to go.
        let open = self.pool().drain();
        let result = self.sweep(&census, &empty, &wasteful, &mut report, progress);
        for (pack, committed) in open {
            if self.pack(pack.id).is_some() {
                self.pool().put(pack, committed);
            }
        }
        // What is gone is gone for who asks next, too.
        self.forget_cached();
        // What hangs on other hosts and is nobody's any more. Not before there is room for a new list; what is in it in vain does no harm.
        if let Err(error) = self.keep_hanging(|id| reach.contains(id.0)) {
            tracing::warn!(%error, "the list of what hangs on peers is longer than it need be");
        }
        result?;
        Ok(report)
    }

    fn mark(&self, reach: &mut Reach<'_>, roots: &Roots, progress: &mut dyn FnMut(GcProgress)) -> Result<()> {
        let kept = self.list()?.into_iter().map(|l| l.id);
        for id in kept.chain(roots.snapshots.iter().copied()) {
            reach.snapshot(id)?;
            progress(GcProgress::Marking { objects: reach.count() });
        }
        mark_changes(reach, roots)?;
        if let Some(hanging) = &roots.hanging {
            hanging.snapshots.iter().try_for_each(|id| reach.snapshot(*id))?;
            reach.set_hangs(true);
            let marked = mark_changes(reach, hanging);
            reach.set_hangs(false);
            marked?;
        }
        // After everything else: what is below these counts as reached by others.
        reach.keep_dirs(&roots.dir_objects)?;
        if let Some(hanging) = &roots.hanging {
            reach.set_hangs(true);
            let kept = reach.keep_dirs(&hanging.dir_objects);
            reach.set_hangs(false);
            kept?;
        }
        progress(GcProgress::Marking { objects: reach.count() });
        Ok(())
    }

    /// Every pack with its objects in the order they stand in.
    fn census(&self, reach: &Reach<'_>) -> Result<BTreeMap<u64, Census>> {
        let of_pack =
            |state| Census { state, live: Vec::new(), live_bytes: PACK_HEADER as u64, dead: Vec::new() };
        let mut packs: BTreeMap<u64, Census> =
            self.index().packs()?.into_iter().map(|(id, state)| (id, of_pack(state))).collect();
        for (digest, at) in self.index().collect(|_| true)? {
            // An entry without a pack is damage; it stays until fsck has looked at it.
            let Some(pack) = packs.get_mut(&at.pack) else { continue };
            if reach.contains(digest) {
                pack.live_bytes += at.span();
                pack.live.push((digest, at));
            } else {
                pack.dead.push((digest, at));
            }
        }
        for pack in packs.values_mut() {
            pack.live.sort_unstable_by_key(|(_, at)| at.offset);
        }
        Ok(packs)
    }

    fn sweep(
        &self,
        census: &BTreeMap<u64, Census>,
        empty: &[u64],
        wasteful: &[u64],
        report: &mut GcReport,
        progress: &mut dyn FnMut(GcProgress),
    ) -> Result<()> {
        // First what needs no room: the disk may be full.
        let mut change = Change::default();
        for id in empty {
            change.packs.insert(*id, None);
            change.moved.extend(census[id].dead.iter().map(gone));
        }
        if !empty.is_empty() {
            self.index().commit(&change)?;
            for id in empty {
                report.freed_bytes += self.discard(*id, census[id].state.committed)?;
                report.packs_removed += 1;
            }
            self.sync_packs_dir()?;
        }
        let mut targets = Targets::default();
        let result = wasteful.iter().enumerate().try_for_each(|(done, id)| {
            progress(GcProgress::Rewriting { packs: done as u64, of: wasteful.len() as u64 });
            self.rewrite(*id, &census[id], &mut targets, report)
        });
        for appender in targets.all() {
            self.give_back(appender)?;
        }
        result?;
        progress(GcProgress::Rewriting { packs: wasteful.len() as u64, of: wasteful.len() as u64 });
        self.sync_packs_dir()
    }

    /// Copies the live part of a pack, and removes the pack. A pack with live damage stays as it is.
    fn rewrite(&self, id: u64, old: &Census, targets: &mut Targets, report: &mut GcReport) -> Result<()> {
        let before: u64 = targets.all().map(|a| a.len()).sum();
        let mut change = Change::default();
        for (digest, from) in &old.live {
            // By pread, like all data: a bad sector under a map would end the process.
            let mut object = vec![0; from.len as usize];
            match self.read_chunk(*digest, 0, &mut object) {
                Ok(()) => {}
                Err(error @ Error::Corrupt { .. }) => {
                    tracing::warn!(%error, "a pack with damage is left as it is");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let target = targets.room(self, old.state.kind, from.span())?;
            let to = target.append(from.kind, *digest, &object, self.options().batch_bytes)?;
            change.moved.push(Move { digest: *digest, from: *from, to: Some(to) });
        }
        change.moved.extend(old.dead.iter().map(gone));
        change.packs.insert(id, None);
        targets.sync(self, &mut change)?;
        if let Err(error) = self.index().commit(&change) {
            self.settle(targets.all_mut(), &change);
            return Err(error);
        }
        targets.committed();
        let after: u64 = targets.all().map(|a| a.len()).sum();
        let copied = after - before;
        report.freed_bytes += self.discard(id, old.state.committed)?.saturating_sub(copied);
        report.packs_rewritten += 1;
        Ok(())
    }

    /// Removes the file of a pack that the index has forgotten. Who reads it goes on.
    fn discard(&self, id: u64, bytes: u64) -> Result<u64> {
        let Some(pack) = self.pack(id) else { return Ok(0) };
        self.remove_pack(id);
        match self.disk().remove(&pack.path()) {
            Ok(()) => Ok(bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(Error::io(pack.display())(e)),
        }
    }
}

/// Packs that live objects are copied to. Full ones are kept until the end, so that their bytes can be counted.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    data: Option<Appender>,
    meta: Option<Appender>,
    full: Vec<Appender>,
}

impl Targets {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Appender> {
        self.data.iter().chain(&self.meta).chain(&self.full)
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Appender> {
        self.data.iter_mut().chain(&mut self.meta).chain(&mut self.full)
    }

    pub(crate) fn room(&mut self, store: &Store, kind: PackKind, span: u64) -> Result<&mut Appender> {
        let slot = match kind {
            PackKind::Data => &mut self.data,
            PackKind::Meta => &mut self.meta,
        };
        let max = store.options().pack_bytes_max;
        self.full.extend(slot.take_if(|a| !a.is_empty() && a.len() + span > max));
        match slot {
            Some(appender) => Ok(appender),
            None => Ok(slot.insert(store.create_pack(kind)?)),
        }
    }

    /// Makes what was appended durable, and says so in `change`.
    pub(crate) fn sync(&mut self, store: &Store, change: &mut Change) -> Result<()> {
        let mut new = false;
        for appender in self.all_mut().filter(|a| a.len() > a.committed) {
            appender.flush()?;
            appender.pack.sync()?;
            new |= appender.committed == 0;
            let state = PackState { kind: appender.pack.kind, committed: appender.len(), closed: false };
            change.packs.insert(appender.pack.id, Some(state));
        }
        if new { store.sync_packs_dir() } else { Ok(()) }
    }

    pub(crate) fn committed(&mut self) {
        for appender in self.all_mut() {
            appender.committed = appender.len();
        }
        self.full.iter_mut().for_each(Appender::release_buffer);
    }
}

/// Packs to remove, and packs to rewrite.
fn choose(census: &BTreeMap<u64, Census>) -> (Vec<u64>, Vec<u64>) {
    let dead = |c: &Census| c.state.committed.saturating_sub(c.live_bytes);
    let empty = census.iter().filter(|(_, c)| c.live.is_empty()).map(|(id, _)| *id).collect();
    let wasteful =
        |c: &Census| !c.live.is_empty() && (dead(c) > c.state.committed / DEAD_PART || dead(c) > DEAD_BYTES);
    (empty, census.iter().filter(|(_, c)| wasteful(c)).map(|(id, _)| *id).collect())
}

fn mark_changes(reach: &mut Reach<'_>, roots: &Roots) -> Result<()> {
    for dir in &roots.dirs {
        reach.dir(*dir, "(session)/")?;
    }
    for content in &roots.contents {
        reach.content(*content, None, "(session)")?;
    }
    for xattrs in &roots.xattrs {
        reach.xattrs(*xattrs, "(session)")?;
    }
    Ok(())
}

fn account(census: &BTreeMap<u64, Census>, reach: &Reach<'_>) -> GcReport {
    let mut report =
        GcReport { problems: reach.problems.clone(), refused: reach.opaque > 0, ..Default::default() };
    for pack in census.values() {
        report.live_objects += pack.live.len() as u64;
        report.live_bytes += pack.live_bytes - PACK_HEADER as u64;
        report.dead_objects += pack.dead.len() as u64;
        report.dead_bytes += pack.state.committed.saturating_sub(pack.live_bytes);
    }
    report
}

fn gone((digest, from): &(Digest, Location)) -> Move {
    Move { digest: *digest, from: *from, to: None }
}
