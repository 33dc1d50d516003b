//! Tokens as text: made, narrowed, looked at, checked.

use std::collections::BTreeSet;

use biscuit_auth::{
    Biscuit, BiscuitBuilder, BlockBuilder, PublicKey, UnverifiedBiscuit,
    error::{Format, Token as Failed},
};

use crate::{
    BLOCKS_MAX, Grant, Narrowing, Right, RootKey, SessionRef, TOKEN_BYTES_MAX, TokenError, block::Said,
};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its ID, which is that of all that were narrowed from it.
    pub id: String,
    /// What it allows.
    pub grant: Grant,
}

/// Signs a new token. An ID is of letters, digits and `_`. Errors: `TooManySessions`.
pub fn mint(
    key: &RootKey,
    id: &str,
    rights: BTreeSet<Right>,
    sessions: Option<BTreeSet<SessionRef>>,
    expires_secs: u64,
) -> Result<String, TokenError> {
    let narrowing = Narrowing { rights: Some(rights), sessions, expires_secs: Some(expires_secs) };
    let said = Said { id: Some(id.to_owned()), narrowing };
    let mut block = BiscuitBuilder::new();
    for fact in said.facts()? {
        block = block.fact(fact).map_err(library)?;
    }
    bounded(block.build(&key.0).and_then(|token| token.to_base64()).map_err(library)?)
}

/// A token that allows less, or as much. Asks nobody: neither whether the token is good, nor whether there are such sessions. Errors: `NotAllowed`,
/// `NothingToNarrow`, and what is wrong with the token.
pub fn narrow(text: &str, by: Narrowing) -> Result<String, TokenError> {
    let (token, Token { grant, .. }) = parse(text)?;
    if by.is_empty() {
        return Err(TokenError::NothingToNarrow);
    }
    if let Some(right) = by.rights.iter().flatten().find(|right| !grant.rights.contains(right)) {
        return Err(TokenError::NotAllowed(*right));
    }
    if token.block_count() == BLOCKS_MAX {
        return Err(TokenError::TooManyBlocks);
    }
    let mut block = BlockBuilder::new();
    for fact in (Said { id: None, narrowing: by }).facts()? {
        block = block.fact(fact).map_err(library)?;
    }
    let narrower = token.append(block).map_err(|error| match error {
        Failed::AppendOnSealed | Failed::AlreadySealed => TokenError::Sealed,
        error => library(error),
    })?;
    bounded(narrower.to_base64().map_err(library)?)
}

/// What a token says that may be forged: no signature is looked at.
pub fn inspect(text: &str) -> Result<Token, TokenError> {
    parse(text).map(|(_, token)| token)
}

/// What a token of this daemon says, at this time (seconds since 1970). Whether it was revoked is for the caller to know, by its ID.
pub fn verify(text: &str, key: &RootKey, now_secs: u64) -> Result<Token, TokenError> {
    let root: PublicKey = key.0.public();
    let text = trimmed(text)?;
    // The signatures first: of what has none nothing else is read.
    let token = Biscuit::from_base64(text, root).map_err(|error| match error {
        Failed::Format(Format::Signature(_) | Format::SealedSignature) => TokenError::NotSigned,
        _ => TokenError::Malformed,
    })?;
    let strangers = token.external_public_keys();
    let token = read(token.block_count(), &strangers, |index| token.print_block_source(index).ok())?;
    if token.grant.is_over(now_secs) {
        return Err(TokenError::Expired);
    }
    Ok(token)
}

fn parse(text: &str) -> Result<(UnverifiedBiscuit, Token), TokenError> {
    let token = UnverifiedBiscuit::from_base64(trimmed(text)?).map_err(|_| TokenError::Malformed)?;
    let strangers = token.external_public_keys();
    let said = read(token.block_count(), &strangers, |index| token.print_block_source(index).ok())?;
    Ok((token, said))
}

/// Puts together what the blocks say.
fn read(
    blocks: usize,
    strangers: &[Option<PublicKey>],
    source: impl Fn(usize) -> Option<String>,
) -> Result<Token, TokenError> {
    if blocks > BLOCKS_MAX {
        return Err(TokenError::TooManyBlocks);
    }
    let said = |index: usize| {
        // A block that somebody else vouches for means something to other programs, and nothing here.
        let is_own = strangers.get(index).is_some_and(Option::is_none);
        let said = is_own.then(|| source(index)).flatten().and_then(|source| Said::read(&source));
        said.ok_or(TokenError::UnknownBlock(index))
    };
    let first = said(0)?;
    let (Some(id), Some(rights), Some(expires_secs)) =
        (first.id, first.narrowing.rights, first.narrowing.expires_secs)
    else {
        return Err(TokenError::UnknownBlock(0));
    };
    let mut grant = Grant { rights, sessions: first.narrowing.sessions.into_iter().collect(), expires_secs };
    for index in 1..blocks {
        let more = said(index)?;
        if more.id.is_some() {
            return Err(TokenError::UnknownBlock(index));
        }
        grant = grant.narrowed(more.narrowing);
    }
    Ok(Token { id, grant })
}

/// Tokens come out of files and pipes, with a newline behind them.
fn trimmed(text: &str) -> Result<&str, TokenError> {
    match text.trim_ascii() {
        "" => Err(TokenError::Empty),
        text if text.len() > TOKEN_BYTES_MAX => Err(TokenError::TooLong(text.len())),
        text => Ok(text),
    }
}

/// One that nobody would take is not given out.
fn bounded(text: String) -> Result<String, TokenError> {
    if text.len() > TOKEN_BYTES_MAX { Err(TokenError::TooLong(text.len())) } else { Ok(text) }
}

fn library(error: Failed) -> TokenError {
    TokenError::Library(error.to_string())
}

#[cfg(test)]
mod tests;
