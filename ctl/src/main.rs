//! `aetherctl`: drives one `aetherfsd`, over its socket or the network. Data goes to stdout, talk to stderr; the exit code is 0, 1 for
//! "no" and 2 for "broken".

#![forbid(unsafe_code)]

mod cli;
mod client;
mod commands;
mod context;
mod dead_mounts;
mod diff;
mod failure;
mod host;
mod json;
mod notes;
mod place;
mod progress;
mod quote;
mod text;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::context::Context;
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                eprintln!("aetherctl: {message}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Broken(format!("cannot start: {e}")))?;
    let (place, token) = cli.place.resolve();
    let mut context = Context::new(place, token, cli.json);
    let outcome = runtime.block_on(commands::run(cli.command, &mut context));
    // What was printed before a failure still has to reach the reader.
    outcome.and(context.finish())
}
