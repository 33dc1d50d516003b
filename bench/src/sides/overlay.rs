//! The kernel's overlayfs, over the tree, with what is written on the same file system.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Side;
use crate::{Result, daemon::path, mount::Mount, shell};

pub(super) struct Overlay {
    layers: Layers,
    mount: Option<Mount>,
    forks: Vec<(Layers, Mount)>,
}

/// The directories of an overlay.
pub(super) struct Layers {
    lower: PathBuf,
    dir: PathBuf,
    root: PathBuf,
}

impl Layers {
    pub(super) fn create(lower: &Path, dir: &Path) -> Result<Layers> {
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(dir.join(part))?;
        }
        Ok(Layers { lower: lower.to_owned(), dir: dir.to_owned(), root: dir.join("root") })
    }

    /// What to say to mount(8) and to fuse-overlayfs.
    pub(super) fn options(&self) -> Result<String> {
        let (lower, dir) = (path(&self.lower)?, path(&self.dir)?);
        Ok(format!("lowerdir={lower},upperdir={dir}/upper,workdir={dir}/work"))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The `nth` of some more over the same tree.
    pub(super) fn fork(&self, nth: u32) -> Result<Layers> {
        Layers::create(&self.lower, &self.dir.with_extension(format!("fork{nth}")))
    }

    pub(super) fn backing(&self) -> Vec<PathBuf> {
        vec![self.lower.clone(), self.dir.join("upper")]
    }

    /// While it is not mounted.
    pub(super) fn remove(self) -> Result<()> {
        shell::remove(&self.dir)
    }

    fn mount(&self) -> Result<Mount> {
        Mount::create(&["-t", "overlay", "overlay", "-o", &self.options()?], &self.root)
    }
}

impl Overlay {
    pub(super) fn create(lower: &Path, dir: &Path) -> Result<Overlay> {
        let mut side = Overlay { layers: Layers::create(lower, dir)?, mount: None, forks: Vec::new() };
        side.mount()?;
        Ok(side)
    }
}

impl Side for Overlay {
    fn name(&self) -> &str {
        "overlayfs"
    }

    fn root(&self) -> &Path {
        self.layers.root()
    }

    fn mount(&mut self) -> Result<()> {
        self.mount = Some(self.layers.mount()?);
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        self.mount.take().map_or(Ok(()), Mount::unmount)
    }

    fn backing(&self) -> Vec<PathBuf> {
        self.layers.backing()
    }

    /// Over the same tree: what has been written to this one they have not.
    fn fork(&mut self, count: u32) -> Result<Vec<PathBuf>> {
        for nth in 0..count {
            let layers = self.layers.fork(nth)?;
            let mount = layers.mount()?;
            self.forks.push((layers, mount));
        }
        Ok(self.forks.iter().map(|(layers, _)| layers.root().to_owned()).collect())
    }

    fn discard_forks(&mut self) -> Result<()> {
        for (layers, mount) in self.forks.drain(..) {
            mount.unmount()?;
            layers.remove()?;
        }
        Ok(())
    }
}
