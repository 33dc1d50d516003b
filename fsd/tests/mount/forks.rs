//! Forks of a session that is mounted and being written.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use proto::v1::DiffKind;

use crate::{
    daemon::Daemon,
    listing::{Times, assert_same, listing},
    random::Random,
    sample,
};

#[test]
fn forks_see_none_of_each_others_changes() {
    let Some(daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    sample::make(&tree);
    let snapshot = daemon.import(&tree).expect("import");
    let (session, parent) = daemon.mounted(&snapshot, "parent");
    fs::write(parent.join("shared"), vec![b'p'; 300_000]).expect("write");
    let (child, left) = daemon.forked(&session, "left");
    let (_, right) = daemon.forked(&session, "right");
    let dirs = [&parent, &left, &right];
    // Every one changes the same blocks of the same files, and names in the same directories.
    for (n, dir) in dirs.iter().enumerate() {
        let mark = [b'0' + n as u8; 5000];
        for file in ["shared", "sizes/5242897", "kinds/hard"] {
            let file = File::options().write(true).open(dir.join(file)).expect("open");
            file.write_all_at(&mark, 1000).expect("write");
        }
        fs::rename(dir.join("names"), dir.join(format!("names-of-{n}"))).expect("rename");
        fs::remove_file(dir.join(format!("wide/file-0000{n}"))).expect("unlink");
    }
    let (_, grandchild) = daemon.forked(&child, "grandchild");
    assert_same("a fork of a fork", &listing(&left, Times::All), &listing(&grandchild, Times::All));
    for (n, dir) in dirs.iter().enumerate() {
        for file in ["shared", "sizes/5242897", "kinds/file", "kinds/hard-too"] {
            let content = fs::read(dir.join(file)).expect("read");
            assert!(
                content[1000..6000].iter().all(|byte| *byte == b'0' + n as u8),
                "{file} in {}",
                dir.display()
            );
        }
        for other in 0..3 {
            assert_eq!(dir.join(format!("names-of-{other}")).exists(), other == n);
            assert_eq!(dir.join(format!("wide/file-0000{other}")).exists(), other != n);
        }
    }
    assert_same("the source", &listing(&tree, Times::All), &{
        let (_, untouched) = daemon.mounted(&snapshot, "untouched");
        listing(&untouched, Times::All)
    });
}

#[test]
fn a_diff_says_what_the_first_has_over_the_second() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("both"), b"before").expect("write");
    fs::write(dir.join("only-parent"), b"").expect("write");
    let (fork, forked) = daemon.forked(&session, "fork");
    fs::write(forked.join("both"), b"after").expect("write");
    fs::write(forked.join("only-fork"), b"").expect("write");
    fs::remove_file(forked.join("only-parent")).expect("unlink");
    let paths = ["both", "only-fork", "only-parent"].map(String::from);
    let expected = |kinds: [DiffKind; 3]| kinds.into_iter().zip(paths.clone()).collect::<Vec<_>>();
    use DiffKind::{Added, Deleted, Modified};
    assert_eq!(daemon.diff(&fork, &session).expect("diff"), expected([Modified, Added, Deleted]));
    assert_eq!(daemon.diff(&session, &fork).expect("diff"), expected([Modified, Deleted, Added]));
    assert_eq!(daemon.diff(&fork, &fork).expect("diff"), []);
    let own = daemon.diff(&fork, "").expect("diff");
    assert_eq!(own, [(Added, "both".into()), (Added, "only-fork".into())], "without a second: over its base");
}

#[test]
fn a_fork_under_writes_is_a_clean_cut() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| append_lines(&dir, &acknowledged, &stop));
        let _stop = StopAtEnd(&stop);
        for round in 0..25 {
            thread::sleep(Duration::from_millis(20));
            let before = acknowledged.load(Ordering::SeqCst);
            let fork = daemon.fork(&session).expect("fork");
            let after = acknowledged.load(Ordering::SeqCst);
            let journal = daemon.read(&fork, "journal").expect("read");
            let lines = check_lines(&journal);
            assert!(before <= lines && lines <= after + 1, "{before} <= {lines} <= {after} + 1");
            // Each line is followed by a file of its number: the fork holds a prefix of the calls, not just of one file.
            let files = daemon.names(&fork, "files").expect("ls").len() as u64;
            assert!(files == lines || files + 1 == lines, "{files} files, {lines} lines");
            if round % 5 == 0 {
                let mount = daemon.new_dir(&format!("fork{round}"));
                daemon.mount(&fork, &mount).expect("mount");
                thread::sleep(Duration::from_millis(30));
                assert_eq!(fs::read(mount.join("journal")).expect("read"), journal, "the fork moved");
                assert_eq!(fs::read_dir(mount.join("files")).expect("list").count() as u64, files);
            }
        }
    });
}

