//! Time and chance as a test decides them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use cas::{Time, remote::name::RemoteName};
use fsd::session::{Clock, Entropy, SessionId};
use parking_lot::Mutex;

use super::random;

/// When the simulated time begins, in seconds since 1970.
const EPOCH_SECS: i64 = 1_800_000_000;

/// A clock that goes on by a fixed step with every question, and jumps when told.
#[derive(Debug)]
pub struct ManualClock {
    ns: AtomicU64,
    step_ns: u64,
    /// By how much somebody set the clock back, which the monotonic one does not notice.
    back_secs: AtomicI64,
}

impl ManualClock {
    /// A clock at the beginning of the simulated time.
    pub fn new(step_ns: u64) -> ManualClock {
        ManualClock { ns: AtomicU64::new(0), step_ns, back_secs: AtomicI64::new(0) }
    }

    /// Lets time pass; returns what it is then.
    pub fn advance(&self, ns: u64) -> Time {
        self.time(self.ns.fetch_add(ns, Ordering::Relaxed) + ns)
    }

    /// Sets the system's clock back, or forward with a negative number.
    pub fn set_back(&self, secs: i64) {
        self.back_secs.fetch_add(secs, Ordering::Relaxed);
    }

    fn time(&self, ns: u64) -> Time {
        let secs = EPOCH_SECS - self.back_secs.load(Ordering::Relaxed) + (ns / 1_000_000_000) as i64;
        Time { secs, nanos: (ns % 1_000_000_000) as u32 }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        self.time(self.ns.fetch_add(self.step_ns, Ordering::Relaxed))
    }

    fn monotonic_us(&self) -> u64 {
        self.ns.load(Ordering::Relaxed) / 1000
    }
}

/// IDs from a seed.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> SeededEntropy {
        SeededEntropy(Mutex::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn session_id(&self) -> SessionId {
        let mut state = self.0.lock();
        let bits = (u128::from(random(&mut state)) << 64) | u128::from(random(&mut state));
        let mut id = [0; 10];
        id.copy_from_slice(&bits.to_le_bytes()[..10]);
        SessionId(id)
    }

    fn remote_name(&self) -> RemoteName {
        let mut state = self.0.lock();
        RemoteName(((u128::from(random(&mut state)) << 64) | u128::from(random(&mut state))).to_le_bytes())
    }
}
