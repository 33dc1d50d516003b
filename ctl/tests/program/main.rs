//! The real `aetherctl`, against a daemon of fixed answers.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod commands;
mod fake;
mod network;
