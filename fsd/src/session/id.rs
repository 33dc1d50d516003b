//! The name of a session: 80 random bits, written `ses_` and 16 base32 characters.

use std::{fmt, str::FromStr};

use cas::base32;

/// The name of a session, unique for all hosts and all time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 10]);

impl SessionId {
    /// What every session ID begins with.
    pub const PREFIX: &'static str = "ses_";
    /// Characters behind the prefix.
    pub const CHARS: usize = 16;
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, base32::encode(&self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = ();
    /// Only whole IDs; prefixes are resolved by who knows the candidates.
    fn from_str(text: &str) -> Result<SessionId, ()> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(())?;
        Ok(SessionId(base32::decode(digits).ok_or(())?.try_into().map_err(|_| ())?))
    }
}
