//! Hosts that share a store, each a daemon with a state of its own: what one publishes the others open, fetching what is touched. The store is
//! a folder here; a pack in it that is a FIFO is a store that does not answer.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::{ffi::OsStrExt, fs::FileExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use fsd::fuse::may_use_io_uring;
use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use proto::v1::{AdvanceRequest, DiffKind, MountRequest, Transport, Travel};
use tonic::{Code, Response, Status};

use crate::{
    daemon::{Daemon, soon},
    listing::{Times, assert_same, listing},
    random::Random,
    sample,
};

/// Two hosts with one store.
pub(crate) struct Hosts {
    pub(crate) here: Daemon,
    pub(crate) there: Daemon,
    pub(crate) store: tempfile::TempDir,
}

impl Hosts {
    pub(crate) fn start() -> Option<Hosts> {
        let store = tempfile::tempdir().expect("a directory");
        let (here, there) = (Daemon::start_on(store.path())?, Daemon::start_on(store.path())?);
        Some(Hosts { here, there, store })
    }

    /// The same, where nothing is read but what somebody reads.
    pub(crate) fn start_without_read_ahead() -> Option<Hosts> {
        let store = tempfile::tempdir().expect("a directory");
        let start = || Daemon::start_without_read_ahead_on(store.path());
        let (here, there) = (start()?, start()?);
        Some(Hosts { here, there, store })
    }

    /// Publishes a tree from here, and mounts a session on it there.
    pub(crate) fn travel(&self, tree: &Path, transport: Transport) -> (String, PathBuf) {
        let snapshot = self.here.import(tree).expect("import");
        self.here.publish(&snapshot).expect("publish");
        let session = self.there.create(&snapshot).expect("create");
        let dir = self.there.new_dir("mnt");
        self.there.mount_by(transport, &session, &dir).expect("mount");
        (session, dir)
    }

    /// The packs of files, the largest first.
    pub(crate) fn packs(&self) -> Vec<PathBuf> {
        let packs = fs::read_dir(self.store.path().join("packs")).expect("packs").flatten();
        let mut packs: Vec<_> = packs.map(|pack| pack.path()).collect();
        packs.sort_by_key(|pack| std::cmp::Reverse(fs::metadata(pack).expect("a pack").len()));
        packs
    }
}

/// Those that there are here.
pub(crate) fn transports() -> Vec<Transport> {
    let rings = may_use_io_uring().is_ok().then_some(Transport::IoUring);
    [Transport::DevFuse].into_iter().chain(rings).collect()
}

/// A pack that does not answer, until this is dropped.
struct Silent {
    pack: PathBuf,
    aside: PathBuf,
}

impl Silent {
    fn make(pack: PathBuf) -> Silent {
        let aside = pack.with_extension("aside");
        fs::rename(&pack, &aside).expect("rename");
        mkfifo(&pack, Mode::S_IRUSR | Mode::S_IWUSR).expect("mkfifo");
        Silent { pack, aside }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let fifo = self.pack.with_extension("fifo");
        fs::rename(&self.pack, &fifo).expect("rename");
        fs::rename(&self.aside, &self.pack).expect("rename");
        // Whoever waits at the other end gets nothing; for a while, because somebody may be on his way there.
        let other_end = OpenOptions::new().read(true).write(true).open(&fifo).expect("the fifo");
        thread::sleep(Duration::from_millis(200));
        drop(other_end);
        fs::remove_file(&fifo).expect("it is there");
    }
}

/// Directories of files that fill several frames, and differ.
pub(crate) fn large_tree(root: &Path) {
    let random = &mut Random::new(3);
    for dir in 0..4 {
        let dir = root.join(format!("dir{dir}"));
        fs::create_dir(&dir).expect("mkdir");
        for file in 0..40 {
            fs::write(dir.join(format!("file{file}")), random.bytes(30_000)).expect("write");
        }
    }
}

fn cat(path: &Path) -> Child {
    Command::new("cat").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("cat")
}

/// Whether it is waiting in the kernel for longer than a fetch from a folder takes.
fn waits(child: &mut Child) -> bool {
    thread::sleep(Duration::from_millis(300));
    child.try_wait().expect("a child").is_none()
}

