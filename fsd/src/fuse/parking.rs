//! Requests that need an object of the remote store: they stand aside until it has come, so that whoever carried them out serves others.
//!
//! No thread waits for a fetch. What is to be done with a request afterwards it brings along: one of /dev/fuse is carried out by a few
//! threads that all mounts share, one of a ring goes where those go that wait for the disk. A signal ends its wait, and so does the end of
//! the mount.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt, fs,
    sync::{Arc, OnceLock, Weak},
    thread,
};

use cas::remote::fetch::Ticket;
use crossbeam::channel::{Receiver, Sender, unbounded};
use nix::errno::Errno;
use parking_lot::Mutex;

use super::{
    abi::InHeader,
    device::Device,
    exchange::{Next, REPLY_BUFFER_BYTES, exchange, refusal},
};

/// How often one request waits for an object: each brings it further, unless the cache has no room for what one request needs.
const FETCHES_MAX: u32 = 256;
/// Requests of /dev/fuse that are carried out at a time once they can be.
const THREADS: usize = 4;
/// Signals that were heard of before their request stood here.
const SIGNALS_MAX: usize = 64;

/// Why a request need not stand here any more.
#[derive(Clone, Debug)]
pub(super) enum Wake {
    /// The object is here: it is carried out again.
    Come,
    /// It will not come.
    Failed(Arc<cas::Error>),
    /// Nobody waits for the reply any more.
    Interrupted,
}

impl Wake {
    /// What to reply to a request that has waited so often; `None` if it is to be carried out. Says in the log what went wrong.
    pub fn refusal(&self, request: &InHeader, fetches: u32) -> Option<Errno> {
        let InHeader { opcode, nodeid: ino, .. } = *request;
        match self {
            Wake::Come if fetches < FETCHES_MAX => None,
            Wake::Come => {
                tracing::error!(
                    opcode,
                    ino,
                    "answered EIO: what it needs goes out of the cache before all of it is there"
                );
                Some(Errno::EIO)
            }
            Wake::Failed(error) => {
                tracing::error!(opcode, ino, %error, "answered EIO: what it needs did not come");
                Some(Errno::EIO)
            }
            Wake::Interrupted => Some(Errno::EINTR),
        }
    }
}

/// Whether a signal has come that ends a thread. One that it handles is no reason to give up: no other file system does. There is one message
/// for all signals, so a thread that handles one first is waited for as long as for an object at most.
fn is_dying(thread: u32) -> bool {
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    // 0: it is in a process namespace that is not ours.
    let Ok(status) = fs::read_to_string(format!("/proc/{thread}/status")) else { return true };
    let pending = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(KILL)
    };
    (pending("SigPnd:") | pending("ShdPnd:")) & KILL != 0
}

type Resume = Box<dyn FnOnce(Wake) + Send>;

/// The requests of one mount that stand aside, by the numbers that the kernel knows them by.
#[derive(Clone, Default)]
pub(super) struct Parked(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// With the threads that wait for them.
    requests: HashMap<u64, (u32, Resume)>,
    signals: VecDeque<u64>,
    has_ended: bool,
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests that stand aside", self.0.lock().requests.len())
    }
}

impl Parked {
    /// Lets a request stand aside until an object is here. `resume` is called once, by anybody, and must not wait.
    pub fn park(&self, request: &InHeader, ticket: &Ticket, resume: impl FnOnce(Wake) + Send + 'static) {
        let InHeader { unique, pid, .. } = *request;
        let mut state = self.0.lock();
        let signals = state.signals.len();
        state.signals.retain(|signal| *signal != unique);
        let has_signal = state.signals.len() < signals;
        if state.has_ended || (has_signal && is_dying(pid)) {
            drop(state);
            return resume(Wake::Interrupted);
        }
        state.requests.insert(unique, (pid, Box::new(resume)));
        drop(state);
        let parked = self.clone();
        ticket.then(move |outcome| {
            let resume = parked.0.lock().requests.remove(&unique);
            if let Some((_, resume)) = resume {
                resume(outcome.map_or_else(Wake::Failed, |()| Wake::Come));
            }
        });
    }

    /// A signal reached who waits for a request.
    pub fn interrupt(&self, unique: u64) {
        let mut state = self.0.lock();
        match state.requests.entry(unique) {
            Entry::Occupied(request) if is_dying(request.get().0) => {
                let (_, resume) = request.remove();
                drop(state);
                resume(Wake::Interrupted);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(_) => {
                // It may be on its way here. If it was answered meanwhile, nobody asks for this any more.
                if state.signals.len() == SIGNALS_MAX {
                    state.signals.pop_front();
                }
                state.signals.push_back(unique);
            }
        }
    }

    /// The mount is gone.
    pub fn end(&self) {
        let mut state = self.0.lock();
        state.has_ended = true;
        let requests = std::mem::take(&mut state.requests);
        drop(state);
        requests.into_values().for_each(|(_, resume)| resume(Wake::Interrupted));
    }
}

/// The way to the threads that carry out requests of /dev/fuse which stood aside. They start when the first one comes, and end when the last
/// way to them is gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Parking {
    ready: Arc<OnceLock<Sender<Ready>>>,
}

