//! The file system that all sides are measured on: ext4 with a journal, in a sparse image, on a loop device.
//!
//! A machine's own file system may lack a journal, and then its creates are slow for minutes after a large delete; and
//! nothing else writes to this one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Result, mount::Mount, shell};

/// The tree is on it as what overlays are over, as the native copy, as another copy, in the stores, and in parts.
const TREES: u64 = 8;

/// Mounted while it exists. Its image goes with the directory that it is in.
pub(crate) struct Volume {
    mount: Mount,
    root: PathBuf,
    bytes: u64,
}

impl Volume {
    /// Makes one in a directory, with room for `tree_bytes` several times.
    pub(crate) fn create(dir: &Path, bytes_min: u64, tree_bytes: u64) -> Result<Volume> {
        let bytes = bytes_min.max(tree_bytes * TREES);
        let (image, root) = (dir.join("image"), dir.join("fs"));
        File::create(&image)?.set_len(bytes)?;
        fs::create_dir(&root)?;
        // Not lazily: the kernel would go on initializing tables while others are measured.
        let options = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        shell::run(Command::new("mkfs.ext4").args(options).arg(&image))?;
        let image = image.to_str().ok_or("the path of the image is not UTF-8")?;
        let mount = Mount::create(&["-o", "loop,noatime", image], &root)?;
        Ok(Volume { mount, root, bytes })
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// For the report.
    pub(crate) fn describe(&self) -> String {
        format!("ext4 with a journal, {} GiB, loop,noatime", self.bytes >> 30)
    }

    /// Unmounts it, which fails if anything is left in it.
    pub(crate) fn remove(self) -> Result<()> {
        self.mount.unmount()
    }
}
