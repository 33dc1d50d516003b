//! The thread of one CPU: waits for requests of that CPU's queues, serves them, sends the replies.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    os::fd::AsFd,
    sync::{Arc, Weak, mpsc},
    thread,
};

use cas::disk::Patience;
use io_uring::{
    IoUring, cqueue,
    squeue::Entry128,
    types::{SubmitArgs, Timespec},
};
use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
};

use super::{
    super::device::Device,
    blocking::{Blocking, is_blocking},
    command::{commit_and_fetch, look_out, push, register},
    courtesy::{Pulse, Watched},
    cpus::Cpu,
    roaming::Places,
    slot::{Served, Slot},
};
use crate::sys_sched::keep_io_priority;

/// Commands that are handed to the kernel at once; more go in turns.
const SUBMISSIONS: u32 = 128;
/// Completions that the ring has room for; the kernel keeps what is over.
const COMPLETIONS: u32 = 1024;
/// The token of the look-out for messages; slots have their numbers.
const MESSAGE: u64 = u64::MAX;
/// Memory of a slot is given back at the second pause of this length without a request for it, or after so many requests of others.
const IDLE_SECS: u64 = 2;
const REQUESTS_UNTIL_TRIM: u32 = 20_000;

/// What others tell the thread.
pub(super) enum Message {
    /// There is one more mount: `depth` slots of it are to be registered. Each keeps a `held`; `done` hears how it went.
    Attach {
        device: Arc<Device>,
        depth: usize,
        held: mpsc::Sender<Infallible>,
        done: mpsc::Sender<io::Result<()>>,
    },
    /// A slot that was given away has its reply.
    Served { slot: Slot, token: u64 },
    /// There will be no more mounts: the thread ends with the last one.
    End,
}

/// The way to a thread.
#[derive(Clone, Debug)]
pub(super) struct Door {
    messages: mpsc::Sender<Message>,
    bell: Arc<EventFd>,
}

impl Door {
    /// Puts a message where the thread finds it, and wakes it up.
    pub fn send(&self, message: Message) {
        // A thread that is gone has no use for it: what is in the message goes with it. The bell fails only when its counter is
        // full, and then it rings already.
        let _ = self.messages.send(message);
        let _ = self.bell.write(1);
    }
}

/// Starts the thread of a CPU, and says how it is watched, if it can be. Error: the system gives it no ring.
pub(super) fn start(cpu: Cpu, blocking: Blocking, pulse: Pulse) -> io::Result<(Door, Option<Watched>)> {
    let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let (messages, inbox) = mpsc::channel();
    let door = Door { messages, bell: Arc::new(bell) };
    let (ready, outcome) = mpsc::channel();
    let own_door = door.clone();
    let body = move || {
        // Made by the thread that uses it: the kernel allows no other.
        let ring = match make_ring() {
            Ok(ring) => ring,
            Err(error) => return drop(ready.send(Err(error))),
        };
        // Who is not on its own CPU has no client there to make way for.
        let told = |error: io::Error| {
            tracing::debug!(cpu = cpu.number, %error, "a ring's thread is not on its own CPU, or cannot be watched there");
        };
        let places = Places::pin(cpu.number).map_err(told).ok();
        let watched = places.is_some().then(|| keep_io_priority().and_then(|()| pulse.watched()));
        let _ = ready.send(Ok(watched.and_then(|watched| watched.map_err(told).ok())));
        let mut thread = Thread::new(ring, cpu.number, (own_door, inbox), blocking, (pulse, places));
        if let Err(error) = thread.run() {
            tracing::error!(cpu = cpu.number, %error, "a ring failed: its mounts end, because nobody would answer this CPU");
        }
    };
    thread::Builder::new().name(format!("fuse-ring-{}", cpu.number)).spawn(body)?;
    let watched = outcome.recv().unwrap_or_else(|_| Err(io::Error::other("a ring's thread ended")))?;
    Ok((door, watched))
}

