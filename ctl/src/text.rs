//! What people read: sizes, times, durations, modes, tables.

use comfy_table::{ContentArrangement, Table, presets};
use proto::v1::{FileIo, FileKind, Transport};

/// A table without lines, as wide as the terminal.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !header.is_empty() {
        table.set_header(header.to_vec());
    }
    table
}

/// The finished table, flush left, without blanks at the ends of lines.
pub(crate) fn rendered(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The terminal's width, or 80 where there is none.
pub(crate) fn width() -> usize {
    Table::new().width().map_or(80, usize::from).clamp(40, 500)
}

/// The ID as far as a table needs it: enough to be unique and accepted again.
pub(crate) fn short(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}

/// `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1.234 s`, `5.6 ms`, `78 us`.
pub(crate) fn duration(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.3} s", us as f64 / 1e6),
    }
}

/// `2026-11-22 09:30:00`, in UTC.
pub(crate) fn time(ns: i64) -> String {
    let (year, month, day, seconds) = civil(ns);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// RFC 3339 with nanoseconds.
pub(crate) fn time_rfc3339(ns: i64) -> String {
    format!("{}.{:09}Z", time(ns).replace(' ', "T"), ns.rem_euclid(1_000_000_000))
}

/// Year, month, day and second of the day; Howard Hinnant's `civil_from_days`.
fn civil(ns: i64) -> (i64, i64, i64, i64) {
    let seconds = ns.div_euclid(1_000_000_000);
    let shifted = seconds.div_euclid(86_400) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day, seconds.rem_euclid(86_400))
}

/// As `--transport` has it; empty if the daemon does not say.
pub(crate) fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Unspecified => "",
        Transport::Auto => "auto",
        Transport::DevFuse => "dev-fuse",
        Transport::IoUring => "io-uring",
    }
}

/// As `--io` has it; empty if the daemon does not say.
pub(crate) fn file_io_name(io: FileIo) -> &'static str {
    match io {
        FileIo::Unspecified => "",
        FileIo::Cached => "cached",
        FileIo::Passthrough => "passthrough",
    }
}

/// The name of a kind, as JSON and messages have it.
pub(crate) fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Unspecified => "unknown",
        FileKind::Regular => "regular",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::CharDevice => "char_device",
        FileKind::BlockDevice => "block_device",
        FileKind::Socket => "socket",
    }
}

/// `drwxr-xr-x`, as `ls -l` prints it.
pub(crate) fn mode(kind: FileKind, mode: u32) -> String {
    let letter = match kind {
        FileKind::Unspecified => '?',
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Socket => 's',
    };
    let mut text = String::from(letter);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(-1), "1969-12-31 23:59:59");
        assert_eq!(time(951_782_400_000_000_000), "2000-02-29 00:00:00");
        assert_eq!(time(i64::MAX), "2262-04-11 23:47:16");
        assert_eq!(time_rfc3339(1_500_000_000), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(time_rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn modes_and_sizes_read_as_ls_has_them() {
        assert_eq!(mode(FileKind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(mode(FileKind::Regular, 0o4644), "-rwSr--r--");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536 * 1024), "1.5 MiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
        assert_eq!(duration(1234), "1.2 ms");
    }
}
