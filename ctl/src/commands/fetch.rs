//! `aetherctl fetch`: files come to this host before anybody reads them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use proto::FETCH_ENTRIES_MAX;
use proto::profile::{TEXT_BYTES_MAX, decode};
use proto::v1::fetch_event::Event;
use proto::v1::{FetchDone, FetchRequest, ProfileEntry};
use serde_json::json;

use super::profile;
use crate::client::Client;
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text::{duration, size};

/// About the bytes of a request: a message has 4 MiB at most.
const REQUEST_BYTES: usize = 2 << 20;
/// What an entry or a range takes in a request, beside its path.
const NUMBERS_BYTES: usize = 24;

/// Bring files to this host that only the remote store or a peer has
///
/// Reading does that by itself, when it comes to them; this is for who wants to be through with it before. What was fetched stays, as long as
/// the cache has room for it (aetherfsd --cache-size).
///
/// Of a peer's session, by its URI, all comes here that it is now, and stays: a snapshot that is listed, and whose ID is printed. So does all that a session stands on which
/// was made from a peer's, if no path is given.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl fetch work                            all of it\n  aetherctl fetch work src Makefile               a directory and a file\n  aetherctl fetch work --profile build.profile    what a build elsewhere has read\n  aetherctl fetch work --profile nightly          what was read of another session of this host\n  aetherctl fetch aether://build7.example:7440/ses_0123456789abcdef"
)]
pub(crate) struct Args {
    /// A session or snapshot: an ID, a prefix of one, or a name; or a URI of a peer's session
    id: String,
    /// Files and directories in it, from its root [default: all]
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
    /// Only what this names, in its order: a file that `aetherctl profile` wrote (`-`: stdin), or, where there is no such file, a session
    #[arg(long, value_name = "FILE|SESSION", conflicts_with = "paths")]
    profile: Option<OsString>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let Args { id, paths, profile } = args;
    let mut client = context.connect().await?;
    let requests = match &profile {
        None => {
            let paths = paths.into_iter().map(OsStringExt::into_vec).collect();
            vec![FetchRequest { id, paths, ..FetchRequest::default() }]
        }
        Some(profile) => {
            let parts = parts(entries(&mut client, profile).await?);
            parts.map(|profile| FetchRequest { id: id.clone(), profile, ..FetchRequest::default() }).collect()
        }
    };
    let mut progress = Progress::start("fetching");
    let mut done = FetchDone::default();
    for request in requests {
        fetch(&mut client, request, &mut done, &mut progress).await?;
    }
    drop(progress);
    print(context, &done, profile.is_some())
}

/// The entries of a file, or what was read of a session.
async fn entries(client: &mut Client, profile: &OsStr) -> Result<Vec<ProfileEntry>, Failure> {
    let (path, is_path) = (Path::new(profile), profile.as_bytes().contains(&b'/'));
    let text = match profile.to_str() {
        Some("-") => read_all("stdin", io::stdin().lock())?,
        Some(session) if session.starts_with("ses_") || !(is_path || path.exists()) => {
            return Ok(profile::ask(client, session.to_owned()).await?.0);
        }
        _ => {
            let name = path.display().to_string();
            let file =
                File::open(path).map_err(|error| Failure::No(format!("cannot read {name}: {error}")))?;
            read_all(&name, file)?
        }
    };
    decode(&text).map_err(|error| Failure::No(format!("{} is no profile: {error}", path.display())))
}

/// One byte more than a profile may have is enough to tell.
fn read_all(name: &str, from: impl Read) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read = from.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::No(format!("cannot read {name}: {error}")))?;
    Ok(text)
}

/// Cut into what one request has.
fn parts(entries: Vec<ProfileEntry>) -> impl Iterator<Item = Vec<ProfileEntry>> {
    let mut entries = entries.into_iter().peekable();
    std::iter::from_fn(move || {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while part.len() < FETCH_ENTRIES_MAX && bytes < REQUEST_BYTES {
            let Some(entry) = entries.next() else { break };
            bytes += entry.path.len() + (1 + entry.ranges.len()) * NUMBERS_BYTES;
            part.push(entry);
        }
        (!part.is_empty()).then_some(part)
    })
}

/// Adds to what was done by the requests before.
async fn fetch(
    client: &mut Client,
    request: FetchRequest,
    all: &mut FetchDone,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut events = client.fetch(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty fetch event"))? {
            Event::Progress(step) => {
                let (files, bytes) = (all.files + step.files_done, all.bytes + step.bytes_done);
                progress.update(format!("fetching: {files} files, {}", size(bytes)), 0, 0);
            }
            Event::Done(done) => {
                all.files += done.files;
                all.bytes = all.bytes.saturating_add(done.bytes);
                all.chunks_here += done.chunks_here;
                all.chunks_fetched += done.chunks_fetched;
                all.missing += done.missing;
                // Of a URI, which is one request.
                all.snapshot = done.snapshot;
                all.elapsed_us += done.elapsed_us;
                return Ok(());
            }
        }
    }
    Err(Failure::protocol("a fetch without an end"))
}

fn print(context: &mut Context, done: &FetchDone, is_profile: bool) -> Result<(), Failure> {
    if context.json {
        let mut document = json!({
            "files": done.files,
            "bytes": done.bytes,
            "chunks_here": done.chunks_here,
            "chunks_fetched": done.chunks_fetched,
            "elapsed_us": done.elapsed_us,
            "snapshot": if done.snapshot.is_empty() { None } else { Some(&done.snapshot) },
        });
        if is_profile {
            document["missing"] = json!(done.missing);
        }
        return context.document(&document);
    }
    if !done.snapshot.is_empty() {
        context.line(&done.snapshot)?;
        eprintln!(
            "{} files, {}; {} objects fetched, {} were here, {}; all of it is on this host and stays",
            done.files,
            size(done.bytes),
            done.chunks_fetched,
            done.chunks_here,
            duration(done.elapsed_us)
        );
        return Ok(());
    }
    let missing = match done.missing {
        0 => String::new(),
        missing => format!("; {missing} that the profile names are not there"),
    };
    eprintln!(
        "{} files, {}; {} chunks fetched, {} were here, {}{missing}",
        done.files,
        size(done.bytes),
        done.chunks_fetched,
        done.chunks_here,
        duration(done.elapsed_us)
    );
    Ok(())
}
