//! What is attached to a session, as the command line has it: labels, and when it goes.

use std::time::Duration;

use proto::v1::{Label, LabelFilter, Notes, SessionInfo};

use crate::failure::Failure;
use crate::text::time;

/// What a session is given when it is made.
#[derive(clap::Args)]
pub(crate) struct NotesArgs {
    /// Discard it of its own accord after this time (90m, 2d; 1m to 10y), once it is not mounted
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// Attach a label: the key has 1 to 64 of a-z 0-9 . _ / -, the value up to 256 bytes; repeatable, 16 times at most
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<Label>,
}

impl NotesArgs {
    pub(crate) fn message(self) -> Result<Option<Notes>, Failure> {
        let expires_after_s = self.expires.map_or(Ok(0), |expires| seconds("--expires", expires))?;
        Ok(Some(Notes { expires_after_s, labels: self.labels }))
    }
}

/// Whole seconds. None at all would mean "never" in the interface.
pub(crate) fn seconds(option: &str, duration: Duration) -> Result<u64, Failure> {
    match duration.as_secs() {
        0 => Err(Failure::No(format!("{option}: a session lasts a minute or more"))),
        seconds => Ok(seconds),
    }
}

/// `KEY=VALUE`. Which keys and values there can be the daemon says.
pub(crate) fn label(text: &str) -> Result<Label, String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE; KEY= has an empty value")?;
    Ok(Label { key: key.to_owned(), value: value.to_owned() })
}

/// `KEY` or `KEY=VALUE`.
pub(crate) fn filter(text: &str) -> Result<LabelFilter, String> {
    Ok(match text.split_once('=') {
        Some((key, value)) => LabelFilter { key: key.to_owned(), value: Some(value.to_owned()) },
        None => LabelFilter { key: text.to_owned(), value: None },
    })
}

/// A change of labels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LabelChange {
    /// `KEY=VALUE`
    Set(Label),
    /// `KEY-`
    Remove(String),
}

/// For clap: `KEY=VALUE` or `KEY-`.
pub(crate) fn label_change(text: &str) -> Result<LabelChange, String> {
    match text.strip_suffix('-') {
        Some(key) if !key.contains('=') => Ok(LabelChange::Remove(key.to_owned())),
        _ => label(text)
            .map(LabelChange::Set)
            .map_err(|_| "give KEY=VALUE to attach a label, KEY- to take it off".into()),
    }
}

/// `a=1`, a line each.
pub(crate) fn labels_text(session: &SessionInfo) -> String {
    let lines: Vec<_> = session.labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect();
    lines.join("\n")
}

/// When it goes; empty for never.
pub(crate) fn expiry_text(session: &SessionInfo) -> String {
    match (session.expires_ns, session.expires_in_s) {
        (0, _) => String::new(),
        (_, 0) => format!("{}: as soon as it is not mounted", time(session.expires_ns)),
        (at, left) => format!("{}, in {}", time(at), left_text(left)),
    }
}

/// `1day 3h`: the two largest units are enough.
pub(crate) fn left_text(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_apart() {
        let set = |key: &str, value: &str| LabelChange::Set(Label { key: key.into(), value: value.into() });
        assert_eq!(label_change("a=1"), Ok(set("a", "1")));
        assert_eq!(label_change("a=b=c-"), Ok(set("a", "b=c-")));
        assert_eq!(label_change("a="), Ok(set("a", "")));
        assert_eq!(label_change("a--"), Ok(LabelChange::Remove("a-".into())));
        assert!(label_change("a").is_err());
    }

    #[test]
    fn what_is_left_is_short() {
        assert_eq!(left_text(2 * 86_400 + 3 * 3600 + 62), "2days 3h");
        assert_eq!(left_text(59), "59s");
    }
}
