//! All sessions of a host, by ID and by name. A look-up takes as long with a thousand of them as with one.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    sync::Arc,
};

use cas::base32;

use super::{Error, Result, id::SessionId, live::Session};

/// Characters of an ID that must at least be given, behind its prefix.
const ID_CHARS_MIN: usize = 8;

/// The sessions that were not discarded.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<SessionId, Arc<Session>>,
    /// Of those that have one, which nobody else has.
    by_name: HashMap<String, SessionId>,
}

impl Sessions {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// In no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.by_id.values()
    }

    pub fn insert(&mut self, session: Arc<Session>) {
        if let Some(name) = &session.meta.name {
            self.by_name.insert(name.clone(), session.id());
        }
        self.by_id.insert(session.id(), session);
    }

    pub fn remove(&mut self, session: &Session) {
        self.by_id.remove(&session.id());
        // A log that somebody made may name two alike.
        if let Some(name) = &session.meta.name
            && self.by_name.get(name) == Some(&session.id())
        {
            self.by_name.remove(name);
        }
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Session>> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// The session of a whole ID or of a unique prefix of one, in any spelling. Errors: `MalformedId`, `Unknown`, `Ambiguous`.
    pub fn by_id(&self, text: &str) -> Result<&Arc<Session>> {
        let mut fits = self.by_id.range(prefixed(text)?).map(|(_, session)| session);
        match (fits.next(), fits.next()) {
            (None, _) => Err(Error::Unknown(text.into())),
            (Some(one), None) => Ok(one),
            (Some(a), Some(b)) => Err(Error::Ambiguous {
                text: text.into(),
                candidates: [a, b].into_iter().chain(fits).take(8).map(|s| s.id().to_string()).collect(),
            }),
        }
    }
}

/// The IDs that `text` is a prefix of. Error: `MalformedId`.
fn prefixed(text: &str) -> Result<RangeInclusive<SessionId>> {
    let malformed = |reason| Error::MalformedId { text: text.into(), reason };
    let digits = text.strip_prefix(SessionId::PREFIX).and_then(base32::canonical);
    let digits = digits.ok_or_else(|| malformed("it has characters that base32 lacks"))?;
    if digits.len() > SessionId::CHARS {
        return Err(malformed("a session ID has 16 characters behind ses_"));
    }
    if digits.len() < ID_CHARS_MIN {
        return Err(malformed("at least 8 characters behind ses_ are needed"));
    }
    // The most significant bit comes first, so IDs are in the order of their digits; 16 of them have no bit too many.
    let filled = |digit: &str| {
        let whole = format!("{}{digits}{}", SessionId::PREFIX, digit.repeat(SessionId::CHARS - digits.len()));
        whole.parse().map_err(|()| malformed("it is no session ID"))
    };
    Ok(filled("0")?..=filled("z")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_the_ids_that_begin_with_it() {
        let bytes = |n: u64| {
            let mut bytes = [0; 10];
            // Many share their first digits.
            bytes[..8].copy_from_slice(&(n % 7 * 0x1234_5678_9abc + n).rotate_right(20).to_be_bytes());
            bytes[8..].copy_from_slice(&(n as u16).wrapping_mul(40503).to_be_bytes());
            bytes
        };
        let ids: Vec<SessionId> = (0..500).map(|n| SessionId(bytes(n))).collect();
        for id in &ids {
            let text = id.to_string();
            for len in ID_CHARS_MIN..=SessionId::CHARS {
                let prefix = &text[..SessionId::PREFIX.len() + len];
                let range = prefixed(prefix).unwrap();
                let fits = |id: &&SessionId| range.contains(*id);
                let slow = |id: &&SessionId| id.to_string().starts_with(prefix);
                assert!(ids.iter().filter(fits).eq(ids.iter().filter(slow)), "{prefix}");
                assert!(range.contains(id));
            }
            let range = prefixed(&text).unwrap();
            assert_eq!((range.start(), range.end()), (id, id));
        }
    }

    #[test]
    fn what_is_no_prefix_is_told() {
        let reason = |text: &str| match prefixed(text) {
            Err(Error::MalformedId { reason, .. }) => reason,
            other => panic!("{text}: {other:?}"),
        };
        assert!(reason("ses_0123456").contains("at least 8"));
        assert!(reason("ses_01234567890123456").contains("16 characters"));
        assert!(reason("ses_uuuuuuuuuu").contains("base32"));
        assert!(reason("ses_\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}").contains("base32"));
        assert_eq!(prefixed("ses_OoIl0000").unwrap(), prefixed("ses_00110000").unwrap());
    }
}
