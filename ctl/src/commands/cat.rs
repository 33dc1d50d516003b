//! `aetherctl cat`: a file's bytes, without a mount.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;

use data_encoding::BASE64;
use proto::v1::ReadFileRequest;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::json;

/// `--json` holds a whole file in one document; more than this is for plain `cat`.
const JSON_BYTES_MAX: usize = 16 << 20;

/// Print a file of a session or snapshot, without a mount
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl cat work README\n  aetherctl cat work big --offset 1048576 --length 4096 | xxd"
)]
pub(crate) struct Args {
    /// An ID, a prefix of one, or a name
    #[arg(value_name = "SESSION|SNAPSHOT")]
    id: String,
    /// Relative to the root
    path: OsString,
    /// Start at this byte
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    offset: u64,
    /// Stop after so many bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    length: Option<u64>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let path = args.path.into_vec();
    let request = ReadFileRequest {
        id: args.id,
        path: path.clone(),
        offset: args.offset,
        length: args.length.unwrap_or_default(),
    };
    let mut frames = context.connect().await?.read_file(request).await?.into_inner();
    let mut held = Vec::new();
    while let Some(frame) = frames.message().await? {
        if !context.json {
            context.out.write_all(&frame.data)?;
        } else if held.len() + frame.data.len() <= JSON_BYTES_MAX {
            held.extend_from_slice(&frame.data);
        } else {
            return Err(Failure::No(format!(
                "more than {} MiB do not fit into one JSON document: leave --json out, or use --offset and --length",
                JSON_BYTES_MAX >> 20
            )));
        }
    }
    if !context.json {
        return Ok(());
    }
    let mut object = json!({ "offset": args.offset, "length": held.len() });
    json::put_bytes(&mut object, "path", &path);
    object["content_base64"] = json!(BASE64.encode(&held));
    context.document(&object)
}
