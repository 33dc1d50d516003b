//! The classic transport: threads that read requests from /dev/fuse, one at a time, and write the replies back.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use nix::{
    errno::Errno,
    unistd::{read, write},
};
use zerocopy::IntoBytes;

use super::{
    abi::{InHeader, OutHeader},
    dispatch::Dispatch,
    handshake::{Mounted, REQUEST_BYTES_MAX},
    reply::Answer,
    request::{Operation, Request},
};

/// The largest request: a WRITE with its arguments, for which the kernel wants less than a page more than its bytes. A buffer
/// takes memory only as far as requests have reached.
const REQUEST_BUFFER_BYTES: usize = REQUEST_BYTES_MAX as usize + 4096;
/// The largest reply: a READ.
const REPLY_BUFFER_BYTES: usize = size_of::<OutHeader>() + REQUEST_BYTES_MAX as usize;

/// Serves a mount with so many threads, this one among them, until it is unmounted. `setxattr_ext`: see
/// [`Request::parse`]. Error: the device fails.
pub(super) fn serve(
    mounted: Mounted,
    dispatch: Dispatch,
    setxattr_ext: bool,
    threads: usize,
) -> io::Result<()> {
    let fd = mounted.as_fd().try_clone_to_owned()?;
    let worker = Arc::new(Worker { fd, dispatch, setxattr_ext });
    let others: Vec<_> = (1..threads)
        .filter_map(|_| {
            let worker = Arc::clone(&worker);
            // One thread less is slower, not wrong.
            thread::Builder::new().name("fuse".into()).spawn(move || worker.run()).ok()
        })
        .collect();
    let mut outcome = worker.run();
    for other in others {
        outcome = outcome.and(other.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
    }
    // Only now: it must stay mounted for as long as somebody answers.
    drop(mounted);
    outcome
}

struct Worker {
    fd: OwnedFd,
    dispatch: Dispatch,
    setxattr_ext: bool,
}

impl Worker {
    fn run(&self) -> io::Result<()> {
        let (mut request, mut reply) = (vec![0; REQUEST_BUFFER_BYTES], vec![0; REPLY_BUFFER_BYTES]);
        loop {
            match read(&self.fd, &mut request) {
                Ok(len) if self.serve_one(&request[..len], &mut reply)? => {}
                Ok(_) => return Ok(()),
                // ENOENT: the caller was killed before its request was read.
                Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => {}
                Err(Errno::ENODEV) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Carries out one request and answers it. False after the last one.
    fn serve_one(&self, bytes: &[u8], reply: &mut [u8]) -> io::Result<bool> {
        let request = match Request::parse(bytes, self.setxattr_ext) {
            Ok(request) => request,
            Err(header) => {
                let header = header.ok_or_else(|| io::Error::other("the kernel sent half a header"))?;
                tracing::error!(opcode = header.opcode, "a malformed request");
                return self.send(&header, Answer::Failed(Errno::EIO), reply).map(|()| true);
            }
        };
        let payload = &mut reply[size_of::<OutHeader>()..];
        // A panic is a mistake of ours. Who asked hears of it; the others go on.
        let answer = catch_unwind(AssertUnwindSafe(|| self.dispatch.answer(&request, payload)));
        let answer = answer.unwrap_or_else(|_| {
            tracing::error!(
                opcode = request.header.opcode,
                ino = request.header.nodeid,
                "answered EIO after a panic"
            );
            Answer::Failed(Errno::EIO)
        });
        self.send(&request.header, answer, reply)?;
        Ok(!matches!(request.operation, Operation::Destroy))
    }

    fn send(&self, request: &InHeader, answer: Answer, reply: &mut [u8]) -> io::Result<()> {
        let (error, payload_len) = match answer {
            Answer::None => return Ok(()),
            Answer::Failed(errno) => (-(errno as i32), 0),
            Answer::Done(len) => (0, len),
        };
        let len = size_of::<OutHeader>() + payload_len;
        let header = OutHeader { len: len as u32, error, unique: request.unique };
        reply[..size_of::<OutHeader>()].copy_from_slice(header.as_bytes());
        match write(self.fd.as_fd(), &reply[..len]) {
            Ok(_) => Ok(()),
            // Nobody waits for it any more: the request was aborted, or the mount is gone.
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
