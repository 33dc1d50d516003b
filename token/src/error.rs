//! Why a token is not taken. No message quotes any of it: what was given may be a secret all the same.

use crate::{BLOCKS_MAX, Right, SESSIONS_MAX, TOKEN_BYTES_MAX};

/// Why a token is not taken, or not narrowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No text at all.
    #[error("the token is empty")]
    Empty,
    /// More text than any token has.
    #[error("{0} bytes are no token: one has at most {TOKEN_BYTES_MAX}")]
    TooLong(usize),
    /// It is no token, or part of one.
    #[error("this is no token, or not all of one; copy it again")]
    Malformed,
    /// Signed by somebody else, or changed behind the signature.
    #[error("the token was not made by this daemon, or was changed; ask for a new one")]
    NotSigned,
    /// A block says what nobody here understands.
    #[error(
        "block {0} of the token says something that this version does not know; narrow tokens with `aetherctl token narrow` alone"
    )]
    UnknownBlock(usize),
    /// Narrowed more often than anybody needs.
    #[error(
        "the token has more than {BLOCKS_MAX} blocks; ask for a new one instead of narrowing this one further"
    )]
    TooManyBlocks,
    /// A block with more sessions than it may name.
    #[error("{0} sessions are too many for one token: at most {SESSIONS_MAX}")]
    TooManySessions(usize),
    /// Its time is over.
    #[error("the token has expired; ask for a new one")]
    Expired,
    /// It was closed against narrowing.
    #[error("the token is sealed: it cannot be narrowed")]
    Sealed,
    /// Narrowing gives nothing that was not there.
    #[error("the token does not allow {0}, so it cannot be narrowed to that")]
    NotAllowed(Right),
    /// Narrowing to nothing in particular.
    #[error("nothing to narrow: name --allow, --session or --expires")]
    NothingToNarrow,
    /// A key that is none.
    #[error("the root key is not {} bytes of one", crate::KEY_BYTES)]
    BadKey,
    /// The library failed at something that cannot fail.
    #[error("the token cannot be made: {0}")]
    Library(String),
}
