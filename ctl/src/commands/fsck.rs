//! `aetherctl fsck`: verifies every stored byte, and what is not stored yet.

use proto::v1::fsck_event::Event;
use proto::v1::{FsckDone, FsckFinding, FsckKind, FsckRequest};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::json;
use crate::progress::Progress;
use crate::text::{duration, size};

/// Findings that `--json` holds until the end; the daemon counts them all.
const FINDINGS_MAX: usize = 100_000;

/// Verify every stored byte, the log, and changes that are not sealed yet
///
/// What is damaged is printed a line each, with the sessions and paths that it hits, then what was read. Exits with 2 if damage
/// is left. Of a state whose daemon does not start ask `aetherfsd --check`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  aetherctl fsck
  aetherctl --json fsck | jq '.findings[] | select(.repaired | not)'
  aetherctl fsck --repair")]
pub(crate) struct Args {
    /// Rebuild what can be rebuilt (the index, the log), move what is intact out of damaged packs, and set those aside as
    /// *.lost. Nothing is deleted
    #[arg(long)]
    repair: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let mut events = context.connect().await?.fsck(FsckRequest { repair: args.repair }).await?.into_inner();
    let mut progress = Progress::start("verifying");
    let mut findings = Vec::new();
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty fsck event"))? {
            Event::Progress(step) => {
                let message = format!("{}: {} objects", step.phase, step.objects_done);
                progress.update(message, step.bytes_done, step.bytes_total);
            }
            Event::Finding(finding) if context.json => {
                if findings.len() < FINDINGS_MAX {
                    findings.push(finding_json(&finding));
                }
            }
            Event::Finding(finding) => context.line(&finding_text(&finding))?,
            Event::Done(done) => {
                drop(progress);
                return print(context, &done, findings);
            }
        }
    }
    Err(Failure::protocol("an fsck without an end"))
}

fn print(context: &mut Context, done: &FsckDone, findings: Vec<Value>) -> Result<(), Failure> {
    let left = done.findings.saturating_sub(done.repaired);
    if context.json {
        context.document(&json!({
            "clean": left == 0,
            "objects": done.objects,
            "bytes": done.bytes,
            "finding_count": done.findings,
            "repaired": done.repaired,
            "index_rebuilt": done.index_rebuilt,
            "elapsed_us": done.elapsed_us,
            "findings": findings,
        }))?;
    } else {
        let verdict = match (done.findings, left) {
            (0, _) => "no damage".to_string(),
            (found, 0) => format!("{found} found, all repaired"),
            (found, _) => format!("{found} found, {} repaired", done.repaired),
        };
        let index = if done.index_rebuilt { ", index rebuilt" } else { "" };
        let (bytes, elapsed) = (size(done.bytes), duration(done.elapsed_us));
        context
            .line(&format!("{} objects, {bytes} verified in {elapsed}: {verdict}{index}", done.objects))?;
    }
    if left == 0 { Ok(()) } else { Err(Failure::Reported(2)) }
}

fn finding_text(finding: &FsckFinding) -> String {
    let mut text = kind_name(finding.kind()).to_string();
    if !finding.object.is_empty() {
        text.push_str(&format!(" {}", finding.object));
    }
    if !finding.file.is_empty() {
        text.push_str(&format!(" in {} at {}", finding.file, finding.offset));
    }
    text.push_str(&format!(": {}", finding.detail));
    if finding.repaired { format!("{text} (repaired)") } else { text }
}

fn finding_json(finding: &FsckFinding) -> Value {
    json!({
        "kind": kind_name(finding.kind()),
        "object": json::optional(&finding.object),
        "file": json::optional(&finding.file),
        "offset": finding.offset,
        "detail": finding.detail,
        "repaired": finding.repaired,
    })
}

fn kind_name(kind: FsckKind) -> &'static str {
    match kind {
        FsckKind::Unspecified => "damage",
        FsckKind::Corrupt => "corrupt",
        FsckKind::Missing => "missing",
        FsckKind::Index => "index",
    }
}
