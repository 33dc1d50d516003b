//! Differences as `git diff --stat` shows them: a line a file with a histogram, and the totals.

use proto::v1::FileKind;

use crate::diff::change::{Change, Content, Side};
use crate::diff::hunks::LineDiff;
use crate::quote::quoted;

/// Rows that are kept to be printed: the columns' widths depend on all of them. The totals count every file.
const ROWS_MAX: usize = 100_000;

/// What one file's change amounts to.
#[derive(Debug, PartialEq)]
pub(crate) enum Amount {
    Lines {
        added: u64,
        deleted: u64,
    },
    /// Binary or too large: sizes alone.
    Bytes {
        old: u64,
        new: u64,
    },
}

/// Counts the lines of `change`.
pub(crate) fn amount(change: &Change) -> Amount {
    if change.same_content {
        return Amount::Lines { added: 0, deleted: 0 };
    }
    let (Some(old), Some(new)) = (lines_of(change.old_side()), lines_of(change.new_side())) else {
        let size = |side: Option<&Side>| side.map_or(0, |side| side.size);
        return Amount::Bytes { old: size(change.old_side()), new: size(change.new_side()) };
    };
    let (added, deleted) = LineDiff::between(old, new).added_and_deleted();
    Amount::Lines { added, deleted }
}

/// A side's text; empty for what has none, such as a directory.
fn lines_of(side: Option<&Side>) -> Option<&[u8]> {
    match side.map(|side| &side.content) {
        Some(Content::Text(bytes)) => Some(bytes),
        Some(Content::TooLarge | Content::Binary) => None,
        Some(Content::Absent) | None => Some(b""),
    }
}

/// Collects rows and prints them at the end.
#[derive(Default)]
pub(crate) struct StatTable {
    rows: Vec<(String, Amount)>,
    files: u64,
    added: u64,
    deleted: u64,
}

impl StatTable {
    /// Adds a row. A directory has none, as in git: what is beneath it comes by itself, unless it moved as a whole.
    pub(crate) fn push(&mut self, change: &Change) {
        let is_dir = |side: Option<&Side>| side.is_none_or(|side| side.kind == FileKind::Directory);
        if is_dir(change.old_side()) && is_dir(change.new_side()) && change.path == change.old_path {
            return;
        }
        let amount = amount(change);
        self.files += 1;
        if let Amount::Lines { added, deleted } = amount {
            self.added += added;
            self.deleted += deleted;
        }
        if self.rows.len() < ROWS_MAX {
            let name = match change.path == change.old_path {
                true => quoted(&change.path),
                false => format!("{} => {}", quoted(&change.old_path), quoted(&change.path)),
            };
            self.rows.push((name, amount));
        }
    }

    /// The finished text, at most `width` columns wide if the names let it.
    pub(crate) fn render(&self, width: usize) -> String {
        if self.files == 0 {
            return String::new();
        }
        let lines = self.rows.iter().filter_map(|(_, amount)| total(amount));
        let most = lines.max().unwrap_or(0);
        let bytes = self.rows.iter().any(|(_, amount)| total(amount).is_none());
        let count_width = most.to_string().len().max(if bytes { 3 } else { 1 });
        let longest = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let name_width = longest.min((width * 5 / 8).max(10));
        // " name | count graph"
        let graph_width = width.saturating_sub(name_width + count_width + 5).max(6) as u64;
        let mut text = String::new();
        for (name, amount) in &self.rows {
            let name = shortened(name, name_width);
            let padding = " ".repeat(name_width - name.chars().count());
            let rest = match *amount {
                Amount::Bytes { old, new } => format!("{:>count_width$} {old} -> {new} bytes", "Bin"),
                Amount::Lines { added, deleted } => {
                    let graph = graph(added, deleted, most, graph_width);
                    format!("{:>count_width$} {graph}", added + deleted)
                }
            };
            text.push_str(format!(" {name}{padding} | {rest}").trim_end());
            text.push('\n');
        }
        if self.files > self.rows.len() as u64 {
            text.push_str(&format!(" ... and {} more\n", self.files - self.rows.len() as u64));
        }
        text.push_str(&self.totals());
        text
    }

    fn totals(&self) -> String {
        let mut text = format!(" {}", counted(self.files, "file", "changed"));
        if self.added > 0 || self.deleted == 0 {
            text.push_str(&format!(", {}(+)", counted(self.added, "insertion", "")));
        }
        if self.deleted > 0 || self.added == 0 {
            text.push_str(&format!(", {}(-)", counted(self.deleted, "deletion", "")));
        }
        text.push('\n');
        text
    }
}

fn counted(count: u64, noun: &str, verb: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural} {verb}").trim_end().to_string()
}

fn total(amount: &Amount) -> Option<u64> {
    match amount {
        Amount::Lines { added, deleted } => Some(added + deleted),
        Amount::Bytes { .. } => None,
    }
}

/// The end of a name says more than its start.
fn shortened(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_string();
    }
    format!("...{}", name.chars().skip(count - (width - 3)).collect::<String>())
}

/// `+++--`: scaled if the longest does not fit, and never nothing for something.
fn graph(added: u64, deleted: u64, most: u64, width: u64) -> String {
    let scaled = |count: u64| match count {
        0 => 0,
        _ if most <= width => count,
        _ => (count * width / most).max(1),
    };
    format!("{}{}", "+".repeat(scaled(added) as usize), "-".repeat(scaled(deleted) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::change::Sides;

    fn side(content: Content) -> Side {
        Side { kind: FileKind::Regular, mode: 0o644, size: 5, content }
    }

    fn change(path: &str, old: Content, new: Content) -> Change {
        let sides = Sides::Modified(side(old), side(new));
        Change { path: path.into(), old_path: path.into(), sides, same_content: false }
    }

    #[test]
    fn reads_like_gits() {
        let mut table = StatTable::default();
        table.push(&change("a", Content::Text(b"1\n2\n".to_vec()), Content::Text(b"1\n3\n".to_vec())));
        table.push(&change("dir/b", Content::Binary, Content::Binary));
        assert_eq!(
            table.render(80),
            " a     |   2 +-\n dir/b | Bin 5 -> 5 bytes\n 2 files changed, 1 insertion(+), 1 deletion(-)\n"
        );
        assert_eq!(StatTable::default().render(80), "");
    }

    #[test]
    fn a_new_directory_is_no_file() {
        let dir = Side { kind: FileKind::Directory, ..side(Content::Absent) };
        let sides = Sides::Added(dir);
        let mut table = StatTable::default();
        table.push(&Change { path: b"d".into(), old_path: b"d".into(), sides, same_content: false });
        assert_eq!(table.render(80), "");
    }

    #[test]
    fn fits_the_width() {
        let mut table = StatTable::default();
        let long = "x/".repeat(100);
        table.push(&change(&long, Content::Text(vec![]), Content::Text(b"l\n".repeat(5000))));
        for line in table.render(60).lines() {
            assert!(line.len() <= 60, "{line}");
        }
    }
}