/// Ends a writer when the scope that it is in does, whether or not the test failed.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn append_lines(dir: &Path, acknowledged: &AtomicU64, stop: &AtomicBool) {
    fs::create_dir_all(dir.join("files")).expect("mkdir");
    let mut journal = File::options().append(true).create(true).open(dir.join("journal")).expect("open");
    for n in 1.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        journal.write_all(line(n).as_bytes()).expect("append");
        acknowledged.store(n, Ordering::SeqCst);
        File::create(dir.join("files").join(n.to_string())).expect("create");
    }
}

/// Of 16 bytes, so that none crosses a page: the kernel sends such a write, however small, in two, and a fork may come
/// between them.
fn line(n: u64) -> String {
    format!("line {n:010}\n")
}

/// Returns how many lines there are, all whole and in order.
fn check_lines(journal: &[u8]) -> u64 {
    let text = std::str::from_utf8(journal).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line at the end");
    let lines = text.lines().count() as u64;
    assert!(text == (1..=lines).map(line).collect::<String>(), "the journal is not 1, 2, 3...");
    lines
}

#[test]
fn a_fork_keeps_what_the_parent_overwrites_in_place() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    const BLOCK: usize = 4096;
    const BLOCKS: u64 = 64;
    let file = File::options().read(true).write(true).create_new(true).open(dir.join("db")).expect("create");
    // Every block of the file always holds one number; a round writes them all, upwards.
    let write = |round: u32, block: u64| {
        let content = round.to_le_bytes().repeat(BLOCK / 4);
        file.write_all_at(&content, block * BLOCK as u64).expect("write");
    };
    (0..BLOCKS).for_each(|block| write(0, block));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1.. {
                for block in 0..BLOCKS {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    write(round, block);
                }
            }
        });
        let mut kept = Vec::new();
        for _ in 0..40 {
            let fork = daemon.fork(&session).expect("fork");
            let content = daemon.read(&fork, "db").expect("read");
            check_rounds(&content, BLOCK);
            kept.push((fork, content));
            thread::sleep(Duration::from_millis(5));
        }
        for (fork, content) in &kept {
            assert!(
                daemon.read(fork, "db").expect("read") == *content,
                "{fork} changed under its parent's writes"
            );
        }
        stop.store(true, Ordering::SeqCst);
        writer.join().expect("the writer");
    });
}

/// A cut through rounds of writes: some blocks of one round, then the rest of the one before, none torn.
fn check_rounds(content: &[u8], block_bytes: usize) {
    let rounds: Vec<u32> = content
        .chunks(block_bytes)
        .map(|block| {
            let round = u32::from_le_bytes(block[..4].try_into().expect("four bytes"));
            assert!(block.chunks(4).all(|part| part == round.to_le_bytes()), "a torn block");
            round
        })
        .collect();
    assert!(rounds.windows(2).all(|pair| pair[0] >= pair[1]), "{rounds:?}");
    assert!(rounds[0] - rounds[rounds.len() - 1] <= 1, "{rounds:?}");
}

#[test]
fn two_hundred_forks_deep_reads_are_right() {
    let Some(daemon) = Daemon::start() else { return };
    let (mut session, dir) = daemon.mounted("", "mnt");
    let content = Random::new(5).bytes(1 << 20);
    fs::write(dir.join("file"), &content).expect("write");
    for depth in 1..=200 {
        session = daemon.fork(&session).expect("fork");
        assert_eq!(daemon.show(&session).fork_depth, depth);
    }
    let deep = daemon.new_dir("deep");
    daemon.mount(&session, &deep).expect("mount");
    assert!(fs::read(deep.join("file")).expect("read") == content, "the bytes differ");
    fs::write(deep.join("file"), b"short").expect("write");
    assert!(fs::read(dir.join("file")).expect("read") == content, "the first one changed");
}
