//! Sessions of other hosts that are opened here by their URIs: looked at, forked, brought here whole.
//!
//! The other host says which snapshot its session is now, and keeps that for a while; here it hangs on that host (`cas::remote::hanging`) until all of it was
//! fetched, and the other host is told again and again that it is needed. A look is a session of this host that takes no writes, for a mount; it goes with its mount, and
//! what a dead daemon left of them goes at the next start. Which those are is in one file, `looks`; docs/format.md is normative.

use std::{collections::BTreeMap, sync::Arc};

use cas::{
    SnapshotId,
    disk::{put_whole, read_whole},
    remote::{Failure, hanging::Origin},
    store::Whole,
};
use parking_lot::Mutex;

use super::{
    peers::{Peers, RemotePeer},
    uri::{Authority, Uri},
};
use crate::session::{
    self, Engine, Error, Notes, Pin, Session, SessionId,
    codec::{Put, Take, opened, sealed},
};

const FILE: &str = "looks";
const NEW: &str = "looks.new";
const MAGIC: u32 = u32::from_le_bytes(*b"AFlk");
const VERSION: u8 = 1;
/// As many as there may be sessions.
const FILE_BYTES_MAX: u64 = (1 << 20) + 64;

/// Why a session of another host is not opened.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// Nobody said how to get in there.
    #[error(
        "{0} is none of this daemon's peers; start aetherfsd with --peer https://{0} and the file of a token that `aetherctl token create --allow read` made there"
    )]
    NoPeer(Authority),
    /// It cannot be asked, or refuses.
    #[error(transparent)]
    Peer(#[from] Failure),
    /// It is asked, and does not answer as it should.
    #[error("https://{0} answers with what is no session")]
    Malformed(Authority),
    /// It answers with another one than was asked for, or says that one of this host's is its own.
    #[error(
        "https://{authority} answers with {session}, which is another session than {asked}; ask by the whole ID, and whoever runs that host"
    )]
    Another {
        /// Who.
        authority: Authority,
        /// What was asked for.
        asked: String,
        /// What it says.
        session: SessionId,
    },
    /// What the engine says.
    #[error(transparent)]
    Engine(#[from] session::Error),
}

impl From<cas::Error> for VisitError {
    fn from(error: cas::Error) -> VisitError {
        VisitError::Engine(error.into())
    }
}

/// The result of what has to do with sessions of other hosts.
pub type Result<T> = std::result::Result<T, VisitError>;

/// A session of another host, as it was when it was opened.
#[derive(Clone, Debug)]
pub struct Visited {
    /// What it is called there.
    pub session: SessionId,
    /// What it was.
    pub root: SnapshotId,
    /// What it was created from.
    pub origin: SnapshotId,
    /// What it was opened by, with its ID.
    pub uri: Uri,
    /// Until something here stands on them.
    _stay: Arc<Pin>,
}

/// See the module.
#[derive(Debug)]
pub struct Visits {
    engine: Arc<Engine>,
    peers: Peers,
    /// Sessions here that are looks, and at what. Held while the file is written.
    looks: Mutex<BTreeMap<SessionId, Uri>>,
}

impl Visits {
    /// Sessions of these hosts. Discards the looks of an earlier life. Errors: the state's.
    pub fn open(engine: Arc<Engine>, peers: Peers) -> session::Result<Visits> {
        let disk = engine.disk();
        let bytes = read_whole(&**disk, FILE, FILE_BYTES_MAX).map_err(Error::io(disk.display(FILE)))?;
        for id in bytes.map(|bytes| decode(&bytes).unwrap_or_default()).unwrap_or_default() {
            if let Some(session) = engine.session_of(id) {
                engine.discard(&session)?;
            }
        }
        Ok(Visits { engine, peers, looks: Mutex::default() })
    }

    /// Asks a host what its session is. From here on it stays there for a while, and hangs on it here as long as somebody has the answer, or a session stands on
    /// it. Errors: `NoPeer`, `Peer`, `Malformed`, `Another`, the disk's.
    pub fn visit(&self, uri: &Uri) -> Result<Visited> {
        let (authority, peer) = self.peer(uri)?;
        let reply = peer.open_session(&uri.session, uri.snapshot)?;
        let malformed = || VisitError::Malformed(authority.clone());
        let session: Option<SessionId> = reply.session.and_then(|session| session.id.parse().ok());
        let session = session.ok_or_else(malformed)?;
        let root: SnapshotId = reply.snapshot.parse().map_err(|()| malformed())?;
        let origin: SnapshotId = reply.origin.parse().map_err(|()| malformed())?;
        if uri.snapshot.is_some_and(|wanted| wanted != root) {
            return Err(malformed());
        }
        let here = self.engine.session_of(session).map(|session| session.meta.origin);
        if !may_be((session, origin), uri, here) {
            return Err(VisitError::Another { authority, asked: uri.session.clone(), session });
        }
        let uri = Uri { session: session.to_string(), path: Vec::new(), ..uri.clone() };
        let place = Uri { snapshot: None, ..uri.clone() }.to_string();
        let stay = Arc::new(self.engine.visit(&[root, origin], &place)?);
        Ok(Visited { session, root, origin, uri, _stay: stay })
    }

    /// Makes forks of what a session of another host is. Errors: as of [`Visits::visit`], and the engine's; then there is none.
    pub fn fork(&self, uri: &Uri, names: &[Option<String>], notes: &Notes) -> Result<Vec<Arc<Session>>> {
        let visited = self.visit(uri)?;
        let forks = self.engine.forks_of(visited.session, (visited.root, visited.origin), names, notes)?;
        // This host may be off for days before the next time that it is due.
        let mut needed = vec![visited.root, visited.origin];
        needed.dedup();
        needed.retain(|id| self.engine.store().hangs(*id));
        needed.into_iter().for_each(|id| self.renew_one(&visited.uri, id));
        Ok(forks)
    }

