//! Real mounts: the daemon as its users start it, driven over its socket and through the kernel.
//!
//! Each test has a daemon, a state and a socket of its own. Without /dev/fuse the tests say so and pass.

mod crash;
mod daemon;
mod differential;
mod directories;
mod files;
mod forks;
mod import;
mod life;
mod life_many;
mod life_together;
mod listing;
mod mounting;
mod private;
mod random;
mod sample;
mod seal;
mod shared_maps;
mod unnamed;
mod users;
