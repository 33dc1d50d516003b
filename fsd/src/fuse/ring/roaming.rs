//! Where the thread of a ring runs: on its own CPU, where nobody has to wake up, or, while it serves streams, wherever there is room.
//!
//! Of a program that reads a large file, the kernel has the next 1 MiB read while the program takes the one before. On one CPU the two do
//! that in turns; a thread on another works at the same time, and next to what it copies a wake-up is little.

use std::io;

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Of the reads of a stream: the kernel's read-ahead, 1 MiB once the mount has been told so, is the only one that asks for so much.
pub(super) const STREAM_BYTES: usize = 256 << 10;
/// Large reads in a row that make a stream, and other requests in a row that end it.
const READS: u32 = 4;
const OTHERS: u32 = 2;

/// The places of the calling thread.
#[derive(Debug)]
pub(super) struct Places {
    own: CpuSet,
    all: CpuSet,
    stay: Stay,
}

impl Places {
    /// Puts the calling thread on a CPU. Error: one that is not there, or not for this process, cannot be had.
    pub fn pin(cpu: u16) -> io::Result<Places> {
        let this = Pid::from_raw(0);
        let all = sched_getaffinity(this)?;
        let mut own = CpuSet::new();
        own.set(cpu.into())?;
        sched_setaffinity(this, &own)?;
        Ok(Places { own, all, stay: Stay::default() })
    }

    /// A request was served: large reads let the thread go where it likes, others bring it back.
    pub fn served(&mut self, is_large_read: bool) {
        let Some(may_roam) = self.stay.served(is_large_read) else { return };
        let cpus = if may_roam { &self.all } else { &self.own };
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), cpus) {
            tracing::debug!(%error, "the thread of a ring stays where it is");
        }
    }
}

/// Whether it is the time of streams.
#[derive(Debug, Default)]
struct Stay {
    may_roam: bool,
    /// Requests in a row that speak for the other.
    against: u32,
}

impl Stay {
    /// Returns what has changed.
    fn served(&mut self, is_large_read: bool) -> Option<bool> {
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
        Some(is_large_read)
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
        assert_eq!(changes(&[true, true, true, false, true, false, true]), [(0, true)]);
        assert_eq!(changes(&[false, false, false, true, true, true]), [(1, false)]);
        assert_eq!(changes(&[true]), [(0, true)]);
    }

    #[test]
    fn a_thread_goes_where_it_may_and_comes_back() {
        std::thread::spawn(|| {
            let this = Pid::from_raw(0);
            let all = sched_getaffinity(this).unwrap();
            let cpu = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap()).unwrap();
            let mut places = Places::pin(cpu as u16).unwrap();
            let own = sched_getaffinity(this).unwrap();
            assert!((0..CpuSet::count()).all(|other| own.is_set(other).unwrap() == (other == cpu)));
            (0..READS).for_each(|_| places.served(true));
            assert_eq!(sched_getaffinity(this).unwrap(), all);
            (0..OTHERS).for_each(|_| places.served(false));
            assert_eq!(sched_getaffinity(this).unwrap(), own);
        })
        .join()
        .unwrap();
    }
}
