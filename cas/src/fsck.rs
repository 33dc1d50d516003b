//! Checks everything: every byte of every pack, the index against the packs, and every tree of the catalogue.
//!
//! Readers and writers go on meanwhile; a repair keeps writers waiting. What is damaged is told with the paths that use
//! it. A repair makes the index name the intact records and no others, so that storing a lost object again heals it, and
//! copies what is intact out of damaged packs, which are then set aside (salvage.rs).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
};

use crate::{
    Content, Digest, Error, Result, SnapshotId, Store,
    index::{Change, PackState},
    pack::{Location, Pack},
    reach::{PROBLEMS_MAX, Reach},
    record::{PACK_HEADER, PackHeader},
    scan::{Found, scan},
};

/// Packs that are read at once: a disk and a hash are busy with two.
const THREADS: usize = 2;

/// Something beside the catalogue that refers to objects, and what to call it in a report.
#[derive(Clone, Debug)]
pub enum Use {
    /// A whole tree; paths in it go behind the name.
    Snapshot(SnapshotId, String),
    /// A directory and what is below it, the same.
    Dir(Digest, String),
    /// A file's bytes.
    Content(Content, String),
    /// Extended attributes.
    Xattrs(Digest, String),
    /// Whether what comes next in the list hangs on another host, but for snapshots, of which that is known.
    Hanging(bool),
}

/// What fsck may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsckOptions {
    /// Make the index anew where it is wrong, without damaged objects.
    pub repair: bool,
}

/// How far fsck is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsckProgress {
    /// Reading packs.
    Packs {
        /// Bytes read.
        bytes: u64,
        /// Bytes in all.
        of: u64,
    },
    /// Walking snapshots.
    Snapshots {
        /// Snapshots walked.
        done: u64,
        /// Snapshots in all.
        of: u64,
    },
}

/// A damaged object.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Its name.
    pub digest: Digest,
    /// The pack it should be in, and where; None if the store has no trace of it.
    pub place: Option<(PathBuf, u64)>,
    /// What is wrong with it.
    pub reason: String,
    /// Who uses it, as `snp_...:/path`. Bounded. Nobody whose reads the remote store answers.
    pub paths: Vec<String>,
    /// The remote store has it, and it is read from there.
    pub is_elsewhere: bool,
}

/// What fsck found.
#[derive(Clone, Debug, Default)]
pub struct FsckReport {
    /// Packs read.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects in the index.
    pub objects: u64,
    /// Snapshots walked.
    pub snapshots: u64,
    /// Damaged or missing objects in all.
    pub damaged_objects: u64,
    /// The first 1000 of them.
    pub damage: Vec<Damage>,
    /// Those of all that the remote store has: they are read from there, and a repair has nothing to mend but the index.
    pub elsewhere_objects: u64,
    /// Paths in all that use a damaged or missing object (one for each use). Of each tree that is hit at least one is told.
    pub damaged_uses: u64,
    /// Packs whose own header is damaged; their objects are not affected.
    pub damaged_headers: Vec<PathBuf>,
    /// Ranges of packs in which no record can be read, whether or not an object stood there: pack, offset, bytes.
    pub unreadable_ranges: Vec<(PathBuf, u64, u64)>,
    /// Intact records that the index does not name, and entries of the index that no record stands behind.
    pub index_errors: u64,
    /// A repair was asked for and made: of the index if it was wrong, of damaged packs but for those in `left`.
    pub repaired: bool,
    /// Damaged packs whose intact objects were copied, and where their files are now.
    pub set_aside: Vec<PathBuf>,
    /// Damaged packs that stay as they are: more of them broke while it was copied.
    pub left: Vec<PathBuf>,
}

impl FsckReport {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        let mended = if self.repaired { self.elsewhere_objects } else { 0 };
        self.damaged_objects == mended
            && self.damaged_uses == 0
            && self.damaged_headers.iter().all(|pack| self.is_mended(pack))
            && self.unreadable_ranges.iter().all(|(pack, ..)| self.is_mended(pack))
            && (self.index_errors == 0 || self.repaired)
    }

    /// Nothing is left to mend in a damaged pack: what was intact in it has another place.
    pub fn is_mended(&self, pack: &Path) -> bool {
        self.repaired && !self.left.iter().any(|left| left == pack)
    }
}

/// What stands in one pack.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) id: u64,
    /// Records whose payload has the digest it claims.
    intact: HashMap<u64, (Digest, Location)>,
    /// Records whose payload has not.
    broken: Vec<u64>,
    bad: Vec<(u64, u64, &'static str)>,
    header_damaged: bool,
}

