//! Fifos, sockets and devices: the file system keeps their names, the kernel does the rest.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, symlink},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    thread,
};

use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::{geteuid, mkfifo},
};

use crate::daemon::Daemon;

fn talk_through_fifo(path: &Path) {
    thread::scope(|scope| {
        scope.spawn(|| File::create(path).expect("open").write_all(b"through the fifo").expect("write"));
        let mut heard = String::new();
        File::open(path).expect("open").read_to_string(&mut heard).expect("read");
        assert_eq!(heard, "through the fifo");
    });
}

fn talk_through_socket(path: &Path, listener: &UnixListener) {
    thread::scope(|scope| {
        scope.spawn(|| {
            UnixStream::connect(path).expect("connect").write_all(b"through the socket").expect("write");
        });
        let mut heard = String::new();
        listener.accept().expect("accept").0.read_to_string(&mut heard).expect("read");
        assert_eq!(heard, "through the socket");
    });
}

#[test]
fn every_kind_of_file_works() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let mode = Mode::from_bits_truncate(0o620);
    mkfifo(&dir.join("fifo"), mode).expect("mkfifo");
    let listener = UnixListener::bind(dir.join("socket")).expect("bind");
    symlink("fifo", dir.join("link")).expect("symlink");
    let is_root = geteuid().is_root();
    if is_root {
        // /dev/full, whose writes fail, and a device with the largest numbers.
        mknod(&dir.join("full"), SFlag::S_IFCHR, mode, makedev(1, 7)).expect("mknod");
        mknod(&dir.join("block"), SFlag::S_IFBLK, mode, makedev(4095, 1_048_575)).expect("mknod");
    }
    talk_through_fifo(&dir.join("link"));
    talk_through_socket(&dir.join("socket"), &listener);
    let check = |dir: &Path| {
        let kind = |name: &str| fs::symlink_metadata(dir.join(name)).expect("lstat").file_type();
        assert!(kind("fifo").is_fifo() && kind("socket").is_socket() && kind("link").is_symlink());
        talk_through_fifo(&dir.join("fifo"));
        if is_root {
            assert!(kind("full").is_char_device() && kind("block").is_block_device());
            assert_eq!(fs::metadata(dir.join("block")).expect("stat").rdev(), makedev(4095, 1_048_575));
            let mut full = File::options().read(true).write(true).open(dir.join("full")).expect("open");
            assert_eq!(full.write(b"x").expect_err("it is full").raw_os_error(), Some(libc::ENOSPC));
            let mut zeros = [1; 9];
            full.read_exact(&mut zeros).expect("read");
            assert_eq!(zeros, [0; 9]);
        }
        for entry in fs::read_dir(dir).expect("list") {
            let meta = entry.expect("an entry").path().symlink_metadata().expect("lstat");
            assert_eq!(meta.blocks(), 0, "{:?}", meta.file_type());
        }
    };
    check(&dir);
    check(&daemon.forked(&session, "fork").1);
    drop(listener);
    let sealed = daemon.seal(&session).expect("seal");
    daemon.remount(&session, &dir);
    check(&dir);
    check(&daemon.mounted(&sealed, "sealed").1);
    // What listened is gone; the name stays and can be removed.
    let refused = UnixStream::connect(dir.join("socket")).expect_err("nobody listens");
    assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED));
    fs::remove_file(dir.join("socket")).expect("unlink");
}
