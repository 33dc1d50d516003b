//! `aetherctl fetch`: files come to this host before anybody reads them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proto::v1::fetch_event::Event;
use proto::v1::{FetchDone, FetchRequest};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text::{duration, size};

/// Bring files to this host that only the remote store has
///
/// Reading does that by itself, when it comes to them; this is for who wants to be through with it before. What was fetched stays, as long as
/// the cache has room for it (aetherfsd --cache-size).
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl fetch work                 all of it\n  aetherctl fetch work src Makefile    a directory and a file"
)]
pub(crate) struct Args {
    /// A session or snapshot: an ID, a prefix of one, or a name
    id: String,
    /// Files and directories in it, from its root [default: all]
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let paths = args.paths.into_iter().map(OsStringExt::into_vec).collect();
    let mut events = context.connect().await?.fetch(FetchRequest { id: args.id, paths }).await?.into_inner();
    let mut progress = Progress::start("fetching");
    while let Some(event) = events.message().await? {
        match event.event.ok_or_else(|| Failure::protocol("an empty fetch event"))? {
            Event::Progress(step) => {
                let message = format!("fetching: {} files, {}", step.files_done, size(step.bytes_done));
                progress.update(message, 0, 0);
            }
            Event::Done(done) => {
                drop(progress);
                return print(context, &done);
            }
        }
    }
    Err(Failure::protocol("a fetch without an end"))
}

fn print(context: &mut Context, done: &FetchDone) -> Result<(), Failure> {
    if context.json {
        return context.document(&json!({
            "files": done.files,
            "bytes": done.bytes,
            "chunks_here": done.chunks_here,
            "chunks_fetched": done.chunks_fetched,
            "elapsed_us": done.elapsed_us,
        }));
    }
    eprintln!(
        "{} files, {}; {} chunks fetched, {} were here, {}",
        done.files,
        size(done.bytes),
        done.chunks_fetched,
        done.chunks_here,
        duration(done.elapsed_us)
    );
    Ok(())
}
