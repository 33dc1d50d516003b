//! A daemon that listens on the network, as a process of its own, and clients of it with and without tokens.

use std::{
    fs,
    future::Future,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proto::v1::{aether_client::AetherClient, peer_client::PeerClient, *};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    service::interceptor::InterceptedService,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error},
};

/// A certificate that is its own root, and its key.
#[derive(Clone)]
pub(crate) struct Pem {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Pem {
    pub(crate) fn new() -> Pem {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Pem { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }
}

/// The program, and what it says.
struct Running {
    child: Child,
    address: SocketAddr,
}

/// A daemon and its state.
pub(crate) struct Daemon {
    dir: TempDir,
    pem: Pem,
    args: Vec<String>,
    running: Option<Running>,
    log: Arc<Mutex<String>>,
    pub(crate) runtime: Runtime,
}

impl Daemon {
    /// Starts on an empty state.
    pub(crate) fn start() -> Daemon {
        Daemon::start_with(&[])
    }

    /// The same with further arguments, in which `DIR` is a directory of its own.
    pub(crate) fn start_with(args: &[&str]) -> Daemon {
        let (dir, pem) = (tempfile::tempdir().unwrap(), Pem::new());
        let own = dir.path().display().to_string();
        let args = args.iter().map(|arg| arg.replace("DIR", &own)).collect();
        fs::write(dir.path().join("cert.pem"), &pem.cert).unwrap();
        fs::write(dir.path().join("key.pem"), &pem.key).unwrap();
        let runtime = Runtime::new().unwrap();
        let mut daemon = Daemon { dir, pem, args, running: None, log: Arc::default(), runtime };
        daemon.run();
        daemon
    }

    fn run(&mut self) {
        let mut child = aetherfsd(&self.state())
            .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "trace"])
            .arg("--tls-cert")
            .arg(self.dir.path().join("cert.pem"))
            .arg("--tls-key")
            .arg(self.dir.path().join("key.pem"))
            .args(&self.args)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut address = None;
        for line in lines.by_ref() {
            if line.contains("listening with TLS") {
                let found = line.split(r#""address":""#).nth(1).and_then(|rest| rest.split('"').next());
                address = Some(found.unwrap().parse().unwrap());
            }
            if line.contains(r#""message":"ready""#) {
                break;
            }
        }
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || lines.for_each(|line| log.lock().unwrap().push_str(&(line + "\n"))));
        self.running = Some(Running { child, address: address.expect("it listens") });
    }