struct Ready {
    device: Weak<Device>,
    bytes: Vec<u8>,
    request: InHeader,
    /// How often it stood aside.
    fetches: u32,
    why: Wake,
    parking: Parking,
}

impl Parking {
    /// Has a request carried out once the object is here that it needs first.
    pub fn park(&self, device: &Arc<Device>, bytes: &[u8], request: InHeader, ticket: &Ticket) {
        let (bytes, device, parking) = (bytes.to_vec(), Arc::downgrade(device), self.clone());
        park(Ready { device, bytes, request, fetches: 0, why: Wake::Come, parking }, ticket);
    }

    fn ready(&self) -> &Sender<Ready> {
        self.ready.get_or_init(|| {
            let (ready, queue) = unbounded();
            for _ in 0..THREADS {
                let queue = queue.clone();
                let started = thread::Builder::new().name("fuse-parked".into()).spawn(move || run(&queue));
                if let Err(error) = started {
                    tracing::error!(%error, "requests for objects that are not here may never be answered");
                }
            }
            ready
        })
    }
}

fn park(ready: Ready, ticket: &Ticket) {
    // Nobody waits for a reply from a mount that is gone.
    let Some(device) = ready.device.upgrade() else { return };
    let way = ready.parking.ready().clone();
    let request = ready.request;
    device.dispatch.parked().park(&request, ticket, move |why| {
        let sent = way.send(Ready { why, fetches: ready.fetches + 1, ..ready });
        debug_assert!(sent.is_ok(), "the threads end only after whoever sends to them");
    });
}

fn run(queue: &Receiver<Ready>) {
    let mut reply = vec![0; REPLY_BUFFER_BYTES];
    for ready in queue {
        let Some(device) = ready.device.upgrade() else { continue };
        let next = match ready.why.refusal(&ready.request, ready.fetches) {
            None => exchange(&device.dispatch, device.setxattr_ext, &ready.bytes, &mut reply),
            Some(errno) => Ok(refusal(errno, ready.request.unique, &mut reply)),
        };
        match next {
            Ok(Next::Fetch { ticket, .. }) => park(ready, &ticket),
            Ok(Next::Reply(len) | Next::Last(len)) => {
                if let Err(error) = device.send(&reply[..len]) {
                    tracing::warn!(%error, "a reply is lost");
                }
            }
            Ok(Next::Silence) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use cas::{
        Digest, ObjectKind, Store,
        remote::{lease::Naming, name::RemoteName, sim::SimRemote},
        sim::SimDisk,
    };

    use super::*;

    /// A ticket of an object that no store has: it lands as soon as somebody has looked.
    fn ticket() -> (Store, Ticket) {
        let store = Store::open(Arc::new(SimDisk::new(0))).unwrap();
        let naming = Naming { host: RemoteName([1; 16]), fresh: Box::new(|| RemoteName([2; 16])) };
        store.attach(Arc::new(SimRemote::default()), naming, 64 << 20).unwrap();
        let ticket = store.fetch(ObjectKind::Chunk, Digest([1; 32])).unwrap();
        (store, ticket)
    }

    fn request(unique: u64, pid: u32) -> InHeader {
        InHeader { unique, pid, ..InHeader::default() }
    }

    #[test]
    fn each_is_taken_out_once() {
        let parked = Parked::default();
        let (tell, told) = crossbeam::channel::unbounded();
        for unique in 0..200 {
            let (_store, ticket) = ticket();
            let (racing, tell) = (parked.clone(), tell.clone());
            thread::scope(|scope| {
                // A thread that is not there counts as dying.
                scope.spawn(move || racing.interrupt(unique));
                parked.park(&request(unique, u32::MAX), &ticket, move |_| tell.send(unique).unwrap());
            });
            assert_eq!(told.recv().unwrap(), unique);
        }
        parked.end();
        assert!(told.try_recv().is_err(), "nobody is told twice");
    }

    #[test]
    fn a_signal_that_came_before_its_request_counts() {
        let (parked, (store, ticket)) = (Parked::default(), ticket());
        let (tell, told) = crossbeam::channel::unbounded();
        for (unique, pid) in [(2, u32::MAX), (4, std::process::id())] {
            let tell = tell.clone();
            parked.interrupt(unique);
            parked.park(&request(unique, pid), &ticket, move |why| tell.send((unique, why)).unwrap());
        }
        assert!(matches!(told.recv().unwrap(), (2, Wake::Interrupted)));
        // This process lives, and hears what became of the object.
        assert!(matches!(told.recv().unwrap(), (4, Wake::Failed(_))));
        drop(store);
    }

    #[test]
    fn nobody_stands_in_a_mount_that_is_gone() {
        let (parked, (_store, ticket)) = (Parked::default(), ticket());
        parked.end();
        let (tell, told) = crossbeam::channel::unbounded();
        parked.park(&request(1, std::process::id()), &ticket, move |why| tell.send(why).unwrap());
        assert!(matches!(told.recv().unwrap(), Wake::Interrupted));
    }
}
