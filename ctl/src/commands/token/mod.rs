//! `aetherctl token`: tokens for callers over the network. A file for each of its commands.

mod create;
mod inspect;
mod list;
mod narrow;
mod revoke;

use std::time::{SystemTime, UNIX_EPOCH};

use proto::v1::{TokenInfo, TokenRight};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::text::time_rfc3339;

/// Make, narrow, look at and revoke tokens, which let callers in over the network
///
/// Made, listed and revoked on the daemon's host, through its socket; narrowed and looked at anywhere, without asking the daemon.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl token create --session work --allow read,fork --expires 12h\n  aetherctl token create --allow read | aetherctl token inspect\n  aetherctl token list"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Create(create::Args),
    Narrow(narrow::Args),
    Inspect(inspect::Args),
    List(list::Args),
    Revoke(revoke::Args),
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    match args.command {
        Command::Create(args) => create::run(args, context).await,
        Command::Narrow(args) => narrow::run(&args, context),
        Command::Inspect(args) => inspect::run(&args, context),
        Command::List(args) => list::run(args, context).await,
        Command::Revoke(args) => revoke::run(args, context).await,
    }
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a command that ends at once has the clock of its host")]
fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn ns(secs: u64) -> i64 {
    secs.saturating_mul(1_000_000_000).try_into().unwrap_or(i64::MAX)
}

fn right_name(right: TokenRight) -> &'static str {
    match right {
        TokenRight::Unspecified => "unknown",
        TokenRight::Read => "read",
        TokenRight::Write => "write",
        TokenRight::Fork => "fork",
        TokenRight::Manage => "manage",
    }
}

fn rights_text(token: &TokenInfo) -> String {
    token.rights().map(right_name).collect::<Vec<_>>().join(", ")
}

fn document(token: &TokenInfo) -> Value {
    let sessions = if token.sessions.is_empty() { Value::Null } else { json!(token.sessions) };
    json!({
        "id": token.id,
        "rights": token.rights().map(right_name).collect::<Vec<_>>(),
        "sessions": sessions,
        "created": time_rfc3339(token.created_ns),
        "created_ns": token.created_ns,
        "expires": time_rfc3339(token.expires_ns),
        "expires_ns": token.expires_ns,
        "revoked": token.revoked,
    })
}
