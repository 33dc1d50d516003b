//! `aetherctl token list`: the tokens that have not expired.

use proto::v1::ListTokensRequest;
use serde_json::Value;

use super::{document, rights_text};
use crate::context::Context;
use crate::failure::Failure;
use crate::text::{rendered, table, time};

/// List tokens that have not expired
///
/// The tokens themselves are nowhere: only whom they were given to has them.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl token list\n  aetherctl --json token list | jq -r '.[] | select(.revoked | not).id'"
)]
pub(super) struct Args {}

pub(super) async fn run(_: Args, context: &mut Context) -> Result<(), Failure> {
    context.require_socket("token list")?;
    let tokens = context.connect().await?.list_tokens(ListTokensRequest {}).await?.into_inner().tokens;
    if context.json {
        return context.document(&Value::Array(tokens.iter().map(document).collect()));
    }
    if tokens.is_empty() {
        eprintln!("no tokens: aetherctl token create makes one");
        return Ok(());
    }
    let mut rows = table(&["TOKEN", "ALLOWS", "SESSIONS", "CREATED", "EXPIRES", ""]);
    for token in &tokens {
        let sessions = if token.sessions.is_empty() { "all".to_string() } else { token.sessions.join("\n") };
        rows.add_row(vec![
            token.id.clone(),
            rights_text(token),
            sessions,
            time(token.created_ns),
            time(token.expires_ns),
            if token.revoked { "revoked".to_string() } else { String::new() },
        ]);
    }
    context.line(&rendered(rows))
}
