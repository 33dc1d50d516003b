//! Where the log goes and how it looks: stderr, a line an event.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt};

use crate::config::LogFormat;

/// Warns of requests that it does not know, which are no fault of anybody. `level` may say otherwise.
const QUIET: &str = "fuser=error";

/// Starts logging. Panics are logged from here on, too, so that those of request threads are found with the rest.
pub fn start(format: LogFormat, level: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(format!("{QUIET},{level}"))?;
    let log = fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(%panic, %backtrace, "a bug in aetherfsd");
    }));
    Ok(())
}