type Ring = IoUring<Entry128, cqueue::Entry>;

/// Makes a ring and lets go of it. Error: this process may not have one.
pub(in crate::fuse) fn try_one() -> io::Result<()> {
    make_ring().map(drop)
}

fn make_ring() -> io::Result<Ring> {
    // One thread submits, and what the kernel has to do in it is done when it asks: no interrupts in the middle of a request.
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)
}

/// Interrupted, or told to take completions first, it is only tried again.
fn submitted(result: io::Result<usize>) -> io::Result<()> {
    match result.map_err(|error| (error.raw_os_error().map(Errno::from_raw), error)) {
        Ok(_) | Err((Some(Errno::EINTR | Errno::EBUSY | Errno::EAGAIN), _)) => Ok(()),
        Err((_, error)) => Err(error),
    }
}

struct Thread {
    ring: Ring,
    queue: u16,
    inbox: mpsc::Receiver<Message>,
    own_door: Door,
    blocking: Blocking,
    pulse: Pulse,
    /// None: wherever the process is.
    places: Option<Places>,
    /// By token. An empty place is free, or its slot is carried out elsewhere.
    slots: Vec<Option<Slot>>,
    free: Vec<u64>,
    /// Of all mounts that have slots here.
    devices: Vec<Weak<Device>>,
    completed: VecDeque<(u64, i32)>,
    scratch: Vec<u8>,
    /// Whether an idle slot may have memory to give back.
    has_large: bool,
    since_trim: u32,
    is_ending: bool,
}

impl Thread {
    fn new(
        ring: Ring,
        queue: u16,
        (own_door, inbox): (Door, mpsc::Receiver<Message>),
        blocking: Blocking,
        (pulse, places): (Pulse, Option<Places>),
    ) -> Thread {
        Thread {
            ring,
            queue,
            inbox,
            own_door,
            blocking,
            pulse,
            places,
            slots: Vec::new(),
            free: Vec::new(),
            devices: Vec::new(),
            completed: VecDeque::new(),
            scratch: Vec::new(),
            has_large: false,
            since_trim: 0,
            is_ending: false,
        }
    }

    fn run(&mut self) -> io::Result<()> {
        self.look_out()?;
        while !(self.is_ending && self.free.len() == self.slots.len()) {
            self.wait()?;
            self.pulse.beat();
            self.take_completed();
            while let Some((token, result)) = self.completed.pop_front() {
                match token {
                    MESSAGE => self.messages()?,
                    token => self.completion(token, result)?,
                }
            }
        }
        Ok(())
    }

