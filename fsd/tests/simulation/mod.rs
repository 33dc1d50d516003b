//! Seeds of the simulation: what is done and what goes wrong, the lives that are made of it, the snapshots that are kept.

pub mod life;
pub mod script;
pub mod snapshots;
