//! Why a command ends without success, and what exit code that is. The only place that knows gRPC's codes.

use std::error::Error;
use std::io;

use tonic::{Code, Status};

/// How a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The answer is no: not found, refused, in the way.
    No(String),
    /// Something does not work: no daemon, damage, a bug.
    Broken(String),
    /// The command has said already what is wrong; this is its exit code.
    Reported(u8),
    /// Whoever read stdout has enough.
    PipeClosed,
    /// Ctrl-C.
    Interrupted,
}

impl Failure {
    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::No(_) => 1,
            Failure::Broken(_) => 2,
            Failure::Reported(code) => *code,
            Failure::PipeClosed => 0,
            Failure::Interrupted => 130,
        }
    }

    /// What to say on stderr, if anything is left to say.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            Failure::No(message) | Failure::Broken(message) => Some(message),
            Failure::Reported(_) | Failure::PipeClosed => None,
            Failure::Interrupted => Some("interrupted"),
        }
    }

    /// A daemon that answers something other than what the interface says.
    pub(crate) fn protocol(what: &str) -> Failure {
        Failure::Broken(format!(
            "the daemon's answer is not understood ({what}): are aetherctl and aetherfsd of one version?"
        ))
    }
}

/// The exit code that a gRPC code stands for.
pub(crate) fn exit_code_of(code: Code) -> u8 {
    match code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Cancelled
        | Code::Unauthenticated => 1,
        Code::Ok
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => 2,
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        // A status that the daemon sent has no cause on this side; one that the transport made up has.
        if status.source().is_some() {
            return Failure::Broken(
                "the daemon went away before it had answered; look at its log".to_string(),
            );
        }
        let message = match status.code() {
            Code::Unimplemented => {
                "the daemon does not know this command: it is older than aetherctl".to_string()
            }
            code if status.message().is_empty() => format!("the daemon gave no reason: {code}"),
            _ => status.message().to_string(),
        };
        if exit_code_of(status.code()) == 1 { Failure::No(message) } else { Failure::Broken(message) }
    }
}

/// Of stdout alone: nothing else in a command does I/O without saying what it was about.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::PipeClosed;
        }
        Failure::Broken(format!("cannot write to stdout: {error}"))
    }
}
