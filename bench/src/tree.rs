//! The tree that everything works on: where it comes from, and its copy on the benchmark's file system.

use std::{
    env, fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Result, shell, stop};

/// Of Debian's package linux-source-6.1.
const LINUX_ARCHIVE: &str = "/usr/src/linux-source-6.1.tar.xz";
const LINUX: &str = "linux-source-6.1";
const SMALL: &str = "/usr/share";

pub(crate) struct Tree {
    /// Of the source.
    pub(crate) name: String,
    /// What is worked on, on the benchmark's file system.
    pub(crate) root: PathBuf,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// The directory that was asked for, or else the default, which is unpacked the first time.
pub(crate) fn source(wanted: Option<&Path>, quick: bool) -> Result<PathBuf> {
    let path = match wanted {
        Some(dir) => dir.to_owned(),
        None if quick => SMALL.into(),
        None => linux()?,
    };
    path.canonicalize().map_err(|e| format!("{}: {e}", path.display()).into())
}

/// What outlives a run: in the build's directory.
pub(crate) fn cache() -> Result<PathBuf> {
    let binary = env::current_exe()?;
    let target = binary.parent().and_then(Path::parent).ok_or("this program is nowhere")?;
    let cache = target.join("bench-cache");
    fs::create_dir_all(&cache)?;
    Ok(cache)
}

fn linux() -> Result<PathBuf> {
    let cache = cache()?;
    let tree = cache.join(LINUX);
    if !tree.exists() {
        // Renamed when it is whole: one that was interrupted must not pass for the tree.
        let parts = tempfile::tempdir_in(&cache)?;
        let mut tar = Command::new("tar");
        shell::run(tar.args(["-xf", LINUX_ARCHIVE, "-C"]).arg(parts.path())).map_err(|e| {
            format!("{e}; install Debian's package linux-source-6.1, or name another tree with --tree")
        })?;
        fs::rename(parts.path().join(LINUX), &tree)?;
    }
    Ok(tree)
}

impl Tree {
    /// Copies it; with a bound that many of its files.
    pub(crate) fn copy(source: &Path, root: &Path, files_max: Option<u32>) -> Result<Tree> {
        if let Some(max) = files_max {
            copy_first(source, root, max)?;
        } else {
            shell::copy(source, root)?;
        }
        shell::settle()?;
        let name = source.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned());
        Ok(Tree { name, root: root.to_owned(), files: shell::files_in(root)?, bytes: shell::bytes_of(root)? })
    }

    /// A directory at the top with as many files as possible, but no more than `max`; or all of it.
    pub(crate) fn part(&self, files_max: u64) -> Result<PathBuf> {
        let mut best = (0, PathBuf::new());
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && entry.file_name() != ".git" {
                let files = shell::files_in(&entry.path())?;
                if files <= files_max {
                    best = best.max((files, entry.file_name().into()));
                }
            }
        }
        Ok(best.1)
    }
}

fn copy_first(source: &Path, root: &Path, files_max: u32) -> Result<()> {
    let archive = root.with_extension("tar");
    pack_first(source, &archive, files_max)?;
    fs::create_dir(root)?;
    shell::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(root))?;
    Ok(fs::remove_file(&archive)?)
}

/// Packs the first files of a tree.
pub(crate) fn pack_first(tree: &Path, archive: &Path, files_max: u32) -> Result<()> {
    let mut find = Command::new("find");
    find.current_dir(tree).args([".", "-path", "./.git", "-prune", "-o", "-type", "f", "-print0"]);
    let names = find.process_group(0).output()?.stdout;
    let first: Vec<_> = names.split_inclusive(|byte| *byte == 0).take(files_max as usize).collect();
    let mut tar = Command::new("tar")
        .arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(tree)
        .args(["--null", "--no-recursion", "--files-from=-"])
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()?;
    tar.stdin.take().ok_or("tar has no stdin")?.write_all(&first.concat())?;
    match stop::during(tar.id(), || tar.wait())?.success() {
        true => Ok(()),
        false => Err("tar failed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        for (part, files) in [("few", 2), ("many", 4), ("most", 6)] {
            fs::create_dir_all(source.join(part)).unwrap();
            for n in 0..files {
                fs::write(source.join(part).join(n.to_string()), "x").unwrap();
            }
        }
        let tree = Tree::copy(&source, &dir.path().join("all"), None).unwrap();
        assert_eq!((tree.name.as_str(), tree.files), ("source", 12));
        assert_eq!(tree.part(5).unwrap(), Path::new("many"));
        assert_eq!(tree.part(1).unwrap(), Path::new(""));
        assert_eq!(Tree::copy(&source, &dir.path().join("some"), Some(7)).unwrap().files, 7);
    }
}
