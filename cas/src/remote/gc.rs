//! Gives back the space of the remote store that nothing needs, while hosts publish, stall, die and come back.
//!
//! What is needed hangs from roots: heads of sessions, pins, and what hosts say in their [leases](super::lease) that they read. A root is a
//! snapshot; its manifests name layers, and those name packs. What hangs from none, and is old enough, is **condemned**: a mark says so. Marks are
//! never taken back. What was condemned long enough ago, and still hangs from nothing, is removed, and then its mark.
//!
//! Why nothing that is needed goes: gc reads the marks, then the roots, then what hangs from them, and removes what was marked *before* it read the
//! roots. Whoever makes a root writes it first, and then looks for marks on what hangs from it, and whether that is there. So either gc finds the root,
//! or who made it finds the mark, or finds the object gone, and builds on something else. It makes no difference how long anybody stalls in
//! between, nor how many collect at a time: names are never used twice. Roots move from a lease to a head or a pin, which is there before the
//! lease lets go; so leases are read first. Who finds a root to be condemned may rely on it all the same if it still is one when his lease is there; so leases are
//! read once more, last. A pack stays as long as a layer names it that had no mark when the marks were read, so who found none on a layer
//! has no need to look at its packs.
//!
//! Clocks decide only when something is tried. Ages are by the store's own clock. What is old enough to be condemned spares those who are not done yet a
//! publish for nothing, and a mark that is old enough spares readers who are in no lease. A lease that was not renewed for long counts no more: its host
//! is gone.
//!
//! Any doubt keeps everything: a head whose snapshot is not there, or something that cannot be read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    time::Duration,
};

use super::{
    Dated, Failure, Remote, each,
    layer::pack_names,
    lease::{self, LEASE_BYTES_MAX, Leased},
    manifest::{LayerEntry, MANIFEST_BYTES_MAX, Manifest},
    name::{LAYERS, LEASES, MANIFESTS, MARKS, PACKS, PINS, PROBES, RemoteName, mark, parse_manifest},
};
use crate::{Error, Result, SnapshotId};

/// A host renews its lease so often.
pub const LEASE_RENEWED: Duration = Duration::from_secs(12 * 3600);
/// A host whose lease is so old is gone.
pub const LEASE: Duration = Duration::from_secs(30 * 24 * 3600);
/// So old is what is condemned, and so long it is condemned before it goes.
pub const DELAY: Duration = Duration::from_secs(24 * 3600);
/// What is younger is never condemned: clocks of one store may differ by as much.
const YOUNG_SECS: i64 = 60;
/// Leases change while they are read, and others remove what is old: so often it is tried again.
const LOOKS_MAX: u32 = 10;

/// Whom a collection asks and tells.
pub struct Asked<'a> {
    /// See [`DELAY`].
    pub delay: Duration,
    /// See [`LEASE`].
    pub lease: Duration,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Makes names.
    pub name: &'a (dyn Fn() -> RemoteName + Sync),
    /// The snapshots that heads name, and whose those are. Asked when everybody else was.
    pub heads: &'a dyn Fn() -> Result<Vec<(String, SnapshotId)>>,
    /// Hears how far it is.
    pub progress: &'a dyn Fn(Progress),
    /// Says whether to stop.
    pub is_cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// How far a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Looks at what there is; so many objects.
    Looking(u64),
    /// Condemns: so many objects are done, of so many.
    Condemning(u64, u64),
    /// Removes: likewise.
    Removing(u64, u64),
}

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub objects: u64,
    /// Bytes of all.
    pub bytes: u64,
}

impl Sum {
    fn of<'a>(all: impl IntoIterator<Item = &'a Dated>) -> Sum {
        all.into_iter().fold(Sum::default(), |sum, dated| Sum {
            objects: sum.objects + 1,
            bytes: sum.bytes + dated.bytes,
        })
    }
}

