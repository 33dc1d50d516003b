//! A service in this process, and a client of it that hides the streams.

use std::{future::Future, os::unix::ffi::OsStrExt, path::Path, sync::Arc};

use cas::{
    Store,
    disk::Disk,
    remote::{lease::Naming, sim::SimRemote},
    sys::SysDisk,
};
use fsd::{
    fleet::{Fleet, Patience, heads::ObjectHeads},
    fuse::{Mounts, TransportChoice},
    host::{SystemClock, SystemEntropy, boot},
    serve::{Server, Service, listen},
    session::{Clock, Engine, Entropy, Limits, Parts},
};
use proto::v1::{aether_client::AetherClient, *};
use tokio::runtime::Runtime;
use tonic::{Response, Status, Streaming, transport::Channel};
use tonic_reflection::pb::v1 as reflection;

type Client = AetherClient<Channel>;

/// Of what the remote store has.
const CACHE_BYTES: u64 = 64 << 20;

/// The service, its state, and a connection to it.
pub(crate) struct Daemon {
    dir: tempfile::TempDir,
    engine: Arc<Engine>,
    service: Service,
    fleet: Option<Arc<Fleet>>,
    server: Option<Server>,
    runtime: Runtime,
    channel: Channel,
}

impl Daemon {
    /// Starts on an empty state.
    pub(crate) fn start() -> Daemon {
        Daemon::start_with(Limits::default())
    }

    /// The same with other bounds.
    pub(crate) fn start_with(limits: Limits) -> Daemon {
        Daemon::start_on(limits, None, Arc::new(SystemClock::new()))
    }

    /// A host among others, which share `remote`. No thread of it renews leases or gives signs of life.
    pub(crate) fn start_sharing(remote: &SimRemote) -> Daemon {
        Daemon::start_on(Limits::default(), Some(remote), Arc::new(SystemClock::new()))
    }

    /// One whose clock is the test's, by itself or among others.
    pub(crate) fn start_at(clock: Arc<dyn Clock>, remote: Option<&SimRemote>) -> Daemon {
        Daemon::start_on(Limits::default(), remote, clock)
    }

