//! Passthrough: large sealed files are read by the kernel, from copies that mounts share.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};
use proto::v1::{FileIo, MountRequest};
use tonic::Code;

use crate::daemon::{Daemon, soon};

const MIB: usize = 1 << 20;

/// Writes out what a map of a file holds.
const MAP: &str = r#"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct stat stat;
    int fd = open(argv[1], O_RDONLY);
    if (fd < 0 || fstat(fd, &stat)) return 1;
    char *map = mmap(0, stat.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return 2;
    for (off_t at = 0; at < stat.st_size;) {
        ssize_t written = write(1, map + at, stat.st_size - at);
        if (written < 0) return 3;
        at += written;
    }
    return 0;
}
"#;

/// Bytes that differ from place to place.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A tree with a large file, a sparse one and a small one.
fn tree(daemon: &Daemon) -> PathBuf {
    let tree = daemon.new_dir("tree");
    fs::write(tree.join("large"), noise(5 * MIB + 3)).expect("write");
    let sparse = File::create(tree.join("sparse")).expect("create");
    sparse.write_all_at(&noise(MIB), 64 * MIB as u64).expect("write");
    sparse.set_len(100 * MIB as u64 + 1).expect("truncate");
    fs::write(tree.join("small"), "small").expect("write");
    tree
}

fn check(map: &Path, dir: &Path) {
    let expected = noise(5 * MIB + 3);
    assert!(fs::read(dir.join("large")).expect("read") == expected);
    let large = File::open(dir.join("large")).expect("open");
    let mut part = vec![0; 10_000];
    large.read_exact_at(&mut part, 3_000_001).expect("read");
    assert!(part == expected[3_000_001..3_010_001]);
    let mapped = Command::new(map).arg(dir.join("large")).output().expect("the program");
    assert!(mapped.status.success() && mapped.stdout == expected);
    let sparse = File::open(dir.join("sparse")).expect("open");
    let size = sparse.metadata().expect("stat").size();
    assert_eq!(size, 100 * MIB as u64 + 1);
    let mut bytes = vec![1; 3 * MIB];
    sparse.read_exact_at(&mut bytes, 63 * MIB as u64).expect("read");
    assert!(
        bytes[..MIB] == vec![0; MIB] && bytes[MIB..2 * MIB] == noise(MIB) && bytes[2 * MIB..] == vec![0; MIB]
    );
    assert_eq!(sparse.read_at(&mut bytes, size - 1).expect("read"), 1);
}

#[test]
fn large_files_are_read_without_the_daemon_and_copied_once() {
    let Some(daemon) = Daemon::start() else { return };
    let snapshot = daemon.import(&tree(&daemon)).expect("import");
    let session = daemon.create(&snapshot).expect("create");
    let dir = daemon.new_dir("mnt");
    daemon.mount_passthrough(&session, &dir).expect("mount");
    assert_eq!(daemon.show(&session).mounts[0].io(), FileIo::Passthrough);
    assert_eq!(daemon.stats().backing_bytes, 0);
    let map = daemon.compiled("map", MAP);
    check(&map, &dir);
    assert_eq!(daemon.requests("read"), 0);
    let copied = daemon.stats().backing_bytes;
    assert_eq!(copied, (5 * MIB + 3 + MIB) as u64, "holes are not copied");
    assert_eq!(fs::read_to_string(dir.join("small")).expect("read"), "small");
    assert_eq!(daemon.requests("read"), 1);

    let (fork, other) = (daemon.fork(&session).expect("fork"), daemon.new_dir("fork"));
    daemon.mount_passthrough(&fork, &other).expect("mount");
    check(&map, &other);
    assert_eq!((daemon.requests("read"), daemon.stats().backing_bytes), (1, copied));
    for changed in ["large", "small"] {
        let refused = File::options().write(true).open(dir.join(changed)).expect_err("it is read-only");
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    }
    // What is open stays readable when others are done with it.
    let open = File::open(dir.join("large")).expect("open");
    soon("other opens are released", || {
        let requests = daemon.stats().fuse_requests;
        requests["open"] == requests["release"] + 1
    });
    let mut first = [0];
    open.read_exact_at(&mut first, 0).expect("read");
    assert_eq!(first[0], noise(1)[0]);
    drop(open);
    daemon.unmount_unused(&dir);
    daemon.unmount_unused(&other);
}

