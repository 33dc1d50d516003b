//! `aetherctl list --remote`: the sessions of all hosts. Printed as they come: there may be any number.

use proto::v1::remote_session::State;
use proto::v1::{ListRemoteRequest, RemoteSession, SessionInfo};
use serde_json::{Value, json};

use crate::context::{Context, JsonArray};
use crate::failure::Failure;
use crate::json;
use crate::text::{time, time_rfc3339};

pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let mut items = context.connect().await?.list_remote(ListRemoteRequest {}).await?.into_inner();
    let mut array = if context.json { Some(JsonArray::start(context)?) } else { None };
    let mut is_empty = true;
    while let Some(item) = items.message().await? {
        let session = item.session.as_ref().ok_or_else(|| Failure::protocol("an empty list item"))?;
        match &mut array {
            Some(array) => array.push(context, &document(&item, session))?,
            None => {
                if is_empty {
                    context.line(&line(&HEADER.map(str::to_owned)))?;
                }
                context.line(&line(&cells(&item, session)))?;
            }
        }
        is_empty = false;
    }
    match array {
        Some(array) => array.finish(context),
        None => {
            if is_empty {
                eprintln!("no session was published yet: aetherctl publish SESSION");
            }
            Ok(())
        }
    }
}

const HEADER: [&str; 7] = ["SESSION", "STATE", "EPOCH", "CREATED", "HOLDER", "PUBLISHED", "NAME"];
/// IDs and times have one length. What follows the last column may have any.
const WIDTHS: [usize; 6] = [20, 7, 5, 19, 31, 56];

/// The columns cannot wait for the longest cell.
fn line(cells: &[String; 7]) -> String {
    let padded = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:width$}  "));
    let text = padded.collect::<String>() + &cells[6];
    text.trim_end().to_owned()
}

fn cells(item: &RemoteSession, session: &SessionInfo) -> [String; 7] {
    let travel = session.travel.clone().unwrap_or_default();
    if !item.damage.is_empty() {
        let empty = String::new;
        return [
            session.id.clone(),
            "damaged".into(),
            empty(),
            empty(),
            empty(),
            empty(),
            item.damage.clone(),
        ];
    }
    [
        session.id.clone(),
        state(item).to_owned(),
        travel.epoch.to_string(),
        time(session.created_ns),
        travel.holder,
        travel.published,
        session.name.clone(),
    ]
}

fn document(item: &RemoteSession, session: &SessionInfo) -> Value {
    let is_known = item.damage.is_empty();
    let seen = (item.holder_seen_ns != 0).then_some(item.holder_seen_ns);
    json!({
        "type": "remote_session",
        "id": session.id,
        "name": json::optional(&session.name),
        "base": json::optional(&session.base),
        "parent": json::optional(&session.parent),
        "created": is_known.then(|| time_rfc3339(session.created_ns)),
        "created_ns": is_known.then_some(session.created_ns),
        "state": state(item),
        "travel": session.travel.as_ref().map(json::travel),
        "holder_seen": seen.map(time_rfc3339),
        "holder_seen_ns": seen,
        "damage": json::optional(&item.damage),
    })
}

fn state(item: &RemoteSession) -> &'static str {
    match item.state() {
        State::Here => "here",
        State::Free => "free",
        State::Held => "held",
        State::Stale => "stale",
        State::Unspecified => "damaged",
    }
}
