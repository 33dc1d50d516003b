//! Files without a name: `O_TMPFILE`, and what becomes of them.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    unistd::linkat,
};

use crate::daemon::Daemon;

fn unnamed(dir: &Path, flags: i32) -> File {
    let mut options = File::options();
    options.read(true).write(true).mode(0o640).custom_flags(libc::O_TMPFILE | flags);
    options.open(dir).expect("open O_TMPFILE")
}

fn name(file: &File, path: &Path) -> nix::Result<()> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, source.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)
}

#[test]
fn a_file_without_a_name_can_be_given_one() {
    let Some(mut daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let mut file = unnamed(&dir, 0);
    file.write_all(b"first").expect("write");
    assert_eq!(file.metadata().expect("fstat").nlink(), 0);
    assert_eq!(fs::read_dir(&dir).expect("list").count(), 0);
    // A seal and a fork in between: the one leaves the file to its holder, the other does not have it.
    daemon.seal(&session).expect("seal");
    let (_, fork) = daemon.forked(&session, "fork");
    file.write_all(b" second").expect("write");
    name(&file, &dir.join("named")).expect("link");
    assert_eq!(file.metadata().expect("fstat").nlink(), 1);
    fs::hard_link(dir.join("named"), dir.join("again")).expect("link");
    assert_eq!(fs::read_dir(&fork).expect("list").count(), 0);
    file.rewind().expect("seek");
    let mut content = String::new();
    file.read_to_string(&mut content).expect("read");
    assert_eq!(content, "first second");

    // And it is as durable as any other.
    daemon.seal(&session).expect("seal");
    daemon.kill();
    drop(file);
    daemon.restart();
    daemon.mount(&session, &dir).expect("mount");
    assert_eq!(fs::read(dir.join("named")).expect("read"), b"first second");
    let meta = fs::metadata(dir.join("again")).expect("stat");
    assert_eq!((meta.nlink(), meta.permissions().mode() & 0o7777), (2, 0o640));
}

#[test]
fn a_file_that_never_got_a_name_goes_with_its_holder() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let before = daemon.seal(&session).expect("seal");
    let exclusive = unnamed(&dir, libc::O_EXCL);
    assert_eq!(name(&exclusive, &dir.join("never")), Err(Errno::ENOENT));
    assert_eq!(daemon.seal(&session).expect("seal"), before, "nothing has changed");
    let removed = File::create(dir.join("removed")).expect("create");
    fs::remove_file(dir.join("removed")).expect("unlink");
    assert_eq!(name(&removed, &dir.join("back")), Err(Errno::ENOENT), "it had a name once");
    drop((exclusive, removed));
    assert!(daemon.names(&session, "").expect("ls").is_empty());
}
