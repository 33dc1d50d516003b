//! Other hosts as this one asks them: gRPC over TLS, each with a token of its own.
//!
//! Calls come from threads that may block, and run on a runtime of their own. No wait is longer than its caller says, whatever the other end does: a connection that
//! cannot be made, an answer that stops, one that trickles. What arrives is passed on as it came; who asked checks it (`cas::remote::peer`). A token is read from its file
//! when it is needed and again after a failure, so that one that was renewed is used; it is in no message and no log line.

use std::{
    error::Error as _,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use cas::{
    Digest, ObjectKind, SnapshotId,
    remote::{
        Failure,
        peer::{FOLLOWING_MAX, Name, Named, Part, Patience, Peer, READ_MAX, Take},
    },
};
use parking_lot::Mutex;
use proto::v1::{
    FollowingObject, ObjectName, ObjectPart, OpenReply, OpenRequest, ReadReply, ReadRequest,
    peer_client::PeerClient, read_reply,
};
use tokio::{runtime::Runtime, time::timeout};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::uri::Authority;

/// A connection takes no longer.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a host that is waited for is asked whether it is there, and how long it has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// A session is sealed before it is opened, which takes as long as there is to seal.
const OPEN: Duration = Duration::from_secs(60);
/// The largest message of an answer: a part of an object, or names.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a file of certificates; of a token, and the line's end.
const PEM_BYTES_MAX: u64 = 1 << 20;
const TOKEN_FILE_BYTES_MAX: u64 = token::TOKEN_BYTES_MAX as u64 + 2;
/// What another host says of an error, to be shown in one.
const REASON_CHARS_MAX: usize = 300;

/// Another host, as it was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPlace {
    /// Where it listens.
    pub authority: Authority,
    /// Whom to believe who it is; whom the system believes otherwise.
    pub ca: Option<PathBuf>,
    /// The file that the token is in.
    pub token_file: PathBuf,
}

