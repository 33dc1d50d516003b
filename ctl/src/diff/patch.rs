//! Differences as a patch that `git apply` reads. An entry is in the patch whole or not at all: what cannot be (binary or
//! large contents, fifos, empty directories, owners) is named in a line that `git apply` skips.

use proto::v1::FileKind;

use crate::diff::change::{Change, Content, Side, Sides};
use crate::diff::hunks::LineDiff;
use crate::quote::{quoted, quoted_with_prefix};
use crate::text::{kind_name, size};

/// Writes one patch. Remembers a directory until it is known to be empty, because git has no others to speak of.
#[derive(Default)]
pub(crate) struct PatchWriter {
    lone_dir: Option<Vec<u8>>,
}

/// Why an entry is not in the patch.
type NotShown = String;

impl PatchWriter {
    /// Appends `change`; changes come sorted by path.
    pub(crate) fn write(&mut self, change: &Change, out: &mut Vec<u8>) {
        if let Some(dir) = self.lone_dir.take()
            && !change.path.strip_prefix(dir.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
        {
            not_shown(out, &dir, "empty directory");
        }
        let start = out.len();
        let written = match &change.sides {
            Sides::Added(new) | Sides::Deleted(new) if new.kind == FileKind::Directory => {
                self.lone_dir = Some(change.path.clone());
                Ok(())
            }
            // What is beneath comes as entries of its own.
            Sides::Renamed(old, _) if old.kind == FileKind::Directory => Ok(()),
            Sides::Added(new) => created(&change.path, new, out),
            Sides::Deleted(old) => deleted(&change.path, old, out),
            Sides::TypeChanged(old, new) => type_changed(change, old, new, out),
            Sides::Modified(old, new) => edited(change, old, new, out),
            Sides::Renamed(old, new) => edited(change, old, new, out),
        };
        if let Err(reason) = written {
            out.truncate(start);
            not_shown(out, &change.path, &reason);
        }
    }

    /// Appends what was held back.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        if let Some(dir) = self.lone_dir {
            not_shown(out, &dir, "empty directory");
        }
    }
}

fn not_shown(out: &mut Vec<u8>, path: &[u8], reason: &str) {
    out.extend_from_slice(format!("# not shown: {} ({reason})\n", quoted(path)).as_bytes());
}

fn created(path: &[u8], new: &Side, out: &mut Vec<u8>) -> Result<(), NotShown> {
    let (mode, text) = (git_mode(new)?, text(new)?);
    header(out, path, path);
    line(out, format!("new file mode {mode:o}"));
    if !text.is_empty() {
        line(out, "--- /dev/null".to_string());
        line(out, named("+++", "b/", path));
        LineDiff::between(b"", text).write(out);
    }
    Ok(())
}

fn deleted(path: &[u8], old: &Side, out: &mut Vec<u8>) -> Result<(), NotShown> {
    let (mode, text) = (git_mode(old)?, text(old)?);
    header(out, path, path);
    line(out, format!("deleted file mode {mode:o}"));
    if !text.is_empty() {
        line(out, named("---", "a/", path));
        line(out, "+++ /dev/null".to_string());
        LineDiff::between(text, b"").write(out);
    }
    Ok(())
}

/// As git does it: the old one goes, the new one comes. A directory on either side says nothing itself.
fn type_changed(change: &Change, old: &Side, new: &Side, out: &mut Vec<u8>) -> Result<(), NotShown> {
    if old.kind != FileKind::Directory {
        deleted(&change.old_path, old, out)?;
    }
    if new.kind != FileKind::Directory {
        created(&change.path, new, out)?;
    }
    Ok(())
}

fn edited(change: &Change, old: &Side, new: &Side, out: &mut Vec<u8>) -> Result<(), NotShown> {
    let (old_mode, new_mode) = (git_mode(old)?, git_mode(new)?);
    let same_bytes = change.same_content || same_text(old, new);
    let moved = change.path != change.old_path;
    if same_bytes && old_mode == new_mode && !moved {
        return Err(match old.mode == new.mode {
            true => "attributes that a patch cannot hold".to_string(),
            false => format!("mode {:04o} to {:04o}", old.mode, new.mode),
        });
    }
    let lines = if same_bytes { None } else { Some(LineDiff::between(text(old)?, text(new)?)) };
    header(out, &change.old_path, &change.path);
    if old_mode != new_mode {
        line(out, format!("old mode {old_mode:o}"));
        line(out, format!("new mode {new_mode:o}"));
    }
    if moved {
        line(out, format!("similarity index {}%", lines.as_ref().map_or(100, |l| l.similarity().min(99))));
        line(out, format!("rename from {}", quoted(&change.old_path)));
        line(out, format!("rename to {}", quoted(&change.path)));
    }
    if let Some(lines) = lines {
        line(out, named("---", "a/", &change.old_path));
        line(out, named("+++", "b/", &change.path));
        lines.write(out);
    }
    Ok(())
}

fn same_text(old: &Side, new: &Side) -> bool {
    matches!((&old.content, &new.content), (Content::Text(old), Content::Text(new)) if old == new)
}

/// The mode as git keeps it: of the permission bits the owner's `x` alone.
fn git_mode(side: &Side) -> Result<u32, NotShown> {
    match side.kind {
        FileKind::Regular if side.mode & 0o100 != 0 => Ok(0o100755),
        FileKind::Regular => Ok(0o100644),
        FileKind::Symlink => Ok(0o120000),
        FileKind::Unspecified
        | FileKind::Directory
        | FileKind::Fifo
        | FileKind::CharDevice
        | FileKind::BlockDevice
        | FileKind::Socket => Err(kind_name(side.kind).to_string()),
    }
}

fn text(side: &Side) -> Result<&[u8], NotShown> {
    match &side.content {
        Content::Text(bytes) => Ok(bytes),
        Content::TooLarge => Err(format!("too large, {}", size(side.size))),
        Content::Binary => Err(format!("binary, {} bytes", side.size)),
        Content::Absent => Err("its content was not sent".to_string()),
    }
}

fn header(out: &mut Vec<u8>, old_path: &[u8], path: &[u8]) {
    let (old, new) = (quoted_with_prefix("a/", old_path), quoted_with_prefix("b/", path));
    line(out, format!("diff --git {old} {new}"));
}

/// A `---` or `+++` line. A name with a space is followed by a tab, as in git: what reads it may stop at a blank.
fn named(mark: &str, prefix: &str, path: &[u8]) -> String {
    let name = quoted_with_prefix(prefix, path);
    let tab = if !name.starts_with('"') && name.contains(' ') { "\t" } else { "" };
    format!("{mark} {name}{tab}")
}

fn line(out: &mut Vec<u8>, text: String) {
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}
