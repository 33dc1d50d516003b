//! What becomes of mounts in a long life: the daemon restarts under many of them, clients die in the middle of a call, mount
//! points are pulled away, two want the same.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
    unistd::geteuid,
};
use proto::v1::Transport;
use tonic::Code;

use crate::daemon::{Daemon, soon};

const MANY: usize = 40;

#[test]
fn forty_mounted_sessions_come_back_after_every_kind_of_restart() {
    let Some(mut daemon) = Daemon::start() else { return };
    let (first, dir) = daemon.mounted("", "mnt-0");
    fs::write(dir.join("shared"), vec![b's'; 200_000]).expect("write");
    let mut sessions = vec![(first.clone(), dir)];
    // Half of them forks, and forks of forks.
    for n in 1..MANY {
        let name = format!("mnt-{n}");
        let parent = sessions[n / 2].0.clone();
        sessions.push(if n % 2 == 0 { daemon.mounted("", &name) } else { daemon.forked(&parent, &name) });
    }
    for round in 0..4u8 {
        let held: Vec<File> =
            sessions.iter().map(|(_, dir)| File::create(dir.join("held")).expect("create")).collect();
        for (n, (_, dir)) in sessions.iter().enumerate() {
            fs::write(dir.join("own"), format!("{round} {n}").repeat(1000)).expect("write");
            held[n].write_all_at(&[round; 5000], 100).expect("write");
        }
        match round % 2 {
            0 => assert!(daemon.terminate().success(), "SIGTERM is a clean end, busy mounts or not"),
            _ => daemon.kill(),
        }
        drop(held);
        daemon.restart();
        assert!(daemon.mounts().is_empty(), "round {round} left {:?}", daemon.mounts());
        for (session, dir) in &sessions {
            daemon.mount(session, dir).expect("mount again");
        }
        for (n, (_, dir)) in sessions.iter().enumerate() {
            assert_eq!(
                fs::read_to_string(dir.join("own")).expect("own"),
                format!("{round} {n}").repeat(1000)
            );
            assert_eq!(fs::read(dir.join("held")).expect("held")[100..], [round; 5000]);
        }
    }
    assert_eq!(daemon.stats().mounts, MANY as u64);
}

/// A process that makes one call after the other on the file, for ever.
fn client(verb: &str, file: &Path) -> std::process::Child {
    let dd = match verb {
        "write" => "while :; do dd if=/dev/zero of=\"$0\" bs=4M count=2 conv=notrunc; done",
        "read" => "while :; do dd if=\"$0\" of=/dev/null bs=4M iflag=nocache; done",
        _ => "while :; do mkdir -p \"$0.d/a\"; mv \"$0.d\" \"$0.e\"; rm -r \"$0.e\"; done",
    };
    let mut command = Command::new("sh");
    command.arg("-c").arg(dd).arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A group of its own, so that what the shell started dies with it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().expect("sh")
}

fn kill_group(child: &mut std::process::Child) {
    let group = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::killpg(group, Signal::SIGKILL).expect("it runs");
    child.wait().expect("a child");
}

#[test]
fn clients_that_are_killed_in_the_middle_of_a_call_leave_nothing_behind() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("read"), vec![b'r'; 8 << 20]).expect("write");
    for round in 0..15 {
        let mut clients: Vec<_> =
            ["write", "read", "names"].map(|verb| client(verb, &dir.join(verb))).into_iter().collect();
        thread::sleep(Duration::from_millis(20 + 13 * round));
        clients.iter_mut().for_each(kill_group);
        assert_eq!(fs::read(dir.join("read")).expect("read").len(), 8 << 20);
    }
    let written = fs::read(dir.join("write")).expect("what was written");
    assert!(written.len() <= 8 << 20 && written.iter().all(|byte| *byte == 0));
    // Nothing of theirs holds the mount, and no request waits.
    daemon.remount(&session, &dir);
    fs::write(dir.join("after"), b"after").expect("write");
}

