//! What this host is to others: objects that it has, and sessions as they are now.

use std::time::Duration;

use cas::{SnapshotId, remote::peer::Name};
use proto::{
    FOLLOWING_MAX, READ_FRAME_BYTES_MAX, READ_OBJECTS_MAX,
    v1::{self, peer_server::Peer, read_reply},
};
use tonic::{Code, Request, Response, Status, async_trait};

use super::{
    Answer, Host, Service,
    bounds::quoted,
    convert::{Changes, session_info},
    request::check_length,
    status::of_store,
    stream::{Events, Sink},
};
use crate::{
    fleet::peers::{object_name, parse_name},
    session::{STAYS, STAYS_FIRST, Session},
};

#[async_trait]
impl Peer for Service {
    type ReadStream = Events<v1::ReadReply>;

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        self.stream(request, Host::read_objects)
    }

    async fn open(&self, request: Request<v1::OpenRequest>) -> Result<Response<v1::OpenReply>, Status> {
        self.call(request, Host::open_for_peer).await
    }
}

impl Host {
    /// What is here of these, and nothing that would have to be fetched.
    fn read_objects(&self, request: v1::ReadRequest, sink: &Sink<v1::ReadReply>) -> Answer<()> {
        let v1::ReadRequest { objects, following_max } = request;
        if objects.is_empty() || objects.len() > READ_OBJECTS_MAX {
            let message = format!("{} objects: a request is for 1 to {READ_OBJECTS_MAX}", objects.len());
            return Err(Status::invalid_argument(message));
        }
        if following_max as usize > FOLLOWING_MAX {
            let message = format!("{following_max} objects behind them: {FOLLOWING_MAX} are named at most");
            return Err(Status::invalid_argument(message));
        }
        let names = objects.iter().map(parse_name).collect::<Option<Vec<_>>>();
        let names =
            names.ok_or_else(|| Status::invalid_argument("an object is a kind and a digest of 32 bytes"))?;
        let mut last = None;
        for (nth, &(kind, digest)) in names.iter().enumerate() {
            let found = match self.engine.store().here((kind, digest).0, digest) {
                Err(error @ (cas::Error::Corrupt { .. } | cas::Error::Malformed { .. })) => {
                    tracing::warn!(%error, "a peer asks for it, and is told that it is not here");
                    None
                }
                found => found.map_err(of_store)?,
            };
            last = found.is_some().then_some(digest).or(last);
            send_object(sink, nth as u32, found)?;
        }
        if following_max == 0 {
            return Ok(());
        }
        let behind = |digest| self.engine.store().following(digest, following_max as usize);
        let following = last.map_or(Ok(Vec::new()), behind).map_err(of_store)?;
        let objects = following.into_iter().map(|named| following_object(named.name, named.len)).collect();
        sink.send(reply(read_reply::Part::Following(v1::Following { objects })))
    }

    fn open_for_peer(&self, request: v1::OpenRequest) -> Answer<v1::OpenReply> {
        let v1::OpenRequest { session: text, snapshot } = request;
        check_length(&text)?;
        check_length(&snapshot)?;
        let now = self.engine.clock().now().secs;
        // gc does not run between the look and the loan.
        let _hold = self.engine.store().hold();
        if snapshot.is_empty() {
            let session = self.session(&text)?;
            let sealed = self.engine.seal(&session, false, &mut |_| {})?;
            let origin = session.meta.origin;
            self.engine.lent().lend(&[sealed.snapshot, origin], now)?;
            // Until then he who needs it asks for it by its ID.
            return Ok(opened(self.peer_info(&session), (sealed.snapshot, origin), STAYS_FIRST));
        }
        let id: SnapshotId = snapshot.parse().map_err(|()| {
            Status::invalid_argument(format!("{}: no whole snapshot ID", quoted(snapshot.as_bytes())))
        })?;
        let found = self.session(&text);
        if self.engine.lent().has(id, now) {
            // Who knows what it is called was told so here, or can read it anyway.
            let origin = found.as_ref().map_or(id, |session| session.meta.origin);
            let info = match &found {
                Ok(session) => self.peer_info(session),
                Err(_) => v1::SessionInfo { id: text, ..v1::SessionInfo::default() },
            };
            let lent = if found.is_ok() { vec![id, origin] } else { vec![id] };
            self.engine.lent().renew(&lent, now)?;
            return Ok(opened(info, (id, origin), STAYS));
        }
        let session = found?;
        if !self.is_point_of(&session, id)? {
            let message = format!("{id} is no snapshot of {} that this host has", session.id());
            return Err(Status::new(Code::NotFound, message));
        }
        let origin = session.meta.origin;
        self.engine.lent().renew(&[id, origin], now)?;
        Ok(opened(self.peer_info(&session), (id, origin), STAYS))
    }

    /// Whether a session may be opened at a snapshot: one that it stands on, or that this host lists, for who may have it.
    fn is_point_of(&self, session: &Session, id: SnapshotId) -> Answer<bool> {
        let stands_on = [session.meta.origin, session.peek().base].contains(&id);
        Ok(stands_on || self.may_have_snapshot(id) && self.engine.store().keeps(id).map_err(of_store)?)
    }

    /// Without what is of this host alone.
    fn peer_info(&self, session: &Session) -> v1::SessionInfo {
        let info = session_info(session, Changes::default(), &[], self.engine.clock().now());
        v1::SessionInfo { labels: Vec::new(), expires_ns: 0, expires_in_s: 0, ..info }
    }
}

fn opened(
    session: v1::SessionInfo,
    (snapshot, origin): (SnapshotId, SnapshotId),
    stays: Duration,
) -> v1::OpenReply {
    let stays_ms = stays.as_secs() * 1000;
    let (snapshot, origin) = (snapshot.to_string(), origin.to_string());
    v1::OpenReply { session: Some(session), snapshot, origin, stays_ms }
}

fn send_object(sink: &Sink<v1::ReadReply>, nth: u32, found: Option<Vec<u8>>) -> Answer<()> {
    let part = |absent, len, bytes: &[u8]| {
        reply(read_reply::Part::Object(v1::ObjectPart { nth, absent, len, bytes: bytes.to_vec() }))
    };
    match found {
        None => sink.send(part(true, 0, &[])),
        Some(bytes) if bytes.is_empty() => sink.send(part(false, 0, &[])),
        Some(bytes) => {
            let len = bytes.len() as u32;
            bytes.chunks(READ_FRAME_BYTES_MAX).try_for_each(|bytes| sink.send(part(false, len, bytes)))
        }
    }
}

fn following_object(name: Name, len: u32) -> v1::FollowingObject {
    v1::FollowingObject { name: Some(object_name(name)), len }
}

fn reply(part: read_reply::Part) -> v1::ReadReply {
    v1::ReadReply { part: Some(part) }
}
