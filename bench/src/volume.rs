//! The file system that both sides are measured on: ext4 with a journal, in a sparse image, on a loop device.
//!
//! A machine's own file system may lack a journal, and then its creates are slow for minutes after a large delete; and
//! nothing else writes to this one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Result, shell};

const BYTES_MIN: u64 = 8 << 30;
/// The tree is on it as the native copy, as another copy, in the store, and unpacked.
const TREES: u64 = 6;

/// Mounted while it exists.
pub(crate) struct Volume {
    image: PathBuf,
    root: PathBuf,
    bytes: u64,
    mounted: bool,
}

impl Volume {
    /// Makes one in a directory, with room for `tree_bytes` several times.
    pub(crate) fn create(dir: &Path, tree_bytes: u64) -> Result<Volume> {
        let bytes = BYTES_MIN.max(tree_bytes * TREES);
        let mut volume = Volume { image: dir.join("image"), root: dir.join("fs"), bytes, mounted: false };
        File::create(&volume.image)?.set_len(bytes)?;
        fs::create_dir(&volume.root)?;
        // Not lazily: the kernel would go on initializing tables while others are measured.
        let options = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        shell::run(Command::new("mkfs.ext4").args(options).arg(&volume.image))?;
        shell::run(Command::new("mount").args(["-o", "loop,noatime"]).arg(&volume.image).arg(&volume.root))?;
        volume.mounted = true;
        Ok(volume)
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// For the report.
    pub(crate) fn describe(&self) -> String {
        format!("ext4 with a journal, {} GiB, loop,noatime", self.bytes >> 30)
    }

    /// Unmounts it and removes its image.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.unmount()
    }

    fn unmount(&mut self) -> Result<()> {
        if std::mem::take(&mut self.mounted) {
            shell::run(Command::new("umount").arg(&self.root))?;
        }
        Ok(fs::remove_file(&self.image)?)
    }
}

impl Drop for Volume {
    /// After a failure.
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            let _ = Command::new("umount").arg("-l").arg(&self.root).status();
        }
    }
}
