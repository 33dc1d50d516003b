//! `aetherctl import`: a directory tree goes into the store.

use std::path::PathBuf;

use proto::v1::import_event::Event;
use proto::v1::{ImportDone, ImportPhase, ImportProgress, ImportRequest, ImportWarning};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::quote::quoted;
use crate::text::{duration, size};
use crate::{host, json};

/// Warnings that `--json` holds until the end; stderr has them all.
const WARNINGS_MAX: usize = 10_000;

/// Store a directory tree and print its snapshot ID
///
/// The tree is only read. Importing the same tree again adds nothing and prints the same ID. Files that change while they
/// are read are named on stderr.
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
    let request = ImportRequest { path: host::absolute(&args.path)?, name: args.name.unwrap_or_default() };
    let mut events = context.connect().await?.import(request).await?.into_inner();
    let mut progress = Progress::start("scanning");
    let mut warnings = Vec::new();
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty import event"))? {
            Event::Progress(step) => show_step(&mut progress, &step),
            Event::Warning(warning) => {
                progress.say(&format!("warning: {}: {}", quoted(&warning.path), warning.message));
                if warnings.len() < WARNINGS_MAX {
                    warnings.push(warning_json(&warning));
                }
            }
            Event::Done(done) => {
                drop(progress);
                return print(context, &done, warnings);
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
        ImportPhase::Committing => "committing".to_string(),
    };
    let total = if step.phase() == ImportPhase::Loading { step.bytes_total } else { 0 };
    progress.update(message, step.bytes_done, total);
}

fn print(context: &mut Context, done: &ImportDone, warnings: Vec<Value>) -> Result<(), Failure> {
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
            "warnings": warnings,
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

fn warning_json(warning: &ImportWarning) -> Value {
    let mut object = json!({ "message": warning.message });
    json::put_bytes(&mut object, "path", &warning.path);
    object
}
