//! A profile as text, as it is kept in files and handed from host to host. docs/format.md is normative.
//!
//! Pure: bytes in, entries out. What decodes is encoded to the same bytes again. Knows nothing of where a profile comes from, and does
//! not trust it.

use std::{fmt, fmt::Write as _};

use crate::{
    PATH_BYTES_MAX,
    v1::{ByteRange, ProfileEntry},
};

/// The first line.
pub const HEADER: &str = "aetherfs profile 1\n";
/// The longest text.
pub const TEXT_BYTES_MAX: usize = 64 << 20;
/// Entries of one text: more than a session records.
pub const ENTRIES_MAX: usize = 1 << 18;
/// Ranges of one entry.
pub const RANGES_MAX: usize = 32;
/// Ends of ranges: as of files.
const END_MAX: u64 = i64::MAX as u64;
const NAME_BYTES_MAX: usize = 255;

/// Why something is no profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for Malformed {}

/// Adds an entry's line.
pub fn encode(entry: &ProfileEntry, text: &mut String) {
    text.push_str(if entry.ranges.is_empty() { "dir " } else { "file " });
    for (nth, ByteRange { start, end }) in entry.ranges.iter().enumerate() {
        let comma = if nth == 0 { "" } else { "," };
        let end = if *end == 0 { String::new() } else { end.to_string() };
        write!(text, "{comma}{start}-{end}").expect("a string takes all");
    }
    text.push_str(if entry.ranges.is_empty() { "" } else { " " });
    match entry.path.as_slice() {
        b"" => text.push('.'),
        path => path.iter().for_each(|&byte| match byte {
            _ if is_plain(byte) => text.push(char::from(byte)),
            _ => write!(text, "%{byte:02x}").expect("a string takes all"),
        }),
    }
    text.push('\n');
}

/// The entries that a text has, in its order.
pub fn decode(text: &[u8]) -> Result<Vec<ProfileEntry>, Malformed> {
    let malformed = |line, reason| Malformed { line, reason };
    if text.len() > TEXT_BYTES_MAX {
        return Err(malformed(1, "a profile has at most 64 MiB"));
    }
    let rest = text.strip_prefix(HEADER.as_bytes());
    let rest = rest.ok_or(malformed(1, "not `aetherfs profile 1`, with which a profile begins"))?;
    let mut entries = Vec::new();
    for (nth, line) in rest.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = nth + 2;
        if nth == ENTRIES_MAX {
            return Err(malformed(number, "a profile has at most 262144 entries"));
        }
        let line = line.strip_suffix(b"\n").ok_or(malformed(number, "cut short"))?;
        entries.push(entry(line).map_err(|reason| malformed(number, reason))?);
    }
    Ok(entries)
}

fn entry(line: &[u8]) -> Result<ProfileEntry, &'static str> {
    if let Some(path) = line.strip_prefix(b"dir ") {
        let path = if path == b"." { Vec::new() } else { decode_path(path)? };
        return Ok(ProfileEntry { path, ranges: Vec::new() });
    }
    let line = line.strip_prefix(b"file ").ok_or("neither `dir` nor `file`")?;
    let space = line.iter().position(|byte| *byte == b' ').ok_or("no path")?;
    Ok(ProfileEntry { path: decode_path(&line[space + 1..])?, ranges: decode_ranges(&line[..space])? })
}

fn decode_ranges(text: &[u8]) -> Result<Vec<ByteRange>, &'static str> {
    let mut ranges = Vec::new();
    for part in text.split(|byte| *byte == b',') {
        let dash = part.iter().position(|byte| *byte == b'-').ok_or("a range without a dash")?;
        let end = &part[dash + 1..];
        let end = match end {
            b"" => 0,
            b"0" => return Err("a range that no file has"),
            _ => decode_number(end)?,
        };
        ranges.push(ByteRange { start: decode_number(&part[..dash])?, end });
        if ranges.len() > RANGES_MAX {
            return Err("more than 32 ranges");
        }
    }
    check_ranges(&ranges).map(|()| ranges)
}

/// Whether a file's ranges are as they should be: some, in order, with something between each two.
pub fn check_ranges(ranges: &[ByteRange]) -> Result<(), &'static str> {
    if ranges.is_empty() || ranges.len() > RANGES_MAX {
        return Err("not 1 to 32 ranges");
    }
    let mut free = Some(0);
    for ByteRange { start, end } in ranges {
        if free.is_none_or(|free| *start < free) {
            return Err("ranges that are not in order, or touch each other");
        }
        if *start >= END_MAX || *end > END_MAX || (*end != 0 && end <= start) {
            return Err("a range that no file has");
        }
        free = (*end != 0).then_some(*end + 1);
    }
    Ok(())
}

