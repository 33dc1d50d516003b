//! Threads for requests that wait for the disk, by their nature or because what they read is not in memory: a ring's thread must
//! not, because every mount's requests from its CPU would wait with it.

use std::{io, thread};

use cas::disk::Patience;
use crossbeam::channel::{Receiver, Sender, unbounded};

use super::{
    super::abi::opcode,
    slot::Slot,
    thread::{Door, Message},
};

/// How many such requests are carried out at a time. Not fewer: one sync serves all that wait for it.
const THREADS: usize = 16;

/// Whether a request with this opcode waits for the disk, or moves much.
pub(super) fn is_blocking(code: u32) -> bool {
    matches!(
        code,
        opcode::FSYNC | opcode::FSYNCDIR | opcode::SYNCFS | opcode::COPY_FILE_RANGE | opcode::FALLOCATE
    )
}

/// The way to these threads. They end when the last one goes. At most as many requests are under way as there are slots.
#[derive(Clone, Debug)]
pub(super) struct Blocking(Sender<Job>);

struct Job {
    slot: Slot,
    token: u64,
    back: Door,
}

impl Blocking {
    /// Starts them. Error: the system has no threads.
    pub fn start() -> io::Result<Blocking> {
        let (jobs, queue) = unbounded();
        for _ in 0..THREADS {
            let queue = queue.clone();
            thread::Builder::new().name("fuse-blocking".into()).spawn(move || run(&queue))?;
        }
        Ok(Blocking(jobs))
    }

    /// Has the request in a slot carried out; the slot comes back through the door, with its token.
    pub fn serve(&self, slot: Slot, token: u64, back: Door) {
        let sent = self.0.send(Job { slot, token, back });
        assert!(sent.is_ok(), "the threads end only after whoever sends to them");
    }
}

fn run(queue: &Receiver<Job>) {
    let mut scratch = Vec::new();
    for Job { mut slot, token, back } in queue {
        let served = slot.serve(Patience::Waits, &mut scratch);
        assert!(served, "who waits gets an answer");
        back.send(Message::Served { slot, token });
    }
}
