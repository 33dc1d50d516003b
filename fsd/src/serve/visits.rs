//! Sessions of peers, by their URIs: looked at, forked, fetched.

use std::sync::Arc;

use cas::store::Whole;
use proto::{
    URI_BYTES_MAX,
    v1::{self, fetch_event},
};
use tonic::Status;

use super::{Answer, Host, bounds::quoted, progress::Pace, stream::Sink};
use crate::{
    fleet::{
        uri::{Uri, is_uri},
        visits::{VisitError, Visited, Visits},
    },
    session::{Notes, Session},
};

/// Snapshots that one fetch makes whole, each after the one that the session stood on before.
const WHOLE_ROUNDS_MAX: usize = 64;

/// Where something is.
pub(super) enum Place {
    /// On this host, or wherever this host finds it: what it is called, and a path in it.
    Here(String, Vec<u8>),
    /// On the host that the URI names.
    There(Uri),
}

impl Host {
    /// What a text stands for: a URI, or what is called so. Errors: INVALID_ARGUMENT; PERMISSION_DENIED for who has a token with limits, because what other hosts let
    /// this one have is not his.
    pub(super) fn place(&self, text: String) -> Answer<Place> {
        if !is_uri(&text) {
            return Ok(Place::Here(text, Vec::new()));
        }
        if text.len() > URI_BYTES_MAX {
            return Err(Status::invalid_argument(format!("a URI has at most {URI_BYTES_MAX} bytes")));
        }
        let uri = Uri::parse(&text)
            .map_err(|error| Status::invalid_argument(format!("{}: {error}", quoted(text.as_bytes()))))?;
        if uri.authority.is_none() {
            let id = uri.snapshot.map_or(uri.session, |snapshot| snapshot.to_string());
            return Ok(Place::Here(id, uri.path));
        }
        self.check_unlimited(&text)?;
        Ok(Place::There(uri))
    }

    /// The same where a path has no meaning.
    pub(super) fn place_of_session(&self, text: String) -> Answer<Place> {
        let place = self.place(text)?;
        let path = match &place {
            Place::Here(_, path) | Place::There(Uri { path, .. }) => path,
        };
        match path.is_empty() {
            true => Ok(place),
            false => {
                Err(Status::invalid_argument("a session as a whole is meant, and the URI has a path in it"))
            }
        }
    }

    fn visits(&self, uri: &Uri) -> Answer<&Visits> {
        let nobody = || uri.authority.clone().map(|authority| Status::from(VisitError::NoPeer(authority)));
        self.visits.as_deref().ok_or_else(|| nobody().unwrap_or_else(|| Status::internal("no authority")))
    }

    /// A look at a session of a peer.
    pub(super) fn look_at_peer(&self, uri: &Uri, read_only: bool) -> Answer<Arc<Session>> {
        if !read_only {
            let message = format!(
                "{uri} is another host's, and is written there; mount it with --read-only, or `aetherctl fork {uri}` makes a session of this host of it"
            );
            return Err(Status::failed_precondition(message));
        }
        let visits = self.visits(uri)?;
        Ok(visits.look_at(&visits.visit(uri)?)?)
    }

    pub(super) fn forks_of_peer(
        &self,
        uri: &Uri,
        names: &[Option<String>],
        notes: &Notes,
    ) -> Answer<Vec<Arc<Session>>> {
        Ok(self.visits(uri)?.fork(uri, names, notes)?)
    }

    /// What a session of this host is a look at, if that is a peer's.
    pub(super) fn seen_by(&self, session: &Session) -> Option<Uri> {
        self.visits.as_ref()?.seen_by(session)
    }

    /// What a look shows when it goes on, and whether that is something else than now.
    pub(super) fn seen_next(&self, uri: &Uri, session: &Session) -> Answer<(Visited, bool)> {
        let visited = self.visits(uri)?.visit(uri)?;
        let is_behind = visited.root != session.peek().base;
        Ok((visited, is_behind))
    }

    pub(super) fn look_on(&self, visited: &Visited) -> Answer<Arc<Session>> {
        Ok(self.visits(&visited.uri)?.look_at(visited)?)
    }

    /// Brings all of a session of a peer here.
    pub(super) fn bring_from_peer(&self, uri: &Uri, sink: &Sink<v1::FetchEvent>) -> Answer<()> {
        if !uri.path.is_empty() {
            return Err(Status::invalid_argument(
                "of a peer's session all is fetched, and the URI has a path in it; fork it, and fetch the path of the fork",
            ));
        }
        let visits = self.visits(uri)?;
        let ((snapshot, whole), elapsed_us) = self.timed(|| {
            self.with_progress(sink, |tell, is_cancelled| Ok(visits.bring(uri, tell, is_cancelled)?))
        })?;
        sink.send(fetched(whole, snapshot.to_string(), elapsed_us))
    }

    /// Makes what a session stands on whole, as far as that hangs on a peer: then the session needs nobody any more. False: nothing of it hangs. What is sealed
    /// meanwhile hangs as well, and its turn comes.
    pub(super) fn make_whole(&self, session: &Session, sink: &Sink<v1::FetchEvent>) -> Answer<bool> {
        let store = self.engine.store();
        // What diffs compare with first: the base may have become another one by then.
        let next = || [session.meta.origin, session.peek().base].into_iter().find(|id| store.hangs(*id));
        if next().is_none() {
            return Ok(false);
        }
        let (last, elapsed_us) = self.timed(|| {
            self.with_progress(sink, |tell, is_cancelled| {
                let mut last = None;
                for _ in 0..WHOLE_ROUNDS_MAX {
                    let Some(id) = next() else { return Ok(last) };
                    let whole = store.make_whole(id, tell, is_cancelled).map_err(super::status::of_store)?;
                    last = Some((id, whole));
                }
                Err(Status::unavailable(
                    "the session is sealed as fast as what it stands on comes here; fetch it again when it is quiet",
                ))
            })
        })?;
        // Somebody else made it whole first.
        let (id, whole) = last.unwrap_or((session.peek().base, Whole::default()));
        sink.send(fetched(whole, id.to_string(), elapsed_us))?;
        Ok(true)
    }

    fn with_progress<T>(
        &self,
        sink: &Sink<v1::FetchEvent>,
        work: impl FnOnce(&mut dyn FnMut(Whole), &dyn Fn() -> bool) -> Answer<T>,
    ) -> Answer<T> {
        let (pace, gone) = (Pace::new(&**self.engine.clock()), sink.watch());
        let mut tell = |whole: Whole| {
            if pace.is_due() {
                let progress = v1::FetchProgress { files_done: whole.files, bytes_done: whole.bytes };
                sink.offer(v1::FetchEvent { event: Some(fetch_event::Event::Progress(progress)) });
            }
        };
        work(&mut tell, &|| gone.flag.load(std::sync::atomic::Ordering::Relaxed))
    }
}

fn fetched(whole: Whole, snapshot: String, elapsed_us: u64) -> v1::FetchEvent {
    let done = v1::FetchDone {
        files: whole.files,
        bytes: whole.bytes,
        chunks_here: whole.here,
        chunks_fetched: whole.came,
        elapsed_us,
        snapshot,
        missing: 0,
    };
    v1::FetchEvent { event: Some(fetch_event::Event::Done(done)) }
}
