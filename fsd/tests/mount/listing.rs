//! Everything that a tree shows to a program, as text: two trees are the same if their listings are.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirEntryExt, FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

/// Times below this were set by a test; later ones are those of the test's own run, and no two runs have the same.
pub(crate) const SET_BY_HAND: i64 = 1_500_000_000;

/// How to compare times.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// Of every entry.
    All,
    /// Those that were set by hand, and that the others were not.
    SetByHand,
}

/// One line an entry, by path. Numbers of inodes are left out but for who shares one.
pub(crate) fn listing(root: &Path, times: Times) -> BTreeMap<PathBuf, String> {
    let mut lines = BTreeMap::new();
    walk(root, root, times, &mut lines);
    let mut first_names: HashMap<u64, PathBuf> = HashMap::new();
    for (path, line) in &mut lines {
        let meta = fs::symlink_metadata(root.join(path)).expect("it was there a moment ago");
        let first = first_names.entry(meta.ino()).or_insert_with(|| path.clone());
        if first != path {
            write!(line, " same as {}", first.display()).expect("strings take everything");
        }
    }
    lines
}

fn walk(root: &Path, path: &Path, times: Times, lines: &mut BTreeMap<PathBuf, String>) {
    let relative = path.strip_prefix(root).expect("below its root").to_owned();
    lines.insert(relative, describe(path, times));
    if !fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).is_dir() {
        return;
    }
    for entry in fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
        let entry = entry.unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
        let meta =
            fs::symlink_metadata(entry.path()).unwrap_or_else(|e| panic!("{}: {e}", entry.path().display()));
        assert_eq!(entry.ino(), meta.ino(), "d_ino and st_ino of {}", entry.path().display());
        assert_eq!(entry.file_type().ok(), Some(meta.file_type()), "d_type of {}", entry.path().display());
        walk(root, &entry.path(), times, lines);
    }
}

fn describe(path: &Path, times: Times) -> String {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kind = meta.file_type();
    let mut line = format!("{:06o} {}:{}", meta.mode(), meta.uid(), meta.gid());
    let mut put = |text: std::fmt::Arguments<'_>| line.write_fmt(text).expect("strings take everything");
    if !kind.is_dir() {
        put(format_args!(" links {} size {}", meta.nlink(), meta.size()));
    }
    if kind.is_char_device() || kind.is_block_device() {
        put(format_args!(" device {:x}", meta.rdev()));
    }
    match (times, meta.mtime() < SET_BY_HAND) {
        (Times::All, _) | (Times::SetByHand, true) => {
            put(format_args!(" {}.{:09}", meta.mtime(), meta.mtime_nsec()))
        }
        (Times::SetByHand, false) => put(format_args!(" new")),
    }
    if kind.is_symlink() {
        put(format_args!(" -> {:?}", fs::read_link(path).expect("a symlink")));
    }
    if kind.is_file() {
        let content = fs::read(path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
        assert_eq!(content.len() as u64, meta.size(), "st_size of {}", path.display());
        put(format_args!(" content {:016x}", xxhash_rust::xxh3::xxh3_64(&content)));
    }
    let names = xattr::list(path).unwrap_or_else(|e| panic!("attributes of {}: {e}", path.display()));
    let mut names: Vec<_> = names.filter(|name| !name.as_bytes().starts_with(b"security.")).collect();
    names.sort();
    for name in names {
        put(format_args!(" {name:?}={:?}", xattr::get(path, &name).expect("it is in the list")));
    }
    line
}

/// Panics with the entries that differ.
pub(crate) fn assert_same(what: &str, want: &BTreeMap<PathBuf, String>, got: &BTreeMap<PathBuf, String>) {
    let mut differences = Vec::new();
    for (path, line) in want {
        match got.get(path) {
            Some(other) if other == line => {}
            Some(other) => differences.push(format!("{path:?}\n  want {line}\n  got  {other}")),
            None => differences.push(format!("{path:?} is missing; it should be\n  {line}")),
        }
    }
    differences.extend(
        got.keys().filter(|path| !want.contains_key(*path)).map(|path| format!("{path:?} is too much")),
    );
    differences.truncate(10);
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}
