//! The fast transport: requests and replies through io_uring, without a system call for each way (Linux 6.14 and later, with
//! `fuse.enable_uring`).
//!
//! The kernel has a queue for every CPU and puts a request into that of the CPU it was made on. Here a thread for every CPU,
//! pinned to it, owns a ring, and serves that CPU's queue of every mount: nobody on another CPU has to wake up. What a thread
//! may have to wait for longer is carried out by others ([`blocking`]); while it serves streams it may leave its CPU ([`roaming`]).
//! Source: `fs/fuse/dev_uring.c`.

mod blocking;
mod command;
mod courtesy;
mod cpus;
mod roaming;
mod slot;
mod thread;

use std::{
    convert::Infallible,
    io,
    sync::{Arc, mpsc},
};

use blocking::Blocking;
use courtesy::Post;
use cpus::Cpu;
pub(super) use thread::try_one;
use thread::{Door, Message};

use super::device::Device;

/// Requests of one mount that one CPU's queue holds at a time; further ones wait in the kernel. Each costs an idle mount a few
/// pages. Of CPUs that are not there, one, because the kernel wants every possible CPU to have a queue.
const DEPTH: usize = 8;
const DEPTH_OFFLINE: usize = 1;
/// Where some may stand aside for seconds, and those behind them should not.
const DEPTH_REMOTE: usize = 32;

/// The threads and their rings, for all mounts of a daemon. They end with the last mount once this is gone.
#[derive(Debug)]
pub(super) struct Rings {
    threads: Vec<(Cpu, Door)>,
}

/// A mount that rings serve.
pub(super) struct Attached {
    released: mpsc::Receiver<Infallible>,
}

impl Rings {
    /// Makes the rings. Error: this system does not let the daemon have them.
    pub fn start() -> io::Result<Rings> {
        let blocking = Blocking::start()?;
        // Filled one by one: if one fails, those before it are told to end.
        let mut rings = Rings { threads: Vec::new() };
        let post = Post::new();
        let mut watched = Vec::new();
        for cpu in cpus::possible()? {
            let (door, thread) = thread::start(cpu, blocking.clone(), post.pulse())?;
            rings.threads.push((cpu, door));
            watched.extend(thread);
        }
        post.guard(watched);
        Ok(rings)
    }

    /// Lets the rings serve a mount that agreed to it with the kernel. Error: one of them cannot be had; the kernel may
    /// then hold every request of the mount back, which has to be given up.
    pub fn attach(&self, device: &Arc<Device>) -> io::Result<Attached> {
        let (held, released) = mpsc::channel();
        let register = |(cpu, door): &(Cpu, Door)| {
            let (done, outcome) = mpsc::channel();
            let depth = match cpu.is_online {
                true if device.dispatch.may_fetch() => DEPTH_REMOTE,
                true => DEPTH,
                false => DEPTH_OFFLINE,
            };
            door.send(Message::Attach { device: Arc::clone(device), depth, held: held.clone(), done });
            outcome.recv().unwrap_or_else(|_| Err(io::Error::other("a ring's thread is gone")))
        };
        self.threads.iter().try_for_each(register)?;
        Ok(Attached { released })
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        self.threads.iter().for_each(|(_, door)| door.send(Message::End));
    }
}

impl Attached {
    /// Returns when the mount is gone and no request of it is carried out any more.
    pub fn wait(self) {
        // Nothing is ever sent: it ends when the last slot lets go of its sender.
        let Err(mpsc::RecvError) = self.released.recv();
    }
}
