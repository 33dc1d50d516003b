//! A daemon of a few fixed answers, on a socket in a directory of its own. Says what it was asked.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::v1::aether_server::{Aether, AetherServer};
use proto::v1::*;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Response, Status};

pub(crate) const SESSION: &str = "ses_0123456789abcdef";
pub(crate) const FORK: &str = "ses_fedcba9876543210";
pub(crate) const SNAPSHOT: &str = "snp_0123456789abcdefghjkmnpqrstvwxyz0123456789abcdefghjk";

pub(crate) const TOKEN_ID: &str = "tok_0123456789abcdef";
pub(crate) const SECRET: &str = "a-token-as-the-daemon-gives-it";

type Stream<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;
type Reply<T> = Result<Response<T>, Status>;

/// The requests that arrived, as `Debug` prints them.
type Asked = Arc<Mutex<Vec<String>>>;

pub(crate) struct Fake {
    asked: Asked,
}

/// The server and the directory it lives in.
pub(crate) struct Daemon {
    dir: tempfile::TempDir,
    asked: Asked,
    runtime: tokio::runtime::Runtime,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let asked = Asked::default();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener =
            runtime.block_on(async { UnixListener::bind(dir.path().join("aetherfsd.sock")).unwrap() });
        let service = AetherServer::new(Fake { asked: asked.clone() });
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Daemon { dir, asked, runtime }
    }

    /// The same answers once more, for whom `check` lets through.
    pub(crate) fn service<I: Interceptor>(&self, check: I) -> InterceptedService<AetherServer<Fake>, I> {
        AetherServer::with_interceptor(Fake { asked: self.asked.clone() }, check)
    }

    /// Does something beside, until the daemon ends.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) {
        self.runtime.spawn(work);
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("aetherfsd.sock")
    }

    /// Dies in the middle of whatever it does.
    pub(crate) fn stop(self) {
        self.runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// The last request.
    pub(crate) fn asked(&self) -> String {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// Runs `aetherctl` against this server, in its directory.
    pub(crate) fn ctl(&self, args: &[&str]) -> Output {
        ctl(self.dir()).env("AETHERFS_SOCKET", self.socket()).args(args).output().unwrap()
    }

    /// Runs a command that has to succeed and gives its stdout.
    #[track_caller]
    pub(crate) fn says(&self, args: &[&str]) -> String {
        let out = self.ctl(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Runs a command with --json and gives the document.
    #[track_caller]
    pub(crate) fn document(&self, args: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend(args);
        serde_json::from_str(&self.says(&all)).unwrap()
    }
}

/// `aetherctl` with nothing from the environment that would lead it to a daemon.
pub(crate) fn ctl(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aetherctl"));
    command.current_dir(dir).stdin(Stdio::null());
    for name in ["STATE", "SOCKET", "SERVER", "CA", "TOKEN", "TOKEN_FILE"] {
        command.env_remove(format!("AETHERFS_{name}"));
    }
    command
}

fn stream<T>(items: Vec<T>) -> Reply<Stream<T>> {
    Ok(Response::new(tokio_stream::iter(items.into_iter().map(Ok).collect::<Vec<_>>())))
}

fn known(id: &str) -> Result<(), Status> {
    if id == "work" || id == SESSION || id == SNAPSHOT {
        return Ok(());
    }
    Err(Status::not_found(format!("no session or snapshot is called {id}")))
}

fn session(id: &str) -> SessionInfo {
    SessionInfo {
        id: id.to_string(),
        name: "work".to_string(),
        base: SNAPSHOT.to_string(),
        created_ns: 1_500_000_000,
        mounts: vec![MountInfo {
            dir: b"/mnt/w\xff".to_vec(),
            read_only: true,
            allow_other: false,
            acl: false,
            no_xattrs: false,
            io: FileIo::Cached.into(),
            transport: Transport::DevFuse.into(),
            transport_note: String::new(),
        }],
        changed_inodes: 3,
        changed_bytes: 4096,
        ..SessionInfo::default()
    }
}

/// With everything attached that can be.
fn noted(id: &str) -> SessionInfo {
    let label = |key: &str, value: &str| Label { key: key.to_string(), value: value.to_string() };
    SessionInfo {
        labels: vec![label("job", "1"), label("team/a", "gr\u{fc}n")],
        expires_ns: 86_400_000_000_000,
        expires_in_s: 3700,
        ..session(id)
    }
}

fn snapshot() -> SnapshotInfo {
    let names = vec!["base".to_string()];
    SnapshotInfo { id: SNAPSHOT.to_string(), names, created_ns: 0, files: 2, bytes: 2048 }
}

fn token_info() -> TokenInfo {
    TokenInfo {
        id: TOKEN_ID.to_string(),
        rights: vec![TokenRight::Read.into(), TokenRight::Fork.into()],
        created_ns: 0,
        expires_ns: 86_400_000_000_000,
        ..TokenInfo::default()
    }
}

fn side(mode: u32, content: &str) -> Option<DiffSide> {
    let content = content.as_bytes().to_vec();
    let size = content.len() as u64;
    Some(DiffSide { kind: FileKind::Regular.into(), mode, size, content: Some(content), omitted: 0 })
}

fn difference(kind: DiffKind, path: &[u8], old: Option<DiffSide>, new: Option<DiffSide>) -> DiffEntry {
    let path = path.to_vec();
    DiffEntry { kind: kind.into(), path, old_path: Vec::new(), old, new, same_content: false }
}

impl Fake {
    fn note<T: std::fmt::Debug>(&self, request: Request<T>) -> T {
        let request = request.into_inner();
        self.asked.lock().unwrap().push(format!("{request:?}"));
        request
    }
}

#[tonic::async_trait]
impl Aether for Fake {
    type ImportStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<ImportEvent, Status>> + Send>>;
    type ListStream = Stream<ListItem>;
    type ListRemoteStream = Stream<RemoteSession>;
    type SealStream = Stream<SealEvent>;
    type DiffStream = Stream<DiffEntry>;
    type PublishStream = Stream<PublishEvent>;
    type HandoffStream = Stream<PublishEvent>;
    type FetchStream = Stream<FetchEvent>;
    type ProfileStream = Stream<ProfileEvent>;
    type ListDirStream = Stream<DirEntry>;
    type ReadFileStream = Stream<ReadFileFrame>;
    type GcStream = Stream<GcEvent>;
    type GcRemoteStream = Stream<GcRemoteEvent>;
    type GcWhyStream = Stream<GcWhyLine>;
    type FsckStream = Stream<FsckEvent>;

    /// One called `endless` lasts until the caller goes.
    async fn import(&self, request: Request<ImportRequest>) -> Reply<Self::ImportStream> {
        let request = self.note(request);
        if request.name == "endless" {
            return Ok(Response::new(Box::pin(tokio_stream::pending())));
        }
        let done =
            ImportDone { snapshot: SNAPSHOT.to_string(), files: 2, elapsed_us: 7, ..ImportDone::default() };
        let progress =
            ImportProgress { phase: ImportPhase::Loading.into(), bytes_total: 9, ..Default::default() };
        let events = [import_event::Event::Progress(progress), import_event::Event::Done(done)];
        let events = events.map(|event| Ok(ImportEvent { event: Some(event) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    async fn create(&self, request: Request<CreateRequest>) -> Reply<CreateReply> {
        self.note(request);
        Ok(Response::new(CreateReply { session: Some(session(SESSION)), elapsed_us: 42 }))
    }

    async fn fork(&self, request: Request<ForkRequest>) -> Reply<ForkReply> {
        let request = self.note(request);
        known(&request.session)?;
        Ok(Response::new(ForkReply { sessions: vec![session(FORK); request.count as usize], elapsed_us: 43 }))
    }

    async fn mount(&self, request: Request<MountRequest>) -> Reply<MountReply> {
        let request = self.note(request);
        known(&request.session)?;
        let mount = MountInfo { dir: request.dir, read_only: request.read_only, ..MountInfo::default() };
        Ok(Response::new(MountReply { session: SESSION.to_string(), mount: Some(mount) }))
    }

    async fn unmount(&self, request: Request<UnmountRequest>) -> Reply<UnmountReply> {
        self.note(request);
        Ok(Response::new(UnmountReply { session: SESSION.to_string(), dirs: vec![b"/mnt/w".to_vec()] }))
    }

    async fn advance(&self, request: Request<AdvanceRequest>) -> Reply<AdvanceReply> {
        self.note(request);
        let (session, published) = (SESSION.to_string(), SNAPSHOT.to_string());
        Ok(Response::new(AdvanceReply { session, published, advanced: true }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Reply<Self::ListStream> {
        let filters = self.note(request).labels;
        let items = match filters.first().map(|filter| filter.key.as_str()) {
            None => vec![list_item::Item::Session(session(SESSION)), list_item::Item::Snapshot(snapshot())],
            Some("job") => {
                vec![list_item::Item::Session(noted(SESSION)), list_item::Item::Session(session(FORK))]
            }
            Some(_) => Vec::new(),
        };
        stream(items.into_iter().map(|item| ListItem { item: Some(item) }).collect())
    }

    async fn list_remote(&self, request: Request<ListRemoteRequest>) -> Reply<Self::ListRemoteStream> {
        self.note(request);
        let travel = |holder: &str| {
            let (published, holder) = (SNAPSHOT.to_string(), holder.to_string());
            Some(Travel { published, holder, seq: 7, epoch: 3, ..Travel::default() })
        };
        let one = |state: remote_session::State, id: &str, holder: &str| RemoteSession {
            session: Some(SessionInfo { mounts: Vec::new(), travel: travel(holder), ..session(id) }),
            state: state.into(),
            holder_seen_ns: if holder.is_empty() { 0 } else { 2_000_000_000 },
            damage: String::new(),
        };
        let id = FORK.to_string();
        let damaged = RemoteSession {
            session: Some(SessionInfo { id, ..SessionInfo::default() }),
            damage: "the head is damaged".to_string(),
            ..RemoteSession::default()
        };
        stream(vec![
            one(remote_session::State::Free, SESSION, ""),
            one(remote_session::State::Stale, "ses_1111111111111111", "host_of-somebody"),
            damaged,
        ])
    }

    async fn show(&self, request: Request<ShowRequest>) -> Reply<ShowReply> {
        let request = self.note(request);
        if request.id == "noted" {
            return Ok(Response::new(ShowReply { item: Some(show_reply::Item::Session(noted(SESSION))) }));
        }
        known(&request.id)?;
        Ok(Response::new(ShowReply { item: Some(show_reply::Item::Session(session(SESSION))) }))
    }

    async fn seal(&self, request: Request<SealRequest>) -> Reply<Self::SealStream> {
        let request = self.note(request);
        if request.session == "damaged" {
            return Err(Status::data_loss("chunk abc is missing: aetherctl fsck names what is left"));
        }
        let done = SealDone { snapshot: SNAPSHOT.to_string(), ..SealDone::default() };
        stream(vec![SealEvent { event: Some(seal_event::Event::Done(done)) }])
    }

    async fn publish(&self, request: Request<PublishRequest>) -> Reply<Self::PublishStream> {
        let request = self.note(request);
        if request.id == "alone" {
            return Err(Status::failed_precondition(
                "this host has no remote store; start aetherfsd with --remote",
            ));
        }
        let progress = PublishProgress { files_done: 1, files_total: 2, sent_bytes: 3 };
        let done = PublishDone {
            snapshot: SNAPSHOT.to_string(),
            files: 2,
            sent_packs: 2,
            elapsed_us: 9,
            ..PublishDone::default()
        };
        let events = [publish_event::Event::Progress(progress), publish_event::Event::Done(done)];
        stream(events.map(|event| PublishEvent { event: Some(event) }).to_vec())
    }

    async fn handoff(&self, request: Request<HandoffRequest>) -> Reply<Self::HandoffStream> {
        let request = self.note(request);
        if request.session == "mounted" && !request.force {
            return Err(Status::failed_precondition("it is mounted; unmount it first or use --force"));
        }
        let travel = Travel { published: SNAPSHOT.to_string(), seq: 2, epoch: 1, ..Travel::default() };
        let done =
            PublishDone { snapshot: SNAPSHOT.to_string(), travel: Some(travel), ..PublishDone::default() };
        stream(vec![PublishEvent { event: Some(publish_event::Event::Done(done)) }])
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Reply<Self::FetchStream> {
        let is_uri = request.get_ref().id.starts_with("aether://");
        let request = self.note(request);
        // Of a profile, every file that has a dot in its name is missing.
        let missing = request.profile.iter().filter(|entry| entry.path.contains(&b'.')).count() as u64;
        let snapshot = if is_uri { SNAPSHOT.to_string() } else { String::new() };
        let done = FetchDone { files: 2, chunks_fetched: 3, missing, snapshot, ..FetchDone::default() };
        stream(vec![FetchEvent { event: Some(fetch_event::Event::Done(done)) }])
    }

    async fn profile(&self, request: Request<ProfileRequest>) -> Reply<Self::ProfileStream> {
        let request = self.note(request);
        if request.session != "work" {
            return Err(Status::not_found(format!("no session {}", request.session)));
        }
        let range = |start, end| ByteRange { start, end };
        let entries = vec![
            ProfileEntry::default(),
            ProfileEntry { path: b"src".to_vec(), ranges: vec![] },
            ProfileEntry {
                path: b"src/a b\xff".to_vec(),
                ranges: vec![range(0, 262_144), range(524_288, 0)],
            },
        ];
        let done = ProfileDone { files: 1, dirs: 2, gone: 4, full: true };
        let events =
            [profile_event::Event::Entries(ProfileEntries { entries }), profile_event::Event::Done(done)];
        stream(events.map(|event| ProfileEvent { event: Some(event) }).into())
    }

    async fn pin(&self, request: Request<PinRequest>) -> Reply<PinReply> {
        let request = self.note(request);
        if request.id == "unpublished" {
            return Err(Status::failed_precondition("it was never published; `aetherctl publish` first"));
        }
        known(&request.id)?;
        Ok(Response::new(PinReply { snapshot: SNAPSHOT.to_string() }))
    }

    async fn unpin(&self, request: Request<UnpinRequest>) -> Reply<UnpinReply> {
        let request = self.note(request);
        if request.id == "loose" {
            return Err(Status::failed_precondition("it is not pinned"));
        }
        Ok(Response::new(UnpinReply { snapshot: SNAPSHOT.to_string() }))
    }

    async fn expire(&self, request: Request<ExpireRequest>) -> Reply<ExpireReply> {
        let request = self.note(request);
        known(&request.session)?;
        Ok(Response::new(ExpireReply { session: Some(noted(SESSION)) }))
    }

    async fn label(&self, request: Request<LabelRequest>) -> Reply<LabelReply> {
        let request = self.note(request);
        known(&request.session)?;
        Ok(Response::new(LabelReply { session: Some(noted(SESSION)) }))
    }

    async fn discard(&self, request: Request<DiscardRequest>) -> Reply<DiscardReply> {
        let request = self.note(request);
        let results = request.ids.into_iter().map(|id| match id.as_str() {
            "mounted" => DiscardResult {
                id,
                session: SESSION.to_string(),
                code: Code::FailedPrecondition.into(),
                message: "the session is mounted on /mnt/w: unmount it, or use --force".to_string(),
            },
            _ => DiscardResult { id, session: FORK.to_string(), ..DiscardResult::default() },
        });
        Ok(Response::new(DiscardReply { results: results.collect() }))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Reply<Self::DiffStream> {
        let request = self.note(request);
        known(&request.a)?;
        let mut renamed = difference(DiffKind::Renamed, b"to here", side(0o644, "r\n"), side(0o644, "r\n"));
        renamed.old_path = b"from".to_vec();
        renamed.same_content = true;
        stream(vec![
            difference(DiffKind::Modified, b"changed", side(0o644, "a\nb\n"), side(0o755, "a\nB\n")),
            difference(DiffKind::Deleted, b"gone", side(0o644, "x\n"), None),
            difference(DiffKind::Added, b"new \xff", None, side(0o644, "hello\n")),
            renamed,
        ])
    }

    async fn list_dir(&self, request: Request<ListDirRequest>) -> Reply<Self::ListDirStream> {
        let request = self.note(request);
        known(&request.id)?;
        let file = DirEntry {
            name: b"a file".to_vec(),
            kind: FileKind::Regular.into(),
            mode: 0o640,
            uid: 4_000_000,
            gid: 4_000_001,
            size: 12,
            nlink: 2,
            ..DirEntry::default()
        };
        let link = DirEntry {
            name: "l\u{f6}nk".as_bytes().to_vec(),
            kind: FileKind::Symlink.into(),
            mode: 0o777,
            target: b"a file".to_vec(),
            ..DirEntry::default()
        };
        stream(vec![file, link])
    }

    async fn stat(&self, request: Request<StatRequest>) -> Reply<DirEntry> {
        self.note(request);
        Ok(Response::new(DirEntry::default()))
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Reply<Self::ReadFileStream> {
        let request = self.note(request);
        known(&request.id)?;
        match request.path.as_slice() {
            b"big" => stream(vec![ReadFileFrame { data: vec![b'y'; proto::READ_FRAME_BYTES_MAX] }; 16]),
            b"odd" => stream(vec![
                ReadFileFrame { data: b"\x00\xff".to_vec() },
                ReadFileFrame { data: b"\n".to_vec() },
            ]),
            _ => Err(Status::not_found("there is no such path in ses_0123456789abcdef")),
        }
    }

    async fn gc(&self, request: Request<GcRequest>) -> Reply<Self::GcStream> {
        let request = self.note(request);
        let done =
            GcDone { dry_run: request.dry_run, freed_objects: 5, freed_bytes: 2048, ..GcDone::default() };
        stream(vec![GcEvent { event: Some(gc_event::Event::Done(done)) }])
    }

    /// One that is asked for an odd delay has no remote store.
    async fn gc_remote(&self, request: Request<GcRemoteRequest>) -> Reply<Self::GcRemoteStream> {
        let request = self.note(request);
        if request.delay_ms == Some(1) {
            return Err(Status::failed_precondition(
                "this host has no remote store; start aetherfsd with --remote",
            ));
        }
        let sum = |objects, bytes| Some(RemoteObjects { objects, bytes });
        let done = GcRemoteDone {
            dry_run: request.dry_run,
            needed: sum(40, 4096),
            young: sum(1, 10),
            condemned: sum(2, 20),
            waiting: sum(3, 30),
            removed: sum(4, 2048),
            delay_ms: request.delay_ms.unwrap_or(86_400_000),
            hosts_gone_after_ms: request.hosts_gone_after_ms.unwrap_or(2_592_000_000),
            elapsed_us: 7,
        };
        let progress = GcProgress { phase: "removing".to_string(), objects_done: 1, objects_total: 4 };
        let events = [
            gc_remote_event::Event::Progress(progress),
            gc_remote_event::Event::GoneHost("host_0123456789abcdefghjkmnpqrs".to_string()),
            gc_remote_event::Event::MissingSnapshot(SNAPSHOT.to_string()),
            gc_remote_event::Event::Done(done),
        ];
        stream(events.map(|event| GcRemoteEvent { event: Some(event) }).to_vec())
    }

    async fn gc_why(&self, request: Request<GcWhyRequest>) -> Reply<Self::GcWhyStream> {
        let request = self.note(request);
        known(&request.id)?;
        let lines = ["layers/abc: needed", "  by somebody: pinned"];
        stream(lines.map(|line| GcWhyLine { text: line.to_string() }).to_vec())
    }

    async fn fsck(&self, request: Request<FsckRequest>) -> Reply<Self::FsckStream> {
        let request = self.note(request);
        let finding = FsckFinding {
            kind: FsckKind::Corrupt.into(),
            object: "abc".to_string(),
            file: "packs/1".to_string(),
            offset: 64,
            detail: "the bytes do not match their digest".to_string(),
            repaired: request.repair,
        };
        let done =
            FsckDone { objects: 10, findings: 1, repaired: request.repair.into(), ..FsckDone::default() };
        let events = [fsck_event::Event::Finding(finding), fsck_event::Event::Done(done)];
        stream(events.into_iter().map(|event| FsckEvent { event: Some(event) }).collect())
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Reply<StatsReply> {
        self.note(request);
        let fuse_requests = [("read".to_string(), 9), ("lookup".to_string(), 8)].into();
        Ok(Response::new(StatsReply {
            version: "1".to_string(),
            pid: 77,
            fuse_requests,
            peers: vec![PeerStats {
                address: "https://near:7440".to_string(),
                hits: 5,
                bytes: 4096,
                misses: 1,
                failures: 2,
                down: "no answer".to_string(),
            }],
            ..StatsReply::default()
        }))
    }

    async fn doctor(&self, request: Request<DoctorRequest>) -> Reply<DoctorReply> {
        self.note(request);
        let check = DoctorCheck {
            name: "free space".to_string(),
            status: DoctorStatus::Bad.into(),
            detail: "1 MiB is left".to_string(),
            advice: "make room".to_string(),
        };
        Ok(Response::new(DoctorReply { version: "0.0.9".to_string(), checks: vec![check] }))
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Reply<CreateTokenReply> {
        let request = self.note(request);
        let info = TokenInfo { rights: request.rights, sessions: request.sessions, ..token_info() };
        Ok(Response::new(CreateTokenReply { token: SECRET.to_string(), info: Some(info) }))
    }

    async fn list_tokens(&self, request: Request<ListTokensRequest>) -> Reply<ListTokensReply> {
        self.note(request);
        let limited = TokenInfo { sessions: vec![SESSION.to_string()], revoked: true, ..token_info() };
        Ok(Response::new(ListTokensReply { tokens: vec![token_info(), limited] }))
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Reply<RevokeTokenReply> {
        let request = self.note(request);
        if request.id != TOKEN_ID {
            return Err(Status::not_found("no such token"));
        }
        Ok(Response::new(RevokeTokenReply { token: Some(TokenInfo { revoked: true, ..token_info() }) }))
    }
}