/// While the daemon is stopped, its clients wait in the kernel; killed there, they go, and the daemon never hears of the call.
#[test]
fn a_client_that_waits_for_a_stopped_daemon_can_be_killed() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = (daemon.create("").expect("create"), daemon.new_dir("mnt"));
    // What a ring was given is with the daemon, stopped or not: its clients wait for it to go on.
    daemon.mount_by(Transport::DevFuse, &session, &dir).expect("mount");
    fs::write(dir.join("file"), b"before").expect("write");
    daemon.signal(Signal::SIGSTOP);
    // A thread that took a request first would have to answer it before its client can go.
    soon("every thread of the daemon is stopped", || daemon.is_stopped());
    let mut waiting: Vec<_> = (0..8)
        .map(|n| {
            Command::new("mkdir")
                .arg(dir.join(format!("made-{n}")))
                .stderr(Stdio::null())
                .spawn()
                .expect("mkdir")
        })
        .collect();
    thread::sleep(Duration::from_millis(300));
    for child in &mut waiting {
        assert!(child.try_wait().expect("a child").is_none(), "it did not wait");
        child.kill().expect("it runs");
    }
    soon("the killed clients are gone", || {
        waiting.iter_mut().all(|c| c.try_wait().expect("a child").is_some())
    });
    daemon.signal(Signal::SIGCONT);
    assert_eq!(fs::read(dir.join("file")).expect("read"), b"before");
    fs::write(dir.join("file"), b"after").expect("write");
    daemon.remount(&session, &dir);
    assert_eq!(fs::read(dir.join("file")).expect("read"), b"after");
    // Each call happened whole or not at all.
    let made = fs::read_dir(&dir).expect("list").count();
    assert!((1..=9).contains(&made));
}

/// Takes a mount out of the tree of names by other hands than the daemon's, used or not.
fn detach(dir: &Path) {
    let (program, arguments) =
        if geteuid().is_root() { ("umount", vec!["-l"]) } else { ("fusermount3", vec!["-uz"]) };
    assert!(Command::new(program).args(arguments).arg(dir).status().expect(program).success());
}

#[test]
fn a_mount_that_is_detached_while_in_use_serves_its_users_to_the_end() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let mut held = File::options().read(true).write(true).create(true).truncate(true).open(dir.join("held"));
    let held = held.as_mut().expect("create");
    held.write_all(b"before").expect("write");
    detach(&dir);
    assert_eq!(fs::read_dir(&dir).expect("the directory below").count(), 0);
    held.write_all(b" and after").expect("whoever had it open goes on");
    let mut all = String::new();
    File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(held)))
        .expect("open again")
        .read_to_string(&mut all)
        .expect("read");
    assert_eq!(all, "before and after");
    assert_eq!(daemon.read(&session, "held").expect("read"), b"before and after");
    // As long as somebody writes through the old mount, a second one would show another picture.
    let elsewhere = daemon.new_dir("elsewhere");
    let refused = daemon.mount(&session, &elsewhere).expect_err("two mounts of one session");
    assert!(matches!(refused.code(), Code::AlreadyExists | Code::FailedPrecondition), "{refused:?}");
    let _ = held;
}

#[test]
fn a_detached_mount_is_free_again_when_its_last_user_is_gone() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let held = File::create(dir.join("held")).expect("create");
    held.write_all_at(b"kept", 0).expect("write");
    detach(&dir);
    drop(held);
    soon("the daemon knows that the mount ended", || daemon.show(&session).mounts.is_empty());
    daemon.mount(&session, &dir).expect("mount on the same directory");
    assert_eq!(fs::read(dir.join("held")).expect("read"), b"kept");
}

#[test]
fn the_end_of_a_detached_mount_leaves_alone_what_is_mounted_there_since() {
    let Some(daemon) = Daemon::start() else { return };
    let (first, dir) = daemon.mounted("", "mnt");
    let held = File::create(dir.join("held")).expect("create");
    detach(&dir);
    let second = daemon.create("").expect("create");
    daemon.mount(&second, &dir).expect("mount on the same directory");
    fs::write(dir.join("new"), b"in the second").expect("write");
    drop(held);
    soon("the daemon knows that the mount ended", || daemon.show(&first).mounts.is_empty());
    assert_eq!(fs::read(dir.join("new")).expect("read"), b"in the second");
    assert_eq!(daemon.show(&second).mounts.len(), 1);
}

