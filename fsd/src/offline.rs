//! `aetherfsd --check`: checks a state that no daemon serves, and ends. For where the daemon does not start, or must not.

use std::{io::IsTerminal, io::Write};

use proto::v1::FsckKind;
use serde_json::json;

use crate::{
    config::{Config, LogFormat},
    daemon::{DaemonError, open_engine},
    fleet::peers::Peers,
    serve::findings,
    session::CheckProgress,
    state_dir::StateDir,
};

/// Checks the state, mends it if asked to, and prints what is wrong on stdout. True if nothing is left.
pub fn check(config: &Config) -> Result<bool, DaemonError> {
    let state = StateDir::open(&config.state)?;
    let (engine, _) = open_engine(&state, config, &Peers::open(&config.peers)?)?;
    let mut shown = String::new();
    let checked = engine.check(config.repair, &mut |progress| tell(&mut shown, progress))?;
    if !shown.is_empty() {
        eprintln!();
    }
    engine.close()?;
    let told = findings(&checked, state.path());
    let clean = checked.is_clean();
    let mut out = std::io::stdout().lock();
    // A reader that went away has seen enough.
    let _ = match config.log_format {
        LogFormat::Text => told.iter().try_for_each(|finding| {
            let place = if finding.file.is_empty() { &finding.object } else { &finding.file };
            let done = if finding.repaired { " (repaired)" } else { "" };
            writeln!(out, "{} {place} at {}: {}{done}", kind(finding.kind()), finding.offset, finding.detail)
        }),
        LogFormat::Json => {
            let findings: Vec<_> = told
                .iter()
                .map(|f| {
                    json!({
                        "kind": kind(f.kind()), "object": f.object, "file": f.file, "offset": f.offset,
                        "detail": f.detail, "repaired": f.repaired,
                    })
                })
                .collect();
            writeln!(out, "{}", json!({ "clean": clean, "findings": findings }))
        }
    };
    let bytes = checked.store.bytes + checked.bytes;
    let verdict = if clean { "no damage is left" } else { "damage is left" };
    tracing::info!(bytes, findings = told.len(), "checked: {verdict}");
    Ok(clean)
}

fn kind(kind: FsckKind) -> &'static str {
    match kind {
        FsckKind::Unspecified => "damage",
        FsckKind::Corrupt => "corrupt",
        FsckKind::Missing => "missing",
        FsckKind::Index => "index",
    }
}

/// A line on a terminal that says how far it is; nothing in a pipe.
fn tell(shown: &mut String, progress: CheckProgress) {
    use cas::store::FsckProgress::{Packs, Snapshots};
    let (what, done, of) = match progress {
        CheckProgress::Segments { bytes, of } => ("segments, MiB", bytes >> 20, of >> 20),
        CheckProgress::Store(Packs { bytes, of }) => ("packs, MiB", bytes >> 20, of >> 20),
        CheckProgress::Store(Snapshots { done, of }) => ("snapshots", done, of),
    };
    let line = format!("{what}: {done} of {of}");
    if line != *shown && std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
        *shown = line;
    }
}
