//! A daemon of one test: started on a state of its own, asked over gRPC, and gone with its mounts when the test ends.

use std::{
    fs::{self, File},
    future::Future,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proto::v1::{
    CreateRequest, DiffKind, DiffRequest, DiscardRequest, FileIo, ForkRequest, GcRequest, HandoffRequest,
    ImportRequest, ListDirRequest, MountRequest, PublishDone, PublishEvent, PublishRequest, ReadFileRequest,
    SealRequest, SessionInfo, ShowRequest, StatsReply, StatsRequest, Transport, UnmountRequest,
    aether_client::AetherClient, import_event, publish_event, seal_event, show_reply, unmount_request,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::{Status, Streaming, transport::Channel};

/// How often, 10 ms apart, somebody is asked for what he hears of from the kernel.
const NOTICE_TRIES: u32 = 1000;
/// How long a test may take: then its daemon is killed, so that whoever waits for it fails instead of waiting on.
const TEST_SECONDS_MAX: u64 = 240;
/// How often, 20 ms apart, a new daemon is asked whether it is there.
const START_TRIES: u32 = 1500;

type Client = AetherClient<Channel>;
pub(crate) type Answer<T> = Result<T, Status>;

/// A daemon and what it works on.
pub(crate) struct Daemon {
    child: Child,
    runtime: Runtime,
    client: Client,
    /// Ends the watch over the current process when it is dropped.
    _watch: mpsc::Sender<()>,
    dir: TempDir,
    how: How,
}

/// How a daemon is started.
#[derive(Clone, Debug)]
struct How {
    umask: &'static str,
    /// Whom it runs as, if not as this process.
    user: Option<u32>,
    /// The address of the store that it shares with others.
    remote: Option<String>,
    /// By itself.
    publishes: bool,
    /// Ahead of scans.
    reads_ahead: bool,
    /// Further arguments.
    args: Vec<String>,
}

impl Default for How {
    fn default() -> How {
        How { umask: "022", user: None, remote: None, publishes: false, reads_ahead: true, args: Vec::new() }
    }
}

impl Daemon {
    /// Starts one, or says that there is no FUSE here.
    pub(crate) fn start() -> Option<Daemon> {
        Daemon::start_for(How::default())
    }

    /// The same with a folder that several share as their remote store.
    pub(crate) fn start_on(remote: &Path) -> Option<Daemon> {
        let remote = Some(format!("file://{}", remote.display()));
        Daemon::start_for(How { remote, ..How::default() })
    }

    /// The same with arguments of its own, and such a folder if there is one.
    pub(crate) fn start_with_args(remote: Option<&Path>, args: Vec<String>) -> Option<Daemon> {
        let remote = remote.map(|remote| format!("file://{}", remote.display()));
        Daemon::start_for(How { remote, args, ..How::default() })
    }

    /// The same, which publishes by itself.
    pub(crate) fn start_publishing_on(remote: &Path) -> Option<Daemon> {
        let remote = Some(format!("file://{}", remote.display()));
        Daemon::start_for(How { remote, publishes: true, ..How::default() })
    }

    /// The same, which reads nothing ahead of scans.
    pub(crate) fn start_without_read_ahead_on(remote: &Path) -> Option<Daemon> {
        let remote = Some(format!("file://{}", remote.display()));
        Daemon::start_for(How { remote, reads_ahead: false, ..How::default() })
    }

    /// The same, from a shell with another umask.
    pub(crate) fn start_with_umask(umask: &'static str) -> Option<Daemon> {
        Daemon::start_for(How { umask, ..How::default() })
    }

    /// Starts one as another user, whom its directory belongs to. Only root can.
    pub(crate) fn start_as(user: u32) -> Option<Daemon> {
        Daemon::start_for(How { user: Some(user), ..How::default() })
    }

    fn start_for(how: How) -> Option<Daemon> {
        if !Path::new("/dev/fuse").exists() {
            eprintln!("no /dev/fuse: nothing is tested here");
            return None;
        }
        // Directly in /tmp: a socket's path has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("aether").tempdir_in("/tmp").expect("a directory in /tmp");
        let runtime = Runtime::new().expect("a runtime");
        if how.user.is_some() {
            chown(dir.path(), how.user, how.user).expect("chown");
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        let (child, client, watch) = spawn(dir.path(), &how, &runtime);
        Some(Daemon { child, runtime, client, _watch: watch, dir, how })
    }

    /// A path of this test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new directory of this test's own.
    pub(crate) fn new_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a new directory");
        chown(&path, self.how.user, self.how.user).expect("chown");
        path
    }

    /// A program in C, compiled: for what safe Rust cannot do.
    pub(crate) fn compiled(&self, name: &str, text: &str) -> PathBuf {
        let (source, program) = (self.path(&format!("{name}.c")), self.path(name));
        fs::write(&source, text).expect("write");
        let compiled = Command::new("cc").arg("-o").arg(&program).arg(&source).status();
        assert!(compiled.expect("a C compiler").success());
        program
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// kill -9, as a crash.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the daemon runs");
        self.child.wait().expect("the daemon is a child");
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("the daemon runs");
        self.child.wait().expect("the daemon is a child")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the daemon runs");
    }

    /// Whether SIGSTOP has reached every thread.
    pub(crate) fn is_stopped(&self) -> bool {
        self.threads().iter().all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
    }

    /// What proc_pid_stat(5) says about each of its threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the daemon runs");
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("stat")).ok()).collect()
    }

    /// Starts again on the same state, after [`Daemon::kill`] or [`Daemon::terminate`].
    pub(crate) fn restart(&mut self) {
        let (child, client, watch) = spawn(self.dir.path(), &self.how, &self.runtime);
        (self.child, self.client, self._watch) = (child, client, watch);
    }

    /// Asks for anything.
    pub(crate) fn ask<T, F: Future<Output = Answer<T>>>(
        &self,
        request: impl FnOnce(Client) -> F,
    ) -> Answer<T> {
        self.runtime.block_on(request(self.client.clone()))
    }

    pub(crate) fn import(&self, tree: &Path) -> Answer<String> {
        let request = ImportRequest { path: bytes(tree), name: String::new() };
        self.ask(async |mut client| {
            let mut events = client.import(request).await?.into_inner();
            loop {
                match events.message().await?.and_then(|event| event.event) {
                    Some(import_event::Event::Done(done)) => return Ok(done.snapshot),
                    Some(_) => {}
                    None => return Err(Status::internal("an import without an end")),
                }
            }
        })
    }

    /// A new session; on an empty root if `from` is empty.
    pub(crate) fn create(&self, from: &str) -> Answer<String> {
        let request = CreateRequest { from: from.into(), ..Default::default() };
        let reply = self.ask(async |mut client| client.create(request).await)?;
        Ok(reply.into_inner().session.expect("a session").id)
    }

    pub(crate) fn fork(&self, session: &str) -> Answer<String> {
        let request = ForkRequest { session: session.into(), count: 1, ..Default::default() };
        let reply = self.ask(async |mut client| client.fork(request).await)?;
        Ok(reply.into_inner().sessions.remove(0).id)
    }

    pub(crate) fn mount(&self, session: &str, dir: &Path) -> Answer<()> {
        self.mount_with(session, dir, MountRequest::default())
    }

    pub(crate) fn mount_by(&self, transport: Transport, session: &str, dir: &Path) -> Answer<()> {
        self.mount_with(session, dir, MountRequest { transport: transport.into(), ..Default::default() })
    }

    pub(crate) fn mount_read_only(&self, session: &str, dir: &Path) -> Answer<()> {
        self.mount_with(session, dir, MountRequest { read_only: true, ..Default::default() })
    }

    pub(crate) fn mount_passthrough(&self, session: &str, dir: &Path) -> Answer<()> {
        let io = FileIo::Passthrough.into();
        self.mount_with(session, dir, MountRequest { read_only: true, io, ..Default::default() })
    }

    /// With the options of `options`.
    pub(crate) fn mount_with(&self, session: &str, dir: &Path, options: MountRequest) -> Answer<()> {
        let request = MountRequest { session: session.into(), dir: bytes(dir), ..options };
        self.ask(async |mut client| client.mount(request).await).map(drop)
    }

    /// A new session, mounted for other users, with access control lists if `acl`, on a directory that they can reach.
    pub(crate) fn mounted_for_all(&self, name: &str, acl: bool) -> (String, PathBuf) {
        let session = self.create("").expect("create");
        let dir = self.new_dir(name);
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let options = MountRequest { allow_other: true, acl, ..Default::default() };
        self.mount_with(&session, &dir, options).expect("mount");
        (session, dir)
    }

    pub(crate) fn unmount(&self, dir: &Path) -> Answer<()> {
        let target = Some(unmount_request::Target::Dir(bytes(dir)));
        self.ask(async |mut client| client.unmount(UnmountRequest { target }).await).map(drop)
    }

    pub(crate) fn unmount_session(&self, session: &str) -> Answer<()> {
        let target = Some(unmount_request::Target::Session(session.into()));
        self.ask(async |mut client| client.unmount(UnmountRequest { target }).await).map(drop)
    }

    /// Unmounts what nobody uses. Tried again while it is busy: a child of another test that is between fork and exec has
    /// copies of all files that this process had open.
    pub(crate) fn unmount_unused(&self, dir: &Path) {
        for _ in 0..100 {
            match self.unmount(dir) {
                Err(status) if status.message().contains("busy") => thread::sleep(Duration::from_millis(20)),
                answer => return answer.expect("unmount"),
            }
        }
        panic!("{} stays busy", dir.display());
    }

    /// Unmounts and mounts again: whatever the kernel remembered is gone.
    pub(crate) fn remount(&self, session: &str, dir: &Path) {
        self.unmount_unused(dir);
        self.mount(session, dir).expect("mount again");
    }

    /// A new session on `from`, mounted on a new directory.
    pub(crate) fn mounted(&self, from: &str, name: &str) -> (String, PathBuf) {
        let session = self.create(from).expect("create");
        let dir = self.new_dir(name);
        self.mount(&session, &dir).expect("mount");
        (session, dir)
    }

    /// A fork, mounted on a new directory.
    pub(crate) fn forked(&self, session: &str, name: &str) -> (String, PathBuf) {
        let fork = self.fork(session).expect("fork");
        let dir = self.new_dir(name);
        self.mount(&fork, &dir).expect("mount");
        (fork, dir)
    }

    /// Checks what is in the session that is mounted on `dir`, there, in a fork, behind a seal and a remount, and in the
    /// snapshot that the seal gave.
    pub(crate) fn check_everywhere(&self, session: &str, dir: &Path, check: impl Fn(&Path)) {
        check(dir);
        check(&self.forked(session, "fork").1);
        let sealed = self.seal(session).expect("seal");
        self.remount(session, dir);
        check(dir);
        check(&self.mounted(&sealed, "sealed").1);
    }

    pub(crate) fn seal(&self, session: &str) -> Answer<String> {
        let request = SealRequest { session: session.into() };
        self.ask(async |mut client| {
            let mut events = client.seal(request).await?.into_inner();
            loop {
                match events.message().await?.and_then(|event| event.event) {
                    Some(seal_event::Event::Done(done)) => return Ok(done.snapshot),
                    Some(_) => {}
                    None => return Err(Status::internal("a seal without an end")),
                }
            }
        })
    }

    /// Brings a snapshot, or a session sealed, to the remote store.
    pub(crate) fn publish(&self, id: &str) -> Answer<PublishDone> {
        let request = PublishRequest { id: id.into() };
        self.ask(async |mut client| published(client.publish(request).await?.into_inner()).await)
    }

    pub(crate) fn handoff(&self, session: &str, force: bool) -> Answer<PublishDone> {
        let request = HandoffRequest { session: session.into(), force };
        self.ask(async |mut client| published(client.handoff(request).await?.into_inner()).await)
    }

    /// Discards one session; the answer is that one's own code and message.
    pub(crate) fn discard(&self, session: &str, force: bool) -> Answer<()> {
        let request = DiscardRequest { ids: vec![session.into()], force };
        let reply = self.ask(async |mut client| client.discard(request).await)?;
        let result = reply.into_inner().results.remove(0);
        if result.code == 0 { Ok(()) } else { Err(Status::new(result.code.into(), result.message)) }
    }

    pub(crate) fn gc(&self) -> Answer<()> {
        self.ask(async |mut client| {
            let mut events = client.gc(GcRequest { dry_run: false }).await?.into_inner();
            while events.message().await?.is_some() {}
            Ok(())
        })
    }

    /// Counters.
    pub(crate) fn stats(&self) -> StatsReply {
        self.ask(async |mut client| client.stats(StatsRequest {}).await).expect("stats").into_inner()
    }

    /// Requests of a kind so far, of all its mounts.
    pub(crate) fn requests(&self, operation: &str) -> u64 {
        self.stats().fuse_requests.get(operation).copied().unwrap_or(0)
    }

    /// A session or a snapshot, if there is one.
    pub(crate) fn show_anything(&self, id: &str) -> Answer<Option<show_reply::Item>> {
        let request = ShowRequest { id: id.into() };
        Ok(self.ask(async |mut client| client.show(request).await)?.into_inner().item)
    }

    pub(crate) fn show(&self, session: &str) -> SessionInfo {
        match self.show_anything(session).expect("show") {
            Some(show_reply::Item::Session(info)) => info,
            other => panic!("not a session: {other:?}"),
        }
    }

    /// The names in a directory, without a mount.
    pub(crate) fn names(&self, id: &str, path: &str) -> Answer<Vec<Vec<u8>>> {
        let request = ListDirRequest { id: id.into(), path: path.into() };
        self.ask(async |mut client| {
            let mut entries = client.list_dir(request).await?.into_inner();
            let mut names = Vec::new();
            while let Some(entry) = entries.message().await? {
                names.push(entry.name);
            }
            Ok(names)
        })
    }

    /// A file's bytes, without a mount.
    pub(crate) fn read(&self, id: &str, path: &str) -> Answer<Vec<u8>> {
        let request = ReadFileRequest { id: id.into(), path: path.into(), ..Default::default() };
        self.ask(async |mut client| {
            let mut frames = client.read_file(request).await?.into_inner();
            let mut content = Vec::new();
            while let Some(frame) = frames.message().await? {
                content.extend_from_slice(&frame.data);
            }
            Ok(content)
        })
    }
    /// What differs, by path.
    pub(crate) fn diff(&self, a: &str, b: &str) -> Answer<Vec<(DiffKind, String)>> {
        let request = DiffRequest { a: a.into(), b: b.into(), ..Default::default() };
        self.ask(async |mut client| {
            let mut entries = client.diff(request).await?.into_inner();
            let mut differences = Vec::new();
            while let Some(entry) = entries.message().await? {
                differences.push((entry.kind(), String::from_utf8_lossy(&entry.path).into_owned()));
            }
            Ok(differences)
        })
    }

    /// The mounts below this test's directory, as the kernel has them.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        mounts_below(self.dir.path())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The directory goes next: nothing may be mounted in it by then.
        for dir in mounts_below(self.dir.path()) {
            detach(&dir);
        }
        if thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the daemon's last lines:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

