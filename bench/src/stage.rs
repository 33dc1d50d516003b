//! What all workloads share: the tree on the benchmark's file system, how much of everything, how far the run is.

use std::path::{Path, PathBuf};

use crate::{
    Result,
    progress::Progress,
    repository,
    scale::Scale,
    shell,
    tree::{self, Tree},
};

pub(crate) struct Stage {
    /// The benchmark's file system.
    pub(crate) volume: PathBuf,
    /// What imports read and overlays are over. Nobody changes it.
    pub(crate) tree: Tree,
    /// Files of it in git.
    pub(crate) tracked_files: usize,
    /// Part of it, to be unpacked.
    pub(crate) archive: PathBuf,
    /// Part of it that is enough to look at many times, from its root.
    pub(crate) part: PathBuf,
    pub(crate) scale: &'static Scale,
    pub(crate) rounds: u32,
    pub(crate) progress: Progress,
}

impl Stage {
    pub(crate) fn create(
        volume: &Path,
        source: &Path,
        scale: &'static Scale,
        rounds: u32,
        progress: Progress,
    ) -> Result<Stage> {
        progress.say(&format!("copying {} to the benchmark's file system", source.display()));
        let tree = Tree::copy(source, &volume.join("tree"), scale.tree_files_max)?;
        let archive = volume.join("archive.tar");
        tree::pack_first(&tree.root, &archive, scale.unpacked_files)?;
        let part = tree.part(scale.part_files_max)?;
        progress.say("making it a git repository");
        let tracked_files = repository::create(&tree.root)?;
        shell::settle()?;
        Ok(Stage { volume: volume.to_owned(), tree, tracked_files, archive, part, scale, rounds, progress })
    }
}
