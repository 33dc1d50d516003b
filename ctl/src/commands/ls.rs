//! `aetherctl ls`: a directory's entries, without a mount.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;

use nix::unistd::{Gid, Group, Uid, User};
use proto::v1::{DirEntry, FileKind, ListDirRequest};

use crate::context::{Context, JsonArray};
use crate::failure::Failure;
use crate::json;
use crate::quote::quoted;
use crate::text::{mode, time};

/// List a directory of a session or snapshot, without a mount
///
/// Names come a line each, sorted by their bytes, quoted as git does where they are odd.
#[derive(clap::Args)]
#[command(
    after_help = "With --long: mode, links, owner, group, size (or device), time in UTC, name -> target.\n\n\
                        Examples:\n  aetherctl ls work\n  aetherctl ls work src --long"
)]
pub(crate) struct Args {
    /// An ID, a prefix of one, or a name
    #[arg(value_name = "SESSION|SNAPSHOT")]
    id: String,
    /// Relative to the root; a file lists itself
    #[arg(default_value = "", hide_default_value = true)]
    path: OsString,
    /// Attributes too, as ls -l has them
    #[arg(long, short)]
    long: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let request = ListDirRequest { id: args.id, path: args.path.into_vec() };
    let mut entries = context.connect().await?.list_dir(request).await?.into_inner();
    let mut array = if context.json { Some(JsonArray::start(context)?) } else { None };
    let mut owners = Owners::default();
    while let Some(entry) = entries.message().await? {
        match &mut array {
            Some(array) => array.push(context, &json::dir_entry(&entry))?,
            None if args.long => print_long(context, &entry, &mut owners)?,
            None => context.line(&quoted(&entry.name))?,
        }
    }
    array.map_or(Ok(()), |array| array.finish(context))
}

fn print_long(context: &mut Context, entry: &DirEntry, owners: &mut Owners) -> Result<(), Failure> {
    let kind = entry.kind();
    let size = match kind {
        FileKind::CharDevice | FileKind::BlockDevice => format!("{}, {}", entry.rdev_major, entry.rdev_minor),
        FileKind::Unspecified
        | FileKind::Regular
        | FileKind::Directory
        | FileKind::Symlink
        | FileKind::Fifo
        | FileKind::Socket => entry.size.to_string(),
    };
    let (user, group) = owners.names(entry.uid, entry.gid);
    write!(
        context.out,
        "{} {:>3} {:<8} {:<8} {size:>12} {} {}",
        mode(kind, entry.mode),
        entry.nlink,
        user,
        group,
        time(entry.mtime_ns),
        quoted(&entry.name)
    )?;
    if kind == FileKind::Symlink {
        write!(context.out, " -> {}", quoted(&entry.target))?;
    }
    Ok(context.out.write_all(b"\n")?)
}

/// Names of users and groups as this host has them; numbers where it has none. Asks once for each.
#[derive(Default)]
struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Owners {
    fn names(&mut self, uid: u32, gid: u32) -> (&str, &str) {
        let user = self.users.entry(uid).or_insert_with(|| match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => uid.to_string(),
        });
        let group = self.groups.entry(gid).or_insert_with(|| match Group::from_gid(Gid::from_raw(gid)) {
            Ok(Some(group)) => group.name,
            Ok(None) | Err(_) => gid.to_string(),
        });
        (user, group)
    }
}
