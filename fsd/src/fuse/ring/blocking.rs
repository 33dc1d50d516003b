//! Threads for requests that wait for the disk, by their nature or because what they read is not in memory: a ring's thread must
//! not, because every mount's requests from its CPU would wait with it.

use std::{io, thread};

use cas::{disk::Patience, remote::fetch::Ticket};
use crossbeam::channel::{Receiver, Sender, unbounded};

use super::{
    super::{abi::opcode, parking::Wake},
    slot::{Served, Slot},
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
    /// How often it stood aside for an object of the remote store, and why no longer.
    fetches: u32,
    why: Wake,
    /// Where it goes if it has to wait again.
    again: Sender<Job>,
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
        let queue = self.queue_of(&slot);
        let again = queue.clone();
        let sent = queue.send(Job { slot, token, back, fetches: 0, why: Wake::Come, again });
        assert!(sent.is_ok(), "the threads end only after whoever sends to them");
    }

    fn queue_of(&self, slot: &Slot) -> &Sender<Job> {
        if slot.opcode() == opcode::OPEN { &self.opens } else { &self.jobs }
    }

    /// The same, once an object is here. No thread waits for it.
    pub fn park(&self, slot: Slot, token: u64, back: Door, ticket: &Ticket) {
        let again = self.queue_of(&slot).clone();
        park(Job { slot, token, back, fetches: 0, why: Wake::Come, again }, ticket);
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
    for mut job in queue {
        let served = match job.why.refusal(&job.slot.request(), job.fetches) {
            None => job.slot.serve(Patience::Waits, &mut scratch),
            Some(errno) => {
                job.slot.refuse(errno);
                Served::Done
            }
        };
        match served {
            Served::Done => job.back.send(Message::Served { slot: job.slot, token: job.token }),
            Served::Fetching(ticket) => park(job, &ticket),
            Served::Later => unreachable!("who waits gets an answer"),
        }
    }
}

fn park(job: Job, ticket: &Ticket) {
    let (parked, request, again) = (job.slot.parked(), job.slot.request(), job.again.clone());
    parked.park(&request, ticket, move |why| {
        let sent = again.send(Job { why, fetches: job.fetches + 1, ..job });
        assert!(sent.is_ok(), "the threads end only after whoever sends to them");
    });
}
