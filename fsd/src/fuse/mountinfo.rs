//! The kernel's table of mounts, read without touching any of them: `/proc/self/mountinfo`, see proc(5).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// What the kernel's table of mounts calls ours.
pub(super) const KIND: &str = "fuse.aetherfs";

/// One line of it, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// `major:minor` of the file system's device number.
    pub(super) device: String,
    /// Where it is mounted.
    pub(super) dir: PathBuf,
    /// Its type, with the subtype behind a dot.
    pub(super) kind: String,
    /// What it says it was mounted from.
    pub(super) source: String,
}

impl Entry {
    /// Whether it is the mount from `source`, with this device number if that is known.
    pub(super) fn is(&self, source: &str, device: Option<&str>) -> bool {
        self.source == source && device.is_none_or(|device| self.device == device)
    }
}

/// All mounts that this process sees, in the order in which they were made.
pub(super) fn read() -> io::Result<Vec<Entry>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The mount that is on top at `dir`, if there is one.
pub(super) fn at(dir: &Path) -> io::Result<Option<Entry>> {
    Ok(read()?.into_iter().rfind(|entry| entry.dir == dir))
}

/// Where those mounts of ours that `is_it` means can be reached: each is on top of its directory.
pub(super) fn on_top(is_it: impl Fn(&Entry) -> bool) -> io::Result<Vec<PathBuf>> {
    let entries = read()?;
    let is_top = |at: usize| !entries[at + 1..].iter().any(|later| later.dir == entries[at].dir);
    let ours =
        entries.iter().enumerate().filter(|(at, entry)| entry.kind == KIND && is_it(entry) && is_top(*at));
    Ok(ours.map(|(_, entry)| entry.dir.clone()).collect())
}

fn parse(table: &[u8]) -> Vec<Entry> {
    table.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&b| b == b' ');
    let device = fields.nth(2)?;
    let dir = fields.nth(1)?;
    // Optional fields end with a lone dash.
    fields.find(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    Some(Entry {
        device: text(device),
        dir: PathBuf::from(OsString::from_vec(unescape(dir))),
        kind: text(fields.next()?),
        source: text(fields.next()?),
    })
}

/// Spaces, tabs, newlines and backslashes stand as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_optional_fields_are_read() {
        let table = b"36 35 98:0 / /mnt/a\\040b rw,noatime master:1 shared:2 - fuse.aetherfs aetherfs:x rw\n\
                      37 35 0:41 / /c rw - ext4 /dev/vda rw\nnonsense\n";
        let entries = parse(table);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].dir, Path::new("/mnt/a b"));
        assert_eq!((entries[0].kind.as_str(), entries[0].source.as_str()), ("fuse.aetherfs", "aetherfs:x"));
        assert_eq!((entries[1].device.as_str(), entries[1].source.as_str()), ("0:41", "/dev/vda"));
    }
}
