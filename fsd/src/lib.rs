//! The daemon as a library: the session engine, its mounts, its services. Arrows point down only; see `docs/ARCHITECTURE.md`.

pub mod config;
pub mod daemon;
pub mod fleet;
pub mod fuse;
pub mod host;
pub mod logs;
pub mod offline;
pub mod serve;
pub mod session;
pub mod state_dir;
mod sys_heap;
mod sys_sched;
