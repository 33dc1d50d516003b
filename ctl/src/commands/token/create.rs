//! `aetherctl token create`: a new token.

use std::time::Duration;

use proto::v1::{CreateTokenRequest, TokenRight};
use serde_json::json;
use token::Right;

use super::{document, rights_text};
use crate::context::Context;
use crate::failure::Failure;
use crate::json;
use crate::text::time;

/// Make a token and print it
///
/// Whoever has it may do what it allows, over the network, until it ends or is revoked. It is shown this once. What it allows for a session it allows for all
/// forks of it, whoever makes them, and for the snapshots that it stands on.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl token create --session work --allow read,write,fork --expires 1d\n  aetherctl token create --allow read,manage > /run/secrets/collector\n  AETHERFS_TOKEN=$(aetherctl token create --allow read) aetherctl --server https://build1:7440 list"
)]
pub(super) struct Args {
    /// For this session (an ID, a prefix of one, or a name) and its forks; repeatable. Without it for all
    #[arg(long, value_name = "SESSION")]
    session: Vec<String>,
    /// What it allows: read (look), write (seal, publish, hand off, discard), fork (make sessions), manage (gc, fsck, stats, doctor)
    #[arg(long, value_name = "RIGHTS", value_delimiter = ',', required = true)]
    allow: Vec<Right>,
    /// How long: 90s, 12h, 30d, which is the most
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "1d")]
    expires: Duration,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    context.require_socket("token create")?;
    if args.session.iter().any(String::is_empty) {
        return Err(Failure::No(
            "--session is empty: name a session, or leave the option out for all".to_string(),
        ));
    }
    // No time at all means the daemon's choice in the interface.
    if args.expires.is_zero() {
        return Err(Failure::No("--expires 0: a token lasts a second or more".to_string()));
    }
    let request = CreateTokenRequest {
        rights: args.allow.iter().map(|right| of_interface(*right).into()).collect(),
        sessions: args.session,
        lifetime_ms: args.expires.as_millis().try_into().unwrap_or(u64::MAX),
    };
    let reply = context.connect().await?.create_token(request).await?.into_inner();
    let info = reply.info.ok_or_else(|| Failure::protocol("no token"))?;
    if context.json {
        return context.document(&json::with(document(&info), json!({ "token": reply.token })));
    }
    let sessions =
        if info.sessions.is_empty() { "all sessions".to_string() } else { info.sessions.join(", ") };
    eprintln!("{}: {} of {sessions}, until {}", info.id, rights_text(&info), time(info.expires_ns));
    context.line(&reply.token)
}

fn of_interface(right: Right) -> TokenRight {
    match right {
        Right::Read => TokenRight::Read,
        Right::Write => TokenRight::Write,
        Right::Fork => TokenRight::Fork,
        Right::Manage => TokenRight::Manage,
    }
}
