//! What open(2) is asked for: to append, to go past the cache.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    process::{Child, Command},
};

use crate::{daemon::Daemon, random::Random};

/// A process that appends numbered lines: `NAME 0`, `NAME 1`...
fn appender(path: &std::path::Path, name: &str, lines: u32) -> Child {
    let script = format!("n=0; while [ $n -lt {lines} ]; do echo {name} $n; n=$((n + 1)); done >>\"$0\"");
    Command::new("sh").args(["-c", &script]).arg(path).spawn().expect("a shell")
}

#[test]
fn two_processes_append_to_one_file() {
    const LINES: u32 = 1500;
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted("", "mnt");
    let path = dir.join("log");
    // A third one, whose position is elsewhere at every write.
    let mut ours = File::options().append(true).read(true).create(true).open(&path).expect("open");
    let mut children = ["left", "right"].map(|name| appender(&path, name, LINES));
    for n in 0..LINES {
        ours.seek(SeekFrom::Start(0)).expect("seek");
        ours.write_all(format!("here {n}\n").as_bytes()).expect("append");
    }
    children.iter_mut().for_each(|child| assert!(child.wait().expect("a shell").success()));
    let log = fs::read_to_string(&path).expect("read");
    for name in ["left", "right", "here"] {
        let own = log.lines().filter(|line| line.starts_with(name));
        assert!(own.eq((0..LINES).map(|n| format!("{name} {n}"))), "lines of {name} are missing or torn");
    }
    assert_eq!(log.lines().count(), 3 * LINES as usize);
}

#[test]
fn direct_input_and_output_sees_what_others_write() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let path = dir.join("file");
    let mut expected = Random::new(11).bytes((3 << 20) + 123);
    fs::write(&path, &expected).expect("write");
    let mut options = File::options();
    let plain = options.read(true).write(true).open(&path).expect("open");
    let direct = options.custom_flags(libc::O_DIRECT).open(&path).expect("open O_DIRECT");
    let random = &mut Random::new(12);
    for round in 0..60 {
        let at = random.below(expected.len() as u64 - 100_000) as usize;
        let len = 1 + random.below(90_000);
        let data = random.bytes(len as usize);
        let (writer, reader) = if round % 2 == 0 { (&direct, &plain) } else { (&plain, &direct) };
        writer.write_all_at(&data, at as u64).expect("write");
        expected[at..at + data.len()].copy_from_slice(&data);
        let from = at.saturating_sub(500);
        let mut seen = vec![0; data.len() + 1000];
        reader.read_exact_at(&mut seen, from as u64).expect("read");
        assert!(
            seen == expected[from..from + seen.len()],
            "round {round}: the other descriptor sees other bytes"
        );
    }
    // Every one of these is answered by the daemon, none by the kernel's cache.
    let reads = || daemon.stats().fuse_requests["read"];
    let before = reads();
    (0..20).for_each(|_| direct.read_exact_at(&mut [0; 1000], 77).expect("read"));
    assert!(reads() >= before + 20);
    drop((plain, direct));
    daemon.remount(&session, &dir);
    assert!(fs::read(&path).expect("read") == expected, "the bytes differ");
}
