//! Line differences between two texts, and the unified hunks that print them. Lines end at `\n` alone, as in git.

use std::time::{Duration, Instant};

use similar::{Algorithm, DiffOp, DiffTag};

/// Unchanged lines around a change.
const CONTEXT_LINES: usize = 3;
/// After this long the rest of a file is one replaced block: correct, if not the smallest.
const SEARCH_MAX: Duration = Duration::from_secs(2);

/// How one text becomes another, line by line.
pub(crate) struct LineDiff<'a> {
    old: Vec<&'a [u8]>,
    new: Vec<&'a [u8]>,
    ops: Vec<DiffOp>,
}

impl<'a> LineDiff<'a> {
    #[expect(
        clippy::disallowed_methods,
        reason = "bounds a search; its result applies whatever the clock says"
    )]
    pub(crate) fn between(old: &'a [u8], new: &'a [u8]) -> LineDiff<'a> {
        let (old, new) = (lines(old), lines(new));
        let deadline = Instant::now().checked_add(SEARCH_MAX);
        let ops = similar::capture_diff_slices_deadline(Algorithm::Myers, &old, &new, deadline);
        LineDiff { old, new, ops }
    }

    /// Lines that only the new text has, and only the old one.
    pub(crate) fn added_and_deleted(&self) -> (u64, u64) {
        let changed = self.ops.iter().filter(|op| op.tag() != DiffTag::Equal);
        changed.fold((0, 0), |(added, deleted), op| {
            (added + op.new_range().len() as u64, deleted + op.old_range().len() as u64)
        })
    }

    /// Percent of the larger text that both have.
    pub(crate) fn similarity(&self) -> usize {
        let total = |lines: &[&[u8]]| lines.iter().map(|line| line.len()).sum::<usize>();
        let equal = self.ops.iter().filter(|op| op.tag() == DiffTag::Equal);
        let common: usize = equal.map(|op| total(&self.old[op.old_range()])).sum();
        let larger = total(&self.old).max(total(&self.new));
        (common * 100).checked_div(larger).unwrap_or(100)
    }

    /// Appends the unified hunks, without the file header.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for group in similar::group_diff_ops(self.ops.clone(), CONTEXT_LINES) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let old = first.old_range().start..last.old_range().end;
            let new = first.new_range().start..last.new_range().end;
            out.extend_from_slice(format!("@@ -{} +{} @@\n", range(&old), range(&new)).as_bytes());
            for op in &group {
                if op.tag() == DiffTag::Equal {
                    write_lines(out, b' ', &self.old[op.old_range()]);
                } else {
                    write_lines(out, b'-', &self.old[op.old_range()]);
                    write_lines(out, b'+', &self.new[op.new_range()]);
                }
            }
        }
    }
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|&byte| byte == b'\n').collect()
}

/// `start,count`, where an empty range is named by the line before it.
fn range(lines: &std::ops::Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        count => format!("{},{count}", lines.start + 1),
    }
}

fn write_lines(out: &mut Vec<u8>, mark: u8, lines: &[&[u8]]) {
    for line in lines {
        out.push(mark);
        out.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            out.extend_from_slice(b"\n\\ No newline at end of file\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hunks(old: &str, new: &str) -> String {
        let mut out = Vec::new();
        LineDiff::between(old.as_bytes(), new.as_bytes()).write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hunks_are_unified() {
        assert_eq!(hunks("", "a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(hunks("a\n", ""), "@@ -1 +0,0 @@\n-a\n");
        assert_eq!(hunks("a\nb", "a\nb\n"), "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+b\n");
        assert_eq!(hunks("same\n", "same\n"), "");
    }

    #[test]
    fn counts_and_similarity() {
        let diff = LineDiff::between(b"a\nb\nc\nd\n", b"a\nB\nc\nd\ne\n");
        assert_eq!(diff.added_and_deleted(), (2, 1));
        assert_eq!(diff.similarity(), 60);
        assert_eq!(LineDiff::between(b"", b"").similarity(), 100);
    }
}
