//! `aetherctl label`: what a session is found by.

use proto::v1::LabelRequest;

use crate::context::Context;
use crate::failure::Failure;
use crate::json;
use crate::notes::{LabelChange, label_change};

/// Attach labels to a session, or take some off
///
/// All changes are made, or none. A session has at most 16 labels; forks have none of their parent's, and neither has the session on a host that it travels to. Prints
/// nothing.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl label work job=1234 team/owner=build\n  aetherctl label work job-\n  aetherctl list --label job=1234"
)]
pub(crate) struct Args {
    /// An ID, a prefix of one, or a name
    session: String,
    /// Attach (KEY=VALUE, in the place of one with this key), or take off (KEY-)
    #[arg(value_name = "KEY=VALUE|KEY-", required = true, value_parser = label_change)]
    changes: Vec<LabelChange>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let mut request = LabelRequest { session: args.session, ..LabelRequest::default() };
    for change in args.changes {
        match change {
            LabelChange::Set(label) => request.set.push(label),
            LabelChange::Remove(key) => request.remove.push(key),
        }
    }
    let reply = context.connect().await?.label(request).await?.into_inner();
    let session = reply.session.ok_or_else(|| Failure::protocol("no session"))?;
    if context.json { context.document(&json::session(&session)) } else { Ok(()) }
}
