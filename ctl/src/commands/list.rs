//! `aetherctl list`: every session and snapshot.

use std::io::{IsTerminal, stdout};

use proto::v1::list_item::Item;
use proto::v1::{ListRequest, SessionInfo, SnapshotInfo};

use crate::context::{Context, JsonArray};
use crate::failure::Failure;
use crate::json;
use crate::quote::quoted;
use crate::text::{rendered, short, size, table, time};

/// List sessions and snapshots
///
/// On a terminal snapshot IDs are cut to a prefix that is accepted again; in a pipe and with --json they are whole.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl list\n  aetherctl --json list | jq -r '.[] | select(.type == \"session\").id'"
)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &mut Context) -> Result<(), Failure> {
    let mut items = context.connect().await?.list(ListRequest {}).await?.into_inner();
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
        let mut rows = table(&["SESSION", "NAME", "BASE", "CREATED", "CHANGED", "DATA", "MOUNTS"]);
        for session in sessions {
            let mounts: Vec<_> = session.mounts.iter().map(|mount| quoted(&mount.dir)).collect();
            rows.add_row(vec![
                session.id.clone(),
                session.name.clone(),
                id(&session.base),
                time(session.created_ns),
                session.changed_inodes.to_string(),
                size(session.changed_bytes),
                mounts.join("\n"),
            ]);
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
