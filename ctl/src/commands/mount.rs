//! `aetherctl mount`: a session becomes a directory.

use std::path::PathBuf;

use proto::v1::{self, MountRequest};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::{host, json};

/// Mount a session on a directory
///
/// Moves no bytes: what is read is fetched then. The mount lasts until it is unmounted or the daemon ends.
///
/// A session that another host has published and given away (`aetherctl handoff`) is mounted by its whole ID, and is this host's from then on. One of another daemon, among this one's
/// peers (aetherfsd --peer), is looked at by its URI, with --read-only.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl mount work /mnt/work\n  aetherctl mount ses_01234567 ./look --read-only\n  aetherctl mount work /srv/work --allow-other --acl\n  aetherctl mount work /mnt/work --transport dev-fuse\n  aetherctl mount work /mnt/build --no-xattrs\n  aetherctl mount models /mnt/models --read-only --io passthrough\n  aetherctl mount ses_0123456789abcdef /mnt/work     (of another host that has handed it off)\n  aetherctl mount ses_0123456789abcdef /mnt/work --take-over\n  aetherctl mount ses_0123456789abcdef /mnt/look --read-only     (what another host has published)\n  aetherctl mount aether://build7.example:7440/ses_0123456789abcdef /mnt/look --read-only"
)]
pub(crate) struct Args {
    /// An ID, a prefix of one, or a name; or a URI, `aether://HOST:PORT/SESSION@SNAPSHOT`, the last part if need be
    session: String,
    /// An existing directory
    dir: PathBuf,
    /// Refuse writes through this mount
    #[arg(long)]
    read_only: bool,
    /// Let other users in (for a user other than root, /etc/fuse.conf has to say user_allow_other)
    #[arg(long)]
    allow_other: bool,
    /// Have the kernel check POSIX access control lists; everybody but a file's owner waits longer for that
    #[arg(long)]
    acl: bool,
    /// Show no extended attributes, and take none: making files is faster then. Programs see a file system that has none
    #[arg(long, conflicts_with = "acl")]
    no_xattrs: bool,
    /// Take the session from a host that is dead: one that gives no sign of life for half a minute, which is waited for. What that host has not
    /// published stays there, as a fork
    #[arg(long)]
    take_over: bool,
    /// What carries the mount's requests [default: what the daemon is configured for]
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<Transport>,
    /// Who reads files
    #[arg(long, value_enum, value_name = "IO", default_value_t)]
    io: FileIo,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum FileIo {
    /// The daemon
    #[default]
    Cached,
    /// Of sealed files of 1 MiB and more the kernel, from whole copies that all mounts share, made at the first open; of others
    /// the daemon. With --read-only, and a daemon that is root's
    Passthrough,
}

impl From<FileIo> for v1::FileIo {
    fn from(io: FileIo) -> v1::FileIo {
        match io {
            FileIo::Cached => v1::FileIo::Cached,
            FileIo::Passthrough => v1::FileIo::Passthrough,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Transport {
    /// io_uring where it can be had, else /dev/fuse
    Auto,
    /// /dev/fuse
    DevFuse,
    /// io_uring, or no mount
    IoUring,
}

impl From<Transport> for v1::Transport {
    fn from(transport: Transport) -> v1::Transport {
        match transport {
            Transport::Auto => v1::Transport::Auto,
            Transport::DevFuse => v1::Transport::DevFuse,
            Transport::IoUring => v1::Transport::IoUring,
        }
    }
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    context.require_socket("mount")?;
    let request = MountRequest {
        session: args.session,
        dir: host::absolute(&args.dir)?,
        read_only: args.read_only,
        allow_other: args.allow_other,
        acl: args.acl,
        transport: args.transport.map_or(v1::Transport::Unspecified, v1::Transport::from).into(),
        io: v1::FileIo::from(args.io).into(),
        no_xattrs: args.no_xattrs,
        take_over: args.take_over,
    };
    let reply = context.connect().await?.mount(request).await?.into_inner();
    let mount = reply.mount.ok_or_else(|| Failure::protocol("no mount"))?;
    if context.json {
        return context.document(&json::with(json!({ "session": reply.session }), json::mount(&mount)));
    }
    Ok(())
}
