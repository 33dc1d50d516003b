//! A dull file system in memory, operations on it, and a runner that carries them out on it and on the real thing and
//! compares. The real thing is a [`target::Target`]: the engine here, a mount elsewhere.

pub mod differ;
pub mod engine;
pub mod history;
pub mod kernel;
pub mod notes;
pub mod ops;
pub mod picture;
pub mod runner;
pub mod target;
pub mod tree;
pub mod world;
