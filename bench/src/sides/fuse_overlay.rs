//! fuse-overlayfs: the same in a process.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::{Side, overlay::Layers};
use crate::{
    Result,
    mount::{Mount, is_mount},
    stop,
};

/// How often, 5 ms apart, a new mount is looked for.
const TRIES: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(5);

pub(super) struct FuseOverlay {
    layers: Layers,
    running: Option<Running>,
    forks: Vec<(Layers, Running)>,
}

/// One process with its mount.
struct Running {
    mount: Option<Mount>,
    child: Child,
}

impl Running {
    fn start(layers: &Layers) -> Result<Running> {
        let mut command = Command::new("fuse-overlayfs");
        command.arg("-f").args(["-o", &layers.options()?]).arg(layers.root());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = command.spawn().map_err(|e| format!("fuse-overlayfs: {e}"))?;
        let mut running = Running { mount: None, child };
        for _ in 0..TRIES {
            if is_mount(layers.root()) {
                running.mount = Some(Mount::adopt(layers.root()));
                return Ok(running);
            }
            if let Some(status) = running.child.try_wait()? {
                return Err(format!("fuse-overlayfs ended: {status}").into());
            }
            stop::check()?;
            thread::sleep(PAUSE);
        }
        Err("fuse-overlayfs does not mount".into())
    }

    fn end(mut self) -> Result<()> {
        self.mount.take().map_or(Ok(()), Mount::unmount)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends when its mount is gone. One that never mounted is killed in the end.
        drop(self.mount.take());
        for _ in 0..TRIES {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl FuseOverlay {
    pub(super) fn create(lower: &Path, dir: &Path) -> Result<FuseOverlay> {
        let mut side = FuseOverlay { layers: Layers::create(lower, dir)?, running: None, forks: Vec::new() };
        side.mount()?;
        Ok(side)
    }
}

impl Side for FuseOverlay {
    fn name(&self) -> &str {
        "fuse-overlayfs"
    }

    fn root(&self) -> &Path {
        self.layers.root()
    }

    fn mount(&mut self) -> Result<()> {
        self.running = Some(Running::start(&self.layers)?);
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), Running::end)
    }

    fn backing(&self) -> Vec<PathBuf> {
        self.layers.backing()
    }

    fn fork(&mut self, count: u32) -> Result<Vec<PathBuf>> {
        for nth in 0..count {
            let layers = self.layers.fork(nth)?;
            let running = Running::start(&layers)?;
            self.forks.push((layers, running));
        }
        Ok(self.forks.iter().map(|(layers, _)| layers.root().to_owned()).collect())
    }

    fn discard_forks(&mut self) -> Result<()> {
        for (layers, running) in self.forks.drain(..) {
            running.end()?;
            layers.remove()?;
        }
        Ok(())
    }

    fn server(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }
}
