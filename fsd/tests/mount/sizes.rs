//! How large files can be, and how large the file system says it is.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    process::Command,
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::statvfs,
    unistd::{Whence, lseek},
};

use crate::{daemon::Daemon, random::Random};

const LARGEST: u64 = i64::MAX as u64;
const GIB: u64 = 1 << 30;

fn create(path: &Path) -> File {
    File::options().read(true).write(true).create_new(true).open(path).expect("create")
}

#[test]
fn files_have_sizes_up_to_the_largest() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let file = create(&dir.join("largest"));
    file.set_len(LARGEST).expect("the largest size");
    let end = LARGEST - 6;
    file.write_all_at(b"at the", end).expect("write");
    // Where a write would end behind the largest offset, pwrite(2) itself knows no such range.
    let beyond = file.write_at(b"x", LARGEST).expect_err("there is nothing beyond");
    assert_eq!(beyond.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(fallocate(&file, FallocateFlags::empty(), i64::MAX - 1, 2), Err(Errno::EFBIG));
    // A process's own limit, of 1 KiB.
    let script = "trap '' XFSZ; ulimit -f 1; head -c 3000 /dev/zero >limited 2>/dev/null";
    let limited = Command::new("bash").args(["-c", script]).current_dir(&dir).status().expect("a shell");
    assert!(!limited.success() && fs::metadata(dir.join("limited")).expect("stat").len() == 1024);
    assert_eq!(file.set_len(LARGEST + 1).expect_err("no such size").kind(), ErrorKind::InvalidInput);

    let check = |dir: &Path| {
        let file = File::open(dir.join("largest")).expect("open");
        assert_eq!(file.metadata().expect("fstat").len(), LARGEST);
        let mut last = [0; 6];
        file.read_exact_at(&mut last, end).expect("read");
        assert_eq!(&last, b"at the");
        let data = lseek(&file, 0, Whence::SeekData).expect("data") as u64;
        assert!(data <= end && end - data < 1 << 20, "data begins at {data}");
    };
    drop(file);
    daemon.check_everywhere(&session, &dir, check);
}

#[test]
fn files_have_data_around_four_gibibytes() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let file = create(&dir.join("large"));
    // Across 2 and 4 GiB, where numbers of 31 and 32 bits end, and whole pages beyond.
    let content = Random::new(21).bytes((6 << 20) + 11);
    let places = [2 * GIB - (3 << 20) - 5, 4 * GIB - (3 << 20) - 5, 9 * GIB];
    for at in places {
        for (n, part) in content.chunks(1 << 20).enumerate() {
            file.write_all_at(part, at + ((n as u64) << 20)).expect("write");
        }
    }
    file.write_all_at(b"over", 4 * GIB - 2).expect("write");
    let mut around = content.clone();
    let middle = (4 * GIB - 2 - places[1]) as usize;
    around[middle..middle + 4].copy_from_slice(b"over");
    let check = |dir: &Path| {
        let file = File::open(dir.join("large")).expect("open");
        assert_eq!(file.metadata().expect("fstat").size(), 9 * GIB + content.len() as u64);
        for (at, want) in places.into_iter().zip([&content, &around, &content]) {
            let mut got = vec![0; content.len() + 200];
            let read = file.read_at(&mut got[..100], at - 100).expect("read");
            assert!(read == 100 && got[..100] == [0; 100], "there is a hole before {at}");
            file.read_exact_at(&mut got[100..100 + want.len()], at).expect("read");
            assert!(got[100..100 + want.len()] == want[..], "the bytes at {at} differ");
        }
    };
    check(&dir);
    drop(file);
    let (_, fork) = daemon.forked(&session, "fork");
    check(&fork);
    let sealed = daemon.seal(&session).expect("seal");
    daemon.remount(&session, &dir);
    check(&dir);
    let (_, again) = daemon.mounted(&sealed, "sealed");
    check(&again);
    // And cut back to where an offset of 32 bits would be 5.
    let file = File::options().write(true).open(again.join("large")).expect("open");
    file.set_len(4 * GIB + 5).expect("truncate");
    assert_eq!(daemon.diff(&session, &sealed).expect("diff"), []);
    let mut last = [0; 5];
    File::open(again.join("large")).expect("open").read_exact_at(&mut last, 4 * GIB).expect("read");
    assert_eq!(last, around[middle + 2..middle + 7]);
}

#[test]
fn a_mount_has_the_size_of_the_disk_under_the_state() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    let (ours, disk) = (statvfs(&dir).expect("statvfs"), statvfs(&daemon.state_dir()).expect("statvfs"));
    assert_eq!(ours.name_max(), 255);
    let size = |blocks: u64, block: u64| blocks * block;
    assert_eq!(size(ours.blocks(), ours.fragment_size()), size(disk.blocks(), disk.fragment_size()));
    // Others write to that disk, too.
    let free = size(disk.blocks_available(), disk.fragment_size());
    let shown = size(ours.blocks_available(), ours.fragment_size());
    assert!(shown.abs_diff(free) < free / 10 + (1 << 28), "{shown} instead of {free}");
    assert!(ours.files_free() > 1 << 40, "inodes do not run out");
    assert_eq!(fs::metadata(&dir).expect("stat").blksize(), 4096);
}
