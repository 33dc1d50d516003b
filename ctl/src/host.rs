//! Paths of this host, as the daemon wants them: absolute, because it has a working directory of its own.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// `path` without symlinks and dots as far as it exists, absolute in any case.
pub(crate) fn absolute(path: &Path) -> Result<Vec<u8>, Failure> {
    let absolute = std::path::absolute(path).map_err(|e| Failure::No(format!("{}: {e}", path.display())))?;
    Ok(canonical(&absolute).unwrap_or(absolute).as_os_str().as_bytes().to_vec())
}

/// `absolute` for an option that may be absent: empty then, as the interface has it.
pub(crate) fn absolute_or_empty(path: Option<&Path>) -> Result<Vec<u8>, Failure> {
    path.map_or(Ok(Vec::new()), absolute)
}

fn canonical(absolute: &Path) -> Option<PathBuf> {
    if let Ok(path) = fs::canonicalize(absolute) {
        return Some(path);
    }
    // The last component may be missing, or the mount of a daemon that is gone.
    let parent = fs::canonicalize(absolute.parent()?).ok()?;
    Some(parent.join(absolute.file_name()?))
}

/// Whether `target` means a directory of this host and not a session.
pub(crate) fn is_directory(target: &Path) -> bool {
    if target.as_os_str().as_bytes().contains(&b'/') {
        return true;
    }
    match fs::metadata(target) {
        Ok(metadata) => metadata.is_dir(),
        // A mount whose daemon is gone is there, though nothing can be asked of it.
        Err(e) => e.kind() == io::ErrorKind::NotConnected,
    }
}
