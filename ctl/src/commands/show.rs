//! `aetherctl show`: everything known about one session or snapshot.

use proto::v1::show_reply::Item;
use proto::v1::{FileIo, MountInfo, SessionInfo, ShowRequest, SnapshotInfo, Travel};

use crate::context::Context;
use crate::failure::Failure;
use crate::json;
use crate::notes::{expiry_text, labels_text};
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
    let travel = session.travel.as_ref();
    vec![
        ("session", session.id.clone()),
        ("name", session.name.clone()),
        ("base", session.base.clone()),
        ("parent", session.parent.clone()),
        ("created", time(session.created_ns)),
        ("expires", expiry_text(session)),
        ("labels", labels_text(session)),
        ("fork depth", session.fork_depth.to_string()),
        ("changed", format!("{} inodes, {}", session.changed_inodes, size(session.changed_bytes))),
        ("log position", session.log_position.to_string()),
        ("sealed as", session.sealed.clone()),
        ("published", travel.map(published_text).unwrap_or_default()),
        ("held by", travel.map(holder_text).unwrap_or_default()),
        ("mounts", mounts.join("\n")),
    ]
}

fn published_text(travel: &Travel) -> String {
    let mut text = travel.published.clone();
    if travel.unpublished {
        text.push_str(if text.is_empty() { "nothing yet" } else { "; what is newer goes with this host" });
    }
    if travel.unsettled {
        text.push_str("; whether a newer state was published is not known yet");
    }
    text
}

fn holder_text(travel: &Travel) -> String {
    match (travel.taken, travel.taken_fork.as_str(), travel.holder.as_str()) {
        (true, "", _) => "another host; all that was here had been published".to_owned(),
        (true, fork, _) => format!("another host; what was here and not published is in {fork}"),
        (false, ..) if !travel.follows.is_empty() => {
            format!("another host; this is a look at {}", travel.follows)
        }
        (false, ..) if travel.held_here => "this host".to_owned(),
        (false, _, "") => "nobody: whichever host mounts it first has it".to_owned(),
        (false, _, holder) => holder.to_owned(),
    }
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
