//! The engine as a target: sessions on a simulated disk.

use std::{collections::BTreeMap, sync::Arc};

use cas::{Kind, Time, sim::SimDisk};
use fsd::session::{
    Allocate, Difference, Engine, Error, Found, Name, New, Notes, ROOT, Rename, Seek, Session, SessionId,
    SetAttrs, SetXattr, Side, State, Writer,
};

use super::{
    notes::Attached,
    picture::{Item, Picture, join},
    target::{Against, Answer, Change, Fail, Listed, Seen, Target},
};
use crate::common::host::{Opening, again};

/// An engine, the disk it is on, and its sessions in the order of their creation.
pub struct EngineTarget {
    pub disk: SimDisk,
    pub opening: Opening,
    pub engine: Arc<Engine>,
    pub ids: Vec<SessionId>,
}

impl EngineTarget {
    /// Opens the engine on `disk`; its sessions are `ids`.
    pub fn open(disk: SimDisk, opening: Opening, ids: Vec<SessionId>) -> fsd::session::Result<EngineTarget> {
        let engine = Arc::new(opening.open_sim(&disk)?);
        Ok(EngineTarget { disk, opening, engine, ids })
    }

    /// The session of this number.
    pub fn session(&self, s: usize) -> Arc<Session> {
        self.engine.session(&self.ids[s].to_string()).expect("it is not discarded")
    }

    fn again<T>(
        &self,
        s: usize,
        mut operation: impl FnMut(&Session) -> fsd::session::Result<T>,
    ) -> Answer<T> {
        let session = self.session(s);
        again(self.engine.store(), || operation(&session)).map_err(fail)
    }
}

/// The kind of an error.
pub fn fail(error: Error) -> Fail {
    match error {
        Error::NotFound => Fail::NotFound,
        Error::Exists => Fail::Exists,
        Error::NotADirectory => Fail::NotADirectory,
        Error::IsADirectory => Fail::IsADirectory,
        Error::NotEmpty => Fail::NotEmpty,
        Error::Invalid(_) => Fail::Invalid,
        Error::NotPermitted => Fail::NotPermitted,
        Error::NameTooLong | Error::TooLarge(_) => Fail::TooLarge,
        Error::FileTooBig => Fail::FileTooBig,
        Error::NoAttribute => Fail::NoAttribute,
        Error::NoData => Fail::NoData,
        Error::Stale(_) => Fail::Stale,
        Error::NoSpace => Fail::NoSpace,
        Error::TooMany { .. } => Fail::TooMany,
        Error::Io { .. } | Error::SyncFailed => Fail::Disk,
        // A disk that does not answer looks to the store like an object that cannot be read.
        Error::Store(
            cas::Error::Io { .. }
            | cas::Error::Database { .. }
            | cas::Error::Corrupt { .. }
            | cas::Error::Unreadable { .. },
        ) => Fail::Disk,
        other => {
            eprintln!("an unexpected error: {other:?}");
            Fail::Other
        }
    }
}

fn seen(found: &Found) -> Seen {
    Seen { ino: found.ino, kind: found.kind, attrs: found.attrs }
}

fn name(bytes: &[u8]) -> Name {
    Name::parse(bytes).expect("a good name")
}

/// The whole tree of a state.
pub fn picture(engine: &Engine, state: &State) -> fsd::session::Result<Picture> {
    let store = &engine.store().fetching();
    let mut picture = Picture::new();
    let mut queue = vec![(Vec::new(), state.walk(store, &[])?)];
    while let Some((path, found)) = queue.pop() {
        let bytes = match found.kind {
            Kind::File => {
                let mut bytes = vec![0xee; found.attrs.size as usize];
                assert_eq!(state.read(store, &found, 0, &mut bytes)?, bytes.len());
                bytes
            }
            Kind::Symlink => found.target()?,
            Kind::Dir => {
                let dir = state.open_dir(store, &found)?;
                let entries = state.entries(&dir)?.into_iter();
                queue.extend(entries.map(|(name, found)| (join(&path, name.as_bytes()), found)));
                Vec::new()
            }
            _ => Vec::new(),
        };
        let item = Item { seen: seen(&found), xattrs: found.xattrs(store)?, bytes: Arc::new(bytes) };
        picture.insert(path, item);
    }
    Ok(picture)
}

fn letter(difference: Difference) -> Change {
    match difference {
        Difference::Added(path, _) => Change::Added(path),
        Difference::Deleted(path, _) => Change::Deleted(path),
        Difference::Modified(path, ..) => Change::Modified(path),
        Difference::TypeChanged(path, ..) => Change::Type(path),
        Difference::Renamed(from, old, to, new) => Change::Renamed(from, old.ino, to, new.ino),
    }
}