/// What a collection did, or (dry) would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What hangs from a root.
    pub needed: Sum,
    /// What hangs from none and is too young to be condemned.
    pub young: Sum,
    /// What was condemned now.
    pub condemned: Sum,
    /// What was condemned before, and not long enough ago.
    pub waiting: Sum,
    /// What was removed.
    pub removed: Sum,
    /// Hosts whose leases count no more.
    pub gone_hosts: Vec<RemoteName>,
    /// Snapshots that a lease or a pin names and that are not there.
    pub missing: Vec<SnapshotId>,
}

/// Why a snapshot is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is published of this session, or what that was created from.
    Head(String),
    /// Somebody said that it stays.
    Pin,
    /// This host reads it.
    Lease(RemoteName),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Head(session) => write!(f, "published of {session}, or what that was created from"),
            Why::Pin => f.write_str("pinned"),
            Why::Lease(host) => write!(f, "read by host {host}"),
        }
    }
}

/// Collects. Errors: `Doubt` if it is not certain what is needed: then nothing was done; `Remote`; `Cancelled`. What was done until then is as it
/// should be.
pub fn collect(remote: &dyn Remote, asked: &Asked<'_>) -> Result<Report> {
    let view = View::of(remote, asked)?;
    let hanging = Hanging::of(remote, &view)?;
    let mut report = Report { missing: hanging.missing.clone(), ..Report::default() };
    report.gone_hosts = view.gone_leases.iter().filter_map(|lease| host_of(&lease.name)).collect();
    report.gone_hosts.dedup();
    let mut fates = Fates::default();
    for (kind, dated) in view.objects() {
        let fate = hanging.fate(&view, dated);
        fates.of(fate)[kind as usize].push(dated);
    }
    let sum = |all: &[Vec<&Dated>; KINDS]| Sum::of(all.iter().flatten().copied());
    report.needed = sum(&fates.needed);
    report.young = sum(&fates.young);
    report.condemned = sum(&fates.condemned);
    report.waiting = sum(&fates.waiting);
    report.removed = sum(&fates.removed);
    if asked.dry_run {
        return Ok(report);
    }
    let cancelled = || if (asked.is_cancelled)() { Err(Error::Cancelled) } else { Ok(()) };
    let mut done = 0;
    for some in fates.condemned.iter().flat_map(|kind| kind.chunks(BATCH)) {
        cancelled()?;
        each(some, |dated| remote.create(&mark(&dated.name), Vec::new()))?;
        done += some.len() as u64;
        (asked.progress)(Progress::Condemning(done, report.condemned.objects));
    }
    done = 0;
    for some in fates.removed.iter().flat_map(|kind| kind.chunks(BATCH)) {
        cancelled()?;
        each(some, |dated| {
            remote.remove(&dated.name)?;
            // Only now: who finds no mark looks whether the object is there.
            remote.remove(&mark(&dated.name))
        })?;
        done += some.len() as u64;
        (asked.progress)(Progress::Removing(done, report.removed.objects));
    }
    let leftovers: Vec<_> = view.leftovers().collect();
    each(&leftovers, |name| remote.remove(name))?;
    Ok(report)
}

/// Why an object of the remote store is needed, for people: a snapshot, or the name of a layer or pack. Errors: as of [`collect`].
pub fn why(remote: &dyn Remote, asked: &Asked<'_>, wanted: &str) -> Result<Vec<String>> {
    let view = View::of(remote, asked)?;
    let hanging = Hanging::of(remote, &view)?;
    let mut told = Vec::new();
    for dated in view.objects().map(|(_, dated)| dated) {
        let is_it = dated.name.split('/').any(|part| part == wanted);
        if !is_it {
            continue;
        }
        told.push(match hanging.fate(&view, dated) {
            Fate::Needed => format!("{}: needed", dated.name),
            Fate::Young => format!("{}: not needed, and too young to be condemned", dated.name),
            Fate::Condemned => format!("{}: not needed; the next gc condemns it", dated.name),
            Fate::Waiting => format!("{}: condemned, and not long enough ago to be removed", dated.name),
            Fate::Removed => format!("{}: condemned; the next gc removes it", dated.name),
        });
        for (snapshot, reasons) in hanging.roots_of(&view, &dated.name) {
            told.extend(reasons.iter().map(|why| format!("  by {snapshot}: {why}")));
        }
    }
    for (id, reasons) in &view.roots {
        let is_there = hanging.of_snapshot(*id).next().is_some();
        let asked_for = |why: &&Why| match why {
            Why::Head(session) => session == wanted,
            Why::Lease(host) => host.to_string() == wanted,
            Why::Pin => false,
        };
        if id.to_string() == wanted && !is_there {
            told.extend(reasons.iter().map(|why| format!("{id}: {why}, and not there")));
        }
        told.extend(reasons.iter().filter(asked_for).map(|why| format!("{id}: {why}")));
    }
    Ok(told)
}

