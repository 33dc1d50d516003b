//! What the kernel is told without having asked, by a thread of its own that holds no lock: a notice takes locks of the kernel
//! that may wait for an answer of this daemon.
//!
//! Notices only make a mount faster: one that finds no room is left out.

use std::{
    io,
    sync::mpsc::{self, SyncSender},
    thread,
};

use fuser::{INodeNo, Notifier};

/// Notices on their way.
const QUEUE_MAX: usize = 1024;

/// Drops what the kernel has of a directory's listing.
struct DropListing {
    notifier: Notifier,
    dir: u64,
}

/// The way to the thread. It ends when the last one goes.
#[derive(Clone, Debug)]
pub(super) struct Notices(SyncSender<DropListing>);

impl Notices {
    /// Starts the thread. Error: the system has none.
    pub fn start() -> io::Result<Notices> {
        let (sender, queue) = mpsc::sync_channel::<DropListing>(QUEUE_MAX);
        thread::Builder::new().name("fuse-notices".into()).spawn(move || {
            for DropListing { notifier, dir } in queue {
                // ENOENT: the kernel has forgotten the directory by itself. Anything else: the mount is gone.
                if let Err(error) = notifier.inval_inode(INodeNo(dir), 0, 0) {
                    tracing::trace!(dir, %error, "a listing was not dropped");
                }
            }
        })?;
        Ok(Notices(sender))
    }

    /// Has the kernel of a mount drop its listing of a directory.
    pub fn drop_listing(&self, notifier: &Notifier, dir: u64) {
        let _ = self.0.try_send(DropListing { notifier: notifier.clone(), dir });
    }
}
