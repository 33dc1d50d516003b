//! `aetherctl seal`: a session's changes become a snapshot.

use proto::v1::seal_event::Event;
use proto::v1::{SealDone, SealRequest};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text::{duration, size};

/// Write a session's changes into the store and print the snapshot ID
///
/// The session goes on, on top of that snapshot. Sealing an unchanged session prints its base.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  point=$(aetherctl seal work)\n  aetherctl create --from $point --mount /mnt/replay"
)]
pub(crate) struct Args {
    /// An ID, a prefix of one, or a name
    session: String,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let request = SealRequest { session: args.session };
    let mut events = context.connect().await?.seal(request).await?.into_inner();
    let mut progress = Progress::start("sealing");
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty seal event"))? {
            Event::Progress(step) => {
                let message = format!("sealing: {} of {} files", step.files_done, step.files_total);
                progress.update(message, step.bytes_done, step.bytes_total);
            }
            Event::Done(done) => {
                drop(progress);
                return print(context, &done);
            }
        }
    }
    Err(Failure::protocol("a seal without an end"))
}

fn print(context: &mut Context, done: &SealDone) -> Result<(), Failure> {
    if context.json {
        return context.document(&json!({
            "snapshot": done.snapshot,
            "files": done.files,
            "bytes": done.bytes,
            "new_objects": done.new_objects,
            "new_bytes": done.new_bytes,
            "elapsed_us": done.elapsed_us,
        }));
    }
    eprintln!("{} new in {} objects, {}", size(done.new_bytes), done.new_objects, duration(done.elapsed_us));
    context.line(&done.snapshot)
}