#[test]
fn a_tree_is_the_same_on_another_host() {
    let Some(Hosts { here, mut there, store }) = Hosts::start() else { return };
    let tree = here.new_dir("tree");
    sample::make(&tree);
    let want = listing(&tree, Times::All);
    let snapshot = here.import(&tree).expect("import");
    let sent = here.publish(&snapshot).expect("publish");
    assert_eq!((sent.snapshot.as_str(), sent.sent_packs), (snapshot.as_str(), 2));
    let again = here.publish(&snapshot).expect("publish");
    assert_eq!((again.new_objects, again.sent_packs), (0, 0), "all of it is there");
    let (session, dir) = there.mounted(&snapshot, "mnt");
    assert_same("the mount", &want, &listing(&dir, Times::All));
    there.remount(&session, &dir);
    assert_same("the mount, again", &want, &listing(&dir, Times::All));
    assert_eq!(there.seal(&session).expect("seal"), snapshot, "an unchanged session is its base");
    there.terminate();
    // What was fetched stays.
    let gone = store.path().with_extension("gone");
    fs::rename(store.path(), &gone).expect("rename");
    there.restart();
    there.mount(&session, &dir).expect("mount");
    assert_same("the mount, without the store", &want, &listing(&dir, Times::All));
    there.unmount_unused(&dir);
    fs::rename(&gone, store.path()).expect("rename");
}

#[test]
fn work_goes_on_where_another_host_left_it() {
    let Some(Hosts { here, there, .. }) = Hosts::start() else { return };
    let tree = here.new_dir("tree");
    large_tree(&tree);
    let base = here.import(&tree).expect("import");
    let (session, dir) = here.mounted(&base, "mnt");
    File::options()
        .write(true)
        .open(dir.join("dir1/file1"))
        .and_then(|file| file.write_all_at(b"here", 100))
        .expect("write");
    fs::rename(dir.join("dir2"), dir.join("moved")).expect("rename");
    fs::remove_file(dir.join("dir3/file3")).expect("remove");
    let want = listing(&dir, Times::All);
    let first = here.publish(&session).expect("publish");
    assert!(first.sent_packs == 4 && first.new_objects > 160, "{first:?}");

    let (other, dir) = there.mounted(&first.snapshot, "mnt");
    assert_same("there", &want, &listing(&dir, Times::All));
    File::options()
        .write(true)
        .open(dir.join("dir1/file1"))
        .and_then(|file| file.write_all_at(b"there", 200))
        .expect("write");
    fs::write(dir.join("moved/new"), "new").expect("write");
    let want = listing(&dir, Times::All);
    let second = there.publish(&other).expect("publish");
    // A file, a new one, two directories, the root, the snapshot.
    assert!(second.new_objects <= 6 && second.sent_bytes < first.sent_bytes / 10, "{second:?}");

    let back = here.create(&second.snapshot).expect("create");
    let dir = here.new_dir("back");
    here.mount(&back, &dir).expect("mount");
    assert_same("here again", &want, &listing(&dir, Times::All));
    let mut bytes = vec![0; 105];
    File::open(dir.join("dir1/file1")).and_then(|file| file.read_exact_at(&mut bytes, 100)).expect("read");
    assert_eq!((&bytes[..4], &bytes[100..]), (&b"here"[..], &b"there"[..]));
    let differences = here.diff(&second.snapshot, &first.snapshot).expect("diff");
    let expected = [(DiffKind::Modified, "dir1/file1".to_owned()), (DiffKind::Added, "moved/new".to_owned())];
    assert_eq!(differences, expected);
}

