//! `aetherctl create`: a new session on a snapshot.

use std::path::PathBuf;

use proto::v1::CreateRequest;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::notes::NotesArgs;
use crate::{host, json};

/// Create a session and print its ID
///
/// The session starts as the snapshot is; without --from it starts empty. No bytes are copied.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl create --from linux --mount /mnt/work\n  aetherctl create --name scratch --expires 2d\n  aetherctl create --from linux --label job=1234 --label team/owner=build"
)]
pub(crate) struct Args {
    /// A snapshot, by ID or name
    #[arg(long, value_name = "SNAPSHOT|NAME")]
    from: Option<String>,
    /// A name for the session
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Mount it on this directory
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    #[command(flatten)]
    notes: NotesArgs,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    // Empty means "from nothing" in the interface, and an unset variable of a script is not that.
    if args.from.as_deref() == Some("") {
        return Err(Failure::No("--from is empty: name a snapshot, or leave the option out".to_string()));
    }
    if args.mount.is_some() {
        context.require_socket("--mount")?;
    }
    let request = CreateRequest {
        from: args.from.unwrap_or_default(),
        name: args.name.unwrap_or_default(),
        mount_dir: host::absolute_or_empty(args.mount.as_deref())?,
        notes: args.notes.message()?,
    };
    let reply = context.connect().await?.create(request).await?.into_inner();
    let session = reply.session.ok_or_else(|| Failure::protocol("no session"))?;
    if context.json {
        let elapsed = json!({ "session": session.id, "elapsed_us": reply.elapsed_us });
        return context.document(&json::with(json::session(&session), elapsed));
    }
    context.line(&session.id)
}
