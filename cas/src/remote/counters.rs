//! What came from the remote store, and what did not have to.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Latencies are told apart by powers of two of microseconds; the last bucket has all above half an hour.
const BUCKETS: usize = 32;

/// Counts, since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    found: AtomicU64,
    fetched: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

/// What they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that the cache answered.
    pub hits: u64,
    /// Objects that somebody needed and that had to be fetched.
    pub misses: u64,
    /// Requests to the remote store for parts of packs.
    pub requests: u64,
    /// Those that came to nothing.
    pub failures: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Half of the requests took no longer than this, to a factor of two.
    pub p50_us: u64,
    /// And all but a hundredth no longer than this.
    pub p99_us: u64,
    /// Bytes in the cache.
    pub cached_bytes: u64,
    /// Bytes that it may have.
    pub cache_bytes_max: u64,
}

impl Counters {
    /// The cache had what somebody read.
    pub(crate) fn found(&self) {
        self.found.fetch_add(1, Relaxed);
    }

    /// An object has to be fetched.
    pub(crate) fn fetched(&self) {
        self.fetched.fetch_add(1, Relaxed);
    }

    /// A request came to an end, with so many bytes, or none.
    pub(crate) fn request(&self, took: Duration, bytes: Option<u64>) {
        self.requests.fetch_add(1, Relaxed);
        match bytes {
            Some(bytes) => self.bytes.fetch_add(bytes, Relaxed),
            None => self.failures.fetch_add(1, Relaxed),
        };
        let us = took.as_micros() as u64;
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.latencies[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    /// All but what the cache says.
    pub(crate) fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let latencies = self.latencies.each_ref().map(of);
        let (misses, found) = (of(&self.fetched), of(&self.found));
        Counts {
            // Whoever had an object fetched finds it then.
            hits: found.saturating_sub(misses),
            misses,
            requests: of(&self.requests),
            failures: of(&self.failures),
            bytes: of(&self.bytes),
            p50_us: percentile(&latencies, 50),
            p99_us: percentile(&latencies, 99),
            ..Counts::default()
        }
    }
}

/// The upper end of the bucket that so many of a hundred are in or below.
fn percentile(buckets: &[u64; BUCKETS], percent: u64) -> u64 {
    let all: u64 = buckets.iter().sum();
    let rank = (all * percent).div_ceil(100);
    let mut seen = 0;
    for (nth, count) in buckets.iter().enumerate() {
        seen += count;
        if seen >= rank && rank > 0 {
            return (1 << nth) - 1;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_to_a_factor_of_two() {
        let counters = Counters::default();
        assert_eq!(counters.counts(), Counts::default());
        (0..97).for_each(|_| counters.request(Duration::from_micros(900), Some(10)));
        (0..3).for_each(|_| counters.request(Duration::from_millis(20), None));
        let counts = counters.counts();
        assert_eq!((counts.requests, counts.failures, counts.bytes), (100, 3, 970));
        assert_eq!((counts.p50_us, counts.p99_us), (1023, 32_767));
        counters.request(Duration::from_secs(1 << 40), None);
        assert_eq!(counters.counts().requests, 101);
    }

    #[test]
    fn who_had_it_fetched_does_not_count_as_a_hit() {
        let counters = Counters::default();
        counters.fetched();
        (0..3).for_each(|_| counters.found());
        assert_eq!((counters.counts().hits, counters.counts().misses), (2, 1));
    }
}
