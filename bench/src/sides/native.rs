//! A copy of the tree, as it is on the file system underneath.

use std::path::{Path, PathBuf};

use super::Side;
use crate::{Result, samples::NATIVE, shell};

/// A copy, because overlays do not allow changes below them.
pub(super) struct Native {
    root: PathBuf,
}

impl Native {
    pub(super) fn create(tree: &Path, root: &Path) -> Result<Native> {
        shell::copy(tree, root)?;
        Ok(Native { root: root.to_owned() })
    }
}

impl Side for Native {
    fn name(&self) -> &str {
        NATIVE
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn mount(&mut self) -> Result<()> {
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        Ok(())
    }

    fn backing(&self) -> Vec<PathBuf> {
        vec![self.root.clone()]
    }

    /// There is no such thing: the same tree over and over, to compare what reading it takes.
    fn fork(&mut self, count: u32) -> Result<Vec<PathBuf>> {
        Ok((0..count).map(|_| self.root.clone()).collect())
    }

    fn discard_forks(&mut self) -> Result<()> {
        Ok(())
    }
}
