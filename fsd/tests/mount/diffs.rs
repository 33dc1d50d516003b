//! What a diff calls a difference, and how it tells renames.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{FileExt, PermissionsExt, lchown, symlink},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::{
    fcntl::AT_FDCWD,
    sys::{
        stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat},
        time::TimeSpec,
    },
    unistd::geteuid,
};
use proto::v1::{DiffKind, DiffRequest};

use crate::{daemon::Daemon, random::Random};

/// Lines as `aetherctl diff` has them: letter, path, and where it was if it moved.
fn lines(daemon: &Daemon, a: &str, b: &str) -> Vec<String> {
    let request = DiffRequest { a: a.into(), b: b.into(), ..Default::default() };
    let entries = daemon.ask(async |mut client| {
        let mut entries = client.diff(request).await?.into_inner();
        let mut lines = Vec::new();
        while let Some(entry) = entries.message().await? {
            let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
            lines.push(match entry.kind() {
                DiffKind::Added => format!("A {}", text(&entry.path)),
                DiffKind::Deleted => format!("D {}", text(&entry.path)),
                DiffKind::Modified => format!("M {}", text(&entry.path)),
                DiffKind::Renamed => format!("R {} -> {}", text(&entry.old_path), text(&entry.path)),
                other => format!("{other:?} {}", text(&entry.path)),
            });
        }
        Ok(lines)
    });
    entries.expect("diff")
}

fn set_mtime(path: &Path, secs: i64) {
    let time = TimeSpec::new(secs, 1);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).expect("utimensat");
}

/// A session, mounted, on an import of what `fill` made.
fn on_import(daemon: &Daemon, fill: &dyn Fn(&Path)) -> (String, std::path::PathBuf) {
    let tree = daemon.new_dir("tree");
    fill(&tree);
    let snapshot = daemon.import(&tree).expect("import");
    daemon.mounted(&snapshot, "mnt")
}

#[test]
fn a_diff_is_of_what_a_file_is_and_not_of_its_times() {
    let Some(daemon) = Daemon::start() else { return };
    let is_root = geteuid().is_root();
    let (session, dir) = on_import(&daemon, &|tree| {
        for name in
            ["bytes", "mode", "owner", "group", "xattr", "times", "touched", "linked", "holes", "kind"]
        {
            fs::write(tree.join(name), vec![0; 300_000]).expect("write");
        }
        fs::create_dir(tree.join("dir")).expect("mkdir");
        symlink("a", tree.join("symlink")).expect("symlink");
        let mode = Mode::from_bits_truncate(0o600);
        if is_root {
            mknod(&tree.join("device"), SFlag::S_IFCHR, mode, makedev(1, 3)).expect("mknod");
        }
    });
    let again = |name: &str, make: &dyn Fn(&Path)| {
        fs::remove_file(dir.join(name)).expect("unlink");
        make(&dir.join(name));
    };
    set_mtime(&dir.join("times"), 5);
    fs::write(dir.join("touched"), vec![0; 300_000]).expect("write the same");
    fs::hard_link(dir.join("linked"), dir.join("dir/link")).expect("link");
    fs::remove_file(dir.join("dir/link")).expect("unlink");
    let holes = File::options().write(true).open(dir.join("holes")).expect("open");
    holes.set_len(0).expect("truncate");
    holes.set_len(300_000).expect("truncate");
    fs::set_permissions(&dir, Permissions::from_mode(0o711)).expect("chmod of the root");
    xattr::set(&dir, "user.of-the-root", b"").expect("setxattr");
    assert_eq!(lines(&daemon, &session, ""), Vec::<String>::new());

    let file = File::options().write(true).open(dir.join("bytes")).expect("open");
    file.write_all_at(b"x", 299_999).expect("write");
    fs::set_permissions(dir.join("mode"), Permissions::from_mode(0o400)).expect("chmod");
    xattr::set(dir.join("xattr"), "user.new", b"").expect("setxattr");
    again("symlink", &|path| symlink("b", path).expect("symlink"));
    again("kind", &|path| fs::create_dir(path).expect("mkdir"));
    let mut expected = vec!["M bytes", "TypeChanged kind", "M mode", "M symlink", "M xattr"];
    if is_root {
        lchown(dir.join("owner"), Some(7), None).expect("chown");
        lchown(dir.join("group"), None, Some(7)).expect("chown");
        let mode = Mode::from_bits_truncate(0o600);
        again("device", &|path| mknod(path, SFlag::S_IFCHR, mode, makedev(1, 5)).expect("mknod"));
        expected.extend(["M owner", "M group", "M device"]);
    }
    expected.sort_by_key(|line| line.rsplit(' ').next());
    assert_eq!(lines(&daemon, &session, ""), expected);
    daemon.seal(&session).expect("seal");
    assert_eq!(lines(&daemon, &session, ""), expected, "a seal changes nothing of it");
}

