//! `aetherctl handoff`: a session leaves this host.

use proto::v1::HandoffRequest;

use super::publish;
use crate::context::Context;
use crate::failure::Failure;

/// Publish a session and give it away: whichever host mounts it next has it
///
/// Prints the snapshot that it is then. The session is not here any more afterwards; `aetherctl mount` with its whole ID brings it to a host, this one
/// or another. When it fails before others can have it, it stays here, unmounted. Needs a daemon that was started with --remote.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl handoff work\n  aetherctl handoff work --force\n  aetherctl mount ses_0123456789abcdef /mnt/work     (on another host)"
)]
pub(crate) struct Args {
    /// An ID, a prefix of one, or a name
    session: String,
    /// Unmount it first
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let request = HandoffRequest { session: args.session, force: args.force };
    let events = context.connect().await?.handoff(request).await?.into_inner();
    publish::follow(events, context).await
}
