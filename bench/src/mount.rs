//! A mount that goes when it is dropped.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Result, shell};

pub(crate) struct Mount {
    dir: PathBuf,
    mounted: bool,
}

impl Mount {
    /// `mount ARGS... DIR`.
    pub(crate) fn create(args: &[&str], dir: &Path) -> Result<Mount> {
        shell::run(Command::new("mount").args(args).arg(dir))?;
        Ok(Mount::adopt(dir))
    }

    /// One that another program made.
    pub(crate) fn adopt(dir: &Path) -> Mount {
        Mount { dir: dir.to_owned(), mounted: true }
    }

    pub(crate) fn unmount(mut self) -> Result<()> {
        shell::run(Command::new("umount").arg(&self.dir))?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Mount {
    /// After a failure: something that was interrupted may still be in it.
    fn drop(&mut self) {
        if self.mounted && shell::run(Command::new("umount").arg(&self.dir)).is_err() {
            let _ = shell::run(Command::new("umount").arg("-l").arg(&self.dir));
        }
    }
}

/// Whether a directory is on another file system than the one it is in.
pub(crate) fn is_mount(dir: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(dir) != dir.parent().and_then(device)
}
