//! The real program without a mount: how it starts and ends, and what it is on the network.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod network;
mod start;
