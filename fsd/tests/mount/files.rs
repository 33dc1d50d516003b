//! What programs do to one file, and see of what others do.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    fcntl::{FallocateFlags, copy_file_range, fallocate},
    unistd::{Whence, lseek},
};

use crate::{daemon::Daemon, random::Random};

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let path = dir.join("file");
    fs::write(&path, b"before").expect("write");
    let mut file = File::options().read(true).write(true).open(&path).expect("open");
    fs::remove_file(&path).expect("unlink");
    assert!(!path.exists());
    assert_eq!(file.metadata().expect("fstat").nlink(), 0);
    let large = Random::new(1).bytes(3 << 20);
    file.write_all_at(&large, 0).expect("write");
    daemon.seal(&session).expect("seal");
    fs::write(&path, b"another").expect("write");
    let mut content = Vec::new();
    file.read_to_end(&mut content).expect("read");
    assert!(content == large, "the unlinked file has other bytes");
    assert_eq!(fs::read(&path).expect("read"), b"another");
    // A fork is made from names: it has the new file alone.
    let (_, fork) = daemon.forked(&session, "fork");
    assert_eq!(fs::read_dir(&fork).expect("list").count(), 1);
    drop(file);
    assert_eq!(fs::read(&path).expect("read"), b"another");
}

#[test]
fn a_file_that_is_replaced_stays_for_who_has_it_open() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("config"), b"old").expect("write");
    let mut old = File::open(dir.join("config")).expect("open");
    fs::write(dir.join("config.new"), b"newer").expect("write");
    fs::rename(dir.join("config.new"), dir.join("config")).expect("rename");
    let mut content = String::new();
    old.read_to_string(&mut content).expect("read");
    assert_eq!(content, "old");
    assert_eq!(fs::read(dir.join("config")).expect("read"), b"newer");
}

#[test]
fn processes_see_each_others_writes_at_once() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("log"), b"").expect("write");
    let mut ours = File::options().append(true).open(dir.join("log")).expect("open");
    // It answers each line with a line in the file.
    let script = "while read -r n; do cat log | tail -n 1 >seen; echo \"child $n\" >>log; echo done; done";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .current_dir(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh");
    let mut orders = child.stdin.take().expect("piped");
    let mut answers = child.stdout.take().expect("piped");
    for n in 0..200 {
        writeln!(ours, "parent {n}").expect("append");
        writeln!(orders, "{n}").expect("the child listens");
        answers.read_exact(&mut [0; 5]).expect("the child answers");
        assert_eq!(fs::read_to_string(dir.join("seen")).expect("read"), format!("parent {n}\n"));
        let log = fs::read_to_string(dir.join("log")).expect("read");
        assert_eq!(log.lines().count(), 2 * (n + 1));
        assert_eq!(log.lines().last(), Some(format!("child {n}").as_str()));
    }
    drop(orders);
    assert!(child.wait().expect("sh").success());
}

#[test]
fn what_has_returned_is_seen_without_the_mount() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let path = dir.join("file");
    for n in 0..100 {
        fs::write(&path, format!("round {n}")).expect("write");
        assert_eq!(daemon.read(&session, "file").expect("cat"), format!("round {n}").as_bytes());
        fs::rename(&path, dir.join(n.to_string())).expect("rename");
        let mut expected: Vec<_> = (0..=n).map(|n| n.to_string()).collect();
        expected.sort();
        let listed = daemon.names(&session, "").expect("ls");
        assert!(listed.iter().eq(expected.iter().map(|name| name.as_bytes())), "{listed:?}");
        let differences = daemon.diff(&session, "").expect("diff");
        assert!(differences.into_iter().map(|(_, path)| path).eq(expected));
    }
}

#[test]
fn appends_of_many_threads_do_not_overwrite_each_other() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = dir.join("log");
            scope.spawn(move || {
                let mut file = File::options().append(true).create(true).open(path).expect("open");
                // One call a line: writeln! makes one for each piece.
                (0..500)
                    .for_each(|n| file.write_all(format!("{thread} {n:04}\n").as_bytes()).expect("append"));
            });
        }
    });
    let log = fs::read_to_string(dir.join("log")).expect("read");
    assert_eq!(log.lines().count(), 2000);
    for thread in 0..4 {
        let own = log.lines().filter(|line| line.starts_with(&format!("{thread} ")));
        assert!(
            own.eq((0..500).map(|n| format!("{thread} {n:04}"))),
            "thread {thread}'s lines are out of order"
        );
    }
}

