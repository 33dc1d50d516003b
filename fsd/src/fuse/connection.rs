//! What the kernel says of a connection under `/sys`, and is told there: Documentation/filesystems/fuse/fuse.rst.

use std::{fs, io, path::Path};

use super::mountinfo;

/// A mount's connection, by its device number, `major:minor`. None if the table of mounts could not be read: all of this makes a
/// mount faster, or its end quicker, and can be done without.
#[derive(Clone, Debug)]
pub(super) struct Connection(Option<String>);

impl Connection {
    /// That of what is mounted on `dir`. Found by the table of mounts, not by a stat of the mount.
    pub fn of(dir: &Path) -> Connection {
        Connection(mountinfo::at(dir).ok().flatten().map(|entry| entry.device))
    }

    /// Ends it: nobody is answered any more, and who waits hears so.
    pub fn abort(&self) {
        let minor = self.0.as_deref().and_then(|device| device.split_once(':')).map(|(_, minor)| minor);
        Self::tell(minor.map(|minor| format!("/sys/fs/fuse/connections/{minor}/abort")), "1");
    }

    /// Sets what the kernel reads ahead, in KiB, which INIT cannot raise and root can.
    pub fn read_ahead(&self, kib: &str) {
        Self::tell(self.0.as_deref().map(|device| format!("/sys/class/bdi/{device}/read_ahead_kb")), kib);
    }

    fn tell(path: Option<String>, what: &str) {
        let told = path.as_ref().map_or(Err(io::ErrorKind::NotFound.into()), |path| fs::write(path, what));
        if let Err(error) = told {
            tracing::debug!(path, what, %error, "not told");
        }
    }
}
