//! Extended attributes of the source's files.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path};

use xattr::FileExt;

use crate::{Result, xattrs::Xattrs};

/// Which attributes are part of a tree. Others in `system.` are another view of mode and owner.
fn is_kept(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"security."].iter().any(|namespace| name.starts_with(namespace))
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
}

/// Those of an open file.
pub(super) fn of_file(file: &std::fs::File) -> io::Result<Xattrs> {
    collect(file.list_xattr(), |name| file.get_xattr(name))
}

/// Those of what is at `path`; of a symlink its own.
pub(super) fn of_path(path: &Path) -> io::Result<Xattrs> {
    collect(xattr::list(path), |name| xattr::get(path, name))
}

/// The object's bytes; `None` for an empty set.
pub(super) fn encode(xattrs: &Xattrs) -> Result<Option<Vec<u8>>> {
    if xattrs.is_empty() { Ok(None) } else { crate::xattrs::encode(xattrs).map(Some) }
}

fn collect(
    names: io::Result<xattr::XAttrs>,
    get: impl Fn(&OsStr) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Xattrs> {
    let names = match names {
        // The file system knows no attributes.
        Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => return Ok(Xattrs::new()),
        names => names?,
    };
    let mut xattrs = Xattrs::new();
    for name in names.filter(|name| is_kept(name.as_bytes())) {
        // One that was removed in between is none; the file's ctime tells of it.
        if let Some(value) = get(&name)? {
            xattrs.insert(name.as_bytes().to_vec(), value);
        }
    }
    Ok(xattrs)
}
