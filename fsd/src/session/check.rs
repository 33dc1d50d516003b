//! Checks what is not in the store yet: the log against its checksums, the segments against the sums of what was written.
//! And asks the store to check itself, with names for what the sessions use of it.
//!
//! Sessions go on meanwhile. What a damaged log would have told the next start is still in memory, so a repair writes it
//! down anew and loses nothing; bytes of a segment that rotted are nowhere else, and are named.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use cas::{
    SnapshotId, Store,
    store::{FsckOptions, FsckProgress, FsckReport, Use},
};

use super::{
    Engine, Error, Result, Session,
    extent::Data,
    inode::{BaseDir, Body, ROOT, XattrSet},
    segment::Segment,
    state::{Change, State},
};

/// Bytes of a segment that are read at once where they have no sums.
const STEP_BYTES: u64 = 1 << 20;
/// Flaws that are told one by one, and users of each.
const TOLD_MAX: usize = 1000;

/// Something outside the store that is not as it was written.
#[derive(Clone, Debug)]
pub struct Flaw {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
    /// Who is hit: `ses_...:/path`, or sessions as a whole.
    pub users: Vec<String>,
    /// It was mended.
    pub repaired: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// In the store.
    pub store: FsckReport,
    /// In the log and the segments.
    pub flaws: Vec<Flaw>,
    /// Bytes of log and segments that were read.
    pub bytes: u64,
}

impl Checked {
    /// Nothing is wrong that was not mended.
    pub fn is_clean(&self) -> bool {
        self.store.is_clean() && self.flaws.iter().all(|flaw| flaw.repaired)
    }
}

/// How far a check is.
#[derive(Clone, Copy, Debug)]
pub enum CheckProgress {
    /// In the store.
    Store(FsckProgress),
    /// In the segments.
    Segments {
        /// Bytes read.
        bytes: u64,
        /// Bytes in all.
        of: u64,
    },
}

impl Engine {
    /// Checks everything, and with `repair` mends what can be. Errors: what keeps the check from going on.
    pub fn check(&self, repair: bool, progress: &mut dyn FnMut(CheckProgress)) -> Result<Checked> {
        let mut checked = Checked::default();
        self.check_log(repair, &mut checked)?;
        self.check_segments(&mut checked, progress)?;
        let uses = self.uses();
        let tell = &mut |step| progress(CheckProgress::Store(step));
        checked.store = self.store().fsck(FsckOptions { repair }, &uses, tell)?;
        self.name_paths(&mut checked.store);
        Ok(checked)
    }

    fn check_log(&self, repair: bool, checked: &mut Checked) -> Result<()> {
        let log = &self.durability().log;
        let (bytes, damaged) = log.check()?;
        checked.bytes += bytes;
        if damaged.is_empty() {
            return Ok(());
        }
        let sessions = self.sessions();
        for flaw in &damaged {
            let hit =
                sessions.iter().filter(|s| s.anchor() <= flaw.position && s.position() >= flaw.position);
            checked.flaws.push(Flaw {
                path: flaw.path.clone(),
                offset: flaw.offset,
                reason: "a record of the log is damaged: the next start would not get beyond it".into(),
                users: hit.map(|session| session.id().to_string()).collect(),
                repaired: repair,
            });
        }
        if repair {
            for path in log.set_aside(&damaged)? {
                tracing::warn!(path = %path.display(), "a copy of a damaged log file is kept");
            }
            log.begin_file()?;
            sessions.iter().try_for_each(|session| session.write_anchor())?;
            self.durability().sync()?;
            let needed = sessions.iter().map(|session| session.anchor()).min();
            log.trim(needed.unwrap_or_else(|| log.position()))?;
        }
        Ok(())
    }

