//! `aetherctl mount`: a session becomes a directory.

use std::path::PathBuf;

use proto::v1::MountRequest;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::{host, json};

/// Mount a session on a directory
///
/// Moves no bytes: what is read is fetched then. The mount lasts until it is unmounted or the daemon ends.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl mount work /mnt/work\n  aetherctl mount ses_01234567 ./look --read-only\n  aetherctl mount work /srv/work --allow-other --acl"
)]
pub(crate) struct Args {
    /// An ID, a prefix of one, or a name
    session: String,
    /// An existing directory
    dir: PathBuf,
    /// Refuse writes through this mount
    #[arg(long)]
    read_only: bool,
    /// Let other users in (for a user other than root, /etc/fuse.conf has to say user_allow_other)
    #[arg(long)]
    allow_other: bool,
    /// Have the kernel check POSIX access control lists; everybody but a file's owner waits longer for that
    #[arg(long)]
    acl: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let request = MountRequest {
        session: args.session,
        dir: host::absolute(&args.dir)?,
        read_only: args.read_only,
        allow_other: args.allow_other,
        acl: args.acl,
    };
    let reply = context.connect().await?.mount(request).await?.into_inner();
    let mount = reply.mount.ok_or_else(|| Failure::protocol("no mount"))?;
    if context.json {
        return context.document(&json::with(json!({ "session": reply.session }), json::mount(&mount)));
    }
    Ok(())
}