impl Store {
    /// Checks the whole store. `uses` says what refers to it beside the catalogue, so that it can be named.
    pub fn fsck(
        &self,
        options: FsckOptions,
        uses: &[Use],
        progress: &mut dyn FnMut(FsckProgress),
    ) -> Result<FsckReport> {
        self.know_elsewhere();
        // A repair must see no writer's half; a check must only not lose packs to gc.
        let _closed = options.repair.then(|| self.gate().close());
        let _hold = (!options.repair).then(|| self.hold());
        let states = self.index().packs()?;
        let entries = self.index().collect(|at| states.contains_key(&at.pack))?;
        let strays = self.index().collect(|at| !states.contains_key(&at.pack))?;
        let surveys = self.survey_packs(&states, progress)?;

        let mut report = FsckReport {
            packs: states.len() as u64,
            bytes: states.values().map(|s| s.committed).sum(),
            objects: (entries.len() + strays.len()) as u64,
            ..Default::default()
        };
        self.report_packs(&surveys, &mut report);
        let wrong = self.compare(&entries, &strays, &surveys);
        report.index_errors = unnamed(&entries, &surveys) + wrong.len() as u64;
        self.walk(&wrong, uses, &mut report, progress)?;
        if options.repair {
            if report.index_errors > 0 {
                self.index().replace(&repaired(&states, &surveys, &entries))?;
            }
            let damaged: Vec<u64> = surveys.values().filter(|s| s.is_damaged()).map(|s| s.id).collect();
            self.salvage(&damaged, &mut report)?;
            self.forget_cached();
            report.repaired = report.index_errors > 0 || !damaged.is_empty();
        }
        Ok(report)
    }

