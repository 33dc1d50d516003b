//! Where gRPC codes are born: one exhaustive match for each kind of error. The message is the error's own sentence.

use std::io;

use cas::remote::Failure;
use tonic::{Code, Status};

use crate::{
    fleet::{FleetError, heads::HeadError, visits::VisitError},
    fuse::MountError,
    session::Error,
};

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let code = session_code(&error);
        if code == Code::Internal {
            tracing::error!(%error, "a request failed");
        }
        Status::new(code, error.to_string())
    }
}

impl From<MountError> for Status {
    fn from(error: MountError) -> Status {
        Status::new(mount_code(&error), error.to_string())
    }
}

/// For `map_err`: the error with what it is about in front.
pub(super) fn about(what: &str) -> impl Fn(Error) -> Status {
    move |error| Status::new(session_code(&error), format!("{what}: {error}"))
}

/// For `map_err`: the store's errors as the engine's, which tells a full disk apart.
pub(super) fn of_store(error: cas::Error) -> Status {
    Error::from(error).into()
}

impl From<FleetError> for Status {
    fn from(error: FleetError) -> Status {
        Status::new(fleet_code(&error), error.to_string())
    }
}

impl From<VisitError> for Status {
    fn from(error: VisitError) -> Status {
        let code = match &error {
            VisitError::NoPeer(_) => Code::FailedPrecondition,
            VisitError::Malformed(_) => Code::DataLoss,
            VisitError::Another { .. } => Code::FailedPrecondition,
            VisitError::Peer(failure) => failure_code(failure),
            VisitError::Engine(error) => session_code(error),
        };
        Status::new(code, error.to_string())
    }
}

fn failure_code(failure: &Failure) -> Code {
    match failure {
        Failure::Unreachable { .. } => Code::Unavailable,
        Failure::Failed { .. } => Code::DataLoss,
        Failure::NotFound(_) => Code::NotFound,
        Failure::Refused { .. } => Code::FailedPrecondition,
    }
}

fn fleet_code(error: &FleetError) -> Code {
    match error {
        FleetError::Engine(error) => session_code(error),
        FleetError::Unsettled(error) | FleetError::Heads(error) => match error {
            HeadError::Unknown(_) => Code::Unavailable,
            HeadError::Refused(_) => Code::FailedPrecondition,
            HeadError::Malformed { .. } => Code::DataLoss,
        },
        FleetError::Unknown(_) | FleetError::Ended(_) => Code::NotFound,
        FleetError::Gone(_) => Code::DataLoss,
        FleetError::Lost(_) | FleetError::Busy(_) => Code::Unavailable,
        FleetError::Held { .. }
        | FleetError::Alive { .. }
        | FleetError::Taken { .. }
        | FleetError::Leaving(_) => Code::FailedPrecondition,
    }
}

fn session_code(error: &Error) -> Code {
    match error {
        Error::NotFound | Error::NoAttribute | Error::Unknown(_) => Code::NotFound,
        Error::Exists | Error::NameTaken { .. } => Code::AlreadyExists,
        Error::NotADirectory
        | Error::IsADirectory
        | Error::NotEmpty
        | Error::NotPermitted
        | Error::Newer { .. }
        | Error::Mounted(_)
        | Error::Closed(_)
        | Error::InUse(..) => Code::FailedPrecondition,
        Error::NameTooLong
        | Error::Invalid(_)
        | Error::TooLarge(_)
        | Error::FileTooBig
        | Error::NoData
        | Error::Ambiguous { .. }
        | Error::MalformedId { .. } => Code::InvalidArgument,
        Error::TooManyLinks | Error::TooMany { .. } | Error::NoSpace => Code::ResourceExhausted,
        Error::Damaged { .. } | Error::SyncFailed => Code::DataLoss,
        // By path, nobody names an inode that is not there.
        Error::Stale(_) => Code::Internal,
        Error::Io { source, .. } => state_io_code(source),
        Error::Store(error) => store_code(error),
    }
}

fn store_code(error: &cas::Error) -> Code {
    match error {
        cas::Error::Io { source, .. } => state_io_code(source),
        cas::Error::Corrupt { .. }
        | cas::Error::Malformed { .. }
        | cas::Error::Missing(_)
        | cas::Error::Foreign { .. }
        | cas::Error::Doubt { .. } => Code::DataLoss,
        cas::Error::Remote(failure) => failure_code(failure),
        cas::Error::Absent { .. } | cas::Error::Condemned(_) => Code::Unavailable,
        cas::Error::HangingFull { .. } => Code::ResourceExhausted,
        cas::Error::NoRemote => Code::FailedPrecondition,
        cas::Error::Fetch(error) => store_code(error),
        // Nobody who waits for the answer of a service is told this.
        cas::Error::Database { .. } | cas::Error::NotNow => Code::Internal,
        cas::Error::UnknownSnapshot(_) | cas::Error::NoSuchSnapshot(_) => Code::NotFound,
        cas::Error::AmbiguousSnapshot { .. } | cas::Error::ShortSnapshot(_) | cas::Error::NotASnapshot(_) => {
            Code::InvalidArgument
        }
        cas::Error::Newer { .. }
        | cas::Error::NotADirectory(_)
        | cas::Error::SourceChanged(_)
        | cas::Error::Unsupported { .. } => Code::FailedPrecondition,
        cas::Error::Unreadable { source, .. } => match source.kind() {
            io::ErrorKind::NotFound => Code::NotFound,
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            _ => Code::FailedPrecondition,
        },
        cas::Error::Cancelled => Code::Cancelled,
    }
}

/// A file of the state that the system would not read or write.
fn state_io_code(source: &io::Error) -> Code {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Code::DataLoss,
        _ if source.raw_os_error() == Some(libc::EIO) => Code::DataLoss,
        _ => Code::Internal,
    }
}

fn mount_code(error: &MountError) -> Code {
    match error {
        MountError::NotFound(_) => Code::NotFound,
        MountError::Busy { .. } | MountError::AlreadyMounted { .. } => Code::AlreadyExists,
        MountError::NotADirectory(_)
        | MountError::NotMounted(_)
        | MountError::InsideState(_)
        | MountError::NoRings(_)
        | MountError::NoPassthrough(_) => Code::FailedPrecondition,
        MountError::NoAttributes => Code::InvalidArgument,
        MountError::Denied { .. } => Code::PermissionDenied,
        MountError::Failed { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            _ => Code::FailedPrecondition,
        },
    }
}
