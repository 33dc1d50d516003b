//! Reading ahead of programs that scan a tree: by a process that is not in anybody's way.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
};

use crate::daemon::{Daemon, soon};

const DIRS: usize = 60;
const FILES: usize = 50;

fn content(dir: usize, file: usize) -> Vec<u8> {
    format!("{dir}/{file} ").repeat(20 + file).into_bytes()
}

/// A tree of some thousand small files, and a session of it that nobody has looked at.
fn mounted(daemon: &Daemon) -> (String, PathBuf) {
    let tree = daemon.new_dir("tree");
    for dir in 0..DIRS {
        let path = tree.join(format!("{dir:02}/below"));
        fs::create_dir_all(&path).expect("mkdir");
        (0..FILES)
            .for_each(|file| fs::write(path.join(format!("{file:02}")), content(dir, file)).expect("write"));
    }
    let snapshot = daemon.import(&tree).expect("import");
    daemon.mounted(&snapshot, "mnt")
}

/// Reads everything, in the order of the listings, as grep does.
fn scan(dir: &Path, each: &mut dyn FnMut(&Path, Vec<u8>)) {
    scan_until(dir, &mut |path, bytes| {
        each(path, bytes);
        false
    });
}

/// The same, until `each` has enough. Returns whether it had.
fn scan_until(dir: &Path, each: &mut dyn FnMut(&Path, Vec<u8>) -> bool) -> bool {
    fs::read_dir(dir).expect("list").any(|entry| {
        let path = entry.expect("list").path();
        match fs::symlink_metadata(&path).expect("stat").is_dir() {
            true => scan_until(&path, each),
            false => each(&path, fs::read(&path).expect("read")),
        }
    })
}

/// The readers of a mount, by process.
fn readers(mount: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("list").flatten().map(|entry| entry.path());
    let of_mount = |path: &PathBuf| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let mut arguments = line.split(|byte| *byte == 0);
        arguments.any(|argument| argument == b"--read-ahead-in")
            && arguments.next() == Some(mount.as_os_str().as_bytes())
    };
    processes.filter(of_mount).collect()
}

#[test]
fn a_scan_is_read_ahead_of_and_reads_each_file_once() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = mounted(&daemon);
    let (mut files, mut reader) = (0, None);
    scan(&dir, &mut |path, bytes| {
        let number = |path: &Path| path.file_name()?.to_str()?.parse::<usize>().ok();
        let above = path.ancestors().nth(2).and_then(number).expect("a number");
        assert_eq!(bytes, content(above, number(path).expect("a number")), "{}", path.display());
        files += 1;
        reader = reader.take().or_else(|| readers(&dir).pop());
    });
    assert_eq!(files, DIRS * FILES);
    assert!(reader.is_some(), "nobody read ahead");
    assert_eq!(daemon.requests("read"), files as u64);
    soon("the reader ends", || readers(&dir).is_empty());
}

/// A READ ahead of a scan makes the kernel doubt the attributes that the scan asks for next: reading ahead once cost it as much as it
/// saved.
#[test]
fn a_scan_and_the_next_one_find_that_the_kernel_knows_the_attributes() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = mounted(&daemon);
    let asked = |operations: &[&str]| operations.iter().map(|one| daemon.requests(one)).sum::<u64>();
    let everything = ["getattr", "readdir", "readdirplus", "lookup"];
    // Stats of the first scan: of a file, were it not for the lists that come before it. All that the second asks for: two for each listing
    // and one for each directory, more than 150, were it not for those that come after the first; what that read by itself last counts.
    let (first_max, second_max) = ((DIRS * FILES / 8) as u64, 100);
    let mut counts = Vec::new();
    while counts.last().is_none_or(|&(first, second)| first > first_max || second > second_max) {
        // On a busy machine the reader may have given up.
        assert!(counts.len() < 5, "{counts:?}");
        daemon.remount(&session, &dir);
        let before = asked(&["getattr"]);
        scan(&dir, &mut |_, _| {});
        let first = asked(&["getattr"]) - before;
        soon("the reader ends", || readers(&dir).is_empty());
        let before = asked(&everything);
        scan(&dir, &mut |_, _| {});
        counts.push((first, asked(&everything) - before));
    }
}

#[test]
fn nobody_reads_ahead_of_who_knows_the_names() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = mounted(&daemon);
    for nth in 0..2 * DIRS {
        let (above, file) = (nth % DIRS, nth % FILES);
        let path = dir.join(format!("{above:02}/below/{file:02}"));
        assert_eq!(fs::read(path).expect("read"), content(above, file));
    }
    assert_eq!((daemon.requests("read"), readers(&dir)), (2 * DIRS as u64, vec![]));
}

#[test]
fn what_is_written_before_a_scan_comes_by_is_read() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = mounted(&daemon);
    let new = |dir: usize, file: usize| [content(dir, file), b"and more".to_vec()].concat();
    let path = |above: usize, file: usize| dir.join(format!("{above:02}/below/{file:02}"));
    thread::scope(|scope| {
        scope.spawn(|| scan(&dir, &mut |_, _| {}));
        // From the end, through the reader and the scan.
        for above in (0..DIRS).rev() {
            for file in 0..FILES {
                fs::write(path(above, file), new(above, file)).expect("write");
                assert_eq!(fs::read(path(above, file)).expect("read"), new(above, file));
            }
        }
    });
    let check = || {
        for (above, file) in (0..DIRS).flat_map(|above| (0..FILES).map(move |file| (above, file))) {
            assert_eq!(fs::read(path(above, file)).expect("read"), new(above, file));
        }
    };
    check();
    daemon.remount(&session, &dir);
    check();
}

#[test]
fn a_reader_holds_nobody_up_who_unmounts() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = mounted(&daemon);
    let mut reader = None;
    assert!(scan_until(&dir, &mut |_, _| {
        reader = readers(&dir).pop();
        reader.is_some()
    }));
    let reader = reader.expect("it was there");
    // On no other CPU than all processes, and with its share of it.
    let status = fs::read_to_string(reader.join("status")).unwrap_or_default();
    let cpus =
        |status: &str| status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).map(str::to_owned);
    if let Some(allowed) = cpus(&status) {
        assert_eq!(Some(allowed), cpus(&fs::read_to_string("/proc/self/status").expect("read")));
    }
    let stat = fs::read_to_string(reader.join("stat")).unwrap_or_default();
    assert!(stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.split(' ').nth(38) == Some("0")), "{stat}");
    daemon.unmount_unused(&dir);
    assert!(!reader.exists(), "it was waited for");
    assert_eq!(
        fs::metadata(&dir).expect("stat").dev(),
        fs::metadata(daemon.new_dir("other")).expect("stat").dev()
    );
}
