//! What hosts share: the remote store, and who may write which session. Below the adapters, above the engine.

mod remote;

pub use remote::{ObjectRemote, OpenError};
