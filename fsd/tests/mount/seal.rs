//! Seals of a session that is mounted and being written.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::fcntl::OFlag;

use crate::{
    daemon::Daemon,
    listing::{Times, assert_same, listing},
    random::Random,
    sample,
};

#[test]
fn a_seal_changes_nothing_that_can_be_seen() {
    let Some(daemon) = Daemon::start() else { return };
    let tree = daemon.new_dir("tree");
    sample::make(&tree);
    let snapshot = daemon.import(&tree).expect("import");
    let (session, dir) = daemon.mounted(&snapshot, "mnt");
    for round in 0..4 {
        change(&dir, round);
        let before = listing(&dir, Times::All);
        let numbers = inode_numbers(&dir, &before);
        let sealed = daemon.seal(&session).expect("seal");
        assert_same("the mount after a seal", &before, &listing(&dir, Times::All));
        assert_eq!(inode_numbers(&dir, &before), numbers, "inode numbers moved");
        assert_eq!(daemon.seal(&session).expect("seal"), sealed, "nothing changed since");
        let (_, other) = daemon.mounted(&sealed, &format!("other{round}"));
        assert_same("a session on the sealed point", &before, &listing(&other, Times::All));
        assert_eq!(inode_numbers(&other, &before), numbers, "inode numbers are another session's too");
        daemon.remount(&session, &dir);
        assert_same("the mount, made again", &before, &listing(&dir, Times::All));
        daemon.unmount_unused(&other);
    }
}

/// Something of everything.
fn change(dir: &Path, round: u64) {
    let random = &mut Random::new(round);
    let new = dir.join(format!("new{round}"));
    fs::create_dir_all(new.join("deep/er")).expect("mkdir");
    for n in 0..50 {
        fs::write(new.join(format!("deep/er/{n}")), random.bytes(n * 997)).expect("write");
    }
    fs::rename(new.join("deep"), dir.join(format!("moved{round}"))).expect("rename");
    fs::hard_link(dir.join("kinds/file"), new.join("link")).expect("link");
    fs::write(dir.join("kinds/file"), format!("round {round}")).expect("write");
    fs::remove_file(dir.join(format!("wide/file-{:05}", 100 + round))).expect("unlink");
    fs::write(dir.join(format!("wide/added{round}")), b"added").expect("write");
    let big = File::options().write(true).open(dir.join("sizes/5242897")).expect("open");
    big.write_all_at(b"in the middle", random.below(5 << 20)).expect("write");
    xattr::set(dir.join("attributes/owned"), format!("user.round{round}"), b"x").expect("setxattr");
    if round > 0 {
        fs::remove_dir_all(dir.join(format!("moved{}", round - 1))).expect("rm -r");
    }
}

fn inode_numbers(root: &Path, entries: &BTreeMap<PathBuf, String>) -> Vec<u64> {
    entries.keys().map(|path| fs::symlink_metadata(root.join(path)).expect("stat").ino()).collect()
}

#[test]
fn a_session_is_written_while_it_is_sealed() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let fixed = Fixed::make(&dir.join("fixed"));
    fs::write(dir.join("database"), vec![0; BLOCK * BLOCKS]).expect("write");
    let stop = AtomicBool::new(false);
    let seals = thread::scope(|scope| {
        let mut writers: Vec<_> = (0..2)
            .map(|id| {
                let (dir, stop) = (dir.join(format!("writer{id}")), &stop);
                scope.spawn(move || rewrite(&dir, id, stop))
            })
            .collect();
        writers.push(scope.spawn(|| overwrite(&dir.join("database"), &stop)));
        let mut seals = Vec::new();
        for _ in 0..15 {
            seals.push(daemon.seal(&session).expect("seal"));
            check(&dir);
            fixed.check(&dir.join("fixed"));
        }
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        seals
    });
    check(&dir);
    for (n, sealed) in seals.iter().enumerate().step_by(3) {
        let (session, mount) = daemon.mounted(sealed, &format!("sealed{n}"));
        check(&mount);
        check_database(&mount.join("database"));
        fixed.check(&mount.join("fixed"));
        daemon.discard(&session, true).expect("discard");
    }
    // Its handles keep the mount busy.
    drop(fixed);
    let want = listing(&dir, Times::All);
    daemon.remount(&session, &dir);
    assert_same("mounted again", &want, &listing(&dir, Times::All));
}

/// Files that nobody changes: their numbers and bytes, and handles that are open all the time.
struct Fixed(Vec<(PathBuf, u64, Vec<u8>, File)>);