impl Target for EngineTarget {
    fn lookup(&mut self, s: usize, dir: u64, n: &[u8]) -> Answer<Seen> {
        self.again(s, |session| session.lookup(dir, &name(n))).map(|found| seen(&found))
    }

    fn forget(&mut self, s: usize, ino: u64, lookups: u64) {
        self.session(s).forget(ino, lookups);
    }

    fn stat(&mut self, s: usize, ino: u64) -> Answer<Seen> {
        self.again(s, |session| session.stat(ino)).map(|found| seen(&found))
    }

    fn make(&mut self, s: usize, dir: u64, n: &[u8], new: New) -> Answer<Seen> {
        self.again(s, |session| session.make(dir, &name(n), new.clone())).map(|found| seen(&found))
    }

    fn make_unnamed(&mut self, s: usize, dir: u64, new: New) -> Answer<Seen> {
        self.again(s, |session| session.make_unnamed(dir, new.clone())).map(|found| seen(&found))
    }

    fn link(&mut self, s: usize, ino: u64, dir: u64, n: &[u8]) -> Answer<Seen> {
        self.again(s, |session| session.link(ino, dir, &name(n))).map(|found| seen(&found))
    }

    fn unlink(&mut self, s: usize, dir: u64, n: &[u8]) -> Answer<()> {
        self.again(s, |session| session.unlink(dir, &name(n)))
    }

    fn rmdir(&mut self, s: usize, dir: u64, n: &[u8]) -> Answer<()> {
        self.again(s, |session| session.rmdir(dir, &name(n)))
    }

    fn rename(&mut self, s: usize, from: (u64, &[u8]), to: (u64, &[u8]), how: Rename) -> Answer<()> {
        self.again(s, |session| session.rename(from.0, &name(from.1), to.0, &name(to.1), how))
    }

    fn read(&mut self, s: usize, ino: u64, offset: u64, len: usize) -> Answer<Vec<u8>> {
        let mut buf = vec![0xee; len];
        let read = self.again(s, |session| session.read(ino, offset, &mut buf))?;
        buf.truncate(read);
        Ok(buf)
    }

    fn write(&mut self, s: usize, ino: u64, offset: u64, data: &[u8]) -> Answer<()> {
        self.again(s, |session| session.write(ino, offset, data))
    }

    fn allocate(&mut self, s: usize, ino: u64, offset: u64, len: u64, how: Allocate) -> Answer<()> {
        self.again(s, |session| session.allocate(Writer::Privileged, ino, offset, len, how))
    }

    fn copy(&mut self, s: usize, from: (u64, u64), to: (u64, u64), len: u64) -> Answer<u64> {
        self.again(s, |session| session.copy_range(Writer::Privileged, from, to, len))
    }

    fn seek(&mut self, s: usize, ino: u64, offset: u64, what: Seek) -> Answer<u64> {
        self.again(s, |session| session.seek(ino, offset, what))
    }

    fn set_attrs(&mut self, s: usize, ino: u64, set: SetAttrs) -> Answer<Seen> {
        self.again(s, |session| session.set_attrs(ino, set)).map(|found| seen(&found))
    }

    fn xattrs(&mut self, s: usize, ino: u64) -> Answer<Vec<(Vec<u8>, Vec<u8>)>> {
        self.again(s, |session| session.xattrs(ino)).map(|xattrs| xattrs.into_iter().collect())
    }

    fn set_xattr(&mut self, s: usize, ino: u64, n: &[u8], value: &[u8], how: SetXattr) -> Answer<()> {
        self.again(s, |session| session.set_xattr(ino, n, value, how))
    }

    fn remove_xattr(&mut self, s: usize, ino: u64, n: &[u8]) -> Answer<()> {
        self.again(s, |session| session.remove_xattr(ino, n))
    }

    fn list(&mut self, s: usize, dir: u64, cookie: u64, max: usize, plus: bool) -> Answer<Vec<Listed>> {
        let mut entries: Vec<Listed> = Vec::new();
        self.again(s, |session| {
            // Those that were taken are taken, whatever becomes of the rest.
            let from = entries.last().map_or(cookie, |(.., next)| *next);
            session.list(dir, from, plus, &mut |name, found, next| {
                let room = entries.len() < max;
                if room {
                    entries.push((name.to_vec(), found.ino, next));
                }
                room
            })
        })?;
        Ok(entries)
    }

    fn fork_noted(&mut self, s: usize, attached: &Attached) -> Answer<()> {
        let forked = self.engine.fork_noted(&self.session(s), &[None], &attached.notes()).map_err(fail)?;
        self.ids.push(forked[0].id());
        Ok(())
    }

