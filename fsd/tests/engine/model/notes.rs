//! What is attached to sessions, as it should be.

use std::collections::BTreeMap;

use cas::Time;
use fsd::session::{LABELS_MAX, LIFETIME_S_MAX, LIFETIME_S_MIN, Notes, Session};
use proptest::prelude::*;

use super::{
    ops::{self, Op, Step},
    target::{Answer, Fail},
};

/// Labels and a time, by no rules of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    pub expires: Option<Time>,
    pub labels: BTreeMap<String, String>,
}

impl Attached {
    /// What a session is made with that is to have something.
    pub fn given() -> Attached {
        Attached { expires: None, labels: BTreeMap::from([("made/with".to_owned(), "something".to_owned())]) }
    }

    /// What a session has.
    pub fn of(session: &Session) -> Attached {
        let notes = session.notes();
        Attached { expires: notes.expires(), labels: notes.labels().clone() }
    }

    /// The same for the engine, if it has no end.
    pub fn notes(&self) -> Notes {
        let mut notes = Notes::default();
        self.labels.iter().try_for_each(|(key, value)| notes.label(key, value)).expect("good labels");
        notes
    }

    pub fn expire(&mut self, now: Time, seconds: Option<u64>) -> Answer<()> {
        if seconds.is_some_and(|seconds| !(LIFETIME_S_MIN..=LIFETIME_S_MAX).contains(&seconds)) {
            return Err(Fail::Invalid);
        }
        self.expires = seconds.map(|seconds| Time { secs: now.secs + seconds as i64, ..now });
        Ok(())
    }

    pub fn label(&mut self, key: &str, value: Option<&str>) -> Answer<()> {
        let Some(value) = value else {
            self.labels.remove(key);
            return Ok(());
        };
        if self.labels.len() == LABELS_MAX && !self.labels.contains_key(key) {
            return Err(Fail::TooMany);
        }
        self.labels.insert(key.into(), value.into());
        Ok(())
    }
}

/// A change of what is attached: few keys, so that they meet, and enough for one too many.
fn note() -> impl Strategy<Value = Op> {
    let seconds = prop_oneof![1 => 0..LIFETIME_S_MIN, 6 => LIFETIME_S_MIN..=LIFETIME_S_MAX];
    prop_oneof![
        2 => prop::option::weighted(0.7, seconds).prop_map(Op::Expire),
        2 => Just(Op::ForkNoted),
        5 => (0u8..20, prop::option::weighted(0.8, 0u16..300)).prop_map(|(key, value)| Op::Label(key, value)),
    ]
}

/// A step of a sequence in which things are attached.
pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![9 => ops::step(), 1 => note_step()]
}

/// A step that attaches something.
pub fn note_step() -> impl Strategy<Value = Step> {
    (any::<u8>(), note()).prop_map(|(session, op)| Step { session, op })
}
