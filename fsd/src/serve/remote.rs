//! Objects of the remote store: fetched ahead, or because somebody waits.

use cas::{Kind, Store, remote::bring::Bring};
use proto::v1::{self, fetch_event};
use tonic::Status;

use super::{
    Answer, Host,
    profile::Wanted,
    progress::Pace,
    request::InnerPath,
    status::{about, of_store},
    stream::Sink,
    visits::Place,
};
use crate::session::{Error, Found, Result, State, Target};

/// How often one call waits for an object: each wait brings it further.
const FETCHES_MAX: u32 = 1024;

/// Paths of one request.
const FETCH_PATHS_MAX: usize = 4096;

impl Host {
    pub(super) fn fetch(&self, request: v1::FetchRequest, sink: &Sink<v1::FetchEvent>) -> Answer<()> {
        let v1::FetchRequest { id, mut paths, profile } = request;
        let has_profile = !profile.is_empty();
        let id = match self.place(id)? {
            Place::There(_) if has_profile => {
                return Err(Status::invalid_argument(
                    "of a peer's session all is fetched; fork it, and fetch the profile of the fork",
                ));
            }
            // It stays in the store, which no cache's size bounds.
            Place::There(_) if !self.access.writes() => {
                return Err(Status::permission_denied(
                    "what is fetched by a URI stays on this host; that needs a token that allows write, too",
                ));
            }
            Place::There(uri) if paths.is_empty() => return self.bring_from_peer(&uri, sink),
            Place::There(_) => {
                return Err(Status::invalid_argument(
                    "of a peer's session all is fetched; fork it, and fetch paths of the fork",
                ));
            }
            Place::Here(id, path) => {
                paths.extend((!path.is_empty()).then_some(path));
                id
            }
        };
        if !paths.is_empty() && has_profile {
            return Err(Status::invalid_argument("paths or a profile, not both"));
        }
        if paths.len() > FETCH_PATHS_MAX {
            let message = format!("{} paths at a time are more than {FETCH_PATHS_MAX}", paths.len());
            return Err(Status::invalid_argument(message));
        }
        let is_all = paths.is_empty() && !has_profile;
        let paths = if is_all { vec![Vec::new()] } else { paths };
        let paths = paths.iter().map(|path| InnerPath::parse(path)).collect::<Answer<Vec<_>>>()?;
        let wanted = Wanted::all(profile)?;
        if !self.engine.store().has_remote() {
            return Err(of_store(cas::Error::NoRemote));
        }
        // What hangs on a peer is to be here when that is gone.
        if is_all
            && self.access.writes()
            && let Ok(Target::Session(session)) = self.session_first(&id)
            && self.make_whole(&session, sink)?
        {
            return Ok(());
        }
        let (done, elapsed_us) = self.timed(|| {
            let mut fetching = Fetching {
                store: self.engine.store().fetching(),
                state: self.state(&id)?,
                bring: Bring::new(self.engine.store()),
                pace: Pace::new(&**self.engine.clock()),
                sink,
                done: v1::FetchDone::default(),
            };
            for path in &paths {
                let found =
                    fetching.state.walk(&fetching.store, &path.names).map_err(about(&path.of(&id)))?;
                fetching.below(found)?;
            }
            for wanted in &wanted {
                fetching.wanted(wanted, &wanted.path.of(&id))?;
            }
            fetching.finish()
        })?;
        let done = v1::FetchDone { elapsed_us, ..done };
        sink.send(v1::FetchEvent { event: Some(fetch_event::Event::Done(done)) })
    }

    /// Runs what the engine does whole or not at all, again each time that an object it needs has come.
    pub(super) fn fetching<T>(&self, mut work: impl FnMut() -> Result<T>) -> Answer<T> {
        for _ in 0..FETCHES_MAX {
            let (kind, digest) = match work() {
                Err(Error::Store(cas::Error::Absent { kind, digest })) => (kind, digest),
                done => return Ok(done?),
            };
            let Some(ticket) = self.engine.store().fetch(kind, digest) else { break };
            ticket.wait().map_err(|error| of_store(cas::Error::Fetch(error)))?;
        }
        Err(Status::unavailable(
            "objects go out of the cache faster than they are used; give it more room with --cache-size",
        ))
    }
}

/// Files on their way here.
struct Fetching<'a> {
    store: Store,
    state: State,
    bring: Bring,
    pace: Pace<'a>,
    sink: &'a Sink<v1::FetchEvent>,
    done: v1::FetchDone,
}

impl Fetching<'_> {
    /// Has all that is below a name fetched, in the order of the tree. No recursion: trees may be deeper than a stack.
    fn below(&mut self, found: Found) -> Answer<()> {
        let mut stack = vec![found];
        while let Some(found) = stack.pop() {
            if found.has_xattrs() {
                found.xattrs(&self.store)?;
            }
            match found.kind {
                Kind::Dir => {
                    let dir = self.state.open_dir(&self.store, &found)?;
                    let entries = self.state.entries(&dir)?;
                    stack.extend(entries.into_iter().rev().map(|(_, found)| found));
                }
                Kind::File => {
                    if let Some(blob) = found.file()?.base {
                        self.bring.range(&blob.content, 0..blob.size).map_err(of_store)?;
                    }
                    self.done.files += 1;
                    self.done.bytes = self.done.bytes.saturating_add(found.attrs.size);
                    self.tell()?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Has an entry of a profile fetched, if there is what it names. `what` is its name in messages.
    fn wanted(&mut self, wanted: &Wanted, what: &str) -> Answer<()> {
        let found = match self.state.walk(&self.store, &wanted.path.names) {
            Err(Error::NotFound | Error::NotADirectory) => None,
            found => Some(found.map_err(about(what))?).filter(|found| found.kind == wanted.kind()),
        };
        let Some(found) = found else {
            self.done.missing += 1;
            return Ok(());
        };
        if found.has_xattrs() {
            found.xattrs(&self.store).map_err(about(what))?;
        }
        if found.kind == Kind::Dir {
            let dir = self.state.open_dir(&self.store, &found).map_err(about(what))?;
            // All pages of it.
            self.state.entries(&dir).map_err(about(what))?;
            return self.tell();
        }
        for range in wanted.ranges(found.attrs.size) {
            self.done.bytes = self.done.bytes.saturating_add(range.end - range.start);
            if let Some(blob) = found.file().map_err(about(what))?.base {
                self.bring.range(&blob.content, range).map_err(of_store)?;
            }
        }
        self.done.files += 1;
        self.tell()
    }

    fn tell(&self) -> Answer<()> {
        if !self.pace.is_due() {
            return Ok(());
        }
        let v1::FetchDone { files, bytes, .. } = self.done;
        let progress = v1::FetchProgress { files_done: files, bytes_done: bytes };
        // Who asked may be gone.
        self.sink.send(v1::FetchEvent { event: Some(fetch_event::Event::Progress(progress)) })
    }

    fn finish(self) -> Answer<v1::FetchDone> {
        let brought = self.bring.finish().map_err(of_store)?;
        Ok(v1::FetchDone { chunks_here: brought.here, chunks_fetched: brought.fetched, ..self.done })
    }
}
