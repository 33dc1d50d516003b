//! Time and chance, as arguments: the engine takes these traits, so that a test decides what they say.

use std::fmt;

use cas::{Time, remote::name::RemoteName};

/// Tells the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now, for the times of inodes. May jump when the system's clock is set.
    fn now(&self) -> Time;
    /// Microseconds since some fixed moment; never goes back.
    fn monotonic_us(&self) -> u64;
}

/// A source of randomness that nobody can guess.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// 80 bits for a session's ID.
    fn session_id(&self) -> super::SessionId;
    /// 128 bits for a name in the remote store.
    fn remote_name(&self) -> RemoteName;
}

/// Which run of the machine this is: another one after every power loss, and as long as the machine runs the same one (on
/// Linux /proc/sys/kernel/random/boot_id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot(pub [u8; 16]);