#[test]
fn what_is_not_sealed_is_read_through_the_daemon() {
    let Some(daemon) = Daemon::start() else { return };
    let snapshot = daemon.import(&tree(&daemon)).expect("import");
    let (session, dir) = daemon.mounted(&snapshot, "mnt");
    let large = File::options().write(true).open(dir.join("large")).expect("open");
    large.write_all_at(b"changed", 2 * MIB as u64).expect("write");
    drop(large);
    fs::write(dir.join("new"), noise(2 * MIB)).expect("write");
    // One that has its old size again, and the same content elsewhere, before and behind it in the daemon's life.
    let cut = File::options().write(true).open(dir.join("sparse")).expect("open");
    let size = cut.metadata().expect("stat").size();
    cut.set_len(65 * MIB as u64).expect("truncate");
    cut.set_len(size).expect("truncate");
    cut.set_len(0).expect("truncate");
    cut.set_len(size).expect("truncate");
    drop(cut);
    daemon.unmount_unused(&dir);
    daemon.mount_passthrough(&session, &dir).expect("mount");
    let zeros = fs::read(dir.join("sparse")).expect("read");
    assert!(zeros.len() as u64 == size && zeros.iter().all(|byte| *byte == 0));
    let (whole, other) = (daemon.create(&snapshot).expect("create"), daemon.new_dir("whole"));
    daemon.mount_passthrough(&whole, &other).expect("mount");
    check(&daemon.compiled("map", MAP), &other);
    assert!(fs::read(dir.join("sparse")).expect("read") == zeros);
    let copied = daemon.stats().backing_bytes;
    let mut expected = noise(5 * MIB + 3);
    expected[2 * MIB..2 * MIB + 7].copy_from_slice(b"changed");
    assert!(fs::read(dir.join("large")).expect("read") == expected);
    assert!(fs::read(dir.join("new")).expect("read") == noise(2 * MIB));
    assert_eq!(daemon.stats().backing_bytes, copied);
    assert!(daemon.requests("read") > 0);
    daemon.unmount_unused(&dir);
    daemon.seal(&session).expect("seal");
    daemon.mount_passthrough(&session, &dir).expect("mount");
    let before = daemon.requests("read");
    assert!(fs::read(dir.join("large")).expect("read") == expected);
    assert_eq!(daemon.requests("read"), before);
}

#[test]
fn a_file_with_damage_is_read_as_far_as_it_is_intact() {
    let Some(daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    fs::write(tree.join("large"), noise(5 * MIB)).expect("write");
    let snapshot = daemon.import(&tree).expect("import");
    let packs = fs::read_dir(daemon.state_dir().join("store/packs")).expect("packs");
    let pack =
        packs.flatten().map(|pack| pack.path()).find(|path| path.extension().is_some_and(|e| e == "data"));
    let pack = File::options().read(true).write(true).open(pack.expect("a data pack")).expect("open");
    let at = pack.metadata().expect("stat").size() - MIB as u64 / 8;
    let mut byte = [0];
    pack.read_exact_at(&mut byte, at).expect("read");
    pack.write_all_at(&[!byte[0]], at).expect("write");

    let (session, dir) = (daemon.create(&snapshot).expect("create"), daemon.new_dir("mnt"));
    daemon.mount_passthrough(&session, &dir).expect("mount");
    let large = File::open(dir.join("large")).expect("open");
    let mut start = vec![0; 4 * MIB];
    large.read_exact_at(&mut start, 0).expect("what is intact reads");
    assert!(start == noise(4 * MIB));
    let failed = fs::read(dir.join("large")).expect_err("the rest does not");
    assert_eq!(failed.raw_os_error(), Some(Errno::EIO as i32));
    assert_eq!(daemon.stats().backing_bytes, 0);
}

/// Root can take the kernel's flag away; what is passed through stays as it is all the same.
#[test]
fn a_mount_that_is_made_writable_is_not() {
    let Some(daemon) = Daemon::start() else { return };
    let snapshot = daemon.import(&tree(&daemon)).expect("import");
    let (session, dir) = (daemon.create(&snapshot).expect("create"), daemon.new_dir("mnt"));
    daemon.mount_passthrough(&session, &dir).expect("mount");
    mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_REMOUNT, None::<&str>).expect("remount");
    let refused = |outcome: std::io::Result<()>| {
        assert_eq!(outcome.expect_err("a change").kind(), ErrorKind::ReadOnlyFilesystem);
    };
    refused(File::options().write(true).open(dir.join("large")).map(drop));
    refused(File::create_new(dir.join("new")).map(drop));
    refused(fs::remove_file(dir.join("small")));
    refused(fs::set_permissions(dir.join("small"), fs::Permissions::from_mode(0o600)));
    check(&daemon.compiled("map", MAP), &dir);
}

#[test]
fn it_is_for_read_only_mounts() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = (daemon.create("").expect("create"), daemon.new_dir("mnt"));
    let options = MountRequest { io: FileIo::Passthrough.into(), ..Default::default() };
    let refused = daemon.mount_with(&session, &dir, options).expect_err("it can be written");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("--read-only"), "{refused:?}");
    let options = MountRequest { io: 99, ..Default::default() };
    assert_eq!(daemon.mount_with(&session, &dir, options).expect_err("none").code(), Code::InvalidArgument);
    assert!(daemon.mounts().is_empty());
}
