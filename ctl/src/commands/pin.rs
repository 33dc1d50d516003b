//! `aetherctl pin`: a snapshot stays in the remote store.

use proto::v1::PinRequest;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;

/// Keep a snapshot in the remote store until it is unpinned
///
/// Of a session: what is published of it now, which then stays when the session goes on or is discarded. Prints the snapshot that stays. `aetherctl publish` of a
/// snapshot pins it already. Needs a daemon that was started with --remote.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl pin linux\n  release=$(aetherctl pin work)\n  aetherctl pin ses_0123456789abcdef     (of another host)"
)]
pub(crate) struct Args {
    #[command(flatten)]
    what: What,
}

/// What `pin` and `unpin` are told.
#[derive(clap::Args)]
pub(super) struct What {
    /// A snapshot or session: an ID, a prefix of one, or a name; of another host by its whole ID
    #[arg(value_name = "SESSION|SNAPSHOT")]
    pub(super) id: String,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let reply = context.connect().await?.pin(PinRequest { id: args.what.id }).await?.into_inner();
    print(context, &reply.snapshot)
}

/// The snapshot that stays, or need not.
pub(super) fn print(context: &mut Context, snapshot: &str) -> Result<(), Failure> {
    if context.json {
        return context.document(&json!({ "snapshot": snapshot }));
    }
    context.line(snapshot)
}
