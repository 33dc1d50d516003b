//! `aetherctl unpin`: a snapshot need not stay in the remote store.

use proto::v1::UnpinRequest;

use super::pin::{What, print};
use crate::context::Context;
use crate::failure::Failure;

/// Let a snapshot go that was pinned or published: whichever host did that
///
/// It goes with a later `aetherctl gc --remote`, unless a session's head or a host needs it. Of a session the snapshot is meant that is published of it now, which may be
/// another one than was pinned. Prints the snapshot; exits with 1 if it was not pinned. Needs a daemon that was started with --remote.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl unpin linux\n  aetherctl unpin $release && aetherctl gc --why $release"
)]
pub(crate) struct Args {
    #[command(flatten)]
    what: What,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let reply = context.connect().await?.unpin(UnpinRequest { id: args.what.id }).await?.into_inner();
    print(context, &reply.snapshot)
}