    /// Reads all packs, up to what is committed now.
    fn survey_packs(
        &self,
        states: &BTreeMap<u64, PackState>,
        progress: &mut dyn FnMut(FsckProgress),
    ) -> Result<BTreeMap<u64, Survey>> {
        let work: Vec<(Arc<Pack>, u64)> =
            states.iter().filter_map(|(id, state)| Some((self.pack(*id)?, state.committed))).collect();
        let of = work.iter().map(|(_, bytes)| bytes).sum();
        let next = AtomicUsize::new(0);
        let (done, finished) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..THREADS.min(work.len()) {
                let (work, next, done) = (&work, &next, done.clone());
                scope.spawn(move || {
                    while let Some((pack, committed)) = work.get(next.fetch_add(1, Relaxed)) {
                        if done.send((survey(pack, *committed), *committed)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(done);
            let mut bytes = 0;
            let mut surveys = BTreeMap::new();
            for (survey, committed) in finished {
                let survey = survey?;
                surveys.insert(survey.id, survey);
                bytes += committed;
                progress(FsckProgress::Packs { bytes, of });
            }
            Ok(surveys)
        })
    }

    fn report_packs(&self, surveys: &BTreeMap<u64, Survey>, report: &mut FsckReport) {
        for survey in surveys.values() {
            let Some(pack) = self.pack(survey.id) else { continue };
            if survey.header_damaged {
                report.damaged_headers.push(pack.display());
            }
            let ranges = survey.bad.iter().map(|(offset, len, _)| (pack.display(), *offset, *len));
            let room = PROBLEMS_MAX.saturating_sub(report.unreadable_ranges.len());
            report.unreadable_ranges.extend(ranges.take(room));
        }
    }

    /// Entries of the index behind which no intact record of that name stands, and why.
    fn compare(
        &self,
        entries: &[(Digest, Location)],
        strays: &[(Digest, Location)],
        surveys: &BTreeMap<u64, Survey>,
    ) -> HashMap<Digest, (Location, &'static str)> {
        let stray = strays.iter().map(|(digest, at)| (*digest, (*at, "its pack is missing")));
        let wrong = entries.iter().filter_map(|(digest, at)| {
            let survey = surveys.get(&at.pack)?;
            let reason = match survey.intact.get(&at.offset) {
                Some(there) if *there == (*digest, *at) => return None,
                Some((there, _)) if there == digest => "the index has another length or kind",
                Some(_) => "another object stands there",
                None if survey.broken.contains(&at.offset) => "its bytes do not have its digest",
                None => survey.reason_at(at.offset),
            };
            Some((*digest, (*at, reason)))
        });
        wrong.chain(stray).collect()
    }

    /// Walks the catalogue's snapshots, and puts damage and the paths that it hits into the report.
    fn walk(
        &self,
        wrong: &HashMap<Digest, (Location, &'static str)>,
        uses: &[Use],
        report: &mut FsckReport,
        progress: &mut dyn FnMut(FsckProgress),
    ) -> Result<()> {
        let known = |digest: Digest| wrong.get(&digest).map(|(_, reason)| (*reason).to_owned());
        let mut reach = Reach::new(self, &known);
        let snapshots: Vec<SnapshotId> = self.list()?.into_iter().map(|l| l.id).collect();
        for (done, id) in snapshots.iter().enumerate() {
            reach.begin_root();
            reach.snapshot(*id)?;
            progress(FsckProgress::Snapshots { done: done as u64 + 1, of: snapshots.len() as u64 });
        }
        for used in uses {
            reach.begin_root();
            match used {
                Use::Snapshot(id, name) => reach.snapshot_of(*id, name)?,
                Use::Dir(dir, name) => reach.dir(*dir, name)?,
                Use::Content(content, name) => drop(reach.content(*content, None, name)?),
                Use::Xattrs(xattrs, name) => drop(reach.xattrs(*xattrs, name)?),
                Use::Hanging(hangs) => reach.set_hangs(*hangs),
            }
        }
        report.snapshots = snapshots.len() as u64;
        report.damaged_uses = reach.problem_count;
        let mut damage: BTreeMap<Digest, Damage> = BTreeMap::new();
        for (digest, (at, reason)) in wrong {
            let place = self.pack(at.pack).map(|pack| (pack.display(), at.offset));
            let (reason, is_elsewhere) = ((*reason).to_owned(), self.is_elsewhere(at.kind, *digest));
            damage
                .insert(*digest, Damage { digest: *digest, place, reason, paths: Vec::new(), is_elsewhere });
        }
        for problem in reach.problems {
            let new = || Damage {
                digest: problem.digest,
                place: None,
                reason: problem.reason,
                paths: Vec::new(),
                is_elsewhere: false,
            };
            damage.entry(problem.digest).or_insert_with(new).paths.push(problem.path);
        }
        report.damaged_objects = damage.len() as u64;
        report.elsewhere_objects = damage.values().filter(|damage| damage.is_elsewhere).count() as u64;
        // Those that somebody uses come first.
        let (used, unused): (Vec<_>, Vec<_>) = damage.into_values().partition(|d| !d.paths.is_empty());
        report.damage = used.into_iter().chain(unused).take(PROBLEMS_MAX).collect();
        Ok(())
    }
}

impl Survey {
    fn is_damaged(&self) -> bool {
        self.header_damaged || !self.bad.is_empty() || !self.broken.is_empty()
    }

    fn reason_at(&self, offset: u64) -> &'static str {
        let bad = self.bad.iter().find(|(start, len, _)| (*start..start + len).contains(&offset));
        bad.map_or("no record begins there", |(_, _, reason)| reason)
    }
}

/// Reads one pack.
fn survey(pack: &Pack, committed: u64) -> Result<Survey> {
    let mut survey = Survey { id: pack.id, ..Default::default() };
    let first = PACK_HEADER as u64;
    // What the disk has now, not what this process knew of it: somebody may have cut it.
    let len = match pack.file().and_then(|file| file.len().map_err(Error::io(pack.display()))) {
        Ok(len) => len.min(committed),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            survey.bad.push((first, committed.saturating_sub(first), "the pack is missing"));
            return Ok(survey);
        }
        Err(error) => return Err(error),
    };
    if pack.is_unlinked()? {
        survey.bad.push((0, first, "the file was removed; only this process still reads it"));
    }
    let mut header = [0; PACK_HEADER];
    let read = pack.file()?.read_at(&mut header, 0).map_err(Error::io(pack.display()))?;
    let is_its = |header: PackHeader| header.kind == pack.kind && header.id == pack.id;
    survey.header_damaged = read != PACK_HEADER || !PackHeader::decode(&header).is_ok_and(is_its);
    scan(pack, len, &mut |found| {
        match found {
            Found::Record { at, digest, payload, intact } => {
                if intact && Digest::of(payload) == digest {
                    survey.intact.insert(at.offset, (digest, at));
                } else {
                    survey.broken.push(at.offset);
                }
            }
            Found::Bad { offset, len, reason } => survey.bad.push((offset, len, reason)),
        }
        Ok(())
    })?;
    if len < committed {
        survey.bad.push((len.max(first), committed - len.max(first), "the pack is truncated"));
    }
    Ok(survey)
}

/// Intact records of names that the index lacks.
fn unnamed(entries: &[(Digest, Location)], surveys: &BTreeMap<u64, Survey>) -> u64 {
    let named: HashSet<Digest> = entries.iter().map(|(digest, _)| *digest).collect();
    let intact = surveys.values().flat_map(|s| s.intact.values());
    intact.filter(|(digest, _)| !named.contains(digest)).count() as u64
}

/// The index as it should be: entries that are right stay, other intact records are added.
fn repaired(
    states: &BTreeMap<u64, PackState>,
    surveys: &BTreeMap<u64, Survey>,
    entries: &[(Digest, Location)],
) -> Change {
    let found = |digest: &Digest, at: &Location| {
        surveys.get(&at.pack).and_then(|s| s.intact.get(&at.offset)) == Some(&(*digest, *at))
    };
    let right = entries.iter().copied().filter(|(digest, at)| found(digest, at));
    let mut objects: BTreeMap<Digest, Location> = right.collect();
    for (digest, at) in surveys.values().flat_map(|s| s.intact.values()) {
        objects.entry(*digest).or_insert(*at);
    }
    let closed = |id: &u64| surveys.get(id).is_none_or(|s| !s.bad.is_empty());
    let state = |(id, state): (&u64, &PackState)| {
        (*id, Some(PackState { closed: state.closed || closed(id), ..*state }))
    };
    Change {
        added: objects.into_iter().collect(),
        packs: states.iter().map(state).collect(),
        ..Default::default()
    }
}
