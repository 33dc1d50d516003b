//! Locks of files: the kernel's, between the processes on one mount.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, Flock, FlockArg, fcntl},
};

use crate::daemon::Daemon;

/// A process that holds both kinds of locks on a file until it is killed.
fn holder(dir: &Path) -> Child {
    let script = "import fcntl, sys, time\n\
                  f = open('file', 'r+'); fcntl.flock(f, fcntl.LOCK_EX)\n\
                  g = open('file', 'r+'); fcntl.lockf(g, fcntl.LOCK_EX, 10, 5)\n\
                  open('held', 'w').close(); time.sleep(1000)\n";
    let child = Command::new("python3").args(["-c", script]).current_dir(dir).stdin(Stdio::null()).spawn();
    for _ in 0..1000 {
        if dir.join("held").exists() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.expect("python3")
}

fn open(dir: &Path) -> File {
    File::options().read(true).write(true).open(dir.join("file")).expect("open")
}

/// What flock(2) says to one who does not want to wait.
fn whole(dir: &Path, how: FlockArg) -> nix::Result<()> {
    Flock::lock(open(dir), how).map(drop).map_err(|(_, errno)| errno)
}

/// What fcntl(2) says of one byte.
fn byte(dir: &Path, at: i64) -> nix::Result<()> {
    let file = open(dir);
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: at,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file.as_fd(), FcntlArg::F_SETLK(&lock)).map(drop)
}

#[test]
fn locks_are_between_the_processes_on_one_mount() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("file"), b"0123456789abcdef").expect("write");
    let mut child = holder(&dir);
    let fork = daemon.fork(&session).expect("fork");
    assert!(daemon.show(&fork).mounts.is_empty(), "a fork has no mount");
    let forked = daemon.new_dir("fork");
    daemon.mount(&fork, &forked).expect("mount");

    let busy = |result: nix::Result<()>| matches!(result, Err(Errno::EAGAIN | Errno::EACCES));
    assert!(busy(whole(&dir, FlockArg::LockExclusiveNonblock)));
    assert!(busy(whole(&dir, FlockArg::LockSharedNonblock)));
    assert!(busy(byte(&dir, 5)) && busy(byte(&dir, 14)));
    assert_eq!((byte(&dir, 4), byte(&dir, 15)), (Ok(()), Ok(())), "only ten bytes are locked");
    assert_eq!(fs::read(dir.join("file")).expect("read").len(), 16, "reading asks for no lock");
    assert_eq!(whole(&forked, FlockArg::LockExclusiveNonblock), Ok(()), "another mount");
    assert_eq!(byte(&forked, 5), Ok(()));

    child.kill().expect("it runs");
    child.wait().expect("a child");
    assert_eq!((whole(&dir, FlockArg::LockExclusiveNonblock), byte(&dir, 5)), (Ok(()), Ok(())));
    // Two that share keep a third from having it alone.
    let (one, two) = (open(&dir), open(&dir));
    let one = Flock::lock(one, FlockArg::LockSharedNonblock).map_err(|(_, errno)| errno).expect("shared");
    let two = Flock::lock(two, FlockArg::LockSharedNonblock).map_err(|(_, errno)| errno).expect("shared");
    assert!(busy(whole(&dir, FlockArg::LockExclusiveNonblock)));
    drop((one, two));
    assert_eq!(whole(&dir, FlockArg::LockExclusiveNonblock), Ok(()));
}