#[test]
fn holes_are_found_and_cost_nothing() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let path = dir.join("sparse");
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("create");
    const MIB: u64 = 1 << 20;
    file.write_all_at(&[1; 4096], 10 * MIB).expect("write");
    file.write_all_at(&[2; 4096], 3 << 30).expect("write");
    file.set_len((3 << 30) + 2 * MIB).expect("truncate");
    let want = [(0, 10 * MIB, 10 * MIB + 4096), (10 * MIB + 4096, 3 << 30, (3 << 30) + 4096)];
    let check = |path: &Path| {
        let file = File::open(path).expect("open");
        for (from, data, hole) in want {
            assert_eq!(lseek(&file, from as i64, Whence::SeekData), Ok(data as i64));
            assert_eq!(lseek(&file, data as i64, Whence::SeekHole), Ok(hole as i64));
        }
        assert_eq!(lseek(&file, (3 << 30) + 4096, Whence::SeekData), Err(nix::Error::ENXIO));
        assert!(file.metadata().expect("fstat").blocks() <= 32, "{:?}", file.metadata().expect("fstat"));
        let mut part = [9; 8192];
        file.read_exact_at(&mut part, 10 * MIB - 4096).expect("read");
        assert_eq!((&part[..4096], &part[4096..]), (&[0; 4096][..], &[1; 4096][..]));
    };
    drop(file);
    check(&path);
    daemon.remount(&session, &dir);
    check(&path);
    let (_, fork) = daemon.forked(&session, "fork");
    check(&fork.join("sparse"));
}

#[test]
fn a_sealed_file_keeps_its_holes() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let file = File::create(dir.join("sparse")).expect("create");
    file.set_len(8 << 30).expect("truncate");
    file.write_all_at(b"far out", 5 << 30).expect("write");
    let sealed = daemon.seal(&session).expect("seal");
    let (_, again) = daemon.mounted(&sealed, "again");
    for dir in [&dir, &again] {
        let mut file = File::open(dir.join("sparse")).expect("open");
        let meta = file.metadata().expect("fstat");
        assert_eq!(meta.len(), 8 << 30);
        assert!(meta.blocks() < 8192, "{} blocks", meta.blocks());
        let data = lseek(&file, 0, Whence::SeekData).expect("data");
        assert!(((5 << 30) - (1 << 20)..=5 << 30).contains(&data), "data begins at {data}");
        file.seek(SeekFrom::Start(5 << 30)).expect("seek");
        let mut part = [0; 10];
        file.read_exact(&mut part).expect("read");
        assert_eq!(&part, b"far out\0\0\0");
    }
}

#[test]
fn space_is_allocated_punched_and_zeroed() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    let file =
        File::options().read(true).write(true).create_new(true).open(dir.join("file")).expect("create");
    let content = Random::new(3).bytes(100_000);
    file.write_all_at(&content, 0).expect("write");
    let size = || file.metadata().expect("fstat").len();
    fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 1 << 20).expect("keep size");
    assert_eq!(size(), 100_000);
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, punch, 10_000, 20_000).expect("punch");
    fallocate(&file, FallocateFlags::FALLOC_FL_ZERO_RANGE, 90_000, 20_000).expect("zero");
    assert_eq!(size(), 110_000);
    fallocate(&file, FallocateFlags::empty(), 0, 120_000).expect("extend");
    assert_eq!(size(), 120_000);
    let mut want = content;
    want.resize(120_000, 0);
    want[10_000..30_000].fill(0);
    want[90_000..100_000].fill(0);
    assert!(fs::read(dir.join("file")).expect("read") == want, "the bytes differ");
    let collapse = fallocate(&file, FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, 4096);
    assert_eq!(collapse, Err(nix::Error::EOPNOTSUPP));
}

#[test]
fn ranges_are_copied_between_files() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    let content = Random::new(4).bytes(9 << 20);
    fs::write(dir.join("from"), &content).expect("write");
    let from = File::open(dir.join("from")).expect("open");
    let to = File::create(dir.join("to")).expect("create");
    let (mut at, mut to_at) = (1000, 5);
    let mut left = content.len() - 1000;
    while left > 0 {
        let copied =
            copy_file_range(&from, Some(&mut at), &to, Some(&mut to_at), left).expect("copy_file_range");
        assert!(copied > 0 && copied <= 4 << 20);
        left -= copied;
    }
    let got = fs::read(dir.join("to")).expect("read");
    assert!(got[..5] == [0; 5] && got[5..] == content[1000..], "the bytes differ");
    fs::copy(dir.join("to"), dir.join("again")).expect("copy");
    assert!(fs::read(dir.join("again")).expect("read") == got, "the bytes differ");
}
