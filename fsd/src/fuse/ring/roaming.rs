//! Where the thread of a ring runs: on its own CPU, where nobody has to wake up, or, while it serves streams, wherever there is room.
//!
//! Of a program that reads a large file, the kernel has the next 1 MiB read while the program takes the one before. On one CPU the two do
//! that in turns; a thread on another works at the same time, and next to what it copies a wake-up is little.

use std::io;

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::{Pid, getpid},
};

/// Of the reads of a stream: the kernel's read-ahead asks for 1 MiB once the mount was told so, which root alone may.
pub(super) const STREAM_BYTES: usize = 256 << 10;
/// Large reads in a row that make a stream, and other requests in a row that end it.
const READS: u32 = 4;
const OTHERS: u32 = 2;
/// The calling thread.
const THIS: Pid = Pid::from_raw(0);

/// Where the calling thread is, and may be.
#[derive(Debug)]
pub(super) struct Places {
    own: CpuSet,
    stay: Stay,
}

impl Places {
    /// Puts the calling thread on a CPU. Error: one that is not there, or not for this process, cannot be had.
    pub fn pin(cpu: u16) -> io::Result<Places> {
        let mut own = CpuSet::new();
        own.set(cpu.into())?;
        sched_setaffinity(THIS, &own)?;
        Ok(Places { own, stay: Stay::default() })
    }

    /// A request was served: large reads in a row let the thread go, others in a row bring it back. Says which of that it is time
    /// for.
    pub fn served(&mut self, is_large_read: bool) -> Option<Move> {
        self.stay.served(is_large_read)
    }

    /// The thread may be where the process may, or has to be on its CPU: then it waits until it is.
    pub fn go(&self, to: Move) {
        let moved = match to {
            // The first thread is on no CPU of its own, and it is the one that an administrator knows.
            Move::Anywhere => sched_getaffinity(getpid()).and_then(|all| sched_setaffinity(THIS, &all)),
            Move::Home => sched_setaffinity(THIS, &self.own),
        };
        if let Err(error) = moved {
            tracing::debug!(?to, %error, "the thread of a ring stays where it is");
        }
    }
}

/// Where to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Anywhere,
    Home,
}

/// Whether it is the time of streams.
#[derive(Debug, Default)]
struct Stay {
    may_roam: bool,
    /// Requests in a row that speak for the other.
    against: u32,
}

impl Stay {
    /// Returns what changes by that.
    fn served(&mut self, is_large_read: bool) -> Option<Move> {
        if is_large_read == self.may_roam {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let enough = if self.may_roam { OTHERS } else { READS };
        if self.against < enough {
            return None;
        }
        *self = Stay { may_roam: is_large_read, against: 0 };
        Some(if is_large_read { Move::Anywhere } else { Move::Home })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_reads_in_a_row_let_it_go_and_others_bring_it_back() {
        let mut stay = Stay::default();
        let mut changes = |requests: &[bool]| -> Vec<_> {
            requests.iter().enumerate().filter_map(|(nth, read)| Some((nth, stay.served(*read)?))).collect()
        };
        assert_eq!(changes(&[false, true, true, true, false, true, true, true]), []);
        assert_eq!(changes(&[true, true, true, false, true, false, true]), [(0, Move::Anywhere)]);
        assert_eq!(changes(&[false, false, false, true, true, true]), [(1, Move::Home)]);
        assert_eq!(changes(&[true]), [(0, Move::Anywhere)]);
    }

    #[test]
    fn a_thread_goes_where_it_may_and_comes_back() {
        std::thread::spawn(|| {
            let all = sched_getaffinity(getpid()).unwrap();
            let cpu = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap()).unwrap();
            let places = Places::pin(cpu as u16).unwrap();
            let own = sched_getaffinity(THIS).unwrap();
            assert!((0..CpuSet::count()).all(|other| own.is_set(other).unwrap() == (other == cpu)));
            places.go(Move::Anywhere);
            assert_eq!(sched_getaffinity(THIS).unwrap(), all);
            places.go(Move::Home);
            assert_eq!(sched_getaffinity(THIS).unwrap(), own);
        })
        .join()
        .unwrap();
    }
}
