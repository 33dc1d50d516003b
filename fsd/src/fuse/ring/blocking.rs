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
/// Opens that have to wait for a copy, which are made one at a time, wait apart: syncs do not queue behind them.
const COPYING_THREADS: usize = 1;

/// Whether a request with this opcode waits for the disk, or moves much.
pub(super) fn is_blocking(code: u32) -> bool {
    matches!(
        code,
        opcode::FSYNC | opcode::FSYNCDIR | opcode::SYNCFS | opcode::COPY_FILE_RANGE | opcode::FALLOCATE
    )
}

/// The way to these threads. They end when the last one goes. At most as many requests are under way as there are slots.
#[derive(Clone, Debug)]
pub(super) struct Blocking {
    jobs: Sender<Job>,
    opens: Sender<Job>,
}

struct Job {
    slot: Slot,
    token: u64,
    back: Door,
}

impl Blocking {
    /// Starts them. Error: the system has no threads.
    pub fn start() -> io::Result<Blocking> {
        Ok(Blocking {
            jobs: start("fuse-blocking", THREADS)?,
            opens: start("fuse-copying", COPYING_THREADS)?,
        })
    }

    /// Has the request in a slot carried out; the slot comes back through the door, with its token.
    pub fn serve(&self, slot: Slot, token: u64, back: Door) {
        let queue = if slot.opcode() == opcode::OPEN { &self.opens } else { &self.jobs };
        let sent = queue.send(Job { slot, token, back });
        assert!(sent.is_ok(), "the threads end only after whoever sends to them");
    }
}

fn start(name: &str, threads: usize) -> io::Result<Sender<Job>> {
    let (jobs, queue) = unbounded();
    for _ in 0..threads {
        let queue = queue.clone();
        thread::Builder::new().name(name.into()).spawn(move || run(&queue))?;
    }
    Ok(jobs)
}

fn run(queue: &Receiver<Job>) {
    let mut scratch = Vec::new();
    for Job { mut slot, token, back } in queue {
        let served = slot.serve(Patience::Waits, &mut scratch);
        assert!(served, "who waits gets an answer");
        back.send(Message::Served { slot, token });
    }
}
