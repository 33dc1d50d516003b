//! `aetherctl token inspect`: what a token says.

use serde_json::{Value, json};
use token::Grant;

use super::{now_secs, ns};
use crate::context::Context;
use crate::failure::Failure;
use crate::text::{rendered, table, time, time_rfc3339};

/// Show what a token allows
///
/// The token is taken from --token-file, else AETHERFS_TOKEN or AETHERFS_TOKEN_FILE, else stdin. The daemon is not asked: whether it made the token, and has
/// not revoked it, only the daemon knows.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl token inspect --token-file /run/secrets/aetherfs\n  echo \"$TOKEN\" | aetherctl token inspect --token-file -\n  aetherctl --json token inspect | jq -r .expires"
)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, context: &mut Context) -> Result<(), Failure> {
    let text = context.token.read_or_stdin()?;
    let token::Token { id, grant } = token::inspect(&text).map_err(|e| Failure::No(e.to_string()))?;
    let is_over = grant.is_over(now_secs());
    if context.json {
        return context.document(&document(&id, &grant, is_over));
    }
    let expires = format!("{}{}", time(ns(grant.expires_secs)), if is_over { ", which is over" } else { "" });
    let mut shown = table(&[]);
    for (label, value) in
        [("token", id), ("allows", grant.rights_text()), ("of", grant.sessions_text()), ("until", expires)]
    {
        shown.add_row(vec![label.to_string(), value]);
    }
    context.line(&rendered(shown))
}

fn document(id: &str, grant: &Grant, is_over: bool) -> Value {
    let sets: Vec<Vec<_>> =
        grant.sessions.iter().map(|set| set.iter().map(ToString::to_string).collect()).collect();
    let expires_ns = ns(grant.expires_secs);
    json!({
        "id": id,
        "rights": grant.rights.iter().map(|right| right.name()).collect::<Vec<_>>(),
        "sessions": if sets.is_empty() { Value::Null } else { json!(sets) },
        "expires": time_rfc3339(expires_ns),
        "expires_ns": expires_ns,
        "expired": is_over,
    })
}