    /// A look at what a session of another host was when it was visited, to be mounted. Errors: the engine's.
    pub fn look_at(&self, visited: &Visited) -> Result<Arc<Session>> {
        let tree = (visited.root, visited.origin);
        let session = self.engine.fork_of(visited.session, tree, None, Notes::default())?;
        session.close();
        let kept = self.change(|looks| {
            looks.insert(session.id(), visited.uri.clone());
        });
        match kept {
            Ok(()) => Ok(session),
            Err(error) => {
                self.engine.discard(&session)?;
                Err(error)
            }
        }
    }

    /// What a session of this host is a look at, if it is one.
    pub fn seen_by(&self, session: &Session) -> Option<Uri> {
        self.looks.lock().get(&session.id()).cloned()
    }

    /// Ends a look. The caller made sure that it is not mounted. Errors: the engine's.
    pub fn discard(&self, session: &Session) -> Result<()> {
        self.engine.discard(session)?;
        self.change(|looks| {
            looks.remove(&session.id());
        })
    }

    /// Brings all of what a session of another host is here, where it stays as a snapshot that is listed, and hangs on nobody. Errors: as of [`Visits::visit`], the
    /// engine's, and `Cancelled`; what came by then is not fetched again.
    pub fn bring(
        &self,
        uri: &Uri,
        progress: &mut dyn FnMut(Whole),
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<(SnapshotId, Whole)> {
        let visited = self.visit(uri)?;
        self.engine.adopt(visited.root)?;
        let whole = self.engine.store().make_whole(visited.root, progress, is_cancelled)?;
        Ok((visited.root, whole))
    }

    /// Tells other hosts what is needed of them. Again and again, from a thread of its own that may wait for the network.
    pub fn renew(&self) {
        for Origin { place, snapshot } in self.engine.store().origins() {
            let Ok(uri) = Uri::parse(&place) else { continue };
            self.renew_one(&uri, snapshot);
        }
    }

    fn renew_one(&self, uri: &Uri, snapshot: SnapshotId) {
        let renewed =
            self.peer(uri).and_then(|(_, peer)| Ok(peer.open_session(&uri.session, Some(snapshot))?));
        if let Err(error) = renewed {
            let place = Uri { snapshot: None, path: Vec::new(), ..uri.clone() };
            tracing::warn!(%place, %snapshot, %error, "sessions here hang on it, and it cannot be had to stay there; `aetherctl fetch` brings it here");
        }
    }

    fn peer(&self, uri: &Uri) -> Result<(Authority, &Arc<RemotePeer>)> {
        let authority = uri.authority.clone().expect("whoever has no authority is not asked");
        match self.peers.at(&authority) {
            Some(peer) => Ok((authority, peer)),
            None => Err(VisitError::NoPeer(authority)),
        }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<SessionId, Uri>)) -> Result<()> {
        let mut looks = self.looks.lock();
        change(&mut looks);
        looks.retain(|id, _| self.engine.session_of(*id).is_some());
        let disk = self.engine.disk();
        let written = put_whole(&**disk, "", NEW, FILE, &encode(looks.keys()));
        Ok(written.map_err(Error::io(disk.display(FILE)))?)
    }
}

/// Whether a host may say that this session with this origin is what it was asked for, if one of that ID is here with that origin. That one has to be a copy: forks
/// name it as where they come from.
fn may_be((session, origin): (SessionId, SnapshotId), asked: &Uri, here: Option<SnapshotId>) -> bool {
    let is_asked = asked.session.parse().map_or(true, |asked: SessionId| asked == session);
    is_asked && here.is_none_or(|here| here == origin)
}

fn encode<'a>(looks: impl Iterator<Item = &'a SessionId>) -> Vec<u8> {
    let mut out = Vec::new();
    out.u32(MAGIC);
    out.u8(VERSION);
    looks.for_each(|id| out.extend(id.0));
    sealed(out)
}

/// Those of a file that is as it should be.
fn decode(bytes: &[u8]) -> Option<Vec<SessionId>> {
    let mut from = Take(opened(bytes)?);
    if from.u32()? != MAGIC || from.u8()? != VERSION {
        return None;
    }
    let mut looks = Vec::new();
    while !from.is_empty() {
        looks.push(SessionId(from.array()?));
    }
    Some(looks)
}

#[cfg(test)]
mod tests {
    use cas::Digest;

    use super::*;

    #[test]
    fn who_answers_with_another_session_is_refused() {
        let (one, other) = (SessionId([1; 10]), SessionId([2; 10]));
        let (theirs, ours) = (SnapshotId(Digest([1; 32])), SnapshotId(Digest([2; 32])));
        let asked = |session: &str| Uri::parse(&format!("aether://near:1/{session}")).unwrap();
        let by_id = asked(&one.to_string());
        assert!(may_be((one, theirs), &by_id, None) && !may_be((other, theirs), &by_id, None));
        // A name stands for whatever the other host says, but for what is this host's.
        assert!(may_be((other, theirs), &asked("work"), None));
        assert!(!may_be((other, theirs), &asked("work"), Some(ours)));
        assert!(may_be((other, theirs), &asked("work"), Some(theirs)), "it travelled, and is here and there");
    }

    #[test]
    fn a_file_of_looks_is_whole_or_none() {
        let looks = [SessionId([1; 10]), SessionId([2; 10])];
        let bytes = encode(looks.iter());
        assert_eq!(decode(&bytes), Some(looks.to_vec()));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!((decode(&flipped), decode(&bytes[..at])), (None, None), "at {at}");
        }
    }
}
