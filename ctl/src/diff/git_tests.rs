//! Every patch is given to the real `git apply`, and the tree that comes out has to be the new one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use proto::v1::FileKind;

use super::change::{Change, Content, Side, Sides};
use super::patch::PatchWriter;

/// Kind, executable, bytes.
type Node = (FileKind, bool, Vec<u8>);
type Tree = BTreeMap<Vec<u8>, Node>;

fn file(text: &str) -> Node {
    (FileKind::Regular, false, text.into())
}

fn executable(text: &str) -> Node {
    (FileKind::Regular, true, text.into())
}

fn link(target: &str) -> Node {
    (FileKind::Symlink, false, target.into())
}

fn side((kind, executable, bytes): &Node) -> Side {
    let mode = if *executable { 0o755 } else { 0o644 };
    Side { kind: *kind, mode, size: bytes.len() as u64, content: Content::Text(bytes.clone()) }
}

fn lay_out(dir: &Path, tree: &Tree) {
    for (path, (kind, executable, bytes)) in tree {
        let path = dir.join(std::ffi::OsStr::from_bytes(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if *kind == FileKind::Symlink {
            symlink(std::ffi::OsStr::from_bytes(bytes), &path).unwrap();
        } else {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(if *executable { 0o755 } else { 0o644 }))
                .unwrap();
        }
    }
}

fn read_back(root: &Path, dir: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        if name == b".git" {
        } else if metadata.is_dir() {
            read_back(root, &path, tree);
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec();
            tree.insert(name, (FileKind::Symlink, false, target));
        } else {
            let executable = metadata.permissions().mode() & 0o100 != 0;
            tree.insert(name, (FileKind::Regular, executable, fs::read(&path).unwrap()));
        }
    }
}

fn changes(old: &Tree, new: &Tree, renames: &[(&str, &str)]) -> Vec<Change> {
    let mut changes = Vec::new();
    let renamed_from = |path: &[u8]| renames.iter().any(|(from, _)| from.as_bytes() == path);
    let renamed_to = |path: &[u8]| renames.iter().find(|(_, to)| to.as_bytes() == path);
    for (path, node) in new {
        let (old_path, sides) = match (renamed_to(path), old.get(path)) {
            (Some((from, _)), _) => {
                let from = from.as_bytes().to_vec();
                let sides = Sides::Renamed(side(&old[&from]), side(node));
                (from, sides)
            }
            (None, Some(was)) if was == node => continue,
            (None, Some(was)) if was.0 != node.0 => (path.clone(), Sides::TypeChanged(side(was), side(node))),
            (None, Some(was)) if !renamed_from(path) => {
                (path.clone(), Sides::Modified(side(was), side(node)))
            }
            (None, _) => (path.clone(), Sides::Added(side(node))),
        };
        changes.push(Change { path: path.clone(), old_path, sides, same_content: false });
    }
    for (path, node) in old.iter().filter(|(path, _)| !new.contains_key(*path) && !renamed_from(path)) {
        let sides = Sides::Deleted(side(node));
        changes.push(Change { path: path.clone(), old_path: path.clone(), sides, same_content: false });
    }
    changes.sort_by(|a, b| a.path.split(|&c| c == b'/').cmp(b.path.split(|&c| c == b'/')));
    changes
}

fn patch(changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = PatchWriter::default();
    for change in changes {
        writer.write(change, &mut out);
    }
    writer.finish(&mut out);
    out
}

