//! `aetherctl discard`: ends sessions.

use proto::v1::{DiscardRequest, DiscardResult};
use serde_json::json;
use tonic::Code;

use crate::context::{Context, JsonArray};
use crate::failure::{Failure, exit_code_of};
use crate::json;

/// Discard sessions, or snapshots, and give back their space
///
/// A mounted session is refused without --force, which unmounts it first. Each session is tried; those that fail are named
/// on stderr. Snapshots that were sealed stay
/// until they are named here themselves; their space comes back with the next gc. What was published of a snapshot stays in the remote store: `aetherctl unpin` lets
/// go of that.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl discard ses_0123456789abcdef\n  aetherctl discard fix-1 fix-2 fix-3 --force"
)]
pub(crate) struct Args {
    /// IDs, prefixes of them, or names
    #[arg(required = true, value_name = "SESSION")]
    sessions: Vec<String>,
    /// Unmount a mounted session first
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let mut client = context.connect().await?;
    let mut array = if context.json { Some(JsonArray::start(context)?) } else { None };
    let mut exit_code = 0;
    for ids in args.sessions.chunks(proto::DISCARD_COUNT_MAX) {
        let request = DiscardRequest { ids: ids.to_vec(), force: args.force };
        let results = client.discard(request).await?.into_inner().results;
        if results.len() != ids.len() {
            return Err(Failure::protocol("not one result for each session"));
        }
        for result in &results {
            exit_code = exit_code.max(report(result));
            if let Some(array) = &mut array {
                array.push(
                    context,
                    &json!({
                        "id": result.id,
                        "session": json::optional(&result.session),
                        "discarded": result.code == 0,
                        "error": json::optional(&result.message),
                    }),
                )?;
            }
        }
    }
    if let Some(array) = array {
        array.finish(context)?;
    }
    if exit_code == 0 { Ok(()) } else { Err(Failure::Reported(exit_code)) }
}

/// Names a failure on stderr and gives its exit code.
fn report(result: &DiscardResult) -> u8 {
    if result.code == 0 {
        return 0;
    }
    eprintln!("aetherctl: {}: {}", result.id, result.message);
    exit_code_of(Code::from(result.code))
}
