//! Real mounts: the daemon as its users start it, driven over its socket and through the kernel.
//!
//! Each test has a daemon, a state and a socket of its own. Without /dev/fuse the tests say so and pass.

mod ahead;
mod attributes;
mod crash;
mod daemon;
mod differential;
mod diffs;
mod directories;
mod files;
mod forks;
mod import;
mod kinds;
mod life;
mod life_many;
mod life_together;
mod listing;
mod locks;
mod mounting;
mod names;
mod open_flags;
mod passthrough;
mod peers;
mod private;
mod profiles;
mod random;
mod remote;
mod remote_damage;
mod sample;
mod seal;
mod shared_maps;
mod sizes;
mod snapshots;
mod strangers;
mod syncing;
mod times;
mod transports;
mod unnamed;
mod users;
