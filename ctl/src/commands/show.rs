//! `aetherctl show`: everything known about one session or snapshot.

use proto::v1::show_reply::Item;
use proto::v1::{FileIo, MountInfo, SessionInfo, ShowRequest, SnapshotInfo};

use crate::context::Context;
use crate::failure::Failure;
use crate::json;
use crate::quote::quoted;
use crate::text::{rendered, size, table, time, transport_name};

/// Show one session or snapshot
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl show work\n  aetherctl --json show ses_01234567 | jq .changed_bytes"
)]
pub(crate) struct Args {
    /// An ID, a prefix of one, or a name
    #[arg(value_name = "SESSION|SNAPSHOT")]
    id: String,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let reply = context.connect().await?.show(ShowRequest { id: args.id }).await?.into_inner();
    let item = reply.item.ok_or_else(|| Failure::protocol("nothing to show"))?;
    match (context.json, item) {
        (true, Item::Session(session)) => context.document(&json::session(&session)),
        (true, Item::Snapshot(snapshot)) => context.document(&json::snapshot(&snapshot)),
        (false, Item::Session(session)) => print(context, session_rows(&session)),
        (false, Item::Snapshot(snapshot)) => print(context, snapshot_rows(&snapshot)),
    }
}

fn session_rows(session: &SessionInfo) -> Vec<(&'static str, String)> {
    let mounts: Vec<_> = session.mounts.iter().map(mount_text).collect();
    vec![
        ("session", session.id.clone()),
        ("name", session.name.clone()),
        ("base", session.base.clone()),
        ("parent", session.parent.clone()),
        ("created", time(session.created_ns)),
        ("fork depth", session.fork_depth.to_string()),
        ("changed", format!("{} inodes, {}", session.changed_inodes, size(session.changed_bytes))),
        ("log position", session.log_position.to_string()),
        ("sealed as", session.sealed.clone()),
        ("mounts", mounts.join("\n")),
    ]
}

fn snapshot_rows(snapshot: &SnapshotInfo) -> Vec<(&'static str, String)> {
    vec![
        ("snapshot", snapshot.id.clone()),
        ("names", snapshot.names.join(", ")),
        ("created", time(snapshot.created_ns)),
        ("files", snapshot.files.to_string()),
        ("size", size(snapshot.bytes)),
    ]
}

fn mount_text(mount: &MountInfo) -> String {
    let mut text = quoted(&mount.dir);
    let options = [
        (mount.read_only, "read-only"),
        (mount.allow_other, "allow-other"),
        (mount.acl, "acl"),
        (mount.no_xattrs, "no-xattrs"),
        (mount.io() == FileIo::Passthrough, "passthrough"),
    ];
    for (set, word) in options {
        if set {
            text.push_str(&format!(", {word}"));
        }
    }
    text.push_str(&format!(", by {}", transport_name(mount.transport())));
    if mount.transport_note.is_empty() {
        text
    } else {
        format!("{text}; no io_uring: {}", mount.transport_note)
    }
}

/// What is not known is left out.
fn print(context: &mut Context, rows: Vec<(&'static str, String)>) -> Result<(), Failure> {
    let mut shown = table(&[]);
    for (label, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        shown.add_row(vec![label.to_string(), value]);
    }
    context.line(&rendered(shown))
}