    fn check_segments(&self, checked: &mut Checked, progress: &mut dyn FnMut(CheckProgress)) -> Result<()> {
        let states: Vec<(Arc<Session>, State)> =
            self.sessions().into_iter().map(|session| (Arc::clone(&session), session.peek())).collect();
        let mut used: BTreeMap<u64, Used> = BTreeMap::new();
        for (_, state) in &states {
            each_extent(state, &mut |_, segment, range| {
                let ranges =
                    &mut used.entry(segment.id()).or_insert((Arc::clone(segment), BTreeSet::new())).1;
                ranges.insert((range.start, range.end));
            });
        }
        let merged: Vec<(Arc<Segment>, Vec<Range<u64>>)> =
            used.into_values().map(|(segment, ranges)| (segment, merge(ranges))).collect();
        let lens = merged.iter().flat_map(|(_, ranges)| ranges).map(|range| range.end - range.start);
        let of = lens.fold(0, u64::saturating_add);
        let mut bytes = 0u64;
        let mut bad: HashMap<u64, Vec<(Range<u64>, usize)>> = HashMap::new();
        for (segment, ranges) in &merged {
            for range in ranges {
                for (place, error) in check_range(segment, range.clone())? {
                    if checked.flaws.len() == TOLD_MAX {
                        break;
                    }
                    bad.entry(segment.id()).or_default().push((place.clone(), checked.flaws.len()));
                    let (path, offset) = (segment.path(), place.start);
                    checked.flaws.push(Flaw {
                        path,
                        offset,
                        reason: error,
                        users: Vec::new(),
                        repaired: false,
                    });
                }
                bytes = bytes.saturating_add(range.end - range.start);
                progress(CheckProgress::Segments { bytes, of });
            }
        }
        checked.bytes = checked.bytes.saturating_add(bytes);
        if !bad.is_empty() {
            self.name_users(&states, &bad, &mut checked.flaws);
        }
        Ok(())
    }

    fn name_users(
        &self,
        states: &[(Arc<Session>, State)],
        bad: &HashMap<u64, Vec<(Range<u64>, usize)>>,
        flaws: &mut [Flaw],
    ) {
        for (session, state) in states {
            let mut hit = BTreeSet::new();
            each_extent(state, &mut |ino, segment, range| {
                let places = bad.get(&segment.id()).into_iter().flatten();
                let places = places.filter(|(place, _)| place.start < range.end && range.start < place.end);
                hit.extend(places.map(|(_, flaw)| (*flaw, ino)));
            });
            for (flaw, ino) in hit {
                let users = &mut flaws[flaw].users;
                let user = user(session, state, self.store(), ino);
                if users.len() < TOLD_MAX && !users.contains(&user) {
                    users.push(user);
                }
            }
        }
    }

    /// What the sessions refer to in the store. Inodes are called by number: finding their paths takes long.
    fn uses(&self) -> Vec<Use> {
        let mut uses = vec![Use::Snapshot(self.empty(), "the empty tree:/".to_owned())];
        for session in self.sessions() {
            let state = session.peek();
            let trees: BTreeSet<SnapshotId> = [state.base, session.meta.origin].into();
            uses.extend(trees.into_iter().map(|id| Use::Snapshot(id, format!("{}:/", session.id()))));
            uses.push(Use::Hanging(self.store().hangs(state.base)));
            for (&ino, inode) in &state.inodes {
                let name = format!("{}:{INODE}{ino}", session.id());
                match &inode.body {
                    Body::File(file) => {
                        uses.extend(file.base.map(|blob| Use::Content(blob.content, name.clone())));
                    }
                    Body::Dir(base) => {
                        let dir = base.as_ref().map(BaseDir::digest);
                        uses.extend(dir.map(|dir| Use::Dir(dir, format!("{name}/"))));
                    }
                    Body::Symlink(_) | Body::Special => {}
                }
                if let XattrSet::Base(Some(digest)) = inode.xattrs {
                    uses.push(Use::Xattrs(digest, name));
                }
            }
        }
        uses
    }

    /// Puts paths where damage is told of inodes by number.
    fn name_paths(&self, report: &mut FsckReport) {
        let states: HashMap<String, (Arc<Session>, State)> =
            self.sessions().into_iter().map(|s| (s.id().to_string(), (Arc::clone(&s), s.peek()))).collect();
        for path in report.damage.iter_mut().flat_map(|damage| &mut damage.paths) {
            let Some((id, rest)) = path.split_once(':') else { continue };
            let Some(rest) = rest.strip_prefix(INODE) else { continue };
            let end = rest.find('/').unwrap_or(rest.len());
            let (number, below) = rest.split_at(end);
            if let (Ok(ino), Some((session, state))) = (number.parse(), states.get(id)) {
                *path = format!("{}{}", user(session, state, self.store(), ino).trim_end_matches('/'), below);
            }
        }
    }
}

/// How an inode is called before anybody looked for its path.
const INODE: &str = "inode ";

/// A segment, and the ranges of it that files consist of.
type Used = (Arc<Segment>, BTreeSet<(u64, u64)>);
/// Is given an inode, and a range of a segment that is part of it.
type Visit<'v> = dyn FnMut(u64, &Arc<Segment>, Range<u64>) + 'v;