#[test]
fn changes_to_what_is_not_here_need_no_more_than_they_touch() {
    let Some(hosts) = Hosts::start() else { return };
    let tree = hosts.here.new_dir("tree");
    large_tree(&tree);
    fs::write(tree.join("large"), Random::new(8).bytes(20 << 20)).expect("write");
    let (session, dir) = hosts.travel(&tree, Transport::Unspecified);
    let silent = Silent::make(hosts.packs().remove(0));
    // Nothing of the files' bytes can be had. What needs none of them works.
    fs::write(dir.join("dir0/new"), "new").expect("write");
    fs::remove_file(dir.join("dir0/file0")).expect("remove");
    fs::rename(dir.join("dir1/file0"), dir.join("dir0/file0")).expect("rename");
    File::options().write(true).truncate(true).open(dir.join("dir0/file1")).expect("truncate");
    let large = File::options().read(true).write(true).open(dir.join("large")).expect("open");
    large.write_all_at(b"changed", 10 << 20).expect("write");
    drop(silent);
    let mut bytes = [0; 4096];
    large.read_exact_at(&mut bytes, (10 << 20) - 1000).expect("read");
    let mut want = [0; 4096];
    File::open(tree.join("large"))
        .and_then(|file| file.read_exact_at(&mut want, (10 << 20) - 1000))
        .expect("read");
    want[1000..1007].copy_from_slice(b"changed");
    assert!(bytes == want);
    let sealed = hosts.there.seal(&session).expect("seal");
    let want = listing(&dir, Times::All);
    assert_same("what was sealed", &want, &listing(&hosts.there.mounted(&sealed, "sealed").1, Times::All));
}

#[test]
fn a_store_that_does_not_answer_blocks_who_needs_it_and_nobody_else() {
    for transport in transports() {
        let Some(hosts) = Hosts::start() else { return };
        let tree = hosts.here.new_dir("tree");
        large_tree(&tree);
        let (session, dir) = hosts.travel(&tree, transport);
        let near = dir.join("dir0/file0");
        fs::read(&near).expect("read");
        // So that it is asked for again.
        hosts.there.unmount_unused(&dir);
        hosts.there.mount_by(transport, &session, &dir).expect("mount");
        let names = |path: &str| fs::read_dir(dir.join(path)).expect("a directory").count();
        assert_eq!((0..4).map(|nth| names(&format!("dir{nth}"))).sum::<usize>(), 160);
        let silent = Silent::make(hosts.packs().remove(0));
        // More than the kernel has under way of a mount that nothing may hold up, and a device has threads.
        let mut readers: Vec<_> = (0..24).map(|nth| cat(&dir.join(format!("dir3/file{nth}")))).collect();
        assert!(waits(&mut readers[0]));
        assert_eq!(fs::read(&near).expect("read").len(), 30_000, "what is here is read");
        fs::write(dir.join("new"), "new").expect("write");
        assert_eq!(names("dir3"), 40);
        // A signal ends a reader's wait.
        let reader = &mut readers[7];
        kill(Pid::from_raw(reader.id() as i32), Signal::SIGTERM).expect("it runs");
        assert_eq!(reader.wait().expect("a child").signal(), Some(Signal::SIGTERM as i32));
        assert!(waits(&mut readers[8]));
        drop(silent);
        // Those that waited are told, and who comes then is served.
        for (nth, reader) in readers.iter_mut().enumerate() {
            reader.wait().expect("a child");
            let (there, here) = (dir.join(format!("dir3/file{nth}")), tree.join(format!("dir3/file{nth}")));
            assert!(eventually(&there) == fs::read(here).expect("read"), "{there:?}");
        }
    }
}