    fn start_on(limits: Limits, remote: Option<&SimRemote>, clock: Arc<dyn Clock>) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let disk: Arc<dyn Disk> = Arc::new(SysDisk::open(&state).unwrap());
        let store = Store::open(Arc::clone(&disk)).unwrap();
        if let Some(remote) = remote {
            let fresh = || SystemEntropy.remote_name();
            let host = Naming { host: fresh(), fresh: Box::new(fresh) };
            store.attach(Arc::new(remote.clone()), host, CACHE_BYTES).unwrap();
        }
        let parts = Parts {
            store,
            disk,
            clock,
            entropy: Arc::new(SystemEntropy),
            boot: boot().unwrap(),
            accept_loss: false,
            limits,
        };
        let engine = Arc::new(Engine::open(parts).unwrap());
        let fleet = remote.map(|remote| {
            let heads = ObjectHeads::new(Arc::new(remote.clone()), SystemEntropy.remote_name().0);
            Arc::new(Fleet::open(Arc::clone(&engine), Arc::new(heads), Patience::default()).unwrap())
        });
        let mounts = Mounts::new(&state, TransportChoice::default(), None);
        let socket = dir.path().join("run/aetherfsd.sock");
        let state = state.canonicalize().unwrap();
        let service = Service::new(Arc::clone(&engine), mounts, fleet.clone(), state);
        let server = Server::start(listen(&socket).unwrap(), None, service.clone()).unwrap();
        let runtime = Runtime::new().unwrap();
        let endpoint = tonic::transport::Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Daemon { dir, engine, service, fleet, server: Some(server), runtime, channel }
    }

    /// The engine behind the service.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What its threads call, which it does not have here.
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// Other hosts.
    pub(crate) fn fleet(&self) -> &Fleet {
        self.fleet.as_ref().expect("it was started among others")
    }

    /// The state directory.
    pub(crate) fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state").canonicalize().unwrap()
    }

    /// The socket.
    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("run/aetherfsd.sock")
    }

    /// A client of its own for what no method here does, and the runtime to ask it in.
    pub(crate) fn client(&self) -> (Client, &Runtime) {
        (AetherClient::new(self.channel.clone()), &self.runtime)
    }

    /// One answer.
    pub(crate) fn call<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.runtime.block_on(ask(AetherClient::new(self.channel.clone()))).map(Response::into_inner)
    }

    /// All answers of a stream.
    fn collect<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<Vec<T>, Status>
    where
        F: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        self.runtime.block_on(async {
            let mut stream = ask(AetherClient::new(self.channel.clone())).await?.into_inner();
            let mut all = Vec::new();
            while let Some(one) = stream.message().await? {
                all.push(one);
            }
            Ok(all)
        })
    }

    pub(crate) fn import(&self, path: &Path, name: &str) -> Result<Vec<ImportEvent>, Status> {
        let request = ImportRequest { path: path.as_os_str().as_bytes().to_vec(), name: name.into() };
        self.collect(|mut c| async move { c.import(request).await })
    }

    pub(crate) fn ls(&self, id: &str, path: &[u8]) -> Result<Vec<DirEntry>, Status> {
        let request = ListDirRequest { id: id.into(), path: path.to_vec() };
        self.collect(|mut c| async move { c.list_dir(request).await })
    }

    pub(crate) fn cat(&self, id: &str, path: &[u8], offset: u64, length: u64) -> Result<Vec<u8>, Status> {
        let request = ReadFileRequest { id: id.into(), path: path.to_vec(), offset, length };
        let frames = self.collect(|mut c| async move { c.read_file(request).await })?;
        assert!(frames.iter().all(|f| (1..=proto::READ_FRAME_BYTES_MAX).contains(&f.data.len())));
        Ok(frames.into_iter().flat_map(|frame| frame.data).collect())
    }

    pub(crate) fn list(&self) -> Result<Vec<ListItem>, Status> {
        self.list_with(Vec::new())
    }

    pub(crate) fn list_remote(&self) -> Result<Vec<RemoteSession>, Status> {
        self.collect(|mut c| async move { c.list_remote(ListRemoteRequest {}).await })
    }

    /// What has these labels.
    pub(crate) fn list_with(&self, labels: Vec<LabelFilter>) -> Result<Vec<ListItem>, Status> {
        self.collect(|mut c| async move { c.list(ListRequest { labels }).await })
    }

    /// A session.
    pub(crate) fn show(&self, id: &str) -> Result<SessionInfo, Status> {
        let request = ShowRequest { id: id.into() };
        match self.call(|mut c| async move { c.show(request).await })?.item {
            Some(show_reply::Item::Session(session)) => Ok(session),
            other => panic!("{id} is {other:?}"),
        }
    }

    pub(crate) fn diff(&self, a: &str, b: &str, patch: bool) -> Result<Vec<DiffEntry>, Status> {
        let request = DiffRequest { a: a.into(), b: b.into(), patch, ..Default::default() };
        self.collect(|mut c| async move { c.diff(request).await })
    }

    pub(crate) fn seal(&self, session: &str) -> Result<SealDone, Status> {
        let request = SealRequest { session: session.into() };
        let events = self.collect(|mut c| async move { c.seal(request).await })?;
        match events.into_iter().last().and_then(|event| event.event) {
            Some(seal_event::Event::Done(done)) => Ok(done),
            other => panic!("the last event is {other:?}"),
        }
    }

    pub(crate) fn discard(&self, ids: Vec<String>, force: bool) -> Result<Vec<DiscardResult>, Status> {
        let request = DiscardRequest { ids, force };
        Ok(self.call(|mut c| async move { c.discard(request).await })?.results)
    }

    pub(crate) fn gc(&self, dry_run: bool) -> Result<GcDone, Status> {
        let events = self.collect(|mut c| async move { c.gc(GcRequest { dry_run }).await })?;
        match events.into_iter().last().and_then(|event| event.event) {
            Some(gc_event::Event::Done(done)) => Ok(done),
            other => panic!("the last event is {other:?}"),
        }
    }

    /// Gives a session away.
    pub(crate) fn hand_off(&self, session: &str) -> Result<(), Status> {
        let request = HandoffRequest { session: session.into(), force: false };
        self.collect(|mut c| async move { c.handoff(request).await }).map(drop)
    }

    pub(crate) fn publish(&self, id: &str) -> Result<PublishDone, Status> {
        let request = PublishRequest { id: id.into() };
        let events = self.collect(|mut c| async move { c.publish(request).await })?;
        match events.into_iter().last().and_then(|event| event.event) {
            Some(publish_event::Event::Done(done)) => Ok(done),
            other => panic!("the last event is {other:?}"),
        }
    }

    /// The snapshot that stays.
    pub(crate) fn pin(&self, id: &str) -> Result<String, Status> {
        let request = PinRequest { id: id.into() };
        Ok(self.call(|mut c| async move { c.pin(request).await })?.snapshot)
    }

    /// The snapshot that need not stay.
    pub(crate) fn unpin(&self, id: &str) -> Result<String, Status> {
        let request = UnpinRequest { id: id.into() };
        Ok(self.call(|mut c| async move { c.unpin(request).await })?.snapshot)
    }

    /// What came of it, the hosts that are gone, and the snapshots that are missing.
    pub(crate) fn gc_remote(
        &self,
        request: GcRemoteRequest,
    ) -> Result<(GcRemoteDone, Vec<String>, Vec<String>), Status> {
        let events = self.collect(|mut c| async move { c.gc_remote(request).await })?;
        let (mut gone_hosts, mut missing) = (Vec::new(), Vec::new());
        for event in events {
            match event.event {
                Some(gc_remote_event::Event::Progress(_)) => {}
                Some(gc_remote_event::Event::GoneHost(host)) => gone_hosts.push(host),
                Some(gc_remote_event::Event::MissingSnapshot(snapshot)) => missing.push(snapshot),
                Some(gc_remote_event::Event::Done(done)) => return Ok((done, gone_hosts, missing)),
                None => panic!("an empty event"),
            }
        }
        panic!("a gc without an end")
    }

    pub(crate) fn gc_why(&self, id: &str) -> Result<Vec<String>, Status> {
        let request = GcWhyRequest { id: id.into() };
        let lines = self.collect(|mut c| async move { c.gc_why(request).await })?;
        Ok(lines.into_iter().map(|line| line.text).collect())
    }

    pub(crate) fn fsck(&self) -> Result<FsckDone, Status> {
        let events = self.collect(|mut c| async move { c.fsck(FsckRequest { repair: false }).await })?;
        match events.into_iter().last().and_then(|event| event.event) {
            Some(fsck_event::Event::Done(done)) => Ok(done),
            other => panic!("the last event is {other:?}"),
        }
    }

    /// What the health service says of this one.
    pub(crate) fn health(&self) -> i32 {
        let mut client = tonic_health::pb::health_client::HealthClient::new(self.channel.clone());
        let request = tonic_health::pb::HealthCheckRequest { service: "aether.v1.Aether".into() };
        self.runtime.block_on(async { client.check(request).await.unwrap().into_inner().status })
    }

    /// The services that reflection lists.
    pub(crate) fn reflected(&self) -> Vec<String> {
        use reflection::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let mut client = ServerReflectionClient::new(self.channel.clone());
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        self.runtime.block_on(async {
            let requests = tokio_stream::once(request);
            let mut replies = client.server_reflection_info(requests).await.unwrap().into_inner();
            match replies.message().await.unwrap().unwrap().message_response {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    list.service.into_iter().map(|service| service.name).collect()
                }
                other => panic!("reflection says {other:?}"),
            }
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}
