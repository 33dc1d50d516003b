//! A request in, its reply out: what every transport does with a request that it read.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cas::{disk::Patience, remote::fetch::Ticket};
use nix::errno::Errno;
use zerocopy::IntoBytes;

use super::{
    abi::{InHeader, OutHeader},
    dispatch::Dispatch,
    handshake::REQUEST_BYTES_MAX,
    reply::Answer,
    request::{Operation, Request},
};

/// The largest request: a WRITE with its arguments, for which the kernel wants less than a page more than its bytes.
pub(super) const REQUEST_BUFFER_BYTES: usize = REQUEST_BYTES_MAX as usize + 4096;
/// The largest reply: a READ.
pub(super) const REPLY_BUFFER_BYTES: usize = size_of::<OutHeader>() + REQUEST_BYTES_MAX as usize;

/// What to do after a request.
#[derive(Debug)]
pub(super) enum Next {
    /// The kernel waits for no reply.
    Silence,
    /// The reply has this many bytes.
    Reply(usize),
    /// The same, and there will be no request after this one.
    Last(usize),
    /// What the request needs is on its way.
    Fetch { ticket: Ticket, request: InHeader },
}

/// A request that has not even a header.
#[derive(Debug, thiserror::Error)]
#[error("the kernel sent {0} bytes, which are no request")]
pub(super) struct NoHeader(usize);

/// Carries out the request that `bytes` are and puts the reply into `reply`, which has [`REPLY_BUFFER_BYTES`]. With
/// `setxattr_ext`: see [`Request::parse`].
pub(super) fn exchange(
    dispatch: &Dispatch,
    setxattr_ext: bool,
    bytes: &[u8],
    reply: &mut [u8],
) -> Result<Next, NoHeader> {
    let request = match Request::parse(bytes, setxattr_ext) {
        Ok(request) => Ok(request),
        Err(None) => return Err(NoHeader(bytes.len())),
        Err(Some(header)) => Err(header),
    };
    let is_last = matches!(&request, Ok(Request { operation: Operation::Destroy, .. }));
    let header = request.as_ref().map_or_else(|header| *header, |request| request.header);
    let answer = carry_out(dispatch, &request, Patience::Waits, &mut reply[size_of::<OutHeader>()..]);
    if let Answer::Fetching(ticket) = answer {
        return Ok(Next::Fetch { ticket, request: header });
    }
    Ok(match put_header(&answer, header.unique, reply) {
        Next::Reply(len) if is_last => Next::Last(len),
        next => next,
    })
}

/// The reply that refuses a request.
pub(super) fn refusal(errno: Errno, unique: u64, reply: &mut [u8]) -> Next {
    put_header(&Answer::Failed(errno), unique, reply)
}

fn put_header(answer: &Answer, unique: u64, reply: &mut [u8]) -> Next {
    let Some(header) = header_of(answer, unique) else { return Next::Silence };
    reply[..size_of::<OutHeader>()].copy_from_slice(header.as_bytes());
    Next::Reply(header.len as usize)
}

/// Carries out a request, or what parsing made of it, and puts what stands behind the header of the reply into `payload`. Only
/// who does not wait is told `Later`.
pub(super) fn carry_out(
    dispatch: &Dispatch,
    request: &Result<Request<'_>, InHeader>,
    patience: Patience,
    payload: &mut [u8],
) -> Answer {
    let request = match request {
        Ok(request) => request,
        Err(header) => {
            tracing::error!(opcode = header.opcode, "a malformed request");
            return Answer::Failed(Errno::EPROTO);
        }
    };
    // A panic is a mistake of ours. Who asked hears of it; the others go on.
    let answer = catch_unwind(AssertUnwindSafe(|| dispatch.answer(request, patience, payload)));
    answer.unwrap_or_else(|_| {
        let InHeader { opcode, nodeid, .. } = request.header;
        tracing::error!(opcode, ino = nodeid, "answered EIO after a panic");
        Answer::Failed(Errno::EIO)
    })
}

/// What goes in front of a reply; `None` where the kernel waits for none.
pub(super) fn header_of(answer: &Answer, unique: u64) -> Option<OutHeader> {
    let (error, payload_bytes) = match answer {
        Answer::None | Answer::Later | Answer::Fetching(_) => return None,
        Answer::Failed(errno) => (-(*errno as i32), 0),
        Answer::Done(bytes) => (0, *bytes),
    };
    Some(OutHeader { len: (size_of::<OutHeader>() + payload_bytes) as u32, error, unique })
}