#[test]
fn a_signal_that_kills_ends_a_wait_for_a_directory() {
    for transport in transports() {
        let Some(hosts) = Hosts::start() else { return };
        let tree = hosts.here.new_dir("tree");
        // Each more than a frame.
        for dir in 0..4 {
            let dir = tree.join(format!("dir{dir}"));
            fs::create_dir(&dir).expect("mkdir");
            (0..4000).for_each(|nth| drop(File::create(dir.join(format!("{nth:0100}"))).expect("create")));
        }
        let (_, dir) = hosts.travel(&tree, transport);
        let silent = Silent::make(hosts.packs().remove(0));
        // Handles SIGCHLD, and gets one while it waits: that is no reason to give up.
        let script = "trap : CHLD; sleep 0.2 & stat -t dir3 >/dev/null; ls dir3 | wc -l";
        let mut patient = Command::new("bash");
        patient.args(["-c", script]).current_dir(&dir).stdout(Stdio::piped());
        let mut patient = patient.spawn().expect("bash");
        let mut look = Command::new("stat").arg(dir.join(format!("dir3/{:0100}", 7))).spawn().expect("stat");
        assert!(waits(&mut look) && waits(&mut patient));
        kill(Pid::from_raw(look.id() as i32), Signal::SIGTERM).expect("it runs");
        assert_eq!(look.wait().expect("a child").signal(), Some(Signal::SIGTERM as i32));
        assert!(waits(&mut patient));
        drop(silent);
        patient.wait().expect("a child");
        let count = || fs::read_dir(dir.join("dir3")).map_or(0, |entries| entries.flatten().count());
        for _ in 0..100 {
            if count() == 4000 {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(count(), 4000);
    }
}

/// A file's bytes, as soon as somebody has tried again to fetch them.
fn eventually(path: &Path) -> Vec<u8> {
    for _ in 0..100 {
        if let Ok(bytes) = fs::read(path) {
            return bytes;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{} cannot be read", path.display());
}

#[test]
fn a_mount_goes_while_somebody_waits_in_it() {
    for transport in transports() {
        let Some(mut hosts) = Hosts::start() else { return };
        let tree = hosts.here.new_dir("tree");
        large_tree(&tree);
        let (_, dir) = hosts.travel(&tree, transport);
        let silent = Silent::make(hosts.packs().remove(0));
        let mut reader = cat(&dir.join("dir3/file1"));
        assert!(waits(&mut reader));
        hosts.there.terminate();
        assert!(!reader.wait().expect("a child").success());
        assert!(hosts.there.mounts().is_empty());
        drop(silent);
        hosts.there.restart();
    }
}

#[test]
fn what_nobody_published_is_not_found() {
    let Some(hosts) = Hosts::start() else { return };
    let tree = hosts.here.new_dir("tree");
    fs::write(tree.join("file"), "bytes").expect("write");
    let snapshot = hosts.here.import(&tree).expect("import");
    let error = hosts.there.create(&snapshot).expect_err("nobody has published it");
    assert_eq!(error.code(), tonic::Code::NotFound, "{error}");
    hosts.here.publish(&snapshot).expect("publish");
    assert_eq!(hosts.there.read(&snapshot, "file").expect("read"), b"bytes", "without a session, too");
    let alone = Daemon::start().expect("a daemon");
    let tree = alone.new_dir("tree");
    let snapshot = alone.import(&tree).expect("import");
    let error = alone.publish(&snapshot).expect_err("there is no remote store");
    assert!(error.message().contains("--remote"), "{error}");
}

/// The state of a session that both sides know by its ID alone.
fn travel(daemon: &Daemon, session: &str) -> Travel {
    daemon.show(session).travel.expect("it travels")
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, words: &str) {
    let status = answer.expect_err("a refusal");
    assert!(status.code() == code && status.message().contains(words), "{status:?}");
}

#[test]
fn a_session_is_handed_from_host_to_host() {
    let Some(Hosts { here, there, .. }) = Hosts::start() else { return };
    let tree = here.new_dir("tree");
    sample::make(&tree);
    let base = here.import(&tree).expect("import");
    let (session, dir) = here.mounted(&base, "mnt");
    assert_eq!(here.show(&session).travel, None);
    refused(there.read(&session, "new"), Code::NotFound, "no session");
    let mnt = there.new_dir("mnt");
    fs::write(dir.join("new"), "one").expect("write");
    let done = here.publish(&session).expect("publish");
    let first = travel(&here, &session);
    assert_eq!((first.seq, first.epoch, first.held_here, first.unpublished), (1, 1, true, false));
    assert_eq!((&first.published, done.travel.as_ref()), (&done.snapshot, Some(&first)));
    fs::write(dir.join("new"), "two").expect("write");
    assert!(travel(&here, &session).unpublished);

    // Looked into, compared and forked, and not more than that.
    assert_eq!(there.read(&session, "new").expect("read"), b"one");
    assert_eq!(travel(&there, &session), Travel { held_here: false, unpublished: false, ..first.clone() });
    let changed = vec![(DiffKind::Added, "new".to_owned())];
    assert_eq!(there.diff(&session, &base).expect("diff"), changed);
    assert_eq!(there.diff(&session, "").expect("diff"), changed);
    let fork = there.fork(&session).expect("fork");
    assert_eq!(there.diff(&fork, "").expect("diff"), changed, "with what the session was created from");
    assert_eq!(there.show(&fork).parent, session);
    refused(there.mount(&session, &mnt), Code::FailedPrecondition, "aetherctl handoff");

    refused(here.handoff(&session, false), Code::FailedPrecondition, "mounted");
    fs::write(dir.join("new"), "three").expect("it is not in the way of anybody");
    let want = listing(&dir, Times::All);
    let handed = here.handoff(&session, true).expect("handoff");
    assert_eq!(handed.travel.expect("it travels").seq, 2);
    assert!(!dir.join("new").exists(), "it is not mounted any more");
    let nobody = travel(&here, &session);
    assert_eq!((nobody.holder.as_str(), nobody.held_here, nobody.seq), ("", false, 2));
    there.mount(&session, &mnt).expect("mount");
    assert_same("there", &want, &listing(&mnt, Times::All));
    fs::write(mnt.join("new"), "four").expect("write");
    let held = travel(&there, &session);
    assert_eq!((held.epoch, held.held_here, held.unpublished), (2, true, true));
    assert!(held.holder.starts_with("host_") && held.holder != first.holder);
    refused(here.mount(&session, &dir), Code::FailedPrecondition, &held.holder);

    // And back, by the host that had it before.
    there.handoff(&session, true).expect("handoff");
    here.mount(&session, &dir).expect("mount");
    assert_eq!(fs::read(dir.join("new")).expect("read"), b"four");
    here.unmount(&dir).expect("unmount");
    here.discard(&session, false).expect("discard");
    soon("is known", || {
        there.mount(&session, &mnt).is_err_and(|status| status.message().contains("was discarded"))
    });
}

#[test]
fn a_dead_host_is_taken_over() {
    let Some(Hosts { mut here, there, .. }) = Hosts::start() else { return };
    let (session, dir) = here.mounted("", "mnt");
    fs::write(dir.join("published"), "1").expect("write");
    here.publish(&session).expect("publish");
    fs::write(dir.join("not published"), "2").expect("write");
    let mnt = there.new_dir("mnt");
    let take_over = || MountRequest { take_over: true, ..MountRequest::default() };
    refused(there.mount_with(&session, &mnt, take_over()), Code::FailedPrecondition, "signs of life");
    here.kill();
    refused(there.mount(&session, &mnt), Code::FailedPrecondition, "--take-over");
    there.mount_with(&session, &mnt, take_over()).expect("mount");
    assert_eq!(fs::read(mnt.join("published")).expect("read"), b"1");
    assert!(!mnt.join("not published").exists());
    fs::write(mnt.join("there"), "3").expect("write");
    there.publish(&session).expect("publish");

    // It comes back, and hears that it was taken.
    here.restart();
    soon("hears of it", || travel(&here, &session).taken);
    let fork = travel(&here, &session).taken_fork;
    assert_eq!(here.show(&fork).parent, session);
    assert_eq!(here.read(&fork, "not published").expect("read"), b"2");
    refused(here.mount(&session, &dir), Code::FailedPrecondition, &fork);
    refused(here.publish(&session), Code::FailedPrecondition, &fork);
    here.discard(&session, false).expect("the copy");
    assert_eq!(here.read(&session, "there").expect("read"), b"3");
    assert_eq!(there.read(&session, "there").expect("read"), b"3", "it is not ended for others");
}

#[test]
fn a_host_that_slept_writes_to_its_fork() {
    let Some(Hosts { here, there, .. }) = Hosts::start() else { return };
    let (session, dir) = here.mounted("", "mnt");
    fs::write(dir.join("file"), "1").expect("write");
    here.publish(&session).expect("publish");
    here.signal(Signal::SIGSTOP);
    soon("stops", || here.is_stopped());
    let mnt = there.new_dir("mnt");
    let take_over = MountRequest { take_over: true, ..MountRequest::default() };
    there.mount_with(&session, &mnt, take_over).expect("mount");
    fs::write(mnt.join("file"), "there").expect("write");
    here.signal(Signal::SIGCONT);
    let late = fs::write(dir.join("late"), "2");
    soon("hears of it", || travel(&here, &session).taken);
    let error = fs::write(dir.join("file"), "3").expect_err("it is another host's");
    assert_eq!(error.raw_os_error(), Some(nix::libc::EROFS));
    assert_eq!(fs::read(dir.join("file")).expect("it is readable"), b"1");
    let fork = travel(&here, &session).taken_fork;
    if late.is_ok() {
        assert_eq!(here.read(&fork, "late").expect("what was acknowledged is in the fork"), b"2");
    }
    assert_eq!(fs::read(mnt.join("file")).expect("read"), b"there");
    here.unmount(&dir).expect("unmount");
}

#[test]
fn a_daemon_publishes_by_itself() {
    let Some(Hosts { there, store, .. }) = Hosts::start() else { return };
    let Some(here) = Daemon::start_publishing_on(store.path()) else { return };
    let (session, dir) = here.mounted("", "mnt");
    fs::write(dir.join("file"), "1").expect("write");
    here.publish(&session).expect("publish");
    let snapshots = here.stats().store.expect("a store").snapshots;
    for n in 2..4 {
        fs::write(dir.join("file"), n.to_string()).expect("write");
        soon("is published", || there.read(&session, "file").expect("read") == n.to_string().as_bytes());
    }
    soon("says so", || !travel(&here, &session).unpublished);
    assert_eq!(here.stats().store.expect("a store").snapshots, snapshots, "none of them is listed");
}

#[test]
fn a_look_at_what_is_published_is_moved_forward() {
    let Some(Hosts { here, mut there, .. }) = Hosts::start() else { return };
    let (session, dir) = here.mounted("", "mnt");
    fs::write(dir.join("file"), "1").expect("write");
    here.publish(&session).expect("publish");
    let look = there.new_dir("look");
    let advance = |daemon: &Daemon| {
        let dir = look.as_os_str().as_bytes().to_vec();
        daemon.ask(async |mut client| client.advance(AdvanceRequest { dir }).await).map(Response::into_inner)
    };
    there.mount_read_only(&session, &look).expect("mount");
    assert_eq!(fs::read(look.join("file")).expect("read"), b"1");
    assert!(fs::write(look.join("file"), "2").is_err_and(|e| e.raw_os_error() == Some(nix::libc::EROFS)));
    assert!(travel(&here, &session).held_here, "it was not taken");
    assert!(!advance(&there).expect("advance").advanced);
    fs::write(dir.join("file"), "2").expect("write");
    let published = here.publish(&session).expect("publish").snapshot;
    assert_eq!(fs::read(look.join("file")).expect("read"), b"1", "not by itself");
    let open = File::open(look.join("file")).expect("open");
    refused(advance(&there), Code::AlreadyExists, "files open");
    drop(open);
    soon("is free", || advance(&there).is_ok_and(|moved| moved.advanced && moved.published == published));
    assert_eq!(fs::read(look.join("file")).expect("read"), b"2");
    assert_eq!(there.stats().sessions, 1, "the look before is gone");

    // What is left of one whose daemon died goes at the next start.
    there.kill();
    there.restart();
    assert_eq!(there.stats().sessions, 0);
    there.mount_read_only(&session, &look).expect("mount");
    assert_eq!(fs::read(look.join("file")).expect("read"), b"2");
    refused(there.mount_read_only(&session, &look), Code::AlreadyExists, "");
    assert_eq!(there.stats().sessions, 1, "one that could not be mounted is gone");
    there.unmount(&look).expect("unmount");
    assert_eq!(there.stats().sessions, 0);
    let (_, own) = there.mounted("", "own");
    refused(
        there.ask(async |mut client| {
            client.advance(AdvanceRequest { dir: own.as_os_str().as_bytes().to_vec() }).await
        }),
        Code::FailedPrecondition,
        "follows nothing",
    );
}