#[test]
fn a_diff_tells_renames_by_inode() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = on_import(&daemon, &|tree| {
        fs::create_dir_all(tree.join("moved/deep")).expect("mkdir");
        fs::create_dir_all(tree.join("gone/deep")).expect("mkdir");
        for name in ["edited", "copied", "replaced", "moved/deep/a", "moved/deep/b", "gone/deep/c"] {
            fs::write(tree.join(name), name.repeat(500)).expect("write");
        }
    });
    fs::rename(dir.join("edited"), dir.join("elsewhere")).expect("rename");
    fs::write(dir.join("elsewhere"), b"nothing is like before").expect("write");
    fs::copy(dir.join("copied"), dir.join("copy")).expect("copy");
    fs::write(dir.join("temporary"), b"as editors do").expect("write");
    fs::rename(dir.join("temporary"), dir.join("replaced")).expect("rename");
    fs::rename(dir.join("moved"), dir.join("here")).expect("rename");
    fs::write(dir.join("here/deep/a"), b"changed").expect("write");
    fs::remove_dir_all(dir.join("gone")).expect("rm -r");
    fs::create_dir_all(dir.join("new/deep")).expect("mkdir");
    fs::write(dir.join("new/deep/d"), b"").expect("write");
    let expected = [
        "A copy",
        "R edited -> elsewhere",
        "D gone",
        "D gone/deep",
        "D gone/deep/c",
        "R moved -> here",
        "M here/deep/a",
        "A new",
        "A new/deep",
        "A new/deep/d",
        "M replaced",
    ];
    assert_eq!(lines(&daemon, &session, ""), expected);
    daemon.seal(&session).expect("seal");
    assert_eq!(lines(&daemon, &session, ""), expected);
}

#[test]
fn a_diff_without_a_second_side_is_with_the_origin() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = on_import(&daemon, &|tree| fs::write(tree.join("base"), b"").expect("write"));
    fs::write(dir.join("of-the-parent"), b"").expect("write");
    let (fork, forked) = daemon.forked(&session, "fork");
    fs::write(forked.join("of-the-fork"), b"").expect("write");
    let (deep, deeper) = daemon.forked(&fork, "deep");
    fs::remove_file(deeper.join("base")).expect("unlink");
    let expected = ["D base", "A of-the-fork", "A of-the-parent"];
    assert_eq!(lines(&daemon, &deep, ""), expected);
    for sealed in [&session, &fork, &deep] {
        daemon.seal(sealed).expect("seal");
        assert_eq!(lines(&daemon, &deep, ""), expected);
    }
    assert_eq!(lines(&daemon, &deep, &fork), ["D base"], "with its parent only when that is asked for");
    // What is created from a seal has that one as its origin.
    let sealed = daemon.seal(&deep).expect("seal");
    let (next, mount) = daemon.mounted(&sealed, "next");
    fs::write(mount.join("later"), b"").expect("write");
    assert_eq!(lines(&daemon, &next, ""), ["A later"]);
}

#[test]
fn new_files_of_two_forks_are_paired_only_if_they_are_the_same() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, _) = on_import(&daemon, &|_| ());
    let ((a, left), (b, right)) = (daemon.forked(&session, "left"), daemon.forked(&session, "right"));
    let make = |path: &Path, content: &[u8], mtime: i64| {
        fs::write(path, content).expect("write");
        set_mtime(path, mtime);
    };
    // The first, second and third file of each have one number.
    for (dir, side) in [(&left, "left"), (&right, "right")] {
        make(&dir.join(format!("same in {side}")), b"content", 100);
        make(&dir.join(format!("other bytes in {side}")), side.as_bytes(), 100);
        make(&dir.join(format!("other time in {side}")), b"content", if side == "left" { 1 } else { 2 });
    }
    use std::os::unix::fs::MetadataExt;
    let number = |dir: &Path, name: &str| fs::metadata(dir.join(name)).expect("stat").ino();
    assert_eq!(number(&left, "same in left"), number(&right, "same in right"));
    assert!(number(&left, "same in left") >= 1 << 62);
    for _ in 0..2 {
        let expected = [
            "A other bytes in left",
            "D other bytes in right",
            "A other time in left",
            "D other time in right",
            "R same in right -> same in left",
        ];
        assert_eq!(lines(&daemon, &a, &b), expected);
        [&a, &b].iter().for_each(|session| drop(daemon.seal(session).expect("seal")));
    }
}

#[test]
fn a_diff_is_of_one_moment() {
    const BACK: u64 = 10;
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = on_import(&daemon, &|tree| {
        fs::create_dir(tree.join("a")).expect("mkdir");
        fs::create_dir(tree.join("z")).expect("mkdir");
    });
    fs::write(dir.join("a/ball"), b"").expect("write");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Something is always in `a` or in `z`, never in both, and a window of files goes on.
        scope.spawn(|| {
            for n in 0u64.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (from, to) = if n % 2 == 0 { ("a", "z") } else { ("z", "a") };
                fs::rename(dir.join(from).join("ball"), dir.join(to).join("ball")).expect("rename");
                fs::write(dir.join("a").join(format!("{n:08}")), Random::new(n).bytes(100)).expect("write");
                if n >= BACK {
                    fs::remove_file(dir.join("a").join(format!("{:08}", n - BACK))).expect("unlink");
                }
            }
        });
        for _ in 0..200 {
            let lines = lines(&daemon, &session, "");
            let balls = lines.iter().filter(|line| line.ends_with("ball")).count();
            let files: Vec<u64> =
                lines.iter().filter_map(|line| line.strip_prefix("A a/")?.parse().ok()).collect();
            let window = files.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            if balls != 1 || !window || files.len() > BACK as usize + 1 {
                stop.store(true, Ordering::Relaxed);
                panic!("not one moment: {lines:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
