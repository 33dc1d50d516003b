//! The daemon's life: takes its state, opens what is in it, serves until it is told to stop, and leaves nothing mounted.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use cas::{
    Store,
    disk::Disk,
    remote::{Remote, lease::Naming, name::RemoteName},
    sys::SysDisk,
};

use crate::{
    config::{Config, HeadsPlace, StartMount},
    fleet::{
        Fleet, ObjectRemote, OpenError,
        heads::{HeadStore, HostId, LocalHeads, Nonce, ObjectHeads, PostgresHeads},
        peers::{PeerError, Peers},
        visits::Visits,
    },
    fuse::{MountError, MountOptions, Mounts, Readers},
    host::{SystemClock, SystemEntropy, boot, raise_open_files},
    serve::{ListenError, Server, Service, SocketError, TlsListener, listen},
    session::{self, Engine, Entropy, Limits, Overdue, Parts},
    state_dir::{StateDir, StateError},
};

const TICK: Duration = Duration::from_secs(1);

/// Why the daemon does not start. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The state cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] cas::Error),
    /// The remote store cannot be used.
    #[error("--remote: {0}")]
    Remote(#[from] OpenError),
    /// Another host cannot be asked.
    #[error("--peer: {0}")]
    Peer(#[from] PeerError),
    /// Heads cannot be kept there.
    #[error("--heads: {0}")]
    Heads(String),
    /// The engine does not open.
    #[error(transparent)]
    Engine(#[from] session::Error),
    /// The socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The port of the network cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A session that was to be mounted is not there.
    #[error("--mount {wanted}: {source}")]
    NoSession {
        /// As it was given.
        wanted: String,
        /// Why not.
        #[source]
        source: session::Error,
    },
    /// A mount at the start failed.
    #[error("--mount {session}: {source}")]
    Mount {
        /// As it was given.
        session: String,
        /// Why.
        #[source]
        source: MountError,
    },
    /// The kernel does not say which run of the machine this is.
    #[error("/proc/sys/kernel/random/boot_id: {0}; mount /proc")]
    Boot(#[source] io::Error),
    /// The system has no threads or timers for the server.
    #[error("cannot serve: {0}")]
    Serve(#[source] io::Error),
}

impl DaemonError {
    /// 1 if another daemon is in the way, 2 if something is broken.
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::State(StateError::InUse { .. }) | DaemonError::Socket(SocketError::Answered(_)) => 1,
            DaemonError::State(_)
            | DaemonError::Store(_)
            | DaemonError::Remote(_)
            | DaemonError::Peer(_)
            | DaemonError::Heads(_)
            | DaemonError::Engine(_)
            | DaemonError::Socket(_)
            | DaemonError::Listen(_)
            | DaemonError::NoSession { .. }
            | DaemonError::Mount { .. }
            | DaemonError::Boot(_)
            | DaemonError::Serve(_) => 2,
        }
    }
}

/// How often other hosts are told what is needed of them: more than once in what they wait for (`session::STAYS_FIRST`).
const RENEW: Duration = Duration::from_secs(60 * 60);

/// How long the end waits for the cache to be on disk: what is not is fetched again.
const GOODBYE: Duration = Duration::from_secs(3);

/// Serves until a signal says stop.
pub fn run(config: &Config) -> Result<(), DaemonError> {
    crate::sys_heap::keep_small();
    if let Err(error) = raise_open_files() {
        tracing::warn!(%error, "cannot raise the number of open files");
    }
    let state = StateDir::open(&config.state)?;
    // Before all that takes long: what is wrong with it is told at once.
    let port = config.listen.as_ref().map(TlsListener::open).transpose()?;
    let peers = Peers::open(&config.peers)?;
    let (engine, remote) = open_engine(&state, config, &peers)?;
    let fleet = match remote {
        Some(remote) => {
            let nonce = engine.entropy().remote_name().0;
            let heads = open_heads(&config.heads, remote, nonce, state.path())?;
            Some(Arc::new(Fleet::open(Arc::clone(&engine), heads, config.patience)?))
        }
        None => {
            Fleet::close_those_of_others(&engine)?;
            None
        }
    };
    // Gone from where it was (an update): no matter, the kernel still knows it.
    let readers = config.read_ahead.then(|| Readers::new("/proc/self/exe".into()));
    let readers = readers.transpose().map_err(DaemonError::Serve)?;
    let mounts = Mounts::new(state.path(), config.transport, readers);
    for dir in mounts.clean_up() {
        tracing::info!(dir = %dir.display(), "unmounted what a dead daemon had left");
    }
    let listener = listen(&config.socket)?;
    let has_peers = !peers.is_empty();
    let visits = Arc::new(Visits::open(Arc::clone(&engine), peers)?);
    let service =
        Service::new(Arc::clone(&engine), Arc::clone(&mounts), fleet.clone(), state.path().to_owned());
    let service = service.with_visits(Arc::clone(&visits));
    if let Some(port) = &port {
        let address = port.address().map_err(DaemonError::Serve)?;
        tracing::info!(%address, "listening with TLS");
    }
    let mut server = Server::start(listener, port, service.clone()).map_err(DaemonError::Serve)?;
    let ticker = Ticker::of_engine(&engine).map_err(DaemonError::Serve)?;
    if let Some(fleet) = &fleet {
        travel(fleet, config.publish_every).map_err(DaemonError::Serve)?;
    }
    if has_peers {
        repeat("peers", RENEW, &visits, Visits::renew).map_err(DaemonError::Serve)?;
    }

    let mounted = config.mounts.iter().try_for_each(|wanted| mount(&engine, &mounts, wanted));
    // What is to be mounted is by now, and stays.
    let mut overdue = Overdue::default();
    let expiry = Ticker::default().with("expire", move || service.discard_expired(&mut overdue));
    let expiry = expiry.map_err(DaemonError::Serve)?;
    if mounted.is_ok() {
        tracing::info!(
            state = %state.path().display(),
            socket = %config.socket.display(),
            sessions = engine.sessions().len(),
            mounts = mounts.list().len(),
            "ready"
        );
        let signal = server.wait_for_signal();
        tracing::info!(signal, "stopping");
    }
    server.stop();
    // What is unmounted from here on is not so because nobody needs it.
    expiry.stop();
    // Whoever waits for the remote store would hold up all that follows.
    engine.store().end_fetches();
    mounts.unmount_all();
    engine.store().settle_cache(GOODBYE);
    ticker.stop();
    let closed = engine.close();
    if let Err(error) = fs::remove_file(&config.socket) {
        tracing::warn!(%error, socket = %config.socket.display(), "the socket stays");
    }
    mounted?;
    closed?;
    tracing::info!("stopped");
    Ok(())
}

/// Whether this state has ever learnt of a snapshot of a remote store.
fn needs_remote(state: &Path) -> bool {
    let known = fs::read_dir(state.join("store/remote")).into_iter().flatten().flatten();
    known.into_iter().any(|file| file.path().extension().is_some_and(|kind| kind == "manifest"))
}

/// Opens what is in a state that is this process's.
pub(crate) fn open_engine(
    state: &StateDir,
    config: &Config,
    peers: &Peers,
) -> Result<(Arc<Engine>, Option<Arc<ObjectRemote>>), DaemonError> {
    let disk = SysDisk::open(state.path()).map_err(cas::Error::io(state.path()))?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let store = Store::open(Arc::clone(&disk))?;
    let open = |address: &String| ObjectRemote::open(address, std::env::vars_os()).map(Arc::new);
    let shared = config.remote.as_ref().map(open).transpose()?;
    if shared.is_some() || !peers.is_empty() {
        let host = Fleet::host_of(&disk, || HostId(SystemEntropy.remote_name().0))?;
        let naming = Naming { host: RemoteName(host.0), fresh: Box::new(|| SystemEntropy.remote_name()) };
        let remote = shared.clone().map(|remote| remote as Arc<dyn Remote>);
        store.attach_all(remote, peers.for_store(), naming, config.cache_bytes)?;
    }
    if shared.is_none() && needs_remote(state.path()) {
        tracing::warn!(
            "sessions here may stand on what only the remote store has; without --remote that is an error to them"
        );
    }
    if peers.is_empty() && !store.origins().is_empty() {
        tracing::warn!(
            "sessions here may stand on what only a peer has; without --peer that is an error to them"
        );
    }
    let boot = boot().map_err(DaemonError::Boot)?;
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy));
    let (limits, accept_loss) = (Limits::default(), config.accept_loss);
    let engine = Engine::open(Parts { disk, store, clock, entropy, boot, accept_loss, limits })?;
    Ok((Arc::new(engine), shared))
}

