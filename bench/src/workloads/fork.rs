//! Sessions are created and forked: against the size of the tree, the depth, and the number of changed files. What the
//! daemon measured; the session is mounted, as sessions are when they are forked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::AETHER;
use crate::{
    Result,
    args::Group,
    daemon::Daemon,
    samples::{Sample, Unit},
    shell,
    stage::Stage,
    stop,
};

/// In one round: a single call says little.
const CALLS: u32 = 10;
const FILES_PER_DIR: u32 = 100;

pub(crate) fn run(stage: &Stage, samples: &mut Vec<Sample>) -> Result<()> {
    let scale = stage.scale;
    let points = scale.tree_files.len() + scale.depths.len() + scale.changed_files.len();
    stage.progress.expect(points as u64);
    let mut series = Series { stage, samples };
    for files in scale.tree_files {
        series.size(*files)?;
    }
    let small = Forkable::create(stage, scale.tree_files[0])?;
    series.depths(&small)?;
    for changed in scale.changed_files {
        series.changed(&small, *changed)?;
    }
    small.remove()
}

struct Series<'a> {
    stage: &'a Stage,
    samples: &'a mut Vec<Sample>,
}

impl Series<'_> {
    fn size(&mut self, files: u32) -> Result<()> {
        self.step(&format!("fork: {files} files"))?;
        let forkable = Forkable::create(self.stage, files)?;
        self.calls("create, files in the tree", files, || {
            Ok(forkable.daemon.create_session(&forkable.snapshot)?.1)
        })?;
        let (session, dir) = forkable.mounted("size")?;
        self.calls("fork, files in the tree", files, || Ok(forkable.daemon.fork(&session)?.1))?;
        forkable.daemon.unmount(&dir)?;
        forkable.remove()
    }

    fn depths(&mut self, forkable: &Forkable) -> Result<()> {
        let (mut session, dir) = forkable.mounted("depth")?;
        let mut depth = 1;
        for wanted in self.stage.scale.depths {
            self.step(&format!("fork: depth {wanted}"))?;
            while depth < *wanted {
                session = forkable.daemon.fork(&session)?.0;
                depth += 1;
            }
            self.calls("fork, depth", *wanted, || Ok(forkable.daemon.fork(&session)?.1))?;
        }
        forkable.daemon.unmount(&dir)
    }

    fn changed(&mut self, forkable: &Forkable, files: u32) -> Result<()> {
        self.step(&format!("fork: {files} changed files"))?;
        let (session, dir) = forkable.mounted("changed")?;
        generate(&dir.join("changed"), files)?;
        self.calls("fork, changed files", files, || Ok(forkable.daemon.fork(&session)?.1))?;
        forkable.daemon.unmount(&dir)
    }

    fn step(&self, what: &str) -> Result<()> {
        self.stage.progress.step(what);
        shell::settle()?;
        stop::check()
    }

    fn calls(&mut self, work: &str, at: u32, mut call: impl FnMut() -> Result<f64>) -> Result<()> {
        for round in 0..self.stage.rounds * CALLS {
            let value = call()?;
            self.samples.push(Sample {
                group: Group::Fork,
                work: work.to_owned(),
                side: AETHER.to_owned(),
                round,
                unit: Unit::Seconds,
                value,
                at: Some(at),
                daemon: None,
            });
        }
        Ok(())
    }
}

/// A daemon with a synthetic tree.
struct Forkable {
    daemon: Daemon,
    snapshot: String,
    dir: PathBuf,
}

impl Forkable {
    fn create(stage: &Stage, files: u32) -> Result<Forkable> {
        let dir = stage.volume.join("forkable");
        fs::create_dir(&dir)?;
        let tree = dir.join("tree");
        generate(&tree, files)?;
        let daemon = Daemon::create(&dir.join("daemon"), &[])?;
        let snapshot = daemon.import(&tree)?;
        shell::remove(&tree)?;
        shell::settle()?;
        Ok(Forkable { daemon, snapshot, dir })
    }

    /// A new session, mounted.
    fn mounted(&self, name: &str) -> Result<(String, PathBuf)> {
        let (session, _) = self.daemon.create_session(&self.snapshot)?;
        let dir = self.dir.join(name);
        self.daemon.mount(&session, &dir, &[])?;
        Ok((session, dir))
    }

    fn remove(self) -> Result<()> {
        self.daemon.remove()?;
        shell::remove(&self.dir)
    }
}

/// Small files, all different, a hundred in a directory.
fn generate(dir: &Path, files: u32) -> Result<()> {
    fs::create_dir(dir)?;
    for nth in 0..files {
        let part = dir.join((nth / FILES_PER_DIR).to_string());
        if nth % FILES_PER_DIR == 0 {
            stop::check()?;
            fs::create_dir(&part)?;
        }
        fs::write(part.join(nth.to_string()), format!("file {nth}\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_generated() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        generate(&tree, 250).unwrap();
        assert_eq!(fs::read_to_string(tree.join("2/249")).unwrap(), "file 249\n");
        assert_eq!(shell::files_in(&tree).unwrap(), 250);
    }
}
