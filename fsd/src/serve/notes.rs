//! What is attached to sessions: labels, and when they go.

use std::collections::BTreeSet;

use proto::v1;
use tonic::Status;

use super::{Answer, Host, bounds::quoted};
use crate::session::{LABELS_MAX, Notes, Session, check_key};

/// More in one request is refused before anything is made of it: all labels changed, and all of them taken off.
const CHANGES_MAX: usize = 2 * LABELS_MAX;

impl Host {
    /// What a session is to have from the beginning. Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED.
    pub(super) fn notes(&self, given: Option<v1::Notes>) -> Answer<Notes> {
        let v1::Notes { expires_after_s, labels } = given.unwrap_or_default();
        check_once(labels.iter().map(|label| label.key.as_str()))?;
        let mut notes = Notes::default();
        notes.expire(self.engine.clock().now(), lifetime(expires_after_s))?;
        labels.iter().try_for_each(|label| notes.label(&label.key, &label.value))?;
        Ok(notes)
    }

    pub(super) fn expire(&self, request: v1::ExpireRequest) -> Answer<v1::ExpireReply> {
        // Whoever is told that it stays must not see it go.
        let _mounting = self.mounting.lock();
        let session = self.session(&request.session)?;
        let now = self.engine.clock().now();
        session.annotate(|notes| notes.expire(now, lifetime(request.after_s)))?;
        // After a loss of power by the old time it would be gone for good.
        self.engine.durability().sync()?;
        Ok(v1::ExpireReply { session: Some(self.info(&session)) })
    }

    pub(super) fn label(&self, request: v1::LabelRequest) -> Answer<v1::LabelReply> {
        let v1::LabelRequest { session, set, remove } = request;
        check_once(set.iter().map(|label| &label.key).chain(&remove).map(String::as_str))?;
        let session = self.session(&session)?;
        session.annotate(|notes| {
            remove.iter().try_for_each(|key| notes.unlabel(key))?;
            set.iter().try_for_each(|label| notes.label(&label.key, &label.value))
        })?;
        Ok(v1::LabelReply { session: Some(self.info(&session)) })
    }
}

/// In the interface 0 is for ever.
fn lifetime(seconds: u64) -> Option<u64> {
    (seconds > 0).then_some(seconds)
}

/// Which of two values is meant nobody can say. Error: INVALID_ARGUMENT.
fn check_once<'a>(keys: impl Iterator<Item = &'a str>) -> Answer<()> {
    let mut met = BTreeSet::new();
    for key in keys {
        if met.len() >= CHANGES_MAX {
            return Err(Status::invalid_argument(format!("a request has at most {CHANGES_MAX} labels")));
        }
        if !met.insert(key) {
            let key = quoted(key.as_bytes());
            return Err(Status::invalid_argument(format!("the label {key} is there twice; give it once")));
        }
    }
    Ok(())
}

/// Which sessions are asked for.
pub(super) struct Wanted(Vec<v1::LabelFilter>);

impl Wanted {
    /// Those that have all of these labels. Error: INVALID_ARGUMENT.
    pub(super) fn parse(labels: Vec<v1::LabelFilter>) -> Answer<Wanted> {
        if labels.len() > LABELS_MAX {
            return Err(Status::invalid_argument(format!("a request asks for at most {LABELS_MAX} labels")));
        }
        labels.iter().try_for_each(|label| check_key(&label.key))?;
        Ok(Wanted(labels))
    }

    /// Whether anything that has no labels is wanted.
    pub(super) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a session is.
    pub(super) fn fits(&self, session: &Session) -> bool {
        if self.is_everything() {
            return true;
        }
        let notes = session.notes();
        self.0.iter().all(|label| {
            let value = notes.labels().get(&label.key);
            value.is_some_and(|value| label.value.as_ref().is_none_or(|wanted| wanted == value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_once() {
        assert!(check_once(["a", "b"].into_iter()).is_ok());
        assert!(
            check_once(["a", "b", "a"].into_iter()).unwrap_err().message().contains("label a is there twice")
        );
        let many: Vec<String> = (0..=CHANGES_MAX).map(|n| n.to_string()).collect();
        assert!(check_once(many.iter().map(String::as_str)).unwrap_err().message().contains("at most 32"));
    }
}
