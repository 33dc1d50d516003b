//! A file name, checked once at the edge: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.

use std::{borrow::Borrow, fmt, sync::Arc};

use super::{Error, Result};

/// The longest name, in bytes (NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;

/// A file name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Checks `bytes`. Errors: `NameTooLong`; `Invalid` for what can never be a name.
    pub fn parse(bytes: &[u8]) -> Result<Name> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|&b| b == 0 || b == b'/') {
            return Err(Error::Invalid("not a file name"));
        }
        Ok(Name(bytes.into()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Splits a path inside a session into names. Empty parts and `.` are skipped; `..` is refused, because a path that leaves
/// the session has no meaning here and one that does not can be written without it.
pub fn parse_path(path: &[u8]) -> Result<Vec<Name>> {
    path.split(|&b| b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| match part {
            b".." => Err(Error::Invalid("a path inside a session has no `..`")),
            _ => Name::parse(part),
        })
        .collect()
}