    /// Ends it, and starts it again on the same state.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.run();
    }

    fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        kill(Pid::from_raw(running.child.id() as i32), Signal::SIGTERM).unwrap();
        running.child.wait().unwrap();
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// What it had when it started.
    pub(crate) fn pem(&self) -> &Pem {
        &self.pem
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().address
    }

    /// Puts another certificate and key where the daemon's are. Nobody tells it.
    pub(crate) fn put_certificate(&self, cert: &str, key: &str) {
        fs::write(self.dir.path().join("cert.pem"), cert).unwrap();
        fs::write(self.dir.path().join("key.pem"), key).unwrap();
    }

    /// The signal that has it look at its files.
    pub(crate) fn hang_up(&self) {
        let running = self.running.as_ref().unwrap();
        kill(Pid::from_raw(running.child.id() as i32), Signal::SIGHUP).unwrap();
    }

    /// Waits until it has logged this so often.
    pub(crate) fn wait_for(&self, words: &str, times: usize) {
        for _ in 0..3000 {
            if self.log().matches(words).count() >= times {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{words:?} does not come: {}", self.log());
    }

    /// All that it has logged since it was ready.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// A client at the socket.
    pub(crate) fn owner(&self) -> Caller<'_> {
        let socket = format!("unix:{}", self.state().join("aetherfsd.sock").display());
        let channel = self.runtime.block_on(Endpoint::from_shared(socket).unwrap().connect()).unwrap();
        Caller { runtime: &self.runtime, channel, token: None }
    }

    /// A connection over the network, for whoever believes in this certificate.
    pub(crate) fn connect(&self, cert: &str) -> Result<Channel, Error> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert));
        let endpoint = Endpoint::from_shared(format!("https://localhost:{}", self.address().port())).unwrap();
        self.runtime.block_on(endpoint.tls_config(tls)?.connect())
    }

    pub(crate) fn channel(&self) -> Channel {
        self.connect(&self.pem.cert).unwrap()
    }

    /// A client on the network that shows a header, or none.
    pub(crate) fn stranger(&self, header: Option<&str>) -> Caller<'_> {
        let token = header.map(|header| header.parse().unwrap());
        Caller { runtime: &self.runtime, channel: self.channel(), token }
    }

    /// A client on the network with a token.
    pub(crate) fn holder(&self, token: &str) -> Caller<'_> {
        self.stranger(Some(&format!("Bearer {token}")))
    }

    /// A token of the daemon, and its ID.
    pub(crate) fn token(
        &self,
        rights: &[TokenRight],
        sessions: &[&str],
        lifetime_ms: u64,
    ) -> (String, String) {
        let rights = rights.iter().map(|right| (*right).into()).collect();
        let sessions = sessions.iter().map(ToString::to_string).collect();
        let request = CreateTokenRequest { rights, sessions, lifetime_ms };
        let reply = self.owner().call(|mut c| async move { c.create_token(request).await }).unwrap();
        assert!(!format!("{reply:?}").contains(&reply.token), "{reply:?}");
        (reply.token, reply.info.unwrap().id)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The program, told nothing but its state.
pub(crate) fn aetherfsd(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aetherfsd"));
    command.env_clear().args(["--config", "/dev/null", "--state"]).arg(state).stderr(Stdio::piped());
    command
}

/// Shows a header with each call.
#[derive(Clone)]
pub(crate) struct Show(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for Show {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

type Client = AetherClient<InterceptedService<Channel, Show>>;

/// Somebody who calls.
pub(crate) struct Caller<'a> {
    runtime: &'a Runtime,
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Caller<'_> {
    fn client(&self) -> Client {
        AetherClient::with_interceptor(self.channel.clone(), Show(self.token.clone()))
    }

    /// What a session is now, for another host; or what it was at a snapshot.
    pub(crate) fn open(&self, session: &str, snapshot: &str) -> Result<OpenReply, Status> {
        let mut client = PeerClient::with_interceptor(self.channel.clone(), Show(self.token.clone()));
        let request = OpenRequest { session: session.into(), snapshot: snapshot.into() };
        self.runtime.block_on(client.open(request)).map(Response::into_inner)
    }

    /// Objects, for another host.
    pub(crate) fn read(
        &self,
        objects: Vec<ObjectName>,
        following_max: u32,
    ) -> Result<Vec<ReadReply>, Status> {
        let mut client = PeerClient::with_interceptor(self.channel.clone(), Show(self.token.clone()));
        self.runtime.block_on(async {
            let mut stream = client.read(ReadRequest { objects, following_max }).await?.into_inner();
            let mut all = Vec::new();
            while let Some(one) = stream.message().await? {
                all.push(one);
            }
            Ok(all)
        })
    }

    /// One answer.
    pub(crate) fn call<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.runtime.block_on(ask(self.client())).map(Response::into_inner)
    }

    /// All answers.
    pub(crate) fn collect<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<Vec<T>, Status>
    where
        F: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        self.runtime.block_on(async {
            let mut stream = ask(self.client()).await?.into_inner();
            let mut all = Vec::new();
            while let Some(one) = stream.message().await? {
                all.push(one);
            }
            Ok(all)
        })
    }

    pub(crate) fn create(&self, from: &str, name: &str) -> Result<String, Status> {
        let request =
            CreateRequest { from: from.into(), name: name.into(), mount_dir: Vec::new(), notes: None };
        let reply = self.call(|mut c| async move { c.create(request).await })?;
        Ok(reply.session.unwrap().id)
    }

    pub(crate) fn fork(&self, session: &str, mount_dir: &[u8]) -> Result<String, Status> {
        let request = ForkRequest {
            session: session.into(),
            count: 1,
            name: String::new(),
            mount_dir: mount_dir.to_vec(),
            notes: None,
        };
        let reply = self.call(|mut c| async move { c.fork(request).await })?;
        Ok(reply.sessions[0].id.clone())
    }

    pub(crate) fn show(&self, id: &str) -> Result<ShowReply, Status> {
        let request = ShowRequest { id: id.into() };
        self.call(|mut c| async move { c.show(request).await })
    }

    pub(crate) fn ls(&self, id: &str) -> Result<Vec<DirEntry>, Status> {
        let request = ListDirRequest { id: id.into(), path: Vec::new() };
        self.collect(|mut c| async move { c.list_dir(request).await })
    }

    pub(crate) fn diff(&self, a: &str, b: &str) -> Result<Vec<DiffEntry>, Status> {
        let request = DiffRequest { a: a.into(), b: b.into(), ..DiffRequest::default() };
        self.collect(|mut c| async move { c.diff(request).await })
    }

    pub(crate) fn seal(&self, session: &str) -> Result<Vec<SealEvent>, Status> {
        let request = SealRequest { session: session.into() };
        self.collect(|mut c| async move { c.seal(request).await })
    }

    pub(crate) fn gc(&self) -> Result<Vec<GcEvent>, Status> {
        self.collect(|mut c| async move { c.gc(GcRequest { dry_run: true }).await })
    }

    pub(crate) fn discard(&self, id: &str) -> Result<DiscardResult, Status> {
        let request = DiscardRequest { ids: vec![id.into()], force: false };
        let reply = self.call(|mut c| async move { c.discard(request).await })?;
        Ok(reply.results[0].clone())
    }

    /// IDs of all that is listed.
    pub(crate) fn list(&self) -> Result<Vec<String>, Status> {
        let items = self.collect(|mut c| async move { c.list(ListRequest::default()).await })?;
        let id = |item: ListItem| match item.item.unwrap() {
            list_item::Item::Session(session) => session.id,
            list_item::Item::Snapshot(snapshot) => snapshot.id,
        };
        Ok(items.into_iter().map(id).collect())
    }

    pub(crate) fn revoke(&self, id: &str) -> Result<RevokeTokenReply, Status> {
        let request = RevokeTokenRequest { id: id.into() };
        self.call(|mut c| async move { c.revoke_token(request).await })
    }
}