#[test]
fn the_end_of_a_covered_mount_leaves_alone_what_covers_it() {
    let Some(daemon) = Daemon::start() else { return };
    if !geteuid().is_root() {
        eprintln!("only root covers a mount: nothing is tested here");
        return;
    }
    let (session, dir) = daemon.mounted("", "mnt");
    let minor = nix::sys::stat::minor(fs::metadata(&dir).expect("stat").dev());
    let control = daemon.new_dir("control");
    let put = |kind: &str, on: &Path| {
        mount(None::<&str>, on, Some(kind), MsFlags::empty(), None::<&str>).expect("mount");
    };
    put("fusectl", &control);
    put("tmpfs", &dir);
    fs::write(dir.join("cover"), b"of somebody else").expect("write");
    fs::write(control.join(format!("{minor}/abort")), b"1").expect("abort");
    soon("the daemon knows that the mount ended", || daemon.show(&session).mounts.is_empty());
    assert_eq!(fs::read(dir.join("cover")).expect("read"), b"of somebody else");
    umount2(&control, MntFlags::MNT_DETACH).expect("umount");
    umount2(&dir, MntFlags::MNT_DETACH).expect("umount the cover");
    umount2(&dir, MntFlags::MNT_DETACH).expect("umount what the daemon left under it");
}

/// A directory that is removed in another mount namespace takes the mount on it away in all of them.
#[test]
fn a_mount_point_that_disappears_ends_the_mount_and_nothing_else() {
    let Some(daemon) = Daemon::start() else { return };
    if !geteuid().is_root() {
        eprintln!("only root has another mount namespace: nothing is tested here");
        return;
    }
    let (session, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("file"), b"kept").expect("write");
    let held = File::open(dir.join("file")).expect("open");
    let script = "umount \"$0\" && rmdir \"$0\"";
    let removed =
        Command::new("unshare").args(["-m", "sh", "-c", script]).arg(&dir).status().expect("unshare");
    assert!(removed.success(), "{removed}");
    assert!(!dir.exists());
    assert_eq!(daemon.read(&session, "file").expect("read"), b"kept");
    drop(held);
    soon("the daemon knows that the mount ended", || daemon.show(&session).mounts.is_empty());
    let (_, other) = daemon.mounted("", "other");
    fs::write(other.join("works"), b"").expect("write");
    fs::create_dir(&dir).expect("mkdir");
    daemon.mount(&session, &dir).expect("mount");
    assert_eq!(fs::read(dir.join("file")).expect("read"), b"kept");
}

#[test]
fn of_many_who_want_the_same_one_gets_it_and_the_others_a_reason() {
    let Some(daemon) = Daemon::start() else { return };
    let dirs: Vec<_> = (0..8).map(|n| daemon.new_dir(&format!("dir-{n}"))).collect();
    let race = |each: &(dyn Fn(usize) -> Result<(), tonic::Status> + Sync), names: &str| {
        let answers: Vec<_> = thread::scope(|scope| {
            let asked: Vec<_> = (0..dirs.len()).map(|n| scope.spawn(move || each(n))).collect();
            asked.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        for refused in answers.into_iter().filter_map(Result::err) {
            assert!(matches!(refused.code(), Code::AlreadyExists | Code::FailedPrecondition), "{refused:?}");
            assert!(refused.message().contains(names), "{:?} does not name {names}", refused.message());
        }
        assert_eq!(daemon.mounts().len(), 1);
    };
    // One session on many directories; the reason says where it is.
    let session = daemon.create("").expect("create");
    race(&|n| daemon.mount(&session, &dirs[n]), "dir-");
    daemon.unmount_session(&session).expect("unmount");
    // Many sessions on one directory; the reason says who is there.
    let sessions: Vec<_> = dirs.iter().map(|_| daemon.create("").expect("create")).collect();
    race(&|n| daemon.mount(&sessions[n], &dirs[0]), "dir-0");
    assert_eq!(fs::metadata(&dirs[0]).expect("it serves").ino(), 1);
}
