//! What every command is given: the way to the daemon and the way to stdout.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde_json::Value;

use crate::client::{self, Client};
use crate::failure::Failure;
use crate::place::{Place, TokenSource};

/// One command's surroundings. Owns stdout.
pub(crate) struct Context {
    pub(crate) place: Place,
    pub(crate) token: TokenSource,
    pub(crate) json: bool,
    pub(crate) out: BufWriter<StdoutLock<'static>>,
}

impl Context {
    pub(crate) fn new(place: Place, token: TokenSource, json: bool) -> Context {
        Context { place, token, json, out: BufWriter::new(io::stdout().lock()) }
    }

    /// Connects to the daemon.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        client::connect(&self.place, &self.token).await
    }

    /// For what has to do with paths of the daemon's host, or with who may come in there.
    pub(crate) fn require_socket(&self, what: &str) -> Result<(), Failure> {
        match &self.place {
            Place::Socket(_) => Ok(()),
            Place::Server(server) => Err(Failure::No(format!(
                "{what} works on the daemon's host alone, through its socket: run it there, and not with the server {}",
                server.address
            ))),
        }
    }

    /// Prints a line of text.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Prints lines of text.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// Prints one JSON document.
    pub(crate) fn document(&mut self, value: &Value) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.out, value).map_err(io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Writes out what is buffered.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// A JSON array that is printed while its elements arrive.
pub(crate) struct JsonArray {
    empty: bool,
}

impl JsonArray {
    pub(crate) fn start(context: &mut Context) -> Result<JsonArray, Failure> {
        context.out.write_all(b"[")?;
        Ok(JsonArray { empty: true })
    }

    pub(crate) fn push(&mut self, context: &mut Context, value: &Value) -> Result<(), Failure> {
        context.out.write_all(if self.empty { b"\n" } else { b",\n" })?;
        self.empty = false;
        Ok(serde_json::to_writer(&mut context.out, value).map_err(io::Error::from)?)
    }

    pub(crate) fn finish(self, context: &mut Context) -> Result<(), Failure> {
        Ok(context.out.write_all(if self.empty { b"]\n" } else { b"\n]\n" })?)
    }
}
