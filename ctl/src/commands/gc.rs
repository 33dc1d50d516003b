//! `aetherctl gc`: frees what nothing reaches.

use proto::v1::gc_event::Event;
use proto::v1::{GcDone, GcRequest};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text::{duration, size};

/// Free what no snapshot and no session reaches
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  aetherctl gc --dry-run\n  aetherctl --json gc | jq .freed_bytes")]
pub(crate) struct Args {
    /// Say what would be freed and free nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let request = GcRequest { dry_run: args.dry_run };
    let mut events = context.connect().await?.gc(request).await?.into_inner();
    let mut progress = Progress::start("collecting");
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty gc event"))? {
            Event::Progress(step) => {
                let message = match step.objects_total {
                    0 => format!("{}: {} objects", step.phase, step.objects_done),
                    total => format!("{}: {} of {total} objects", step.phase, step.objects_done),
                };
                progress.update(message, 0, 0);
            }
            Event::Done(done) => {
                drop(progress);
                return print(context, &done);
            }
        }
    }
    Err(Failure::protocol("a gc without an end"))
}

fn print(context: &mut Context, done: &GcDone) -> Result<(), Failure> {
    if context.json {
        return context.document(&json!({
            "dry_run": done.dry_run,
            "kept_objects": done.kept_objects,
            "kept_bytes": done.kept_bytes,
            "freed_objects": done.freed_objects,
            "freed_bytes": done.freed_bytes,
            "freed_packs": done.freed_packs,
            "freed_segments": done.freed_segments,
            "freed_segment_bytes": done.freed_segment_bytes,
            "elapsed_us": done.elapsed_us,
        }));
    }
    context.line(&format!(
        "{} {} objects, {} of {} packs and {} of {} segments; {} objects, {} stay ({})",
        if done.dry_run { "would free" } else { "freed" },
        done.freed_objects,
        size(done.freed_bytes),
        done.freed_packs,
        size(done.freed_segment_bytes),
        done.freed_segments,
        done.kept_objects,
        size(done.kept_bytes),
        duration(done.elapsed_us)
    ))
}
