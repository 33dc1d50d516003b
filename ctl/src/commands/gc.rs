//! `aetherctl gc`: frees what nothing reaches.

use std::time::Duration;

use proto::v1::gc_event::Event;
use proto::v1::{GcDone, GcProgress, GcRequest};
use serde_json::json;

use super::{gc_remote, gc_why};
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text::{duration, size};

/// Free what no snapshot and no session reaches, on this host or in the remote store
///
/// Without --remote it is this host's store that is collected. With it, what all hosts have published: what no session's head, no pin and no host needs any
/// more is condemned first, and removed by a later gc, when it has been condemned for as long as --delay says. One such gc a day, on any one of the hosts, is
/// enough. Needs a daemon that was started with --remote.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl gc --dry-run\n  aetherctl --json gc | jq .freed_bytes\n  aetherctl gc --remote\n  aetherctl gc --remote --dry-run --delay 2h\n  aetherctl --json gc --remote | jq .removed.bytes\n  aetherctl gc --why ses_0123456789abcdef"
)]
pub(crate) struct Args {
    /// Say what would be freed and free nothing
    #[arg(long)]
    dry_run: bool,
    /// Collect what hosts share instead of what is here
    #[arg(long)]
    remote: bool,
    /// With --remote: condemn what is so old, and remove what was condemned so long ago. A short one disturbs whoever publishes or reads meanwhile [default: 1d]
    #[arg(long, requires = "remote", value_name = "DURATION", value_parser = humantime::parse_duration)]
    delay: Option<Duration>,
    /// With --remote: a host that was not seen for so long loses its claim to what it alone reads; 1d at least [default: 30d]
    #[arg(long, requires = "remote", value_name = "DURATION", value_parser = humantime::parse_duration)]
    hosts_gone_after: Option<Duration>,
    /// Say why something stays in the remote store, and collect nothing: a session, a snapshot, a host, or the name of an object there
    #[arg(long, value_name = "ID", conflicts_with_all = ["dry_run", "delay", "hosts_gone_after"])]
    why: Option<String>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    match args {
        Args { why: Some(id), .. } => gc_why::run(id, context).await,
        Args { remote: true, dry_run, delay, hosts_gone_after, .. } => {
            gc_remote::run(dry_run, delay, hosts_gone_after, context).await
        }
        Args { dry_run, .. } => collect_here(dry_run, context).await,
    }
}

async fn collect_here(dry_run: bool, context: &mut Context) -> Result<(), Failure> {
    let request = GcRequest { dry_run };
    let mut events = context.connect().await?.gc(request).await?.into_inner();
    let mut progress = Progress::start("collecting");
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty gc event"))? {
            Event::Progress(step) => progress.update(step_text(&step), 0, 0),
            Event::Done(done) => {
                drop(progress);
                return print(context, &done);
            }
        }
    }
    Err(Failure::protocol("a gc without an end"))
}

/// What is being done, and how far it is.
pub(super) fn step_text(step: &GcProgress) -> String {
    match step.objects_total {
        0 => format!("{}: {} objects", step.phase, step.objects_done),
        total => format!("{}: {} of {total} objects", step.phase, step.objects_done),
    }
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