impl Fixed {
    fn make(dir: &Path) -> Fixed {
        let random = &mut Random::new(9);
        let files = (0..60).map(|n| {
            let relative = PathBuf::from(format!("{}/{n}", n % 7));
            let (path, content) = (dir.join(&relative), random.bytes(n * n * 211));
            fs::create_dir_all(path.parent().expect("it has one")).expect("mkdir");
            fs::write(&path, &content).expect("write");
            (relative, fs::metadata(&path).expect("stat").ino(), content, open_uncached(&path))
        });
        Fixed(files.collect())
    }

    /// By path in this tree, and through the handles in the first one.
    fn check(&self, dir: &Path) {
        for (relative, ino, content, held) in &self.0 {
            let path = dir.join(relative);
            assert_eq!(fs::metadata(&path).expect("stat").ino(), *ino, "the number of {}", path.display());
            assert!(read_all(&open_uncached(&path)) == *content, "the bytes of {}", path.display());
            assert!(read_all(held) == *content, "the bytes of {}, held open", path.display());
        }
    }
}

/// Reads from it ask the daemon each time, not the kernel's cache.
fn open_uncached(path: &Path) -> File {
    let open = File::options().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(path);
    open.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn read_all(mut file: &File) -> Vec<u8> {
    let mut content = Vec::new();
    file.rewind().expect("seek");
    file.read_to_end(&mut content).expect("read");
    content
}

const BLOCK: usize = 4096;
const BLOCKS: usize = 64;

/// Round by round, block by block, each block filled with its round's number.
fn overwrite(path: &Path, stop: &AtomicBool) {
    let file = File::options().write(true).open(path).expect("open");
    for round in 1_u32.. {
        for block in 0..BLOCKS {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            file.write_all_at(&round.to_le_bytes().repeat(BLOCK / 4), (block * BLOCK) as u64).expect("write");
        }
    }
}

/// A cut: no block is torn, and none is of a later round than one before it.
fn check_database(path: &Path) {
    let content = fs::read(path).expect("read");
    assert_eq!(content.len(), BLOCK * BLOCKS);
    let rounds: Vec<&[u8]> = content.chunks(BLOCK).map(|block| &block[..4]).collect();
    assert!(
        content.chunks(BLOCK).all(|block| block.chunks(4).all(|part| part == &block[..4])),
        "a torn block"
    );
    let rounds: Vec<u32> =
        rounds.into_iter().map(|round| u32::from_le_bytes(round.try_into().expect("four bytes"))).collect();
    assert!(rounds.is_sorted_by(|a, b| a >= b) && rounds[0] - rounds[BLOCKS - 1] <= 1, "{rounds:?}");
}

/// Makes files, replaces them by rename, moves them between directories, removes them; each holds its name, many times.
fn rewrite(dir: &Path, id: u64, stop: &AtomicBool) {
    let random = &mut Random::new(id);
    fs::create_dir_all(dir.join("a")).expect("mkdir");
    fs::create_dir_all(dir.join("b")).expect("mkdir");
    while !stop.load(Ordering::SeqCst) {
        let name = format!("n{:02}", random.below(40));
        let home = dir.join(random.pick(&["a", "b"]));
        let path = home.join(&name);
        match random.below(5) {
            0 | 1 => {
                let temporary = home.join(format!(".tmp-{name}"));
                fs::write(&temporary, name.repeat(1 + random.below(5000) as usize)).expect("write");
                fs::rename(&temporary, &path).expect("rename");
            }
            2 => drop(fs::rename(&path, dir.join("a").join(&name))),
            3 => drop(fs::rename(&path, dir.join("b").join(&name))),
            _ => drop(fs::remove_file(&path)),
        }
    }
}

fn check(root: &Path) {
    for writer in 0..2 {
        for half in ["a", "b"] {
            let Ok(entries) = fs::read_dir(root.join(format!("writer{writer}")).join(half)) else { continue };
            for entry in entries {
                let entry = entry.expect("an entry");
                let name = entry.file_name().into_string().expect("a plain name");
                // A temporary one may be cut anywhere. Any may be moved or removed meanwhile.
                let Ok(content) = fs::read_to_string(entry.path()) else { continue };
                if !name.starts_with('.') {
                    assert!(
                        content.len() >= name.len() && content == name.repeat(content.len() / name.len()),
                        "{name}"
                    );
                }
            }
        }
    }
}
