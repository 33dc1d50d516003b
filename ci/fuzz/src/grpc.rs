//! The gRPC interface: messages from anywhere are decoded, checked and carried out by the service, on an engine of their own
//! with a simulated disk. Whatever is asked, the answer is one, or an error that is not the daemon's fault.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use cas::{Kind, sim::SimDisk};
use fsd::{
    fuse::{Mounts, TransportChoice},
    serve::{Access, Service},
    session::{Engine, Name, New, ROOT},
};
use prost::Message;
use proto::v1::{aether_server::Aether, peer_server::Peer, *};
use tokio::runtime::Runtime;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status};

use super::world::Base;

const REQUESTS_MAX: usize = 16;
/// Answers of a stream that are looked at.
const ANSWERS_MAX: usize = 2000;
/// Paths of the host are passed on if they lead nowhere.
const NOWHERE: &[u8] = b"/nonexistent/";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime without timers or sockets")
});

/// Requests: a method (u8), a length (u16), the message.
pub fn run(data: &[u8]) {
    let engine = Arc::new(open());
    let state_dir = Path::new("/nonexistent/state");
    let service = Service::new(
        Arc::clone(&engine),
        Mounts::new(state_dir, TransportChoice::DevFuse, None),
        None,
        state_dir.into(),
    );
    let requests = requests(data).take(REQUESTS_MAX);
    RUNTIME.block_on(async {
        for (method, message) in requests {
            if let Err(status) = ask(&service, method, message).await {
                let ours =
                    matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss | Code::Ok);
                assert!(!ours, "method {method} failed at {message:02x?}: {status:?}");
            }
        }
    });
    for session in engine.sessions() {
        engine.discard(&session).expect("nothing is mounted");
    }
    engine.close().expect("a disk that does not fail");
}

/// Methods and messages of an input.
pub fn requests(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let ([method, low, high], rest) = bytes.split_first_chunk()?;
        let (message, rest) = rest.split_at_checked(u16::from_le_bytes([*low, *high]).into())?;
        bytes = rest;
        Some((*method, message))
    })
}

/// An engine with a session `s`, which differs from its base a little, and a fork of it called `t`.
fn open() -> Engine {
    let base = Base::shared();
    let engine = base.open(&SimDisk::new(0), 1).expect("an empty disk");
    let session = engine.create(Some(base.snapshot), Some("s".into()), (0, 0)).expect("the base is kept");
    let name = |text: &str| Name::parse(text.as_bytes()).expect("a name");
    let new = |kind| New { kind, mode: 0o644, uid: 0, gid: 0, rdev: 0, umask: 0, target: None };
    let made = session.make(ROOT, &name("new"), new(Kind::File)).expect("a free name");
    session.write(made.ino, 0, b"new content").expect("a disk with room");
    let big = session.lookup(ROOT, &name("big")).expect("the base has it");
    session.write(big.ino, 70_000, b"changed").expect("a disk with room");
    session.unlink(ROOT, &name("empty")).expect("the base has it");
    engine.fork(&session, &[Some("t".into())]).expect("a free name");
    engine
}

/// Decodes and asks. A message that does not decode never reaches the service.
async fn ask(service: &Service, method: u8, bytes: &[u8]) -> Result<(), Status> {
    macro_rules! one {
        ($method:ident) => {
            match Message::decode(bytes) {
                Ok(message) => service.$method(asked(message)).await.map(drop),
                Err(_) => Ok(()),
            }
        };
    }
    macro_rules! many {
        ($method:ident) => {
            match Message::decode(bytes) {
                Ok(message) => all(service.$method(asked(message)).await?).await,
                Err(_) => Ok(()),
            }
        };
    }
    match method {
        0 if host_path(&CreateRequest::decode(bytes).unwrap_or_default().mount_dir) => one!(create),
        1 if host_path(&ForkRequest::decode(bytes).unwrap_or_default().mount_dir) => one!(fork),
        2 if host_path(&MountRequest::decode(bytes).unwrap_or_default().dir) => one!(mount),
        3 if unmount_path(bytes) => one!(unmount),
        4 if host_path(&ImportRequest::decode(bytes).unwrap_or_default().path) => many!(import),
        5 => many!(list),
        6 => one!(show),
        7 => many!(seal),
        8 => one!(discard),
        9 => many!(diff),
        10 => many!(list_dir),
        11 => one!(stat),
        12 => many!(read_file),
        13 => many!(gc),
        14 => many!(fsck),
        15 => many!(publish),
        16 => many!(fetch),
        17 => many!(handoff),
        18 if host_path(&AdvanceRequest::decode(bytes).unwrap_or_default().dir) => one!(advance),
        19 => many!(gc_remote),
        20 => many!(gc_why),
        21 => one!(pin),
        22 => one!(unpin),
        23 => one!(create_token),
        24 => one!(revoke_token),
        25 => one!(list_tokens),
        26 => many!(profile),
        27 => one!(expire),
        28 => one!(label),
        29 => many!(list_remote),
        30 => many!(read),
        31 => one!(open),
        _ => Ok(()),
    }
}

/// As who is at the socket asks.
fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Access::owner());
    request
}

/// A whole stream, or its error.
async fn all<T>(response: Response<impl Stream<Item = Result<T, Status>> + Unpin>) -> Result<(), Status> {
    let mut stream = response.into_inner();
    for _ in 0..ANSWERS_MAX {
        match stream.next().await {
            Some(answer) => drop(answer?),
            None => break,
        }
    }
    Ok(())
}

/// Whether it is safe to pass on: this runs as whoever fuzzes, on a host that means something to somebody.
fn host_path(path: &[u8]) -> bool {
    path.first() != Some(&b'/') || path.starts_with(NOWHERE)
}

fn unmount_path(bytes: &[u8]) -> bool {
    match UnmountRequest::decode(bytes).unwrap_or_default().target {
        Some(unmount_request::Target::Dir(dir)) => host_path(&dir),
        _ => true,
    }
}