fn spawn(dir: &Path, how: &How, runtime: &Runtime) -> (Child, Client, mpsc::Sender<()>) {
    let socket = dir.join("s");
    let log = File::options().create(true).append(true).open(dir.join("log")).expect("a log file");
    let mut command = Command::new("sh");
    command.args(["-c", "umask $0 && exec \"$@\"", how.umask]);
    if let Some(remote) = &how.remote {
        command.env("AETHERFS_REMOTE", remote);
    }
    if let Some(user) = how.user {
        // Neither the build nor this process's home need be within that user's reach.
        let copy = dir.join("aetherfsd");
        fs::copy(env!("CARGO_BIN_EXE_aetherfsd"), &copy).expect("a copy of the daemon");
        command.arg(copy).uid(user).gid(user).env("HOME", dir).env_remove("XDG_CONFIG_HOME");
    } else {
        command.arg(env!("CARGO_BIN_EXE_aetherfsd"));
    }
    if how.remote.is_some() {
        // Nobody waits half a minute to see whether another is dead.
        command.args(["--dead-after", "3"]);
    }
    if !how.reads_ahead {
        command.arg("--no-read-ahead");
    }
    if how.publishes {
        command.args(["--publish-every", "1"]);
    }
    command.args(&how.args);
    let child = command
        .arg("--state")
        .arg(dir.join("state"))
        .arg("--socket")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the daemon starts");
    let watch = watch(child.id());
    (child, connect(dir, &socket, runtime), watch)
}

