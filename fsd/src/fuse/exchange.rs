//! One message in, one out: what every transport does with a request that it read.

use std::panic::{AssertUnwindSafe, catch_unwind};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The kernel waits for no reply.
    Silence,
    /// The reply has this many bytes.
    Reply(usize),
    /// The same, and there will be no request after this one.
    Last(usize),
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
        Ok(request) => request,
        Err(None) => return Err(NoHeader(bytes.len())),
        Err(Some(header)) => {
            tracing::error!(opcode = header.opcode, "a malformed request");
            return Ok(finish(&header, Answer::Failed(Errno::EPROTO), reply));
        }
    };
    let payload = &mut reply[size_of::<OutHeader>()..];
    // A panic is a mistake of ours. Who asked hears of it; the others go on.
    let answer = catch_unwind(AssertUnwindSafe(|| dispatch.answer(&request, payload)));
    let answer = answer.unwrap_or_else(|_| {
        let InHeader { opcode, nodeid, .. } = request.header;
        tracing::error!(opcode, ino = nodeid, "answered EIO after a panic");
        Answer::Failed(Errno::EIO)
    });
    Ok(match (finish(&request.header, answer, reply), request.operation) {
        (Next::Reply(len), Operation::Destroy) => Next::Last(len),
        (next, _) => next,
    })
}

/// Puts the header in front of a reply.
fn finish(request: &InHeader, answer: Answer, reply: &mut [u8]) -> Next {
    let (error, payload_len) = match answer {
        Answer::None => return Next::Silence,
        Answer::Failed(errno) => (-(errno as i32), 0),
        Answer::Done(len) => (0, len),
    };
    let len = size_of::<OutHeader>() + payload_len;
    let header = OutHeader { len: len as u32, error, unique: request.unique };
    reply[..size_of::<OutHeader>()].copy_from_slice(header.as_bytes());
    Next::Reply(len)
}
