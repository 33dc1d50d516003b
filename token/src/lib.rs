//! Tokens: who calls a daemon over the network shows one, and it says what he may do.
//!
//! A token is a Biscuit (biscuitsec.org): blocks, the first signed with the daemon's root key, each further one with a key that the block before it
//! names. So whoever holds a token adds a block that narrows it, without asking anybody, and nobody takes one away. Of what Biscuit can say the blocks
//! here say four things alone, as facts: `id`, `right`, `session`, `expires`. A block that says anything else is refused: nothing that a stranger wrote
//! is ever evaluated, and what a token allows can be told exactly, with the key or without.
//!
//! Knows nothing of gRPC, clocks and files: time arrives as an argument, keys and tokens as bytes.

#![forbid(unsafe_code)]

mod block;
mod error;
mod grant;
mod key;
mod sealed;

pub use error::TokenError;
pub use grant::{Grant, Narrowing, Right, SessionRef, Unknown};
pub use key::{KEY_BYTES, RootKey};
pub use sealed::{Token, inspect, mint, narrow, verify};

/// Bytes of a token as text. Longer ones are refused before anything is made of them; with the other headers of a request it fits into 16 KiB.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Blocks of a token: one, and so many less one narrowings.
pub const BLOCKS_MAX: usize = 16;
/// Sessions that one block names.
pub const SESSIONS_MAX: usize = 64;
/// How long a token lasts if nobody says: a day.
pub const LIFETIME_SECS: u64 = 24 * 60 * 60;
/// How long it may last: 30 days.
pub const LIFETIME_SECS_MAX: u64 = 30 * LIFETIME_SECS;
