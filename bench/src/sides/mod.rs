//! The sides: each has the same tree mounted, and the same is done to it.

mod aether;
mod fuse_overlay;
mod native;
mod overlay;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    Result,
    args::Rival,
    kernel,
    process::Process,
    samples::{Requests, Usage},
    scale::Scale,
    shell,
};

/// A tree that is prepared and mounted, until it is dropped.
pub(crate) trait Side {
    fn name(&self) -> &str;

    /// Where the tree is. Stays the same.
    fn root(&self) -> &Path;

    fn mount(&mut self) -> Result<()>;

    /// As a file system without extended attributes, where it can be had so.
    fn mount_without_xattrs(&mut self) -> Result<()> {
        self.mount()
    }

    /// What was written stays.
    fn unmount(&mut self) -> Result<()>;

    /// Ends what remembers anything outside the kernel, and starts it again; while nothing is mounted.
    fn restart(&mut self) -> Result<()> {
        Ok(())
    }

    /// The directories whose files the mount's bytes come from.
    fn backing(&self) -> Vec<PathBuf>;

    /// Has what was written become what a mount starts from, where there is a difference.
    fn seal(&mut self) -> Result<()> {
        Ok(())
    }

    /// Mounts more trees like this one, which share everything but what is written from now on. How long it took is for
    /// the caller to measure.
    fn fork(&mut self, count: u32) -> Result<Vec<PathBuf>>;

    fn discard_forks(&mut self) -> Result<()>;

    /// The process that answers for the file system, if there is one.
    fn server(&self) -> Option<u32> {
        None
    }

    /// Whether the same process answers for its forks, too.
    fn serves_forks(&self) -> bool {
        false
    }

    /// What that process was asked since its start.
    fn requests(&self) -> Result<Requests> {
        Ok(Requests::new())
    }
}

impl dyn Side + '_ {
    /// No cache anywhere.
    pub(crate) fn cold(&mut self, scale: &Scale) -> Result<()> {
        self.unmount()?;
        self.restart()?;
        kernel::drop_caches()?;
        kernel::touch_memory(scale.touched_bytes_max);
        self.mount()
    }

    /// A new mount, of which the kernel knows nothing, over bytes that are in the page cache.
    pub(crate) fn renew(&mut self, scale: &Scale) -> Result<()> {
        self.unmount()?;
        let backing = self.backing();
        shell::read_all(&backing.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        kernel::touch_memory(scale.touched_bytes_max);
        self.mount()
    }

    /// Does something, and finds out what that took in the server.
    pub(crate) fn with_usage<T>(&self, work: impl FnOnce(&Path) -> Result<T>) -> Result<(T, Option<Usage>)> {
        let Some(pid) = self.server() else {
            return Ok((work(self.root())?, None));
        };
        let state = || Ok::<_, Box<dyn std::error::Error>>((Process::read(pid)?, self.requests()?));
        let before = state()?;
        let done = work(self.root())?;
        Ok((done, Some(Usage::between(before, state()?))))
    }
}

/// Something that is not here, and why.
#[derive(Serialize)]
pub(crate) struct Missing {
    pub(crate) what: String,
    pub(crate) why: String,
}

/// All that can be had here, the native one first, and those that cannot.
pub(crate) struct Sides {
    pub(crate) all: Vec<Box<dyn Side>>,
    pub(crate) missing: Vec<Missing>,
}

impl Sides {
    /// Of the tree `lower`, in new directories in `dir`; the native one is always there. The tree must not be changed as long as
    /// they exist.
    pub(crate) fn create(lower: &Path, dir: &Path, without: &[Rival]) -> Result<Sides> {
        let mut sides = Sides { all: Vec::new(), missing: Vec::new() };
        sides.all.push(Box::new(native::Native::create(lower, &dir.join("native"))?));
        for rival in Rival::value_variants() {
            let name = rival.name();
            let dir = dir.join(&name);
            match rival {
                _ if without.contains(rival) => {
                    sides.missing.push(Missing { what: name, why: "left out by --without".into() });
                }
                Rival::Overlayfs => sides.add(name, overlay::Overlay::create(lower, &dir)),
                Rival::FuseOverlayfs => sides.add(name, fuse_overlay::FuseOverlay::create(lower, &dir)),
                Rival::AetherDevFuse => {
                    sides.add(name, aether::Aether::create(aether::DEV_FUSE, lower, &dir))
                }
                Rival::AetherIoUring => {
                    sides.add(name, aether::Aether::create(aether::IO_URING, lower, &dir))
                }
            }
        }
        match sides.all.iter().any(|side| side.name().starts_with("aether")) {
            true => Ok(sides),
            false => Err(sides.missing.pop().map_or("no AetherFS".into(), |missing| missing.why.into())),
        }
    }

    fn add<S: Side + 'static>(&mut self, name: String, side: Result<S>) {
        match side {
            Ok(side) => self.all.push(Box::new(side)),
            Err(e) => self.missing.push(Missing { what: name, why: e.to_string() }),
        }
    }
}
