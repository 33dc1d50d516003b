//! What is attached to a session beside its name: labels, and when it goes. No part of what it holds: no snapshot has it,
//! and no fork unless it is given its own.

use std::collections::BTreeMap;

use cas::Time;

use super::{
    Error, Result,
    codec::{Put, Take},
    live::Session,
    log::Purpose,
    record::Record,
};

/// Labels of one session.
pub const LABELS_MAX: usize = 16;
/// Bytes of a label's key.
pub const KEY_BYTES_MAX: usize = 64;
/// Bytes of a label's value.
pub const VALUE_BYTES_MAX: usize = 256;
/// A session lives at least so long, in seconds, once somebody has said that it ends.
pub const LIFETIME_S_MIN: u64 = 60;
/// And at most so long: ten years. Who wants more wants it to stay.
pub const LIFETIME_S_MAX: u64 = 10 * 366 * 86_400;

/// What is attached to a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    expires: Option<Time>,
    labels: BTreeMap<String, String>,
}

impl Notes {
    /// When the session is discarded of its own accord; `None`: never.
    pub fn expires(&self) -> Option<Time> {
        self.expires
    }

    /// Values by key.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Nothing is attached.
    pub fn is_empty(&self) -> bool {
        *self == Notes::default()
    }

    /// Has the session end so many seconds from now; `None`: never. Error: `Invalid` beyond the bounds.
    pub fn expire(&mut self, now: Time, seconds: Option<u64>) -> Result<()> {
        self.expires = match seconds {
            None => None,
            Some(seconds) if (LIFETIME_S_MIN..=LIFETIME_S_MAX).contains(&seconds) => {
                Some(Time { secs: now.secs.saturating_add_unsigned(seconds), nanos: now.nanos })
            }
            Some(_) => {
                return Err(Error::Invalid("a session expires after 1 minute at least and 10 years at most"));
            }
        };
        Ok(())
    }

    /// Attaches a label, in the place of one with this key. Errors: `Invalid`, `TooMany`.
    pub fn label(&mut self, key: &str, value: &str) -> Result<()> {
        check_key(key)?;
        if value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return Err(Error::Invalid("a label's value has at most 256 bytes and no control characters"));
        }
        if self.labels.len() >= LABELS_MAX && !self.labels.contains_key(key) {
            return Err(Error::TooMany {
                what: "labels of a session",
                max: LABELS_MAX,
                advice: "take one off",
            });
        }
        self.labels.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Takes a label off, if it is there. Error: `Invalid` for what can be no key.
    pub fn unlabel(&mut self, key: &str) -> Result<()> {
        check_key(key)?;
        self.labels.remove(key);
        Ok(())
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.u8(self.expires.is_some().into());
        if let Some(expires) = self.expires {
            out.time(expires);
        }
        out.u32(self.labels.len() as u32);
        for (key, value) in &self.labels {
            out.bytes(key.as_bytes());
            out.bytes(value.as_bytes());
        }
    }

    pub(super) fn take(t: &mut Take<'_>) -> Option<Notes> {
        let expires = match t.u8()? {
            0 => None,
            1 => Some(t.time()?),
            _ => return None,
        };
        let mut notes = Notes { expires, labels: BTreeMap::new() };
        for _ in 0..t.u32()? {
            let (key, value) = (std::str::from_utf8(t.bytes()?).ok()?, std::str::from_utf8(t.bytes()?).ok()?);
            if notes.labels.last_key_value().is_some_and(|(last, _)| last.as_str() >= key) {
                return None;
            }
            notes.label(key, value).ok()?;
        }
        Some(notes)
    }
}

/// Whether a label can have this key. Error: `Invalid`.
pub fn check_key(key: &str) -> Result<()> {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'/' | b'-');
    match (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(fits) {
        true => Ok(()),
        false => {
            Err(Error::Invalid("a label's key has 1 to 64 of the characters a-z, 0-9, `.`, `_`, `/` and `-`"))
        }
    }
}

impl Session {
    /// When it is discarded of its own accord.
    pub fn expires(&self) -> Option<Time> {
        self.notes.lock().expires
    }

    /// What is attached to it now.
    pub fn notes(&self) -> Notes {
        self.notes.lock().clone()
    }

    /// Changes what is attached to it, also where it is closed: it is about this host's copy. All of it is recorded, or nothing. Errors: those of
    /// `change`, `Unknown` for one that was discarded, `NoSpace`.
    pub fn annotate(&self, change: impl FnOnce(&mut Notes) -> Result<()>) -> Result<Notes> {
        // As with every change: what is in the log is in the order in which it was.
        let _state = self.state.write();
        self.check_alive()?;
        let before = self.notes();
        let mut notes = before.clone();
        change(&mut notes)?;
        if notes != before {
            let record = Record::Notes(self.meta.id, notes.clone());
            // On a full disk sessions go on expiring: so one must be able to stay.
            let only_time = notes.labels() == before.labels();
            let purpose = if only_time { Purpose::Shrink } else { Purpose::Grow };
            self.shared.durability.log.append(purpose, |out| record.encode(out))?;
            *self.notes.lock() = notes.clone();
        }
        Ok(notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time { secs: 1_800_000_000, nanos: 7 };

    #[test]
    fn a_lifetime_has_bounds() {
        let mut notes = Notes::default();
        for seconds in [0, LIFETIME_S_MIN - 1, LIFETIME_S_MAX + 1, u64::MAX] {
            assert!(matches!(notes.expire(NOW, Some(seconds)), Err(Error::Invalid(_))), "{seconds}");
        }
        notes.expire(NOW, Some(60)).unwrap();
        assert_eq!(notes.expires(), Some(Time { secs: NOW.secs + 60, ..NOW }));
        notes.expire(Time { secs: i64::MAX, nanos: 0 }, Some(LIFETIME_S_MAX)).unwrap();
        notes.expire(NOW, None).unwrap();
        assert!(notes.is_empty());
    }

    #[test]
    fn labels_have_bounds() {
        let mut notes = Notes::default();
        for key in ["", "A", "a b", "a=b", "\u{e9}", "a\0", &"k".repeat(65)] {
            assert!(matches!(notes.label(key, ""), Err(Error::Invalid(_))), "{key:?}");
            assert!(notes.unlabel(key).is_err());
        }
        for value in ["\n", "a\u{7f}", "\u{85}", &"v".repeat(257)] {
            assert!(matches!(notes.label("a", value), Err(Error::Invalid(_))), "{value:?}");
        }
        for n in 0..LABELS_MAX {
            notes.label(&format!("team/a-b_c.{n}"), &"\u{e9}".repeat(128)).unwrap();
        }
        assert!(matches!(notes.label("one-more", ""), Err(Error::TooMany { max: LABELS_MAX, .. })));
        notes.label("team/a-b_c.3", "another one").unwrap();
        notes.unlabel("team/a-b_c.4").unwrap();
        notes.unlabel("nobody has it").unwrap_err();
        notes.unlabel("nobody-has-it").unwrap();
        notes.label("one-more", "").unwrap();
        assert_eq!(notes.labels().len(), LABELS_MAX);
    }
}