/// Why a host cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A file of it cannot be read.
    #[error("{authority}: {}: {source}", path.display())]
    Unreadable {
        /// Which host.
        authority: Authority,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of it is not what it should be.
    #[error("{authority}: {}: {reason}", path.display())]
    Malformed {
        /// Which host.
        authority: Authority,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The address or the certificates do not do.
    #[error("{authority}: {reason}")]
    Settings {
        /// Which host.
        authority: Authority,
        /// What is wrong.
        reason: String,
    },
    /// The system has no threads for it.
    #[error("no runtime for other hosts: {0}")]
    Runtime(#[source] io::Error),
}

/// Other hosts, in the order in which they are asked.
#[derive(Clone, Debug)]
pub struct Peers {
    all: Vec<Arc<RemotePeer>>,
}

impl Peers {
    /// Those that were configured. Nobody is asked yet.
    pub fn open(places: &[PeerPlace]) -> Result<Peers, PeerError> {
        if places.is_empty() {
            return Ok(Peers { all: Vec::new() });
        }
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).thread_name("peers").enable_all().build();
        let runtime = Arc::new(Shutdown(Some(runtime.map_err(PeerError::Runtime)?)));
        // Whoever installs it first does; all here install the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let open = |place: &PeerPlace| RemotePeer::open(place, Arc::clone(&runtime)).map(Arc::new);
        Ok(Peers { all: places.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// As the store asks them.
    pub fn for_store(&self) -> Vec<Arc<dyn Peer>> {
        self.all.iter().map(|peer| Arc::clone(peer) as Arc<dyn Peer>).collect()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The one that listens there.
    pub fn at(&self, authority: &Authority) -> Option<&Arc<RemotePeer>> {
        self.all.iter().find(|peer| peer.authority == *authority)
    }
}

/// A runtime that ends without waiting for anybody.
#[derive(Debug)]
struct Shutdown(Option<Runtime>);

impl Shutdown {
    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("it goes when this does")
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Another host.
pub struct RemotePeer {
    authority: Authority,
    address: String,
    channel: Channel,
    token_file: PathBuf,
    /// What was in the file.
    token: Mutex<Option<MetadataValue<Ascii>>>,
    runtime: Arc<Shutdown>,
}

impl fmt::Debug for RemotePeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl RemotePeer {
    fn open(place: &PeerPlace, runtime: Arc<Shutdown>) -> Result<RemotePeer, PeerError> {
        let PeerPlace { authority, ca, token_file } = place.clone();
        let address = format!("https://{authority}");
        let settings = |reason: String| PeerError::Settings { authority: authority.clone(), reason };
        let tls = match ca {
            Some(path) => {
                let pem = read(&authority, &path, PEM_BYTES_MAX)?;
                if !pem.contains("-----BEGIN CERTIFICATE-----") {
                    let reason = "there is no certificate in PEM in it".to_owned();
                    return Err(PeerError::Malformed { authority, path, reason });
                }
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        let endpoint = Endpoint::from_shared(address.clone()).map_err(|error| settings(error.to_string()))?;
        let endpoint = endpoint.tls_config(tls.timeout(CONNECT)).map_err(|error| settings(cause(&error)))?;
        let endpoint = endpoint.connect_timeout(CONNECT).tcp_nodelay(true);
        let endpoint = endpoint.http2_keep_alive_interval(KEEPALIVE.0).keep_alive_timeout(KEEPALIVE.1);
        let channel = {
            let _entered = runtime.runtime().enter();
            endpoint.connect_lazy()
        };
        let peer = RemotePeer { authority, address, channel, token_file, token: Mutex::default(), runtime };
        // What is wrong with it is told at once.
        peer.token().map_err(|reason| PeerError::Malformed {
            authority: peer.authority.clone(),
            path: peer.token_file.clone(),
            reason,
        })?;
        Ok(peer)
    }

    /// What a session of that host is now, or that it was this snapshot; it stays there from then on, for as long as the answer says. Errors: whatever kept it from being
    /// opened.
    pub fn open_session(&self, session: &str, snapshot: Option<SnapshotId>) -> Result<OpenReply, Failure> {
        let snapshot = snapshot.map(|id| id.to_string()).unwrap_or_default();
        let request = self.request(OpenRequest { session: session.to_owned(), snapshot })?;
        let mut client = PeerClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let opened = self.runtime.runtime().block_on(async { timeout(OPEN, client.open(request)).await });
        match opened {
            Ok(opened) => Ok(opened.map_err(|status| self.failure(&status))?.into_inner()),
            Err(_) => Err(self.silent(OPEN)),
        }
    }

    /// With the token. Error: `Refused`, if there is none.
    fn request<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        let token = self.token().map_err(|reason| Failure::Refused {
            object: self.address.clone(),
            reason: format!("{}: {reason}", self.token_file.display()),
        })?;
        request.metadata_mut().insert("authorization", token);
        Ok(request)
    }

    /// Error: what is wrong with the file, without any of it.
    fn token(&self) -> Result<MetadataValue<Ascii>, String> {
        let mut known = self.token.lock();
        if let Some(token) = &*known {
            return Ok(token.clone());
        }
        let text = read_text(&self.token_file, TOKEN_FILE_BYTES_MAX).map_err(|error| error.to_string())?;
        // Whatever is no token could be some other secret, and goes nowhere.
        token::inspect(&text).map_err(|error| error.to_string())?;
        let mut token = MetadataValue::try_from(format!("Bearer {}", text.trim()))
            .map_err(|_| token::TokenError::Malformed.to_string())?;
        token.set_sensitive(true);
        *known = Some(token.clone());
        Ok(token)
    }

    fn failure(&self, status: &Status) -> Failure {
        let object = self.address.clone();
        let reason = match status.source() {
            Some(source) => format!("{}: {}", status.message(), cause(source)),
            None => status.message().to_owned(),
        };
        let reason = short(&reason);
        match status.code() {
            Code::NotFound => Failure::NotFound(format!("such session at {object}: {reason}")),
            Code::Unauthenticated | Code::PermissionDenied => {
                // Somebody may have put a new one there.
                *self.token.lock() = None;
                Failure::Refused {
                    object,
                    reason: format!("{reason} (the token is in {})", self.token_file.display()),
                }
            }
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => {
                Failure::Unreachable { object, reason }
            }
            Code::Ok
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Failure::Failed { object, reason },
        }
    }

    fn silent(&self, patience: Duration) -> Failure {
        let reason = format!("no answer within {} s", patience.as_secs_f32());
        Failure::Unreachable { object: self.address.clone(), reason }
    }
}

impl Peer for RemotePeer {
    fn address(&self) -> &str {
        &self.address
    }

    fn read(
        &self,
        wanted: &[Name],
        following_max: usize,
        patience: Patience,
        take: &mut Take<'_>,
    ) -> Result<(), Failure> {
        assert!(wanted.len() <= READ_MAX && following_max <= FOLLOWING_MAX, "who asks knows the bounds");
        let objects = wanted.iter().map(|name| object_name(*name)).collect();
        let request = self.request(ReadRequest { objects, following_max: following_max as u32 })?;
        let mut client = PeerClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let runtime = self.runtime.runtime();
        let mut waiting = Waiting { patience, waited: Duration::ZERO };
        let late = |patience| self.silent(patience);
        let answer = waiting.wait(runtime, client.read(request)).map_err(late)?;
        let mut stream = answer.map_err(|status| self.failure(&status))?.into_inner();
        while let Some(reply) =
            waiting.wait(runtime, stream.message()).map_err(late)?.map_err(|status| self.failure(&status))?
        {
            let malformed =
                |reason: &str| Failure::Failed { object: self.address.clone(), reason: reason.to_owned() };
            take(part(reply).map_err(malformed)?)?;
        }
        Ok(())
    }
}

/// How long somebody waits, and has waited.
struct Waiting {
    patience: Patience,
    waited: Duration,
}

impl Waiting {
    /// Error: how long was too long.
    fn wait<T>(&mut self, runtime: &Runtime, what: impl Future<Output = T>) -> Result<T, Duration> {
        let Patience { quiet, whole } = self.patience;
        let left = whole.saturating_sub(self.waited);
        let begun = now();
        let came = runtime.block_on(async { timeout(quiet.min(left), what).await });
        self.waited += now().duration_since(begun);
        came.map_err(|_| if left <= quiet { whole } else { quiet })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a host is waited for: it decides nothing that is kept"
)]
fn now() -> Instant {
    Instant::now()
}

/// A message of an answer. Error: what is wrong with it. A door for the fuzz targets.
#[doc(hidden)]
pub fn part(reply: ReadReply) -> Result<Part, &'static str> {
    match reply.part.ok_or("an empty part of an answer")? {
        read_reply::Part::Object(ObjectPart { nth, absent: true, .. }) => {
            Ok(Part::Absent { nth: nth as usize })
        }
        read_reply::Part::Object(ObjectPart { nth, len, bytes, .. }) => {
            Ok(Part::Bytes { nth: nth as usize, len, bytes })
        }
        read_reply::Part::Following(following) => {
            Ok(Part::Following(following.objects.iter().map(named).collect::<Result<_, _>>()?))
        }
    }
}

fn named(object: &FollowingObject) -> Result<Named, &'static str> {
    let name = object.name.as_ref().and_then(parse_name).ok_or("the name of an object is none")?;
    Ok(Named { name, len: object.len })
}

/// What an object is called, if that is a name.
pub fn parse_name(name: &ObjectName) -> Option<Name> {
    let kind = ObjectKind::from_number(u8::try_from(name.kind).ok()?)?;
    Some((kind, Digest(name.digest.as_slice().try_into().ok()?)))
}

/// The same as a message.
pub fn object_name((kind, digest): Name) -> ObjectName {
    ObjectName { kind: kind as u32, digest: digest.0.to_vec() }
}

fn read(authority: &Authority, path: &Path, bytes_max: u64) -> Result<String, PeerError> {
    let unreadable =
        |source| PeerError::Unreadable { authority: authority.clone(), path: path.to_owned(), source };
    read_text(path, bytes_max).map_err(unreadable)
}

fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    if fs::metadata(path)?.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large to be that"));
    }
    fs::read_to_string(path)
}

/// What is at the bottom of an error.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// In a line that fits into one, without what a terminal would take for more than text.
fn short(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(printable).take(REASON_CHARS_MAX).collect()
}
