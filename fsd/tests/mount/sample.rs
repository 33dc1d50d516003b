//! A tree with every kind of file and every oddity that an import has to carry over.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, lchown, symlink},
    },
    path::Path,
};

use nix::{
    fcntl::AT_FDCWD,
    sys::{
        stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat},
        time::TimeSpec,
    },
    unistd::{geteuid, mkfifo},
};

use crate::random::Random;

/// Makes it in an existing directory.
pub(crate) fn make(root: &Path) {
    let random = &mut Random::new(7);
    names(root);
    sizes(&root.join("sizes"), random);
    kinds(&root.join("kinds"));
    attributes(&root.join("attributes"));
    let wide = root.join("wide");
    fs::create_dir(&wide).expect("mkdir");
    for i in 0..3000 {
        fs::write(wide.join(format!("file-{i:05}")), format!("number {i}\n")).expect("write");
    }
    age(root, random);
}

fn names(root: &Path) {
    let dir = root.join("names");
    fs::create_dir(&dir).expect("mkdir");
    let long = [b'n'; 255];
    let odd: [&[u8]; 8] = [
        b"\xff\xfe\x80",
        b"with\nnewline",
        b"with\ttab",
        b" ",
        b"-rf",
        "\u{e9}\u{1f980}".as_bytes(),
        b"\\",
        &long,
    ];
    for name in odd {
        fs::write(dir.join(OsStr::from_bytes(name)), name).expect("write");
        let sub = dir.join(OsStr::from_bytes(&[b"d", &name[..name.len().min(254)]].concat()));
        fs::create_dir(&sub).expect("mkdir");
        fs::write(sub.join("inside"), b"inside").expect("write");
    }
}

fn sizes(dir: &Path, random: &mut Random) {
    fs::create_dir(dir).expect("mkdir");
    for size in [0, 1, 4095, 4096, 4097, 65_536, 262_143, 262_144, 262_145, 1 << 20, (5 << 20) + 17] {
        fs::write(dir.join(size.to_string()), random.bytes(size)).expect("write");
    }
    fs::write(dir.join("zeros"), vec![0; 3 << 20]).expect("write");
    let holes = File::create(dir.join("holes")).expect("create");
    holes.set_len(64 << 20).expect("truncate");
    holes.write_all_at(b"in the middle", 33 << 20).expect("write");
    let all_hole = File::create(dir.join("all-hole")).expect("create");
    all_hole.set_len(64 << 20).expect("truncate");
}

fn kinds(dir: &Path) {
    fs::create_dir(dir).expect("mkdir");
    fs::create_dir(dir.join("empty")).expect("mkdir");
    fs::write(dir.join("file"), b"content").expect("write");
    fs::hard_link(dir.join("file"), dir.join("hard")).expect("link");
    fs::hard_link(dir.join("file"), dir.join("empty/../hard-too")).expect("link");
    symlink("file", dir.join("soft")).expect("symlink");
    symlink("nowhere/\u{e9}", dir.join("dangling")).expect("symlink");
    symlink("x".repeat(4000), dir.join("long")).expect("symlink");
    mkfifo(&dir.join("fifo"), Mode::from_bits_truncate(0o640)).expect("mkfifo");
    fs::hard_link(dir.join("fifo"), dir.join("fifo-too")).expect("link");
    if geteuid().is_root() {
        let mode = Mode::from_bits_truncate(0o600);
        mknod(&dir.join("null"), SFlag::S_IFCHR, mode, makedev(1, 3)).expect("mknod");
        mknod(&dir.join("block"), SFlag::S_IFBLK, mode, makedev(259, 70_000)).expect("mknod");
    }
}

fn attributes(dir: &Path) {
    fs::create_dir(dir).expect("mkdir");
    for mode in [0o000, 0o444, 0o755, 0o4755, 0o2755, 0o1777, 0o7777] {
        let file = dir.join(format!("file-{mode:o}"));
        fs::write(&file, format!("{mode:o}")).expect("write");
        fs::set_permissions(&file, Permissions::from_mode(mode)).expect("chmod");
        let sub = dir.join(format!("dir-{mode:o}"));
        fs::create_dir(&sub).expect("mkdir");
        // Nobody but root could look into the others.
        if geteuid().is_root() || mode & 0o500 == 0o500 {
            fs::set_permissions(&sub, Permissions::from_mode(mode)).expect("chmod");
        }
    }
    let owned = dir.join("owned");
    fs::write(&owned, b"").expect("write");
    if geteuid().is_root() {
        lchown(&owned, Some(12_345), Some(4_000_000_000)).expect("chown");
    }
    xattr::set(&owned, "user.small", b"value").expect("setxattr");
    xattr::set(&owned, "user.empty", b"").expect("setxattr");
    xattr::set(&owned, "user.binary", &[0, 255, 10]).expect("setxattr");
    xattr::set(dir, "user.of-a-directory", b"yes").expect("setxattr");
}

/// Gives everything an old time, with nanoseconds: directories last, because what happens in them changes theirs.
fn age(path: &Path, random: &mut Random) {
    let kind = fs::symlink_metadata(path).expect("it was just made").file_type();
    if kind.is_dir() {
        let mut children: Vec<_> =
            fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
        children.sort();
        for child in children {
            age(&child, random);
        }
    }
    // From 1965 to 2015.
    let secs = random.below(50 * 31_557_600) as i64 - 5 * 31_557_600;
    let time = TimeSpec::new(secs, random.below(1_000_000_000) as i64);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).expect("utimensat");
}
