//! `aetherctl advance`: a look at another host's session goes on.

use std::path::PathBuf;

use proto::v1::AdvanceRequest;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::host;

/// Move a read-only mount of another host's session forward, to what is published of it now; of a peer's, to what it is now
///
/// Prints the snapshot that is seen then, which may be the one that was seen before. Refused while programs have files open in the mount.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl mount ses_0123456789abcdef /mnt/look --read-only     (of another host)\n  aetherctl advance /mnt/look"
)]
pub(crate) struct Args {
    /// The mount point
    dir: PathBuf,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    context.require_socket("advance")?;
    let request = AdvanceRequest { dir: host::absolute(&args.dir)? };
    let reply = context.connect().await?.advance(request).await?.into_inner();
    if context.json {
        return context.document(&json!({
            "session": reply.session,
            "published": reply.published,
            "advanced": reply.advanced,
        }));
    }
    context.line(&reply.published)
}