/// Marked or removed at a time.
const BATCH: usize = 256;

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Needed,
    Young,
    Condemned,
    Waiting,
    Removed,
}

/// Manifests, layers, packs: the order in which they are condemned and removed.
const KINDS: usize = 3;

#[derive(Default)]
struct Fates<'a> {
    needed: [Vec<&'a Dated>; KINDS],
    young: [Vec<&'a Dated>; KINDS],
    condemned: [Vec<&'a Dated>; KINDS],
    waiting: [Vec<&'a Dated>; KINDS],
    removed: [Vec<&'a Dated>; KINDS],
}

impl<'a> Fates<'a> {
    fn of(&mut self, fate: Fate) -> &mut [Vec<&'a Dated>; KINDS] {
        match fate {
            Fate::Needed => &mut self.needed,
            Fate::Young => &mut self.young,
            Fate::Condemned => &mut self.condemned,
            Fate::Waiting => &mut self.waiting,
            Fate::Removed => &mut self.removed,
        }
    }
}

/// All that there is, read in the order that the module says.
struct View {
    /// By the store's clock, before anything was read.
    now: i64,
    delay: i64,
    /// When each object was condemned.
    marks: HashMap<String, i64>,
    packs: Vec<Dated>,
    layers: Vec<Dated>,
    manifests: Vec<Dated>,
    roots: BTreeMap<SnapshotId, BTreeSet<Why>>,
    /// Layers of publishes that are under way.
    layer_roots: BTreeSet<RemoteName>,
    gone_leases: Vec<Dated>,
    old_probes: Vec<Dated>,
}

impl View {
    fn of(remote: &dyn Remote, asked: &Asked<'_>) -> Result<View> {
        let (now, old_probes) = time(remote, asked)?;
        let marks = remote
            .dated(MARKS)?
            .into_iter()
            .filter_map(|dated| Some((dated.name.strip_prefix(MARKS)?.to_owned(), dated.written_secs)));
        let marks = marks.collect();
        let packs = remote.dated(PACKS)?;
        (asked.progress)(Progress::Looking(packs.len() as u64));
        let layers = remote.dated(LAYERS)?;
        let mut roots = BTreeMap::<_, BTreeSet<_>>::new();
        let mut layer_roots = BTreeSet::new();
        let gone_leases = leases(remote, now, asked.lease, &mut roots, &mut layer_roots)?;
        for path in remote.list(PINS)? {
            let id = path.strip_prefix(PINS).and_then(|pin| pin.split_once('/')?.0.parse().ok());
            let id = id.ok_or_else(|| doubt(remote, &path, "not the name of a pin"))?;
            roots.entry(id).or_default().insert(Why::Pin);
        }
        for (session, id) in (asked.heads)()? {
            roots.entry(id).or_default().insert(Why::Head(session));
        }
        // Who relies on what is condemned, because a head or a pin names it, has it move the other way: his lease was there before he looked at
        // them.
        leases(remote, now, asked.lease, &mut roots, &mut layer_roots)?;
        // Behind the roots: whatever they name is in it.
        let manifests = remote.dated(MANIFESTS)?;
        (asked.progress)(Progress::Looking((packs.len() + layers.len() + manifests.len()) as u64));
        let delay = asked.delay.as_secs() as i64;
        Ok(View { now, delay, marks, packs, layers, manifests, roots, layer_roots, gone_leases, old_probes })
    }

    fn objects(&self) -> impl Iterator<Item = (u8, &Dated)> {
        let kinds = [&self.manifests, &self.layers, &self.packs];
        (0..).zip(kinds).flat_map(|(kind, all)| all.iter().map(move |dated| (kind, dated)))
    }

    /// Whether what hangs from this is left alone, needed or not.
    fn is_spared(&self, dated: &Dated) -> bool {
        !self.marks.contains_key(&dated.name) && !self.is_old(dated.written_secs)
    }

    /// Whether it can be condemned. Not what was written since this began: whoever wrote it had no time to make it a root.
    fn is_old(&self, written_secs: i64) -> bool {
        self.is_over(written_secs) && self.now.saturating_sub(written_secs) >= YOUNG_SECS
    }

    fn is_over(&self, since: i64) -> bool {
        self.now.saturating_sub(since) >= self.delay
    }

    /// Marks of what is gone, leases of hosts that are, and what told the time of collections that died.
    fn leftovers(&self) -> impl Iterator<Item = String> {
        let there: HashSet<_> = self.objects().map(|(_, dated)| &dated.name).collect();
        let of_nothing = self.marks.iter().filter(move |(name, marked)| {
            // One that is young may be of something that came after the listing.
            !there.contains(name) && self.is_over(**marked)
        });
        let old = self.gone_leases.iter().chain(&self.old_probes).map(|dated| dated.name.clone());
        of_nothing.map(|(name, _)| mark(name)).chain(old)
    }
}

/// What time it is by the store's clock, and the objects that told it to others who did not come to remove them.
fn time(remote: &dyn Remote, asked: &Asked<'_>) -> Result<(i64, Vec<Dated>)> {
    for _ in 0..LOOKS_MAX {
        let probe = format!("{PROBES}{}", (asked.name)());
        remote.write(&probe, Vec::new())?;
        let mut probes = remote.dated(PROBES)?;
        remote.remove(&probe)?;
        // Of one that took so long another collection has removed it.
        let Some(own) = probes.iter().position(|dated| dated.name == probe) else { continue };
        let now = probes.swap_remove(own).written_secs;
        let is_old = |dated: &Dated| now.saturating_sub(dated.written_secs) >= asked.delay.as_secs() as i64;
        probes.retain(is_old);
        return Ok((now, probes));
    }
    Err(doubt(remote, PROBES, "what is written there is not in a listing"))
}

/// Enters what hosts read. Gives the leases that count no more.
fn leases(
    remote: &dyn Remote,
    now: i64,
    lease: Duration,
    roots: &mut BTreeMap<SnapshotId, BTreeSet<Why>>,
    layer_roots: &mut BTreeSet<RemoteName>,
) -> Result<Vec<Dated>> {
    for _ in 0..LOOKS_MAX {
        let is_gone = |dated: &Dated| now.saturating_sub(dated.written_secs) >= lease.as_secs() as i64;
        let (gone, held): (Vec<_>, Vec<_>) = remote.dated(LEASES)?.into_iter().partition(is_gone);
        let read = each(&held, |dated| match remote.read_whole(&dated.name, LEASE_BYTES_MAX) {
            Ok(bytes) => match lease::decode(&bytes) {
                Ok(leased) => Ok(Some(leased)),
                Err(error) => Err(doubt(remote, &dated.name, &error.to_string())),
            },
            // A new one is there by now, and not in the listing.
            Err(Failure::NotFound(_)) => Ok(None),
            Err(failure) => Err(failure.into()),
        })?;
        if read.iter().any(Option::is_none) {
            continue;
        }
        for (dated, leased) in held.iter().zip(read.into_iter().flatten()) {
            let host = host_of(&dated.name).ok_or_else(|| doubt(remote, &dated.name, "no lease's name"))?;
            for one in leased {
                match one {
                    Leased::Snapshot(id) => drop(roots.entry(id).or_default().insert(Why::Lease(host))),
                    Leased::Layer(name) => drop(layer_roots.insert(name)),
                }
            }
        }
        return Ok(gone);
    }
    Err(doubt(remote, LEASES, "they change faster than they can be read; try again"))
}

/// Whose lease it is.
fn host_of(path: &str) -> Option<RemoteName> {
    RemoteName::parse(path.strip_prefix(LEASES)?.split_once('/')?.0)
}

/// What hangs from the roots, and from what is spared.
struct Hanging {
    /// By their names in the store.
    needed: HashSet<String>,
    /// What hangs from what is spared.
    spared: HashSet<String>,
    /// Packs that layers name which had no mark when this began. Who found such a layer did not look at them.
    named: HashSet<String>,
    missing: Vec<SnapshotId>,
    /// Of each manifest that was read, its layers.
    manifests: BTreeMap<(SnapshotId, RemoteName), Vec<LayerEntry>>,
    /// Of each layer that was read, its packs.
    layers: HashMap<RemoteName, Vec<RemoteName>>,
}

impl Hanging {
    fn of(remote: &dyn Remote, view: &View) -> Result<Hanging> {
        let is_root =
            |dated: &&Dated| parse_manifest(&dated.name).is_some_and(|(id, _)| view.roots.contains_key(&id));
        let read = |dated: &&Dated| is_root(dated) || view.is_spared(dated);
        let read: Vec<_> = view.manifests.iter().filter(read).collect();
        let found = each(&read, |dated| manifest(remote, &dated.name))?;
        let (mut needed, mut spared) = (HashSet::new(), HashSet::new());
        let (mut manifests, mut unreadable) = (BTreeMap::new(), HashSet::new());
        for (dated, found) in read.iter().zip(found) {
            let hanging = if is_root(dated) { &mut needed } else { &mut spared };
            hanging.insert(dated.name.clone());
            match (parse_manifest(&dated.name), found) {
                (Some(key), Part::Whole(layers)) => {
                    hanging.extend(layers.iter().map(|layer| layer.name.layer()));
                    manifests.insert(key, layers);
                }
                (Some((id, _)), Part::Unreadable) => drop(unreadable.insert(id)),
                (None, _) | (Some(_), Part::Gone) => {}
            }
        }
        needed.extend(view.layer_roots.iter().map(|layer| layer.layer()));
        spared
            .extend(view.layers.iter().filter(|dated| view.is_spared(dated)).map(|dated| dated.name.clone()));
        let is_kept = |dated: &&Dated| needed.contains(&dated.name) || spared.contains(&dated.name);
        let read = |dated: &&Dated| is_kept(dated) || !view.marks.contains_key(&dated.name);
        let mut read: Vec<_> = view.layers.iter().filter(read).cloned().collect();
        // Those of a root that was made since layers were listed.
        let listed: HashSet<_> = view.layers.iter().map(|dated| dated.name.as_str()).collect();
        let rooted = manifests.iter().filter(|((id, _), _)| view.roots.contains_key(id));
        let newer = rooted
            .flat_map(|(_, layers)| layers)
            .filter(|layer| !listed.contains(layer.name.layer().as_str()));
        read.extend(newer.map(|layer| Dated {
            name: layer.name.layer(),
            bytes: layer.bytes,
            written_secs: view.now,
        }));
        let found = each(&read, |dated| layer(remote, dated))?;
        let (mut layers, mut damaged, mut named) = (HashMap::new(), HashSet::new(), HashSet::new());
        for (dated, found) in read.iter().zip(found) {
            let Some(name) = dated.name.strip_prefix(LAYERS).and_then(RemoteName::parse) else { continue };
            match found {
                Part::Whole(packs) => {
                    let paths = packs.iter().map(|pack| pack.pack());
                    if needed.contains(&dated.name) {
                        needed.extend(paths);
                    } else if spared.contains(&dated.name) {
                        spared.extend(paths);
                    } else {
                        named.extend(paths);
                    }
                    layers.insert(name, packs);
                }
                Part::Unreadable => drop(damaged.insert(name)),
                Part::Gone => {}
            }
        }
        let mut hanging = Hanging { needed, spared, named, missing: Vec::new(), manifests, layers };
        hanging.check(remote, view, &unreadable, &damaged)?;
        Ok(hanging)
    }

    fn fate(&self, view: &View, dated: &Dated) -> Fate {
        match view.marks.get(&dated.name) {
            _ if self.needed.contains(&dated.name) => Fate::Needed,
            Some(marked) if view.is_over(*marked) && !self.is_held(&dated.name) => Fate::Removed,
            Some(_) => Fate::Waiting,
            None if view.is_old(dated.written_secs) && !self.spared.contains(&dated.name) => Fate::Condemned,
            None => Fate::Young,
        }
    }

    fn is_held(&self, name: &str) -> bool {
        self.spared.contains(name) || self.named.contains(name)
    }

    /// Each root has to be there whole, by one of its manifests.
    fn check(
        &mut self,
        remote: &dyn Remote,
        view: &View,
        unreadable: &HashSet<SnapshotId>,
        damaged: &HashSet<RemoteName>,
    ) -> Result<()> {
        for (id, reasons) in &view.roots {
            let is_whole =
                |layers: &Vec<LayerEntry>| layers.iter().all(|layer| self.layers.contains_key(&layer.name));
            if self.of_snapshot(*id).any(is_whole) {
                continue;
            }
            let is_damaged = self.of_snapshot(*id).flatten().any(|layer| damaged.contains(&layer.name));
            let object = format!("{MANIFESTS}{id}");
            if is_damaged || unreadable.contains(id) {
                return Err(doubt(remote, &object, "what it names cannot be read; publish it anew"));
            }
            match reasons.iter().find(|why| matches!(why, Why::Head(_))) {
                Some(why) => return Err(doubt(remote, &object, &format!("it is not there, and is {why}"))),
                // Who said so looked afterwards, and knows that it is not there.
                None => self.missing.push(*id),
            }
        }
        Ok(())
    }

    fn of_snapshot(&self, id: SnapshotId) -> impl Iterator<Item = &Vec<LayerEntry>> {
        let all = (id, RemoteName([0; 16]))..=(id, RemoteName([0xff; 16]));
        self.manifests.range(all).map(|(_, layers)| layers)
    }

    /// The roots that an object hangs from.
    fn roots_of<'a>(&'a self, view: &'a View, object: &'a str) -> Vec<(SnapshotId, &'a BTreeSet<Why>)> {
        let hangs = |id: SnapshotId| {
            parse_manifest(object).is_some_and(|(of, _)| of == id)
                || self.of_snapshot(id).flatten().any(|layer| {
                    let packs = self.layers.get(&layer.name).into_iter().flatten();
                    layer.name.layer() == object || packs.into_iter().any(|pack| pack.pack() == object)
                })
        };
        view.roots.iter().filter(|(id, _)| hangs(**id)).map(|(id, reasons)| (*id, reasons)).collect()
    }
}

/// What an object names.
enum Part<T> {
    Whole(Vec<T>),
    /// Another collection removed it meanwhile.
    Gone,
    Unreadable,
}

fn manifest(remote: &dyn Remote, path: &str) -> Result<Part<LayerEntry>> {
    let Some((id, _)) = parse_manifest(path) else { return Ok(Part::Unreadable) };
    match remote.read_whole(path, MANIFEST_BYTES_MAX) {
        Ok(bytes) => Ok(match Manifest::decode(id, &bytes) {
            Ok(manifest) => Part::Whole(manifest.layers),
            Err(_) => Part::Unreadable,
        }),
        Err(Failure::NotFound(_)) => Ok(Part::Gone),
        Err(Failure::Failed { .. }) => Ok(Part::Unreadable),
        Err(failure) => Err(failure.into()),
    }
}

fn layer(remote: &dyn Remote, dated: &Dated) -> Result<Part<RemoteName>> {
    match pack_names(|range| remote.read(&dated.name, range), dated.bytes) {
        Ok(packs) => Ok(Part::Whole(packs)),
        Err(Error::Remote(Failure::NotFound(_))) => Ok(Part::Gone),
        Err(Error::Malformed { .. } | Error::Remote(Failure::Failed { .. })) => Ok(Part::Unreadable),
        Err(error) => Err(error),
    }
}

fn doubt(remote: &dyn Remote, object: &str, reason: &str) -> Error {
    Error::Doubt { object: remote.display(object), reason: reason.to_owned() }
}

#[cfg(test)]
pub(super) mod tests;
