//! `aetherctl fork`: new sessions that start as another one is now.

use std::path::PathBuf;

use proto::v1::ForkRequest;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::notes::NotesArgs;
use crate::{host, json};

/// Fork a session and print the new sessions' IDs, a line each
///
/// The session may be mounted and written meanwhile: a fork holds every call that completed before it. All forks of one
/// command are made at the same point. Labels and the time to expire are the session's own: a fork has those that it is given here.
///
/// A session of another daemon is forked by its URI, if that is among this one's peers (aetherfsd --peer): what is touched of it is fetched from there.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl fork ses_0123456789abcdef\n  aetherctl fork work --count 30 --name try\n  \
                        aetherctl fork work --count 3 --mount /mnt/forks --expires 12h --label try=1\n  \
                        aetherctl fork aether://build7.example:7440/ses_0123456789abcdef"
)]
pub(crate) struct Args {
    /// An ID, a prefix of one, or a name; or a URI, `aether://HOST:PORT/SESSION@SNAPSHOT`, the last part if need be
    session: String,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(proto::FORK_COUNT_MAX)))]
    count: u32,
    /// A name for the fork; with a count over 1, -1, -2 and so on are appended
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Mount it on this directory; with a count over 1, each on a new directory in it, called by the session's ID
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    #[command(flatten)]
    notes: NotesArgs,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    if args.mount.is_some() {
        context.require_socket("--mount")?;
    }
    let request = ForkRequest {
        session: args.session,
        count: args.count,
        name: args.name.unwrap_or_default(),
        mount_dir: host::absolute_or_empty(args.mount.as_deref())?,
        notes: args.notes.message()?,
    };
    let reply = context.connect().await?.fork(request).await?.into_inner();
    if context.json {
        let sessions: Vec<_> = reply.sessions.iter().map(json::session).collect();
        return context.document(&json!({ "sessions": sessions, "elapsed_us": reply.elapsed_us }));
    }
    for session in &reply.sessions {
        context.line(&session.id)?;
    }
    Ok(())
}
