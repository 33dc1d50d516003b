//! The files of what is known of the remote store: one thing in each, written whole or not at all.
//!
//! Knows what they are called. What is in them is decoded by others, who may find it damaged.

use std::{io, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    Error, Result, SnapshotId,
    disk::{Disk, Open, put_whole},
    remote::name::RemoteName,
};

/// Where it is kept.
const DIR: &str = "store/remote";
const NEW: &str = "store/remote/new";
/// What files of manifests end with that are in the lease, and of those that are not.
pub(super) const KEPT: &str = "manifest";
pub(super) const OWN: &str = "own";
/// The same of packs that were sent, and of layers.
pub(super) const SENT: &str = "sent";
const LAYER: &str = "layer";

/// The folder.
#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    /// Held by who writes a file, and by who removes them all.
    writing: Mutex<()>,
}

impl Files {
    /// The folder of a disk, which is made if it is not there. Error: the disk's.
    pub(super) fn open(disk: Arc<dyn Disk>) -> Result<Files> {
        disk.create_dir(DIR).map_err(Error::io(disk.display(DIR)))?;
        Ok(Files { disk, writing: Mutex::new(()) })
    }

    /// The names of all.
    pub(super) fn list(&self) -> Result<Vec<String>> {
        self.disk.list(DIR).map_err(Error::io(self.disk.display(DIR)))
    }

    /// A file of at most so many bytes.
    pub(super) fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
        let path = format!("{DIR}/{name}");
        let io = |error| Error::io(self.disk.display(&path))(error);
        let file = self.disk.open(&path, Open::Read).map_err(io)?;
        let len = file.len().map_err(io)?;
        if len > bytes_max {
            return Err(Error::Malformed {
                what: "file of the remote store",
                reason: "larger than it can be",
            });
        }
        let mut bytes = vec![0; len as usize];
        let read = file.read_at(&mut bytes, 0).map_err(io)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Whole or not at all.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let _writing = self.writing.lock();
        let path = format!("{DIR}/{name}");
        put_whole(&*self.disk, DIR, NEW, &path, bytes).map_err(Error::io(self.disk.display(&path)))
    }

    /// Nobody writes one as long as the answer is there.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.writing.lock()
    }

    /// Removes one, if it is there. Durable after [`Files::sync`].
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let path = format!("{DIR}/{name}");
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(self.disk.display(&path))(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// What was removed does not come back.
    pub(super) fn sync(&self) -> Result<()> {
        self.disk.sync_dir(DIR).map_err(Error::io(self.disk.display(DIR)))
    }
}

pub(super) fn manifest_file(id: SnapshotId, name: RemoteName, is_kept: bool) -> String {
    format!("{id}.{name}.{}", if is_kept { KEPT } else { OWN })
}

pub(super) fn parse_manifest_file(stem: &str) -> Option<(SnapshotId, RemoteName)> {
    let (id, name) = stem.split_once('.')?;
    Some((id.parse().ok()?, RemoteName::parse(name)?))
}

pub(super) fn layer_file(name: RemoteName) -> String {
    format!("{name}.{LAYER}")
}

pub(super) fn is_layer_file(file: &str) -> bool {
    file.rsplit_once('.').is_some_and(|(_, kind)| kind == LAYER)
}

pub(super) fn sent_file(name: RemoteName) -> String {
    format!("{name}.{SENT}")
}
