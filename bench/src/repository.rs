//! The tree as a git repository with two commits, so that all sides have the same `.git`.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    path::Path,
    process::Command,
};

use crate::{Result, shell};

/// The tree as it is, and with every twentieth file changed and another twentieth deleted.
pub(crate) const BEFORE: &str = "bench-before";
pub(crate) const AFTER: &str = "bench-after";
const STRIDE: usize = 20;

/// Makes both commits; the first one is checked out in the end. Returns how many files it has.
pub(crate) fn create(tree: &Path) -> Result<usize> {
    match fs::symlink_metadata(tree.join(".git")) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(format!("{}: its .git is elsewhere", tree.display()).into()),
        Err(_) => begin(tree)?,
    }
    git(tree, &["checkout", "-q", "-B", BEFORE])?;
    commit(tree)?;
    git(tree, &["checkout", "-q", "-b", AFTER])?;
    change(tree)?;
    commit(tree)?;
    git(tree, &["checkout", "-q", BEFORE])?;
    Ok(names(tree)?.split_terminator('\0').count())
}

/// A package may have put a .gitignore at the top that hides all the rest, as Debian's kernel has: nothing would be
/// committed, and `git status` would look at nothing.
fn begin(tree: &Path) -> Result<()> {
    git(tree, &["init", "-q"])?;
    match fs::remove_file(tree.join(".gitignore")) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Runs git as somebody who has no settings.
pub(crate) fn git(tree: &Path, args: &[&str]) -> Result<()> {
    shell::run(command(tree).args(args)).map(drop)
}

fn command(tree: &Path) -> Command {
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").arg("-C").arg(tree);
    // The copy keeps its owners, who need not be root; and nothing may run in the background.
    for setting in ["safe.directory=*", "gc.auto=0", "maintenance.auto=false", "core.hooksPath=/dev/null"] {
        command.args(["-c", setting]);
    }
    command.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"]);
    command
}

fn commit(tree: &Path) -> Result<()> {
    git(tree, &["add", "-A"])?;
    git(tree, &["commit", "-q", "--allow-empty", "-m", "bench"])
}

/// Of the files in the index, each with a NUL.
fn names(tree: &Path) -> Result<String> {
    shell::run(command(tree).args(["ls-files", "-z"]))
}

fn change(tree: &Path) -> Result<()> {
    for (nth, name) in names(tree)?.split_terminator('\0').enumerate() {
        let path = tree.join(name);
        // A symlink, or a name that is not UTF-8.
        if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        if nth % STRIDE == 0 {
            OpenOptions::new().append(true).open(&path)?.write_all(b"\nanother line\n")?;
        } else if nth % STRIDE == STRIDE / 2 {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_commits_differ() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..60 {
            fs::write(dir.path().join(format!("{n:02}")), "x").unwrap();
        }
        assert_eq!(create(dir.path()).unwrap(), 60);
        git(dir.path(), &["diff", "--quiet", "HEAD"]).unwrap();
        assert!(dir.path().join("10").exists());
        git(dir.path(), &["checkout", "-q", AFTER]).unwrap();
        assert!(!dir.path().join("10").exists());
        assert_eq!(fs::read_to_string(dir.path().join("20")).unwrap(), "x\nanother line\n");
    }

    /// Debian's kernel ignores all of itself: a benchmark of git on it once measured an empty index.
    #[test]
    fn a_tree_that_ignores_itself_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "x").unwrap();
        fs::write(dir.path().join(".gitignore"), "/*\n!/debian/\n").unwrap();
        assert_eq!(create(dir.path()).unwrap(), 1);
    }
}
