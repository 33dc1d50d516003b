//! Sessions as FUSE mounts: an adapter between the kernel's requests and the engine, and the table of mounts.
//!
//! Zero-message open: OPEN and OPENDIR are answered ENOSYS once, and from then on an open of a cached file costs no message at
//! all. So no handle carries state, and everything a request needs is in its inode number; only a mount with passthrough
//! answers OPEN, and counts. Nothing in the daemon ever
//! touches one of its own mounts: a thread that waits for itself cannot be killed.

mod abi;
mod ahead;
mod attr;
mod backing_file;
mod backing_id;
mod connection;
mod device;
mod dispatch;
mod errno;
mod exchange;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod mountinfo;
mod mountpoint;
mod mounts;
mod notices;
mod options;
mod parking;
mod passthrough;
mod relisting;
mod reply;
mod request;
mod requests;
mod ring;
mod transport;

pub use ahead::{
    Readers,
    walk::{Task, run as read_ahead},
};
pub use mounts::{MountError, MountInfo, Mounts};
pub use options::{FileIo, MountOptions};
pub use transport::{NoRings, Transport, TransportChoice, may_use_io_uring};
