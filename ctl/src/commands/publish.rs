//! `aetherctl publish`: a snapshot goes where other hosts find it.

use proto::v1::publish_event::Event;
use proto::v1::{PublishDone, PublishEvent, PublishRequest};
use serde_json::json;
use tonic::Streaming;

use crate::context::Context;
use crate::failure::Failure;
use crate::json;
use crate::progress::Progress;
use crate::text::{duration, size};

/// Bring a snapshot, or a session's present state, to the remote store and print the snapshot ID
///
/// A session is sealed first, and its ID leads other hosts to it from then on: they fork it, look into it, and, once it is handed off or its host is
/// dead, mount it. Any daemon on the same remote store creates sessions from the snapshot. Only what the remote store lacks is
/// sent; after an interruption, only the rest. Needs a daemon that was started with --remote.
///
/// What is published of a session stays in the remote store until the session is published again, or discarded. A snapshot that is named as such is pinned: it stays until
/// `aetherctl unpin`, even when it is discarded here.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl publish linux\n  point=$(aetherctl publish work)\n  aetherctl create --from $point --mount /mnt/work     (on another host)"
)]
pub(crate) struct Args {
    /// A snapshot or session: an ID, a prefix of one, or a name
    id: String,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let request = PublishRequest { id: args.id };
    let events = context.connect().await?.publish(request).await?.into_inner();
    follow(events, context).await
}

/// Shows how far it is, and prints what came of it.
pub(super) async fn follow(
    mut events: Streaming<PublishEvent>,
    context: &mut Context,
) -> Result<(), Failure> {
    let mut progress = Progress::start("publishing");
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty publish event"))? {
            Event::Progress(step) => {
                let message = format!(
                    "publishing: {} of {} files, {} sent",
                    step.files_done,
                    step.files_total,
                    size(step.sent_bytes)
                );
                progress.update(message, 0, 0);
            }
            Event::Done(done) => {
                drop(progress);
                return print(context, &done);
            }
        }
    }
    Err(Failure::protocol("a publish without an end"))
}

fn print(context: &mut Context, done: &PublishDone) -> Result<(), Failure> {
    if context.json {
        return context.document(&json!({
            "snapshot": done.snapshot,
            "files": done.files,
            "bytes": done.bytes,
            "new_objects": done.new_objects,
            "new_bytes": done.new_bytes,
            "sent_packs": done.sent_packs,
            "sent_bytes": done.sent_bytes,
            "elapsed_us": done.elapsed_us,
            "travel": done.travel.as_ref().map(json::travel),
        }));
    }
    eprintln!(
        "{} files, {}; {} new in {} objects, sent as {} in {} packs, {}",
        done.files,
        size(done.bytes),
        size(done.new_bytes),
        done.new_objects,
        size(done.sent_bytes),
        done.sent_packs,
        duration(done.elapsed_us)
    );
    context.line(&done.snapshot)
}
