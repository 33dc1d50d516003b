//! `aetherctl unmount`: takes mounts away.

use std::path::PathBuf;

use proto::v1::UnmountRequest;
use proto::v1::unmount_request::Target;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::{host, json};

/// Unmount a directory, or all mounts of a session
///
/// The session stays as it is. An argument with a slash in it, or one that is a directory here, is a directory; any other
/// is a session.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  aetherctl unmount /mnt/work\n  aetherctl unmount ses_0123456789abcdef")]
pub(crate) struct Args {
    #[arg(value_name = "DIR|SESSION")]
    target: PathBuf,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    context.require_socket("unmount")?;
    let target = match host::is_directory(&args.target) {
        true => Target::Dir(host::absolute(&args.target)?),
        false => Target::Session(args.target.to_string_lossy().into_owned()),
    };
    let request = UnmountRequest { target: Some(target) };
    let reply = context.connect().await?.unmount(request).await?.into_inner();
    if context.json {
        let dirs = reply.dirs.iter().map(|dir| {
            let mut object = json!({});
            json::put_bytes(&mut object, "dir", dir);
            object
        });
        let document = json!({ "session": reply.session, "mounts": dirs.collect::<Vec<_>>() });
        return context.document(&document);
    }
    Ok(())
}
