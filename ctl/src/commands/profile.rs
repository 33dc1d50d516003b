//! `aetherctl profile`: what was read of a session, for another one to be warmed with.

use std::fs;
use std::path::PathBuf;

use proto::profile::{ENTRIES_MAX, HEADER, TEXT_BYTES_MAX, encode};
use proto::v1::profile_event::Event;
use proto::v1::{ProfileDone, ProfileEntry, ProfileRequest};
use serde_json::{Value, json};

use crate::client::Client;
use crate::context::Context;
use crate::failure::Failure;
use crate::json::put_bytes;

/// Print what was read of a session, as a profile that another one is warmed with
///
/// The daemon records which files were read since it started, and in which directories somebody looked, in the order of the first time, for all sessions of a
/// host with a remote store. `aetherctl fetch --profile` takes what this prints.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl profile work --output build.profile     # after a build in its mount\n  aetherctl fetch ses_... --profile build.profile   # on another host, before the next one\n  aetherctl --json profile work | jq '.entries[0]'"
)]
pub(crate) struct Args {
    /// A session of this host: an ID, a prefix of one, or a name
    session: String,
    /// Write to this file, not to stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let (entries, done) = ask(&mut context.connect().await?, args.session).await?;
    match args.output {
        Some(file) => {
            let failed = |error| Failure::Broken(format!("cannot write to {}: {error}", file.display()));
            fs::write(&file, text(&entries)?).map_err(failed)?;
        }
        None if context.json => {}
        None => context.text(&text(&entries)?)?,
    }
    if context.json {
        return context.document(&document(&entries, &done));
    }
    eprintln!("{} files, {} directories{}", done.files, done.dirs, left_out(&done));
    Ok(())
}

/// What was read of a session.
pub(crate) async fn ask(
    client: &mut Client,
    session: String,
) -> Result<(Vec<ProfileEntry>, ProfileDone), Failure> {
    let mut events = client.profile(ProfileRequest { session }).await?.into_inner();
    let mut entries = Vec::new();
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty profile event"))? {
            Event::Entries(more) if entries.len() + more.entries.len() > ENTRIES_MAX => {
                return Err(Failure::protocol("a profile of more entries than there can be"));
            }
            Event::Entries(more) => entries.extend(more.entries),
            Event::Done(done) => return Ok((entries, done)),
        }
    }
    Err(Failure::protocol("a profile without an end"))
}

fn text(entries: &[ProfileEntry]) -> Result<String, Failure> {
    let mut text = HEADER.to_owned();
    entries.iter().for_each(|entry| encode(entry, &mut text));
    if text.len() > TEXT_BYTES_MAX {
        return Err(Failure::No("the profile has more than 64 MiB, which no file of one may".to_owned()));
    }
    Ok(text)
}

fn left_out(done: &ProfileDone) -> String {
    let mut text = String::new();
    if done.gone > 0 {
        text += &format!("; {} that were read have no name any more", done.gone);
    }
    if done.full {
        text += "; there was no room to record more";
    }
    text
}

fn document(entries: &[ProfileEntry], done: &ProfileDone) -> Value {
    json!({
        "entries": entries.iter().map(entry).collect::<Vec<_>>(),
        "files": done.files,
        "dirs": done.dirs,
        "gone": done.gone,
        "full": done.full,
    })
}

fn entry(entry: &ProfileEntry) -> Value {
    let end = |end: u64| (end != 0).then_some(end);
    let ranges: Vec<_> = entry.ranges.iter().map(|range| json!([range.start, end(range.end)])).collect();
    let mut object = json!({ "type": if ranges.is_empty() { "dir" } else { "file" } });
    put_bytes(&mut object, "path", &entry.path);
    if !ranges.is_empty() {
        object["ranges"] = json!(ranges);
    }
    object
}
