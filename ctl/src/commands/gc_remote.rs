//! `aetherctl gc --remote`: gives back what nobody needs in the remote store.

use std::time::Duration;

use proto::v1::gc_remote_event::Event;
use proto::v1::{GcRemoteDone, GcRemoteRequest, RemoteObjects};
use serde_json::{Value, json};

use super::gc::step_text;
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text::{duration, rendered, size, table};

/// What it came to.
struct Outcome {
    done: GcRemoteDone,
    gone_hosts: Vec<String>,
    missing: Vec<String>,
}

pub(super) async fn run(
    dry_run: bool,
    delay: Option<Duration>,
    hosts_gone_after: Option<Duration>,
    context: &mut Context,
) -> Result<(), Failure> {
    let request = GcRemoteRequest {
        dry_run,
        delay_ms: delay.map(millis),
        hosts_gone_after_ms: hosts_gone_after.map(millis),
    };
    let mut events = context.connect().await?.gc_remote(request).await?.into_inner();
    let mut progress = Progress::start("collecting");
    let (mut gone_hosts, mut missing) = (Vec::new(), Vec::new());
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty gc event"))? {
            Event::Progress(step) => progress.update(step_text(&step), 0, 0),
            Event::GoneHost(host) => gone_hosts.push(host),
            Event::MissingSnapshot(snapshot) => missing.push(snapshot),
            Event::Done(done) => {
                drop(progress);
                return print(context, &Outcome { done, gone_hosts, missing });
            }
        }
    }
    Err(Failure::protocol("a gc without an end"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn print(context: &mut Context, outcome: &Outcome) -> Result<(), Failure> {
    if context.json {
        return context.document(&document(outcome));
    }
    let mut shown = table(&[]);
    for (label, value) in rows(outcome) {
        shown.add_row(vec![label.to_owned(), value]);
    }
    context.line(&rendered(shown))?;
    if !outcome.missing.is_empty() {
        eprintln!(
            "aetherctl: some snapshots that are pinned, or that hosts read, are missing: `aetherctl gc --why` says who needs one, `aetherctl publish`, on a host that has it, brings it back"
        );
    }
    Ok(())
}

fn rows(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let Outcome { done, gone_hosts, missing } = outcome;
    let (condemned, removed) = match done.dry_run {
        true => ("would be condemned", "would be removed"),
        false => ("condemned now", "removed"),
    };
    let mut rows = vec![
        ("needed", sum_text(done.needed)),
        ("too young", sum_text(done.young)),
        (condemned, sum_text(done.condemned)),
        ("condemned, waiting", sum_text(done.waiting)),
        (removed, sum_text(done.removed)),
    ];
    rows.extend(gone_hosts.iter().map(|host| ("host that is gone", host.clone())));
    rows.extend(missing.iter().map(|snapshot| ("missing", snapshot.clone())));
    rows.push(("took", duration(done.elapsed_us)));
    rows
}

fn sum_text(sum: Option<RemoteObjects>) -> String {
    let RemoteObjects { objects, bytes } = sum.unwrap_or_default();
    format!("{objects} objects, {}", size(bytes))
}

fn document(outcome: &Outcome) -> Value {
    let Outcome { done, gone_hosts, missing } = outcome;
    json!({
        "dry_run": done.dry_run,
        "delay_ms": done.delay_ms,
        "hosts_gone_after_ms": done.hosts_gone_after_ms,
        "needed": sum_json(done.needed),
        "young": sum_json(done.young),
        "condemned": sum_json(done.condemned),
        "waiting": sum_json(done.waiting),
        "removed": sum_json(done.removed),
        "gone_hosts": gone_hosts,
        "missing": missing,
        "elapsed_us": done.elapsed_us,
    })
}

fn sum_json(sum: Option<RemoteObjects>) -> Value {
    let RemoteObjects { objects, bytes } = sum.unwrap_or_default();
    json!({ "objects": objects, "bytes": bytes })
}