    fn discard(&mut self, s: usize) -> Answer<()> {
        self.engine.discard(&self.session(s)).map_err(fail)
    }

    fn expire(&mut self, s: usize, seconds: Option<u64>) -> Answer<()> {
        let now = self.engine.clock().now();
        self.session(s).annotate(|notes| notes.expire(now, seconds)).map_err(fail).map(drop)
    }

    fn label(&mut self, s: usize, key: &str, value: Option<&str>) -> Answer<()> {
        let change = |notes: &mut Notes| match value {
            Some(value) => notes.label(key, value),
            None => notes.unlabel(key),
        };
        self.session(s).annotate(change).map_err(fail).map(drop)
    }

    fn attached(&self, s: usize) -> Attached {
        Attached::of(&self.session(s))
    }

    fn seal(&mut self, s: usize, during: &mut dyn FnMut(&mut Self)) -> Answer<Picture> {
        let (engine, session) = (Arc::clone(&self.engine), self.session(s));
        let mut first = true;
        let sealed = engine.seal(&session, false, &mut |_| {
            if std::mem::take(&mut first) {
                during(self);
            }
        });
        let sealed = sealed.map_err(fail)?;
        let state = State::of_snapshot(&engine.store().fetching(), sealed.snapshot).map_err(fail)?;
        picture(&engine, &state).map_err(fail)
    }

    fn anchor(&mut self, s: usize) -> Answer<()> {
        self.again(s, |session| session.write_anchor())
    }

    fn diff(&mut self, s: usize, against: Against) -> Answer<Vec<Change>> {
        let side = |session: &Session| Side { state: session.peek(), origin: session.meta.origin };
        let session = self.session(s);
        let old = match against {
            Against::Origin => {
                Side::snapshot(&self.engine.store().fetching(), session.meta.origin).map_err(fail)?
            }
            Against::Session(other) => side(&self.session(other)),
        };
        let differences = self.engine.diff(&old, &side(&session), false).map_err(fail)?;
        Ok(differences.into_iter().map(letter).collect())
    }

    fn sync(&mut self) -> Answer<()> {
        self.engine.durability().sync().map_err(fail)
    }

    fn gc(&mut self) -> Answer<()> {
        self.engine.gc(false, &mut |_| {}).map(drop).map_err(fail)
    }

    fn tick(&mut self) -> Answer<()> {
        self.engine.settle();
        self.engine.tidy();
        Ok(())
    }

    fn reopen(&mut self) {
        self.disk = self.disk.kill();
        self.engine = Arc::new(self.opening.open_sim(&self.disk).expect("a killed engine opens again"));
    }

    fn picture(&mut self, s: usize) -> Answer<Picture> {
        picture(&self.engine, &self.session(s).peek()).map_err(fail)
    }

    fn check(&mut self, s: usize, held: &[u64]) -> Result<(), String> {
        let session = self.session(s);
        let known = session.known.len() + 1;
        if known != held.len() {
            return Err(format!("{known} inodes are known, {} are held", held.len()));
        }
        check_state(&session.peek(), held)
    }

    fn is_low(&self) -> bool {
        self.engine.durability().log.is_low()
    }

    fn set_time(&mut self) -> Time {
        self.opening.clock.advance(1_000_003)
    }
}

/// What the header of state.rs promises.
fn check_state(state: &State, held: &[u64]) -> Result<(), String> {
    if !state.inodes.contains_key(&ROOT) {
        return Err("the root is not among the changed inodes".into());
    }
    for (ino, inode) in &state.inodes {
        let named = !state.orphans.contains(ino);
        if named && !inode.linked && !state.inodes.contains_key(&inode.parent) {
            return Err(format!("{ino} is changed, its directory {} is not", inode.parent));
        }
    }
    if let Some(orphan) = state.orphans.iter().find(|o| !state.inodes.contains_key(*o) || !held.contains(o)) {
        return Err(format!("{orphan} is an orphan that nobody holds"));
    }
    for (dir, delta) in &state.dirs {
        let mut added = BTreeMap::new();
        for (name, change) in &delta.names {
            if let Some((seq, ino)) = change.added() {
                added.insert(seq, name.clone());
                if !state.inodes.contains_key(&ino) {
                    return Err(format!("{name:?} in {dir} stands for {ino}, which is not there"));
                }
            }
        }
        let by_seq: BTreeMap<u64, Name> =
            delta.added.iter().map(|(seq, name)| (*seq, name.clone())).collect();
        if !state.inodes.contains_key(dir) || by_seq != added {
            return Err(format!("the changed names of {dir} contradict each other"));
        }
    }
    Ok(())
}
