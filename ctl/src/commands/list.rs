//! `aetherctl list`: every session and snapshot.

use std::io::{IsTerminal, stdout};

use proto::v1::list_item::Item;
use proto::v1::{LabelFilter, ListRequest, SessionInfo, SnapshotInfo};

use crate::context::{Context, JsonArray};
use crate::failure::Failure;
use crate::json;
use crate::notes::{filter, labels_text, left_text};
use crate::quote::quoted;
use crate::text::{rendered, short, size, table, time};

/// List sessions and snapshots
///
/// On a terminal snapshot IDs are cut to a prefix that is accepted again; in a pipe and with --json they are whole.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl list\n  aetherctl list --label job=1234 --label team/owner\n  aetherctl list --remote --json | jq -r '.[] | select(.state == \"stale\").id'\n  aetherctl --json list | jq -r '.[] | select(.type == \"session\").id'"
)]
pub(crate) struct Args {
    /// Only sessions that have this label, with this value if one is given; repeatable: all of them. No snapshots then
    #[arg(long = "label", value_name = "KEY[=VALUE]", value_parser = filter)]
    labels: Vec<LabelFilter>,
    /// The sessions of all hosts that were published, as the remote store has them: who holds each, and what is published of it
    #[arg(long, conflicts_with = "labels")]
    remote: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    if args.remote {
        return super::list_remote::run(context).await;
    }
    let is_filtered = !args.labels.is_empty();
    let request = ListRequest { labels: args.labels };
    let mut items = context.connect().await?.list(request).await?.into_inner();
    let mut array = if context.json { Some(JsonArray::start(context)?) } else { None };
    let (mut sessions, mut snapshots) = (Vec::new(), Vec::new());
    while let Some(item) = items.message().await? {
        let item = item.item.ok_or_else(|| Failure::protocol("an empty list item"))?;
        match (&mut array, item) {
            (Some(array), Item::Session(session)) => array.push(context, &json::session(&session))?,
            (Some(array), Item::Snapshot(snapshot)) => array.push(context, &json::snapshot(&snapshot))?,
            (None, Item::Session(session)) => sessions.push(session),
            (None, Item::Snapshot(snapshot)) => snapshots.push(snapshot),
        }
    }
    match array {
        Some(array) => array.finish(context),
        None if is_filtered && sessions.is_empty() => {
            eprintln!("no session here has that");
            Ok(())
        }
        None => print(context, &sessions, &snapshots),
    }
}

fn print(context: &mut Context, sessions: &[SessionInfo], snapshots: &[SnapshotInfo]) -> Result<(), Failure> {
    if sessions.is_empty() && snapshots.is_empty() {
        eprintln!(
            "nothing here yet: aetherctl import PATH stores a tree, aetherctl create opens an empty session"
        );
        return Ok(());
    }
    let whole_ids = !stdout().is_terminal();
    let id = |id: &str| if whole_ids { id.to_string() } else { short(id).to_string() };
    if !sessions.is_empty() {
        // Columns for what few use are there when somebody does.
        let expires = sessions.iter().any(|session| session.expires_ns != 0);
        let labels = sessions.iter().any(|session| !session.labels.is_empty());
        let mut header = vec!["SESSION", "NAME", "BASE", "CREATED", "CHANGED", "DATA", "MOUNTS"];
        header.extend(
            [(expires, "EXPIRES"), (labels, "LABELS")].iter().filter(|more| more.0).map(|more| more.1),
        );
        let mut rows = table(&header);
        for session in sessions {
            let mounts: Vec<_> = session.mounts.iter().map(|mount| quoted(&mount.dir)).collect();
            let mut row = vec![
                session.id.clone(),
                session.name.clone(),
                id(&session.base),
                time(session.created_ns),
                session.changed_inodes.to_string(),
                size(session.changed_bytes),
                mounts.join("\n"),
            ];
            row.extend(expires.then(|| expiry(session)));
            row.extend(labels.then(|| labels_text(session)));
            rows.add_row(row);
        }
        context.line(&rendered(rows))?;
    }
    if !sessions.is_empty() && !snapshots.is_empty() {
        context.line("")?;
    }
    if !snapshots.is_empty() {
        let mut rows = table(&["SNAPSHOT", "NAMES", "CREATED", "FILES", "SIZE"]);
        for snapshot in snapshots {
            rows.add_row(vec![
                id(&snapshot.id),
                snapshot.names.join(", "),
                time(snapshot.created_ns),
                snapshot.files.to_string(),
                size(snapshot.bytes),
            ]);
        }
        context.line(&rendered(rows))?;
    }
    Ok(())
}

/// How long it has.
fn expiry(session: &SessionInfo) -> String {
    match (session.expires_ns, session.expires_in_s) {
        (0, _) => String::new(),
        (_, 0) => "now".to_owned(),
        (_, left) => format!("in {}", left_text(left)),
    }
}
