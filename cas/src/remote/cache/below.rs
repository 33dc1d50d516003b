//! The folder that the cache has of a disk.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    Error, Result,
    disk::{Disk, DiskFile, Open, Space},
};

/// Where it is.
const DIR: &str = "cache";

/// The folder `cache` of a disk, as a disk.
#[derive(Debug)]
pub(super) struct Below(pub(super) Arc<dyn Disk>);

impl Below {
    fn path(path: &str) -> String {
        match path {
            "" => DIR.to_owned(),
            path => format!("{DIR}/{path}"),
        }
    }
}

impl Disk for Below {
    fn open(&self, path: &str, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(&Below::path(path), how)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.0.list(&Below::path(path))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.0.create_dir(&Below::path(path))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(&Below::path(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(&Below::path(from), &Below::path(to))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.0.sync_dir(&Below::path(path))
    }

    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }

    fn display(&self, path: &str) -> PathBuf {
        self.0.display(&Below::path(path))
    }
}

/// Removes the cache's files.
pub(super) fn empty(below: &Arc<dyn Disk>) -> Result<()> {
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        for name in below.list(&dir).map_err(Error::io(below.display(&dir)))? {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            match below.remove(&path) {
                Ok(()) => {}
                Err(_) if below.list(&path).is_ok() => dirs.push(path),
                Err(error) => return Err(Error::io(below.display(&path))(error)),
            }
        }
    }
    Ok(())
}