/// Calls `visit` with every range of a segment that a file of the state consists of.
fn each_extent(state: &State, visit: &mut Visit<'_>) {
    for (&ino, inode) in &state.inodes {
        let Body::File(file) = &inode.body else { continue };
        for (_, extent) in file.extents.iter() {
            if let Data::Segment { segment, offset, .. } = &extent.data {
                visit(ino, segment, *offset..offset + extent.len);
            }
        }
    }
}

fn merge(ranges: BTreeSet<(u64, u64)>) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => merged.push(start..end),
        }
    }
    merged
}

/// What in a range of a segment cannot be read, or is not what was written.
fn check_range(segment: &Segment, range: Range<u64>) -> Result<Vec<(Range<u64>, String)>> {
    let mut bad = Vec::new();
    // Where the disk does not tell, the reads below say why.
    let present = segment.present().unwrap_or(u64::MAX).max(range.start);
    let (range, missing) = (range.start..range.end.min(present), present..range.end);
    if !missing.is_empty() {
        let reason = "the segment ends before; the changes that stood there are lost".to_owned();
        bad.push((missing, reason));
    }
    let mut buf = vec![0; STEP_BYTES as usize];
    let mut tell = |place: Range<u64>, result: Result<()>| match result {
        Ok(()) => Ok(()),
        Err(Error::Damaged { reason, .. }) => {
            bad.push((place, reason));
            Ok(())
        }
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EIO) => {
            bad.push((place, "the disk cannot read it".to_owned()));
            Ok(())
        }
        Err(other) => Err(other),
    };
    let mut at = range.start;
    // Between the sums: what was overwritten in place can only be read.
    for sum in segment.sums(range.clone()) {
        for start in (at..sum.offset.max(at)).step_by(STEP_BYTES as usize) {
            let end = (start + STEP_BYTES).min(sum.offset);
            tell(start..end, segment.read_unchecked(&mut buf[..(end - start) as usize], start))?;
        }
        tell(sum.range(), segment.read_block(&sum).map(drop))?;
        at = sum.range().end;
    }
    for start in (at..range.end.max(at)).step_by(STEP_BYTES as usize) {
        let end = (start + STEP_BYTES).min(range.end);
        tell(start..end, segment.read_unchecked(&mut buf[..(end - start) as usize], start))?;
    }
    Ok(bad)
}

/// An inode of a session, for a person.
fn user(session: &Session, state: &State, store: &Store, ino: u64) -> String {
    let id = session.id();
    match path_of(state, store, ino) {
        Some(path) => format!("{id}:{path}"),
        None if state.orphans.contains(&ino) => {
            format!("{id}: a removed file that is still open (inode {ino})")
        }
        None => format!("{id}: inode {ino}"),
    }
}

/// A path of a changed inode; none if a directory above it cannot be read, or it has no name.
pub(super) fn path_of(state: &State, store: &Store, ino: u64) -> Option<String> {
    let (mut names, mut at) = (Vec::new(), ino);
    // No tree is deeper than it has inodes; hints of hard links might go in circles.
    for _ in 0..=state.inodes.len() {
        if at == ROOT {
            let path: String = names.iter().rev().map(|name: &String| format!("/{name}")).collect();
            return Some(if path.is_empty() { "/".to_owned() } else { path });
        }
        let parent = state.inodes.get(&at)?.parent;
        names.push(name_in(state, store, parent, at)?);
        at = parent;
    }
    None
}

fn name_in(state: &State, store: &Store, dir: u64, ino: u64) -> Option<String> {
    let shown = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let delta = state.dirs.get(&dir);
    let added = delta.into_iter().flat_map(|delta| &delta.names);
    let mut added = added.filter(|(_, change)| matches!(change, Change::Added { ino: i, .. } if *i == ino));
    if let Some((name, _)) = added.next() {
        return Some(shown(name.as_bytes()));
    }
    let Body::Dir(Some(base)) = &state.inodes.get(&dir)?.body else { return None };
    let base = base.open(store).ok()?;
    (0..base.count()).find_map(|index| {
        let entry = base.entry(index).ok()?;
        let stands = delta.is_none_or(|delta| !delta.names.contains_key(entry.name));
        (entry.ino == ino && stands).then(|| shown(entry.name))
    })
}
