//! The command line: global options and one variant for each command. Each command's own arguments are in its file.

use clap::{Parser, Subcommand};

use crate::commands::{
    advance, cat, create, diff, discard, doctor, expire, fetch, fork, fsck, gc, handoff, import, label, list,
    ls, mount, pin, profile, publish, seal, show, stats, token, unmount, unpin,
};
use crate::place::PlaceArgs;

const AFTER_HELP: &str = "\
IDs: a whole ID, a unique prefix of 8 characters or more, or a name.

Exit codes: 0 done; 1 no (not found, refused, mounted, bad argument of a request); 2 broken (no daemon, damage, disk \
full, wrong usage); 130 interrupted.

JSON: --json prints one document on stdout. Where a path or name is not UTF-8, its field holds it quoted as git does and \
a second field, with `_base64` appended to the name, holds its bytes; otherwise the field is exact and there is no second.

The socket: --socket, else $AETHERFS_SOCKET, else $AETHERFS_STATE/aetherfsd.sock, else /run/aetherfs/aetherfsd.sock for \
root and $XDG_RUNTIME_DIR/aetherfs/aetherfsd.sock for anybody else.

The network: --server https://HOST:PORT, else $AETHERFS_SERVER unless --socket is given, instead of a socket. Then a token is needed (`aetherctl token create` on the \
daemon's host): in $AETHERFS_TOKEN, or in the file that --token-file or $AETHERFS_TOKEN_FILE name. What has to do with paths of the daemon's host (import, mount, unmount, \
advance, --mount) and with making tokens works on that host alone.

Example:
  base=$(aetherctl import ~/src/linux --name linux)
  s=$(aetherctl create --from linux --mount /mnt/work)
  aetherctl fork $s --count 3
  aetherctl diff $s --patch | git apply";

/// Workspaces that travel: import a tree, open sessions on it, fork, compare, seal and discard them
#[derive(Parser)]
#[command(name = "aetherctl", version, after_help = AFTER_HELP, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Import(import::Args),
    Create(create::Args),
    Fork(fork::Args),
    Mount(mount::Args),
    Unmount(unmount::Args),
    Advance(advance::Args),
    List(list::Args),
    Show(show::Args),
    Diff(diff::Args),
    Ls(ls::Args),
    Cat(cat::Args),
    Seal(seal::Args),
    Publish(publish::Args),
    Handoff(handoff::Args),
    Fetch(fetch::Args),
    Profile(profile::Args),
    Pin(pin::Args),
    Unpin(unpin::Args),
    Expire(expire::Args),
    Label(label::Args),
    Discard(discard::Args),
    Gc(gc::Args),
    Fsck(fsck::Args),
    Stats(stats::Args),
    Doctor(doctor::Args),
    Token(token::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        let cli = Cli::command();
        for command in cli.get_subcommands().flat_map(|one| std::iter::once(one).chain(one.get_subcommands()))
        {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("aetherctl "), "{} has no example", command.get_name());
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
        }
    }
}
