//! What arrives is checked here, once: behind these functions numbers are in their bounds and paths have a shape.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf, sync::Arc};

use proto::{ID_BYTES_MAX, PATH_BYTES_MAX};
use tonic::Status;

use super::{
    Answer, Host,
    bounds::quoted,
    status::{about, of_store},
};
use crate::session::{Error, Name, Session, State, Target, parse_path};

/// A path inside a session, with its bytes for messages.
pub(super) struct InnerPath {
    /// Its components.
    pub(super) names: Vec<Name>,
    text: String,
}

impl InnerPath {
    /// Checks a path. Errors: INVALID_ARGUMENT.
    pub(super) fn parse(bytes: &[u8]) -> Answer<InnerPath> {
        if bytes.len() > PATH_BYTES_MAX {
            return Err(Status::invalid_argument(format!("a path has at most {PATH_BYTES_MAX} bytes")));
        }
        let text = quoted(bytes);
        let names = parse_path(bytes).map_err(about(&text))?;
        Ok(InnerPath { names, text })
    }

    /// For messages: the path below what `id` names.
    pub(super) fn of(&self, id: &str) -> String {
        format!("{id}:/{}", self.text.trim_start_matches('/'))
    }
}

/// A path of this host. Errors: INVALID_ARGUMENT for one that is not absolute, too long, or no path at all.
pub(super) fn host_path(bytes: &[u8]) -> Answer<PathBuf> {
    let refused = |reason: &str| Err(Status::invalid_argument(format!("{}: {reason}", quoted(bytes))));
    if bytes.len() > PATH_BYTES_MAX {
        return refused("the path is longer than 4096 bytes");
    }
    if bytes.first() != Some(&b'/') {
        return refused("not an absolute path");
    }
    if bytes.contains(&0) {
        return refused("a path has no NUL");
    }
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// A label for what is made; an empty string is none. The length is checked before anything is made of it, the rest by the
/// engine. Error: INVALID_ARGUMENT.
pub(super) fn label(text: String) -> Answer<Option<String>> {
    check_length(&text)?;
    Ok((!text.is_empty()).then_some(text))
}

/// No ID and no label is longer, and whatever is may not be quoted in a message. Error: INVALID_ARGUMENT.
pub(super) fn check_length(text: &str) -> Answer<()> {
    if text.len() > ID_BYTES_MAX {
        let (start, len) = (quoted(text.as_bytes()), text.len());
        let message = format!("{start}: an ID or a name has at most {ID_BYTES_MAX} bytes, not {len}");
        return Err(Status::invalid_argument(message));
    }
    Ok(())
}

impl Host {
    /// Where something is to be mounted that is made; nowhere, if nothing is given. Errors: INVALID_ARGUMENT, PERMISSION_DENIED for who is not on
    /// this host.
    pub(super) fn mount_dir(&self, bytes: &[u8]) -> Answer<Option<PathBuf>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        self.access.check_local("mounting")?;
        host_path(bytes).map(Some)
    }

    /// A session by ID, prefix or name. Errors: NOT_FOUND, which tells a snapshot from nothing; PERMISSION_DENIED.
    pub(super) fn session(&self, text: &str) -> Answer<Arc<Session>> {
        match self.session_first(text)? {
            Target::Session(session) => Ok(session),
            Target::Snapshot(_) => Err(Status::not_found(format!(
                "{text} is a snapshot, and only a session will do; `aetherctl create --from {text}` makes one"
            ))),
        }
    }

    /// What a session or a snapshot holds now, for reading.
    pub(super) fn state(&self, text: &str) -> Answer<State> {
        Ok(match self.target(text)? {
            Target::Session(session) => session.peek(),
            Target::Snapshot(id) => State::of_snapshot(&self.engine.store().fetching(), id)?,
        })
    }

    /// What an ID, a prefix of one, or a name stands for, for who may have it. Errors: NOT_FOUND, INVALID_ARGUMENT, PERMISSION_DENIED.
    pub(super) fn target(&self, text: &str) -> Answer<Target> {
        check_length(text)?;
        match self.engine.resolve(text) {
            // Nobody here knows it; the remote store may. No session of a token with limits stands on it.
            Err(Error::Store(cas::Error::UnknownSnapshot(id))) if !self.access.is_limited() => {
                self.engine.store().discover(id).map_err(of_store)?;
                Ok(Target::Snapshot(id))
            }
            // Or another host has it.
            Err(Error::Unknown(unknown)) => match self.head_elsewhere(text)? {
                Some(head) => {
                    self.look_at(&head, head.root)?;
                    Ok(Target::Snapshot(head.root))
                }
                None => self.granted(text, Err(Error::Unknown(unknown).into())),
            },
            resolved => self.granted(text, resolved.map_err(Status::from)),
        }
    }

    /// Like [`Host::target`], but where a session and a snapshot share a name the session is meant.
    pub(super) fn session_first(&self, text: &str) -> Answer<Target> {
        check_length(text)?;
        let found = match self.engine.session(text) {
            Ok(session) => Ok(Target::Session(session)),
            Err(Error::Unknown(_)) => self.engine.resolve(text),
            Err(error) => Err(error),
        };
        self.granted(text, found.map_err(Status::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_host_are_absolute() {
        assert_eq!(host_path(b"/a/\xff").unwrap().as_os_str().as_bytes(), b"/a/\xff");
        for bad in [&b""[..], b"a", b"./a", b"/a\0b", &[b'/'; 4097]] {
            assert_eq!(host_path(bad).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }

    #[test]
    fn paths_of_a_session_do_not_leave_it() {
        assert_eq!(InnerPath::parse(b"/a//./b/").unwrap().names.len(), 2);
        assert_eq!(InnerPath::parse(b"").unwrap().names.len(), 0);
        for bad in [&b"../a"[..], b"a/..", b"a\0", &[b'a'; 300], &[b'/'; 4097]] {
            assert_eq!(InnerPath::parse(bad).err().unwrap().code(), tonic::Code::InvalidArgument);
        }
    }
}
