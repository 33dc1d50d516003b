//! `aetherctl import`: a directory tree goes into the store.

use std::path::PathBuf;

use proto::v1::import_event::Event;
use proto::v1::{ImportDone, ImportPhase, ImportProgress, ImportRequest};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::host;
use crate::progress::Progress;
use crate::text::{duration, size};

/// Store a directory tree and print its snapshot ID
///
/// The tree is only read. Importing the same tree again adds nothing and prints the same ID. A file that keeps
/// changing while it is read is named, and nothing is imported.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl import ~/src/linux --name linux\n  base=$(aetherctl import .)"
)]
pub(crate) struct Args {
    /// The directory
    path: PathBuf,
    /// A name for the snapshot; one that is in use moves
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    context.require_socket("import")?;
    let request = ImportRequest { path: host::absolute(&args.path)?, name: args.name.unwrap_or_default() };
    let mut events = context.connect().await?.import(request).await?.into_inner();
    let mut progress = Progress::start("scanning");
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty import event"))? {
            Event::Progress(step) => show_step(&mut progress, &step),
            Event::Done(done) => {
                drop(progress);
                return print(context, &done);
            }
        }
    }
    Err(Failure::protocol("an import without an end"))
}

fn show_step(progress: &mut Progress, step: &ImportProgress) {
    let message = match step.phase() {
        ImportPhase::Unspecified => "working".to_string(),
        ImportPhase::Scanning => format!("scanning: {} files, {}", step.files_total, size(step.bytes_total)),
        ImportPhase::Loading => format!("{} of {} files", step.files_done, step.files_total),
    };
    let total = if step.phase() == ImportPhase::Loading { step.bytes_total } else { 0 };
    progress.update(message, step.bytes_done, total);
}

fn print(context: &mut Context, done: &ImportDone) -> Result<(), Failure> {
    if context.json {
        return context.document(&json!({
            "snapshot": done.snapshot,
            "files": done.files,
            "bytes": done.bytes,
            "new_objects": done.new_objects,
            "new_bytes": done.new_bytes,
            "known_objects": done.known_objects,
            "known_bytes": done.known_bytes,
            "elapsed_us": done.elapsed_us,
        }));
    }
    eprintln!(
        "{} files, {} in {}; {} new in {} objects, {} in {} objects were there",
        done.files,
        size(done.bytes),
        duration(done.elapsed_us),
        size(done.new_bytes),
        done.new_objects,
        size(done.known_bytes),
        done.known_objects
    );
    context.line(&done.snapshot)
}
