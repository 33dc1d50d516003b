//! `aetherctl token narrow`: a token that allows less, made without the daemon.

use std::time::Duration;

use serde_json::json;
use token::{Narrowing, Right, SessionRef};

use super::now_secs;
use crate::context::Context;
use crate::failure::Failure;

/// Print a token that allows less than another one
///
/// The token is taken from --token-file, else AETHERFS_TOKEN or AETHERFS_TOKEN_FILE, else stdin. Nobody is asked: neither whether it is good, nor whether
/// there are such sessions. What comes out ends with what it was made from, and is revoked with it, by the same ID.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl token narrow --allow read --expires 10m\n  aetherctl token narrow --session ses_0123456789abcdef < token > token-for-one\n  aetherctl token create --allow read,fork | aetherctl token narrow --token-file - --allow read"
)]
pub(super) struct Args {
    /// Only this session, by its whole ID, and its forks; repeatable
    #[arg(long, value_name = "SESSION")]
    session: Vec<SessionRef>,
    /// Only these rights
    #[arg(long, value_name = "RIGHTS", value_delimiter = ',')]
    allow: Vec<Right>,
    /// So long from now, if it does not end before
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let set = |given: &[Right]| (!given.is_empty()).then(|| given.iter().copied().collect());
    let by = Narrowing {
        rights: set(&args.allow),
        sessions: (!args.session.is_empty()).then(|| args.session.iter().cloned().collect()),
        expires_secs: args.expires.map(|time| now_secs().saturating_add(time.as_secs())),
    };
    let narrower =
        token::narrow(&context.token.read_or_stdin()?, by).map_err(|e| Failure::No(e.to_string()))?;
    if context.json {
        return context.document(&json!({ "token": narrower }));
    }
    context.line(&narrower)
}