/// Digits as they are printed.
fn decode_number(text: &[u8]) -> Result<u64, &'static str> {
    let is_canonical =
        !text.is_empty() && text.iter().all(u8::is_ascii_digit) && (text == b"0" || !text.starts_with(b"0"));
    let number = std::str::from_utf8(text).ok().filter(|_| is_canonical).and_then(|text| text.parse().ok());
    number.ok_or("a number that is none")
}

fn decode_path(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            path.push(
                Some(byte).filter(|byte| is_plain(*byte)).ok_or("a byte of a path that is not escaped")?,
            );
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2).ok_or("half an escape")?;
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let escaped = digit(digits[0]).zip(digit(digits[1])).map(|(high, low)| high << 4 | low);
        let escaped = escaped.filter(|byte| !is_plain(*byte));
        path.push(escaped.ok_or("an escape that is none, or that is not needed")?);
        rest = behind;
    }
    if path.len() > PATH_BYTES_MAX {
        return Err("a path of more than 4096 bytes");
    }
    let is_name = |name: &[u8]| {
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name != b"." && name != b".." && !name.contains(&0)
    };
    let is_path = path.split(|byte| *byte == b'/').all(is_name);
    is_path.then_some(path).ok_or("not a path from the root down")
}

/// Bytes that stand for themselves: what is printable in ASCII, but for the space and the percent sign.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'%'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &[u8], ranges: &[(u64, u64)]) -> ProfileEntry {
        let ranges = ranges.iter().map(|&(start, end)| ByteRange { start, end }).collect();
        ProfileEntry { path: path.to_vec(), ranges }
    }

    fn text(lines: &str) -> Vec<u8> {
        format!("{HEADER}{lines}").into_bytes()
    }

    #[test]
    fn entries_are_lines_and_lines_are_entries() {
        let entries = [
            file(b"", &[]),
            file(b"a b/\xff%\n", &[]),
            file(b"src/main.c", &[(0, 0)]),
            file(b"large", &[(0, 262_144), (524_288, 786_432), (1 << 40, 0)]),
        ];
        let mut text = HEADER.to_owned();
        entries.iter().for_each(|entry| encode(entry, &mut text));
        let lines = "dir .\ndir a%20b/%ff%25%0a\nfile 0- src/main.c\nfile 0-262144,524288-786432,1099511627776- large\n";
        assert_eq!(text.strip_prefix(HEADER), Some(lines));
        assert_eq!(decode(text.as_bytes()), Ok(entries.to_vec()));
        assert_eq!(decode(HEADER.as_bytes()), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_profile_is_told_by_its_line() {
        for (lines, line, reason) in [
            ("dir a\nfile 0- b", 3, "cut short"),
            ("link a\n", 2, "neither"),
            ("file 0-\n", 2, "no path"),
            ("file  a\n", 2, "without a dash"),
            ("file 0-1,1-2 a\n", 2, "touch"),
            ("file 5-,9-10 a\n", 2, "touch"),
            ("file 5-5 a\n", 2, "no file has"),
            ("file 0-0 a\n", 2, "no file has"),
            ("file 0-9223372036854775808 a\n", 2, "no file has"),
            ("file 00- a\n", 2, "number"),
            ("file +1- a\n", 2, "number"),
            ("file 0-99999999999999999999 a\n", 2, "number"),
            ("file 0- .\n", 2, "root down"),
            ("file 0- a/../b\n", 2, "root down"),
            ("dir /a\n", 2, "root down"),
            ("dir a%00\n", 2, "root down"),
            ("dir a%61\n", 2, "not needed"),
            ("dir a%FF\n", 2, "escape"),
            ("dir a%f\n", 2, "half"),
            ("dir a b\n", 2, "not escaped"),
            ("dir a\r\n", 2, "not escaped"),
            ("\n", 2, "neither"),
        ] {
            let error = decode(&text(lines)).expect_err(lines);
            assert!(error.line == line && error.reason.contains(reason), "{lines:?}: {error}");
        }
        assert_eq!(decode(b"aetherfs profile 2\n").expect_err("a later version").line, 1);
        assert_eq!(decode(b"").expect_err("nothing").line, 1);
    }

    #[test]
    fn bounds_are_kept() {
        assert!(decode(&text(&"dir a\n".repeat(ENTRIES_MAX))).is_ok());
        assert!(decode(&text(&"dir a\n".repeat(ENTRIES_MAX + 1))).is_err());
        let ranges =
            |count| (0..count).map(|n| format!("{}-{}", 4 * n, 4 * n + 1)).collect::<Vec<_>>().join(",");
        assert!(decode(&text(&format!("file {} a\n", ranges(32)))).is_ok());
        assert!(decode(&text(&format!("file {} a\n", ranges(33)))).is_err());
        let path = vec!["x".repeat(255); 16].join("/");
        assert!(decode(&text(&format!("dir {path}\n"))).is_ok());
        assert!(decode(&text(&format!("dir {path}/x\n"))).is_err());
    }
}
