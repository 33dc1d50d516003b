//! How often progress is told: at most ten times a second, as the interface promises.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::Clock;

const INTERVAL_US: u64 = 100_000;

/// Says when the next message is due. Shared by the threads that make progress.
pub(super) struct Pace<'a> {
    clock: &'a dyn Clock,
    next_us: AtomicU64,
}

impl<'a> Pace<'a> {
    /// The first message is due at once.
    pub(super) fn new(clock: &'a dyn Clock) -> Pace<'a> {
        Pace { clock, next_us: AtomicU64::new(0) }
    }

    /// Whether a message may be sent now; it is then counted as sent.
    pub(super) fn is_due(&self) -> bool {
        let now_us = self.clock.monotonic_us();
        let next_us = self.next_us.load(Ordering::Relaxed);
        let (from, to) = (next_us, now_us + INTERVAL_US);
        now_us >= next_us
            && self.next_us.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use cas::Time;

    use super::*;

    #[derive(Debug)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Time {
            Time::default()
        }
        fn monotonic_us(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn ten_a_second() {
        let clock = Hand(AtomicU64::new(0));
        let pace = Pace::new(&clock);
        let told = (0..1_000).filter(|ms| {
            clock.0.store(ms * 1_000, Ordering::Relaxed);
            pace.is_due()
        });
        assert_eq!(told.count(), 10);
    }
}