    /// Hands over what was pushed, and waits for a completion.
    fn wait(&mut self) -> io::Result<()> {
        if self.since_trim > REQUESTS_UNTIL_TRIM && !self.trim() {
            return Ok(());
        }
        if !self.has_large {
            return submitted(self.ring.submit_and_wait(1));
        }
        let pause = Timespec::new().sec(IDLE_SECS);
        let waited = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&pause));
        if waited.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ETIME)) {
            self.trim();
            return Ok(());
        }
        submitted(waited)
    }

    fn take_completed(&mut self) {
        self.completed.extend(self.ring.completion().map(|c| (c.user_data(), c.result())));
    }

    /// A slot is ours again: with a request, or because the mount is gone.
    fn completion(&mut self, token: u64, result: i32) -> io::Result<()> {
        if result < 0 {
            // ENOTCONN: unmounted. ENOENT: who waited for this reply is gone, and the connection with it.
            self.release(token);
            return Ok(());
        }
        let Some(mut slot) = self.slots[token as usize].take() else {
            unreachable!("a slot that was given away is not the kernel's")
        };
        self.since_trim += 1;
        let served = match is_blocking(slot.opcode()) {
            true => Served::Later,
            false => slot.serve(Patience::Now, &mut self.scratch),
        };
        match served {
            Served::Done => return self.reply(slot, token),
            Served::Later => self.blocking.serve(slot, token, self.own_door.clone()),
            Served::Fetching(ticket) => self.blocking.park(slot, token, self.own_door.clone(), &ticket),
        }
        Ok(())
    }

    fn reply(&mut self, slot: Slot, token: u64) -> io::Result<()> {
        self.has_large |= slot.is_large();
        let command = commit_and_fetch(&slot, self.queue, token);
        let is_bulk = slot.is_bulk();
        let to = self.places.as_mut().and_then(|places| places.served(slot.was_read_ahead()));
        self.slots[token as usize] = Some(slot);
        self.push(&command)?;
        // Replies go together, but not behind what takes long.
        if is_bulk || to.is_some() {
            submitted(self.ring.submit())?;
        }
        if let (Some(places), Some(to)) = (&self.places, to) {
            places.go(to);
        }
        Ok(())
    }

    fn release(&mut self, token: u64) {
        self.slots[token as usize] = None;
        self.free.push(token);
    }

    fn messages(&mut self) -> io::Result<()> {
        // Before the inbox: what comes later rings again.
        let _ = self.own_door.bell.read();
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Attach { device, depth, held, done } => {
                    let outcome = self.attach(&device, depth, &held);
                    let _ = done.send(outcome);
                }
                Message::Served { slot, token } => self.reply(slot, token)?,
                Message::End => self.is_ending = true,
            }
        }
        self.look_out()
    }

    /// Registers slots of a mount. Error: what the kernel says to the first that it does not take.
    fn attach(
        &mut self,
        device: &Arc<Device>,
        depth: usize,
        held: &mpsc::Sender<Infallible>,
    ) -> io::Result<()> {
        self.devices.retain(|device| device.strong_count() > 0);
        self.devices.push(Arc::downgrade(device));
        let mut tokens = Vec::with_capacity(depth);
        for _ in 0..depth {
            let slot = Slot::new(Arc::clone(device), held.clone())?;
            let token = self.free.pop().unwrap_or(self.slots.len() as u64);
            let command = register(&slot, self.queue, token);
            match self.slots.get_mut(token as usize) {
                Some(place) => *place = Some(slot),
                None => self.slots.push(Some(slot)),
            }
            self.push(&command)?;
            tokens.push(token);
        }
        submitted(self.ring.submit())?;
        // One that is refused is completed at once; the others when they have a request.
        self.take_completed();
        let refused = self.completed.iter().find(|(token, result)| *result < 0 && tokens.contains(token));
        refused.map_or(Ok(()), |(_, result)| Err(io::Error::from_raw_os_error(-result)))
    }

    fn look_out(&mut self) -> io::Result<()> {
        let command = look_out(self.own_door.bell.as_fd(), MESSAGE);
        self.push(&command)
    }

    fn push(&mut self, command: &Entry128) -> io::Result<()> {
        while push(&mut self.ring, command).is_err() {
            // It is full of commands that nobody has handed over yet, or that the kernel takes only when it has room for what they
            // will complete with.
            submitted(self.ring.submit())?;
            self.take_completed();
        }
        Ok(())
    }

    /// Gives memory of idle slots back. Not while a slot that looks idle may have a request: false.
    fn trim(&mut self) -> bool {
        self.take_completed();
        if !self.completed.is_empty() {
            return false;
        }
        self.since_trim = 0;
        self.slots.iter_mut().flatten().for_each(Slot::trim);
        self.has_large = self.slots.iter().flatten().any(Slot::is_large);
        true
    }
}

impl Drop for Thread {
    /// If there still are mounts, it failed: they end, and what the kernel may yet write to stays.
    fn drop(&mut self) {
        if self.free.len() == self.slots.len() {
            return;
        }
        self.devices.iter().filter_map(Weak::upgrade).for_each(|device| device.connection.abort());
        self.slots.drain(..).flatten().for_each(Slot::leak);
    }
}
