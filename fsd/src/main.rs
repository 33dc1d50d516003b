//! `aetherfsd`: serves the sessions of one state directory.

#![forbid(unsafe_code)]

use std::{io, mem, process::ExitCode};

use clap::Parser;
use fsd::{
    config::{Args, Config, Surroundings},
    daemon,
    fuse::read_ahead,
    logs, offline,
};

fn main() -> ExitCode {
    let around =
        Surroundings { variable: &|name| std::env::var_os(name), is_root: nix::unistd::geteuid().is_root() };
    let mut args = Args::parse();
    if let Some(task) = mem::take(&mut args.reader).task() {
        return match read_ahead(&task, io::stdin(), io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&error, 2),
        };
    }
    let config = match Config::resolve(args, &around) {
        Ok(config) => config,
        Err(error) => return refuse(&error, 2),
    };
    if let Err(error) = logs::start(config.log_format, &config.log_level) {
        return refuse(&format!("log level {:?}: {error}", config.log_level), 2);
    }
    if config.check {
        return match offline::check(&config) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(2),
            Err(error) => refuse(&error, error.exit_code()),
        };
    }
    match daemon::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error, error.exit_code()),
    }
}

fn refuse(why: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("aetherfsd: {why}");
    ExitCode::from(code)
}