fn git(dir: &Path, args: &[&str]) {
    let out = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .expect("git is needed by this test");
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

#[track_caller]
fn applies(old: &[(&str, Node)], new: &[(&str, Node)], renames: &[(&str, &str)]) {
    let tree =
        |nodes: &[(&str, Node)]| nodes.iter().map(|(p, n)| (p.as_bytes().to_vec(), n.clone())).collect();
    trees_apply(&tree(old), &tree(new), renames);
}

#[track_caller]
fn trees_apply(old: &Tree, new: &Tree, renames: &[(&str, &str)]) {
    let dir = tempfile::tempdir().unwrap();
    let patch = patch(&changes(old, new, renames));
    let root = dir.path().join("tree");
    fs::create_dir(&root).unwrap();
    fs::write(dir.path().join("patch"), &patch).unwrap();
    lay_out(&root, old);
    git(&root, &["init", "-q"]);
    git(&root, &["apply", "--whitespace=nowarn", "../patch"]);
    let mut got = Tree::new();
    read_back(&root, &root, &mut got);
    assert_eq!(&got, new, "{}", String::from_utf8_lossy(&patch));
}

#[test]
fn edits_apply() {
    let long: String = (0..200).map(|i| format!("line {i}\n")).collect();
    let edited = long.replace("line 3\n", "").replace("line 150\n", "line 150\nand more\n");
    applies(&[("f", file(&long))], &[("f", file(&edited))], &[]);
    applies(&[("f", file("a\nb"))], &[("f", file("a\nb\n"))], &[]);
    applies(&[("f", file("a\n"))], &[("f", file("a\nno end"))], &[]);
    applies(&[("f", file("a\r\nb\n"))], &[("f", file("a\nb\r\n"))], &[]);
    applies(&[("f", file("text\n"))], &[("f", file(""))], &[]);
    applies(&[("f", file(""))], &[("f", file("text\n"))], &[]);
}

#[test]
fn odd_names_apply() {
    for name in [
        "a b",
        "gr\u{fc}n \u{1f600}",
        "say \"hi\"",
        "back\\slash",
        "tab\there",
        "new\nline",
        " lead",
        "trail ",
    ] {
        applies(&[], &[(name, file("x\n"))], &[]);
        applies(&[(name, file("x\n"))], &[(name, file("y\n"))], &[]);
        applies(&[(name, file("x\n"))], &[(name, executable("x\n"))], &[]);
        applies(&[(name, file("x\n"))], &[], &[]);
        applies(&[], &[(name, file(""))], &[]);
        applies(&[(name, file("x\n"))], &[("to", file("x\n"))], &[(name, "to")]);
        applies(&[("from", file("x\n"))], &[(name, file("x\n"))], &[("from", name)]);
    }
    let latin: Tree = [(b"\xe9t\xe9".to_vec(), (FileKind::Regular, false, b"\xe9\n".to_vec()))].into();
    trees_apply(&Tree::new(), &latin, &[]);
    trees_apply(&latin, &Tree::new(), &[]);
}

#[test]
fn new_and_deleted_files_apply() {
    applies(
        &[],
        &[("new/dir/f", executable("#!/bin/sh\n")), ("empty", file("")), ("z", file("no end"))],
        &[],
    );
    applies(&[("d/e/f", file("x\n")), ("empty", file("")), ("keep", file("k"))], &[("keep", file("k"))], &[]);
}

#[test]
fn modes_apply() {
    applies(&[("f", file("x\n"))], &[("f", executable("x\n"))], &[]);
    applies(&[("f", executable("x\n"))], &[("f", file("y\n"))], &[]);
    applies(&[("f", file(""))], &[("f", executable(""))], &[]);
}

#[test]
fn renames_apply() {
    applies(&[("a", file("x\ny\n"))], &[("b/c", file("x\ny\n"))], &[("a", "b/c")]);
    applies(&[("a", file("x\ny\nz\n"))], &[("b", executable("x\nY\nz\n"))], &[("a", "b")]);
    applies(
        &[("a", file("1\n")), ("b", file("2\n"))],
        &[("b", file("1\n")), ("a", file("2\n"))],
        &[("a", "b"), ("b", "a")],
    );
    applies(&[("a", file("1\n"))], &[("b", file("1\n")), ("a", file("new\n"))], &[("a", "b")]);
    applies(&[("e", file(""))], &[("f", file(""))], &[("e", "f")]);
}

#[test]
fn symlinks_and_type_changes_apply() {
    applies(&[], &[("l", link("to/where"))], &[]);
    applies(&[("l", link("a"))], &[("l", link("b b"))], &[]);
    applies(&[("l", link("a"))], &[], &[]);
    applies(&[("l", link("a"))], &[("m", link("a"))], &[("l", "m")]);
    applies(&[("x", file("text\n"))], &[("x", link("target"))], &[]);
    applies(&[("x", link("target"))], &[("x", executable("text\n"))], &[]);
    applies(&[("x", file("text\n"))], &[("x/y", file("below\n"))], &[]);
    applies(&[("x/y", file("below\n"))], &[("x", file("text\n"))], &[]);
}

#[test]
fn what_cannot_be_shown_is_named_and_skipped() {
    let special = |kind, content| Side { kind, mode: 0o644, size: 12_345, content };
    let added = |path: &str, side| Change {
        path: path.into(),
        old_path: path.into(),
        sides: Sides::Added(side),
        same_content: false,
    };
    let mut list = vec![
        added("bin", special(FileKind::Regular, Content::Binary)),
        added("dir", special(FileKind::Directory, Content::Absent)),
        added("dir/f", special(FileKind::Regular, Content::Text(b"f\n".to_vec()))),
        added("hollow", special(FileKind::Directory, Content::Absent)),
        added("large", special(FileKind::Regular, Content::TooLarge)),
        added("pipe", special(FileKind::Fifo, Content::Absent)),
        added("z", special(FileKind::Regular, Content::Text(b"z\n".to_vec()))),
    ];
    let (old, new) =
        (special(FileKind::Regular, Content::Absent), special(FileKind::Regular, Content::Absent));
    let sides = Sides::Modified(old, Side { mode: 0o600, ..new });
    list.push(Change { path: "zz".into(), old_path: "zz".into(), sides, same_content: true });
    let text = String::from_utf8(patch(&list)).unwrap();
    let skipped: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(
        skipped,
        [
            "# not shown: bin (binary, 12345 bytes)",
            "# not shown: hollow (empty directory)",
            "# not shown: large (too large, 12.1 KiB)",
            "# not shown: pipe (fifo)",
            "# not shown: zz (mode 0644 to 0600)",
        ]
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("patch"), &text).unwrap();
    git(dir.path(), &["init", "-q"]);
    git(dir.path(), &["apply", "patch"]);
    assert_eq!(fs::read(dir.path().join("dir/f")).unwrap(), b"f\n");
    assert_eq!(fs::read(dir.path().join("z")).unwrap(), b"z\n");
}
