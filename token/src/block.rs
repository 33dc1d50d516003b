//! What a block says, as Biscuit's facts and back.
//!
//! Biscuit gives a block's contents as text, a line each. The lines are compared with the four forms that are written here, not parsed as the language
//! that they are in: a block may come from anybody who holds a token, and the language has expressions that take long to read.

use std::collections::BTreeSet;

use biscuit_auth::builder::{Fact, fact, int, string};

use crate::{Narrowing, SESSIONS_MAX, TokenError};

/// What a block says; only the first one has an ID.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) id: Option<String>,
    pub(crate) narrowing: Narrowing,
}

impl Said {
    /// The block's facts. Errors: `TooManySessions`, and a time that no clock reaches.
    pub(crate) fn facts(&self) -> Result<Vec<Fact>, TokenError> {
        let Narrowing { rights, sessions, expires_secs } = &self.narrowing;
        let named = sessions.as_ref().map_or(0, BTreeSet::len);
        if named > SESSIONS_MAX {
            return Err(TokenError::TooManySessions(named));
        }
        let mut facts = Vec::new();
        facts.extend(self.id.iter().map(|id| fact("id", &[string(id)])));
        facts.extend(rights.iter().flatten().map(|right| fact("right", &[string(right.name())])));
        facts.extend(sessions.iter().flatten().map(|session| fact("session", &[string(session.as_str())])));
        if let Some(secs) = expires_secs {
            let secs = i64::try_from(*secs).map_err(|_| TokenError::Expired)?;
            facts.push(fact("expires", &[int(secs)]));
        }
        Ok(facts)
    }

    /// Reads a block. `None` if it says anything else, or one thing twice.
    pub(crate) fn read(source: &str) -> Option<Said> {
        let mut said = Said::default();
        for line in source.lines() {
            said.add(line.strip_suffix(");")?)?;
        }
        let named = said.narrowing.sessions.as_ref().map_or(0, BTreeSet::len);
        (named <= SESSIONS_MAX).then_some(said)
    }

    fn add(&mut self, fact: &str) -> Option<()> {
        let Narrowing { rights, sessions, expires_secs } = &mut self.narrowing;
        let (name, value) = fact.split_once('(')?;
        let text = || value.strip_prefix('"')?.strip_suffix('"');
        let is_new = match name {
            "id" => self.id.replace(id(text()?)?).is_none(),
            "right" => rights.get_or_insert_default().insert(text()?.parse().ok()?),
            "session" => sessions.get_or_insert_default().insert(text()?.parse().ok()?),
            "expires" => expires_secs.replace(value.parse().ok()?).is_none(),
            _ => false,
        };
        is_new.then_some(())
    }
}

/// An ID has no character that a quotation could end at.
fn id(text: &str) -> Option<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (plain && !text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Right;

    #[test]
    fn only_what_is_known_is_read() {
        let said = Said::read(
            "id(\"tok_1\");\nright(\"read\");\nsession(\"ses_0123456789abcdef\");\nexpires(12);\n",
        )
        .unwrap();
        assert_eq!(said.id.as_deref(), Some("tok_1"));
        assert_eq!(said.narrowing.rights, Some(BTreeSet::from([Right::Read])));
        assert_eq!(said.narrowing.expires_secs, Some(12));
        assert_eq!(Said::read(""), Some(Said::default()));
        let bad = [
            "right(\"all\");\n",
            "right(\"read\"); right(\"write\");\n",
            "right(\"read\");\nright(\"read\");\n",
            "expires(1);\nexpires(2);\n",
            "expires(-1);\n",
            "expires(\"1\");\n",
            "session(\"work\");\n",
            "id(\"a\\\"b\");\n",
            "check if true;\n",
            "right($0) <- id($0);\n",
            "right(\"read\")",
            "other(\"read\");\n",
            "\n",
        ];
        for source in bad {
            assert_eq!(Said::read(source), None, "{source:?}");
        }
    }
}
