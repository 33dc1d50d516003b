//! The classic transport: threads that read requests from /dev/fuse, one at a time, and write the replies back. Of a mount that
//! rings serve, forgets and interrupts still come this way.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread,
};

use nix::{
    errno::Errno,
    unistd::{read, write},
};

use super::{
    connection::Connection,
    dispatch::Dispatch,
    exchange::{Next, REPLY_BUFFER_BYTES, REQUEST_BUFFER_BYTES, exchange},
    handshake::Mounted,
    parking::Parking,
};

/// The kernel's end of a mount, and who answers.
pub(super) struct Device {
    pub fd: OwnedFd,
    pub connection: Connection,
    pub dispatch: Dispatch,
    /// See [`Request::parse`](super::request::Request::parse).
    pub setxattr_ext: bool,
    /// Where requests wait for objects of the remote store.
    pub parking: Parking,
}

impl Device {
    /// The device of a mount. Error: no file descriptor is left.
    pub fn of(
        mounted: &Mounted,
        dispatch: Dispatch,
        setxattr_ext: bool,
        parking: Parking,
    ) -> io::Result<Arc<Device>> {
        let fd = mounted.device().try_clone_to_owned()?;
        Ok(Arc::new(Device { fd, connection: mounted.connection.clone(), dispatch, setxattr_ext, parking }))
    }

    /// Serves with so many threads, this one among them, until the mount is gone. Error: the device fails.
    pub fn serve(self: &Arc<Device>, threads: usize) -> io::Result<()> {
        let others: Vec<_> = (1..threads)
            .filter_map(|_| {
                let device = Arc::clone(self);
                // One thread less is slower, not wrong.
                thread::Builder::new().name("fuse".into()).spawn(move || device.run()).ok()
            })
            .collect();
        let mut outcome = self.run();
        self.dispatch.parked().end();
        for other in others {
            outcome =
                outcome.and(other.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
        }
        outcome
    }

    fn run(self: &Arc<Device>) -> io::Result<()> {
        // They take memory only as far as requests and replies have reached.
        let (mut request, mut reply) = (vec![0; REQUEST_BUFFER_BYTES], vec![0; REPLY_BUFFER_BYTES]);
        loop {
            let len = match read(&self.fd, &mut request) {
                Ok(len) => len,
                // ENOENT: the caller was killed before its request was read.
                Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => continue,
                Err(Errno::ENODEV) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            };
            let next = exchange(&self.dispatch, self.setxattr_ext, &request[..len], &mut reply);
            match next.map_err(io::Error::other)? {
                Next::Silence => {}
                Next::Fetch { ticket, request: header } => {
                    self.parking.park(self, &request[..len], header, &ticket);
                }
                Next::Reply(len) => self.send(&reply[..len])?,
                Next::Last(len) => return self.send(&reply[..len]),
            }
        }
    }

    /// Gives a reply to the kernel. Error: the device fails.
    pub fn send(&self, reply: &[u8]) -> io::Result<()> {
        match write(self.fd.as_fd(), reply) {
            Ok(_) => Ok(()),
            // Nobody waits for it any more: the request was aborted, or the mount is gone.
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
