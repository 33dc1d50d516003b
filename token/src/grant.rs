//! What a token allows: rights, for some sessions or all, until a time. Pure values; every one that is added only takes away.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Look at sessions and snapshots.
    Read,
    /// Change what a session is or where it is: seal, publish, hand off, discard.
    Write,
    /// Make sessions.
    Fork,
    /// Look after the host: free space, check, see counters.
    Manage,
}

impl Right {
    /// All there are.
    pub const ALL: [Right; 4] = [Right::Read, Right::Write, Right::Fork, Right::Manage];

    /// As tokens and people write it.
    pub fn name(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Write => "write",
            Right::Fork => "fork",
            Right::Manage => "manage",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that stands for nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No right.
    #[error("no such right; there are read, write, fork, manage")]
    Right,
    /// No whole ID of a session.
    #[error("not the whole ID of a session, `ses_` and 16 characters; `aetherctl list` shows it")]
    Session,
}

impl FromStr for Right {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Right, Unknown> {
        Right::ALL.into_iter().find(|right| right.name() == text).ok_or(Unknown::Right)
    }
}

/// The whole ID of a session as it is printed: `ses_` and 16 characters of lower-case Crockford base32.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRef(String);

impl SessionRef {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SessionRef {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<SessionRef, Unknown> {
        let digits = text.strip_prefix("ses_").unwrap_or_default();
        let digit =
            |byte: u8| byte.is_ascii_digit() || (byte.is_ascii_lowercase() && !b"ilou".contains(&byte));
        match digits.len() == 16 && digits.bytes().all(digit) {
            true => Ok(SessionRef(text.to_owned())),
            false => Err(Unknown::Session),
        }
    }
}

/// What is left of something after it: absent is all that was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// Rights that stay.
    pub rights: Option<BTreeSet<Right>>,
    /// Sessions that stay, with their forks.
    pub sessions: Option<BTreeSet<SessionRef>>,
    /// Seconds since 1970 at which it ends.
    pub expires_secs: Option<u64>,
}

impl Narrowing {
    /// It takes nothing away.
    pub fn is_empty(&self) -> bool {
        *self == Narrowing::default()
    }
}

/// What is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Rights.
    pub rights: BTreeSet<Right>,
    /// Sets of sessions: what is asked for has to be in each of them, itself or by a session that it is a fork of. None: all sessions.
    pub sessions: Vec<BTreeSet<SessionRef>>,
    /// Seconds since 1970 at which it ends.
    pub expires_secs: u64,
}

impl Grant {
    /// What is left of it.
    pub fn narrowed(self, by: Narrowing) -> Grant {
        let Grant { mut rights, mut sessions, expires_secs } = self;
        if let Some(left) = &by.rights {
            rights.retain(|right| left.contains(right));
        }
        sessions.extend(by.sessions);
        Grant {
            rights,
            sessions,
            expires_secs: by.expires_secs.map_or(expires_secs, |left| left.min(expires_secs)),
        }
    }

    /// Whether it is over.
    pub fn is_over(&self, now_secs: u64) -> bool {
        now_secs >= self.expires_secs
    }

    /// The rights, as people write them.
    pub fn rights_text(&self) -> String {
        if self.rights.is_empty() {
            return "nothing".to_owned();
        }
        joined(&self.rights)
    }

    /// The sessions, as people write them.
    pub fn sessions_text(&self) -> String {
        if self.sessions.is_empty() {
            return "all sessions".to_owned();
        }
        let sets: Vec<_> = self.sessions.iter().map(joined).collect();
        format!("{} and forks", sets.join(", of these only "))
    }
}

fn joined<T: fmt::Display>(set: &BTreeSet<T>) -> String {
    set.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant { rights: BTreeSet::from(Right::ALL), sessions: Vec::new(), expires_secs: 100 }
    }

    #[test]
    fn narrowing_only_takes_away() {
        let session: SessionRef = "ses_0123456789abcdef".parse().unwrap();
        let by = Narrowing {
            rights: Some(BTreeSet::from([Right::Read])),
            sessions: Some(BTreeSet::from([session])),
            expires_secs: Some(50),
        };
        let narrow = grant().narrowed(by.clone());
        assert_eq!((narrow.rights.len(), narrow.sessions.len(), narrow.expires_secs), (1, 1, 50));
        // Once more, with more: nothing comes back.
        let all =
            Narrowing { rights: Some(BTreeSet::from(Right::ALL)), sessions: None, expires_secs: Some(200) };
        assert_eq!(narrow.clone().narrowed(all), narrow);
        assert_eq!(narrow.clone().narrowed(Narrowing::default()), narrow);
        assert_eq!(narrow.narrowed(by).sessions.len(), 2);
        assert!(grant().is_over(100) && !grant().is_over(99));
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for right in Right::ALL {
            assert_eq!(right.name().parse(), Ok(right));
        }
        assert_eq!("Read".parse::<Right>(), Err(Unknown::Right));
        for bad in [
            "ses_",
            "ses_0123456789abcde",
            "ses_0123456789abcdeu",
            "ses_0123456789ABCDEF",
            "0123456789abcdef",
            "work",
        ] {
            assert_eq!(bad.parse::<SessionRef>(), Err(Unknown::Session), "{bad}");
        }
        assert_eq!(grant().sessions_text(), "all sessions");
    }
}