fn open_heads(
    place: &HeadsPlace,
    remote: Arc<ObjectRemote>,
    nonce: Nonce,
    state: &Path,
) -> Result<Arc<dyn HeadStore>, DaemonError> {
    Ok(match place {
        HeadsPlace::Remote => Arc::new(ObjectHeads::new(remote, nonce)),
        HeadsPlace::Local => {
            let heads = LocalHeads::open(&state.join("heads.redb"));
            Arc::new(heads.map_err(|error| DaemonError::Heads(error.to_string()))?)
        }
        HeadsPlace::Postgres(address) => Arc::new(PostgresHeads::open(address).map_err(DaemonError::Heads)?),
    })
}

fn mount(engine: &Engine, mounts: &Mounts, wanted: &StartMount) -> Result<(), DaemonError> {
    let StartMount { session, dir } = wanted;
    let unknown = |source| DaemonError::NoSession { wanted: format!("{session}:{}", dir.display()), source };
    let found = engine.session(session).map_err(unknown)?;
    if found.is_closed() {
        return Err(unknown(session::Error::Closed(found.id())));
    }
    let failed = |source| DaemonError::Mount { session: session.clone(), source };
    mounts.mount(&found, dir, MountOptions::default()).map_err(failed)?;
    tracing::info!(session = %found.id(), dir = %dir.display(), "mounted");
    Ok(())
}

