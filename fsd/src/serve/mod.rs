//! The gRPC interface: translates requests for the engine, the store and the mounts, and their answers back.
//!
//! One file a noun. Everything below `grpc` is synchronous and runs on threads that may block; tokio is known to `grpc`,
//! `stream` and `server` alone. What the interface promises is written in the .proto files.

mod access;
mod bounds;
mod certificate;
mod connections;
mod convert;
mod diff;
mod discard;
mod doctor;
mod elsewhere;
mod expiry;
mod findings;
mod fork;
mod gate;
mod grpc;
mod heads;
mod health;
mod issued;
mod mounts;
mod notes;
mod peer;
mod profile;
mod progress;
mod remote;
mod request;
mod rights;
mod server;
mod sessions;
mod socket;
mod status;
mod store;
mod stream;
mod tls;
mod tokens;
mod trees;
mod upkeep;
mod visits;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;

pub use access::Access;
use certificate::Certificate;
pub use findings::findings;
pub use server::Server;
pub use socket::{SocketError, listen};
pub use tls::{ListenError, TlsListener};

use crate::{
    fleet::{Fleet, visits::Visits},
    fuse::Mounts,
    session::Engine,
};

/// What a request is answered with.
type Answer<T> = Result<T, tonic::Status>;

/// The service that answers every request; clones share it.
#[derive(Clone, Debug)]
pub struct Service(Arc<dyn Shared>);

/// A host that threads may share. Each method of gRPC has the compiler prove that of a service, and behind a trait it does without going
/// through all that an engine is made of: half a minute, whenever this crate is compiled.
trait Shared: std::fmt::Debug + Send + Sync {
    fn host(&self) -> &Host;
}

impl Shared for Host {
    fn host(&self) -> &Host {
        self
    }
}

/// What the answers come from, as one caller may have it: everything but `access` is shared by all.
#[derive(Clone, Debug)]
struct Host {
    /// Who asks. Nobody does at first.
    access: Access,
    engine: Arc<Engine>,
    mounts: Arc<Mounts>,
    /// Other hosts, if there is a store that they share.
    fleet: Option<Arc<Fleet>>,
    /// Sessions of peers.
    visits: Option<Arc<Visits>>,
    state_dir: PathBuf,
    started_us: u64,
    /// Held while a session is mounted, and while one is found to have no mount and discarded: before every other lock.
    mounting: Arc<Mutex<()>>,
    tokens: Arc<issued::Tokens>,
    /// What is shown on the network, if there is a port.
    certificate: Arc<OnceLock<Arc<Certificate>>>,
    bounds: bounds::Bounds,
}

impl Service {
    /// A service over the engine on `state_dir`.
    pub fn new(
        engine: Arc<Engine>,
        mounts: Arc<Mounts>,
        fleet: Option<Arc<Fleet>>,
        state_dir: PathBuf,
    ) -> Service {
        let started_us = engine.clock().monotonic_us();
        let tokens = Arc::new(issued::Tokens::new(Arc::clone(engine.disk())));
        let (mounting, bounds) = (Arc::default(), bounds::Bounds::default());
        let access = Access::stranger();
        Service(Arc::new(Host {
            access,
            engine,
            mounts,
            fleet,
            visits: None,
            state_dir,
            started_us,
            mounting,
            tokens,
            certificate: Arc::default(),
            bounds,
        }))
    }

    /// The same, which opens sessions of peers as well.
    pub fn with_visits(self, visits: Arc<Visits>) -> Service {
        Service(Arc::new(Host { visits: Some(visits), ..self.host().clone() }))
    }

    fn host(&self) -> &Host {
        self.0.host()
    }
}

impl Host {
    /// Runs `work` and says how many microseconds it took.
    fn timed<T>(&self, work: impl FnOnce() -> Answer<T>) -> Answer<(T, u64)> {
        let start_us = self.engine.clock().monotonic_us();
        let done = work()?;
        Ok((done, self.elapsed_us(start_us)))
    }

    /// Seconds since 1970.
    fn now_secs(&self) -> u64 {
        self.engine.clock().now().secs.try_into().unwrap_or(0)
    }

    fn elapsed_us(&self, start_us: u64) -> u64 {
        self.engine.clock().monotonic_us().saturating_sub(start_us)
    }
}
