//! The tree as a git repository with two commits, so that all sides have the same `.git`.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::Command,
};

use crate::{Result, shell};

/// The tree as it is, and with every twentieth file changed and another twentieth deleted.
pub(crate) const BEFORE: &str = "bench-before";
pub(crate) const AFTER: &str = "bench-after";
const STRIDE: usize = 20;

/// Makes both commits; the first one is checked out in the end.
pub(crate) fn create(tree: &Path) -> Result<()> {
    match fs::symlink_metadata(tree.join(".git")) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(format!("{}: its .git is elsewhere", tree.display()).into()),
        Err(_) => git(tree, &["init", "-q"])?,
    }
    git(tree, &["checkout", "-q", "-B", BEFORE])?;
    commit(tree)?;
    git(tree, &["checkout", "-q", "-b", AFTER])?;
    change(tree)?;
    commit(tree)?;
    git(tree, &["checkout", "-q", BEFORE])
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

fn change(tree: &Path) -> Result<()> {
    let names = shell::run(command(tree).args(["ls-files", "-z"]))?;
    for (nth, name) in names.split_terminator('\0').enumerate() {
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
        create(dir.path()).unwrap();
        git(dir.path(), &["diff", "--quiet", "HEAD"]).unwrap();
        assert!(dir.path().join("10").exists());
        git(dir.path(), &["checkout", "-q", AFTER]).unwrap();
        assert!(!dir.path().join("10").exists());
        assert_eq!(fs::read_to_string(dir.path().join("20")).unwrap(), "x\nanother line\n");
    }
}