/// Has threads do what nobody asks for that needs the network. Nobody waits for them at the end: what they are at is found out at the next start.
fn travel(fleet: &Arc<Fleet>, publish_every: Option<Duration>) -> io::Result<()> {
    // Apart: sending takes as long as it takes, and signs of life wait for nothing.
    repeat("beat", fleet.pause(), fleet, Fleet::beat)?;
    repeat("fleet", fleet.pause(), fleet, Fleet::tick)?;
    repeat("lease", fleet.pause(), fleet, Fleet::renew)?;
    publish_every.map_or(Ok(()), |pause| repeat("publish", pause, fleet, Fleet::publish_all))
}

fn repeat<T: Send + Sync + 'static>(
    name: &str,
    pause: Duration,
    of: &Arc<T>,
    work: fn(&T),
) -> io::Result<()> {
    let of = Arc::downgrade(of);
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        while let Some(of) = of.upgrade() {
            // A bug here is logged by the hook.
            let _ = catch_unwind(AssertUnwindSafe(|| work(&of)));
            drop(of);
            thread::sleep(pause);
        }
    });
    thread.map(drop)
}

/// Threads that do, once a second, what nobody asks for.
#[derive(Default)]
struct Ticker {
    stop: Vec<mpsc::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Ticker {
    /// One syncs, another seals and trims, because a seal may take a while and must not hold up the sync.
    fn of_engine(engine: &Arc<Engine>) -> io::Result<Ticker> {
        let (settled, tidied) = (Arc::clone(engine), Arc::clone(engine));
        Ticker::default().with("settle", move || settled.settle())?.with("tidy", move || tidied.tidy())
    }

    fn with(mut self, name: &str, mut work: impl FnMut() + Send + 'static) -> io::Result<Ticker> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                // A bug here is logged by the hook; without its tick the daemon would lose more than by going on.
                let _ = catch_unwind(AssertUnwindSafe(&mut work));
            }
        })?;
        self.stop.push(stop);
        self.threads.push(thread);
        Ok(self)
    }

    fn stop(self) {
        drop(self.stop);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a background thread had panicked");
            }
        }
    }
}