async fn published(mut events: Streaming<PublishEvent>) -> Answer<PublishDone> {
    loop {
        match events.message().await?.and_then(|event| event.event) {
            Some(publish_event::Event::Done(done)) => return Ok(done),
            Some(_) => {}
            None => return Err(Status::internal("a publish without an end")),
        }
    }
}

fn connect(dir: &Path, socket: &Path, runtime: &Runtime) -> Client {
    let address = format!("unix://{}", socket.display());
    for _ in 0..START_TRIES {
        if let Ok(mut client) = runtime.block_on(AetherClient::connect(address.clone()))
            && runtime.block_on(client.stats(StatsRequest {})).is_ok()
        {
            return client;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("the daemon does not answer:\n{}", fs::read_to_string(dir.join("log")).unwrap_or_default());
}

/// Kills the process if the test that it belongs to takes too long.
fn watch(pid: u32) -> mpsc::Sender<()> {
    let (sender, receiver) = mpsc::channel::<()>();
    thread::spawn(move || {
        let waited = receiver.recv_timeout(Duration::from_secs(TEST_SECONDS_MAX));
        if waited == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("the test hangs: killing its daemon, process {pid}");
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    });
    sender
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").expect("the table of mounts");
    let dirs = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    dirs.filter(|mount| mount.starts_with(dir)).collect()
}

fn detach(dir: &Path) {
    if umount2(dir, MntFlags::MNT_DETACH).is_err() {
        let _ = Command::new("fusermount3").arg("-uz").arg(dir).status();
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Waits until it is so.
pub(crate) fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..NOTICE_TRIES {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("still not so: {what}");
}
