//! One file a command: its arguments, the call, what is printed.

pub(crate) mod advance;
pub(crate) mod cat;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod discard;
pub(crate) mod doctor;
pub(crate) mod expire;
pub(crate) mod fetch;
pub(crate) mod fork;
pub(crate) mod fsck;
pub(crate) mod gc;
mod gc_remote;
mod gc_why;
pub(crate) mod handoff;
pub(crate) mod import;
pub(crate) mod label;
pub(crate) mod list;
mod list_remote;
pub(crate) mod ls;
pub(crate) mod mount;
pub(crate) mod pin;
pub(crate) mod profile;
pub(crate) mod publish;
pub(crate) mod seal;
pub(crate) mod show;
pub(crate) mod stats;
pub(crate) mod token;
pub(crate) mod unmount;
pub(crate) mod unpin;

use crate::cli::Command;
use crate::context::Context;
use crate::failure::Failure;

/// Runs `command`, or stops it at Ctrl-C: dropping a call cancels it in the daemon.
pub(crate) async fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    tokio::select! {
        outcome = dispatch(command, context) => outcome,
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}

async fn dispatch(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Import(args) => import::run(args, context).await,
        Command::Create(args) => create::run(args, context).await,
        Command::Fork(args) => fork::run(args, context).await,
        Command::Mount(args) => mount::run(args, context).await,
        Command::Advance(args) => advance::run(args, context).await,
        Command::Unmount(args) => unmount::run(args, context).await,
        Command::List(args) => list::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Diff(args) => diff::run(args, context).await,
        Command::Ls(args) => ls::run(args, context).await,
        Command::Cat(args) => cat::run(args, context).await,
        Command::Seal(args) => seal::run(args, context).await,
        Command::Fetch(args) => fetch::run(args, context).await,
        Command::Profile(args) => profile::run(args, context).await,
        Command::Handoff(args) => handoff::run(args, context).await,
        Command::Publish(args) => publish::run(args, context).await,
        Command::Pin(args) => pin::run(args, context).await,
        Command::Unpin(args) => unpin::run(args, context).await,
        Command::Expire(args) => expire::run(args, context).await,
        Command::Label(args) => label::run(args, context).await,
        Command::Discard(args) => discard::run(args, context).await,
        Command::Gc(args) => gc::run(args, context).await,
        Command::Fsck(args) => fsck::run(args, context).await,
        Command::Stats(args) => stats::run(args, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Token(args) => token::run(args, context).await,
    }
}
