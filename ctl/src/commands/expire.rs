//! `aetherctl expire`: when a session goes of its own accord.

use std::time::Duration;

use proto::v1::ExpireRequest;

use crate::context::Context;
use crate::failure::Failure;
use crate::json;
use crate::notes::seconds;

/// Have a session discarded of its own accord after a time from now, or never
///
/// It goes as with `aetherctl discard`: here, and everywhere if this host holds it. Not before the time is up by the daemon's clock, and not while it is mounted: then
/// it goes once it is unmounted. Prints nothing.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl expire work 2d\n  aetherctl expire work never\n  aetherctl list --label job=1234 --json | jq -r '.[].id' | xargs -I{} aetherctl expire {} 1h"
)]
pub(crate) struct Args {
    /// An ID, a prefix of one, or a name
    session: String,
    /// How long from now on (90m, 2d; 1m to 10y), or `never`
    #[arg(value_name = "DURATION|never", value_parser = lifetime)]
    after: Lifetime,
}

/// How long a session stays; `None` for ever.
#[derive(Clone, Copy)]
struct Lifetime(Option<Duration>);

fn lifetime(text: &str) -> Result<Lifetime, humantime::DurationError> {
    match text {
        "never" => Ok(Lifetime(None)),
        _ => humantime::parse_duration(text).map(|duration| Lifetime(Some(duration))),
    }
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let after_s = args.after.0.map_or(Ok(0), |after| seconds("expire", after))?;
    let request = ExpireRequest { session: args.session, after_s };
    let reply = context.connect().await?.expire(request).await?.into_inner();
    let session = reply.session.ok_or_else(|| Failure::protocol("no session"))?;
    if context.json { context.document(&json::session(&session)) } else { Ok(()) }
}
