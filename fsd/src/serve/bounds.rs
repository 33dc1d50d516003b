//! Every bound on what a client of the interface can make grow, but for those that the engine keeps itself
//! (`session::Limits`: sessions, snapshots, names, differences) and those that clients need to know (crate `proto`: forks
//! and discards a request, paths, labels, frames).

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::Answer;

/// Bytes of a message, either way.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a request's headers.
pub(super) const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Connections at a time. One more is closed at once, which its client sees as UNAVAILABLE.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// Requests under way on one connection. HTTP/2 tells the client, which keeps further ones back.
pub(super) const CONNECTION_REQUESTS_MAX: u32 = 256;
/// How old a connection over the network gets. It ends when what is under way has ended, so that nobody keeps one on a token of long ago; whoever has a
/// good one connects anew, which clients do by themselves.
pub(super) const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// How often a connection is asked whether somebody is still there, and how long an answer may take.
pub(super) const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// Threads that work on requests. More of them wait.
pub(super) const THREADS_MAX: usize = 128;
/// Requests under way, those that wait for a thread included.
const REQUESTS_MAX: usize = 1024;
/// Streams under way: fewer than there are threads, so that clients that read slowly cannot keep all of them.
const STREAMS_MAX: usize = 96;
/// Imports under way, each with threads of its own.
const IMPORTS_MAX: usize = 16;
/// Profiles that are told at a time, each with the names of all that was read in memory.
const PROFILES_MAX: usize = 4;
/// Mounts, each with threads of its own.
pub(super) const MOUNTS_MAX: usize = 1024;
/// Bytes of a path or a text that a message quotes: statuses travel in headers, which clients bound.
const QUOTED_BYTES_MAX: usize = 256;

/// A number of things that may be under way at a time.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    free: Arc<Semaphore>,
    max: usize,
    /// What is bounded, as a message says it.
    what: &'static str,
}

impl Bound {
    fn new(max: usize, what: &'static str) -> Bound {
        Bound { free: Arc::new(Semaphore::new(max)), max, what }
    }

    /// Room for one more, until the permit is dropped. Error: RESOURCE_EXHAUSTED, which names the bound.
    pub(super) fn enter(&self) -> Answer<OwnedSemaphorePermit> {
        let refused = |_| {
            let (max, what) = (self.max, self.what);
            Status::resource_exhausted(format!("{max} {what} are under way, which is the limit; try again"))
        };
        Arc::clone(&self.free).try_acquire_owned().map_err(refused)
    }
}

/// What may be under way at a time in one daemon.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub(super) requests: Bound,
    pub(super) streams: Bound,
    pub(super) imports: Bound,
    pub(super) profiles: Bound,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            requests: Bound::new(REQUESTS_MAX, "requests"),
            streams: Bound::new(STREAMS_MAX, "streams"),
            imports: Bound::new(IMPORTS_MAX, "imports"),
            profiles: Bound::new(PROFILES_MAX, "profiles"),
        }
    }
}

/// Bytes for a message: printable, and the beginning alone if there are many.
pub(super) fn quoted(bytes: &[u8]) -> String {
    match bytes.get(..QUOTED_BYTES_MAX) {
        Some(start) if bytes.len() > QUOTED_BYTES_MAX => {
            format!("{}... ({} bytes)", start.escape_ascii(), bytes.len())
        }
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_the_bound_is_refused_until_one_ends() {
        let bound = Bound::new(2, "things");
        let held = (bound.enter().unwrap(), bound.enter().unwrap());
        let refused = bound.enter().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("2 things"), "{refused:?}");
        drop(held);
        assert!(bound.enter().is_ok());
    }

    #[test]
    fn long_texts_are_quoted_in_part() {
        assert_eq!(quoted(b"a\xff"), "a\\xff");
        assert_eq!(quoted(&[b'a'; 256]).len(), 256);
        assert!(quoted(&[b'a'; 4096]).ends_with("aa... (4096 bytes)"));
    }
}
