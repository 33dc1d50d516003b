//! What the kernel says of a connection under `/sys`, and is told there: Documentation/filesystems/fuse/fuse.rst.

use std::{fs, io, path::Path};

use nix::mount::{MntFlags, umount2};

use super::mountinfo;

/// A mount's connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    source: String,
    /// Its device number, `major:minor`. None if the table of mounts could not be read.
    device: Option<String>,
}

impl Connection {
    /// That of what is mounted on `dir` from `source`. Found by the table of mounts, not by a stat of the mount.
    pub fn of(dir: &Path, source: &str) -> Connection {
        let entry = mountinfo::at(dir).ok().flatten().filter(|entry| entry.source == source);
        Connection { source: source.to_owned(), device: entry.map(|entry| entry.device) }
    }

    /// What the table of mounts says that it is from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its device number.
    pub fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// Ends it: nobody is answered any more, and who waits hears so. Only of a mount that somebody can still reach: numbers are
    /// given again.
    pub fn abort(&self) {
        let ended = match self.abort_by_number() {
            Ok(()) => Ok(()),
            // A container has no such directory.
            Err(error) => match mountinfo::on_top(|entry| entry.is(&self.source, self.device()))
                .unwrap_or_default()
                .first()
            {
                Some(dir) => {
                    umount2(dir, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).map_err(io::Error::from)
                }
                None => Err(error),
            },
        };
        if let Err(error) = ended {
            let advice = "unmount it with umount -f, or end the daemon";
            tracing::error!(self.source, %error, advice, "a mount that is not served any more cannot be ended");
        }
    }

    fn abort_by_number(&self) -> io::Result<()> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "it is not in the table of mounts");
        let device = self.device().ok_or_else(missing)?;
        mountinfo::read()?.iter().find(|entry| entry.is(&self.source, Some(device))).ok_or_else(missing)?;
        let (_, minor) = device.split_once(':').ok_or_else(missing)?;
        fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1")
    }

    /// Sets what the kernel reads ahead, in KiB, which INIT cannot raise and root can.
    pub fn read_ahead(&self, kib: &str) {
        let path = self.device().map(|device| format!("/sys/class/bdi/{device}/read_ahead_kb"));
        let told = path.map_or(Err(io::ErrorKind::NotFound.into()), |path| fs::write(path, kib));
        if let Err(error) = told {
            tracing::debug!(source = self.source, %error, "read-ahead stays at the kernel's default");
        }
    }
}
