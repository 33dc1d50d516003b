//! How far the reader is ahead of the scan, as far as the daemon has told: a byte for each window that the scan has passed.

use std::{
    io::{self, Read},
    os::fd::AsFd,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Windows that the scan may be behind. What was read for it may be in vain, if it ends.
pub(super) const WINDOWS_AHEAD: u64 = 8;
/// If it is less, the next window is left to the scan, so that the reader comes away from it: a file whose attributes are asked for
/// again after it was read costs the scan nearly as much as one that it reads by itself.
const LEAD_MIN: u64 = 3;
/// A scan that has not come any further by then is none any more.
const PATIENCE_MS: u16 = 500;

/// See the module.
pub(super) struct Lead<R> {
    go: R,
    passed: u64,
    windows: u64,
}

impl<R: Read + AsFd> Lead<R> {
    /// No windows yet. Each byte from `go` says that one was passed.
    pub fn new(go: R) -> Lead<R> {
        Lead { go, passed: 0, windows: 0 }
    }

    /// One more window.
    pub fn step(&mut self) {
        self.windows += 1;
    }

    /// Windows so far.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// Those that the scan has passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether the scan is so far behind that it does not come by soon.
    pub fn is_enough(&self) -> bool {
        self.windows - self.passed >= LEAD_MIN
    }

    /// Whether it is as far behind as it may be.
    pub fn is_most(&self) -> bool {
        self.windows - self.passed >= WINDOWS_AHEAD
    }

    /// Takes what was told, without waiting. False: there is no daemon any more.
    pub fn look(&mut self) -> io::Result<bool> {
        Ok(!self.is_told(0)? || self.take()?)
    }

    /// Waits until the scan has come further. False: it does not, or there is no daemon any more.
    pub fn wait(&mut self) -> io::Result<bool> {
        Ok(self.is_told(PATIENCE_MS)? && self.take()?)
    }

    fn is_told(&self, patience_ms: u16) -> io::Result<bool> {
        loop {
            let mut fds = [PollFd::new(self.go.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(patience_ms)) {
                Err(Errno::EINTR) => {}
                polled => return Ok(polled? > 0),
            }
        }
    }

    /// False: it is the end.
    fn take(&mut self) -> io::Result<bool> {
        let read = self.go.read(&mut [0; 64])?;
        self.passed = (self.passed + read as u64).min(self.windows);
        Ok(read > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn it_shrinks_as_the_scan_comes_by() {
        let (go, mut daemon) = io::pipe().unwrap();
        let mut lead = Lead::new(go);
        (0..LEAD_MIN).for_each(|_| lead.step());
        assert!(lead.look().unwrap() && lead.is_enough() && !lead.is_most());
        daemon.write_all(&[0]).unwrap();
        assert!(lead.look().unwrap() && !lead.is_enough());
        assert_eq!((lead.windows(), lead.passed()), (LEAD_MIN, 1));
        (0..WINDOWS_AHEAD).for_each(|_| lead.step());
        assert!(lead.is_most());
        daemon.write_all(&[0; 4]).unwrap();
        assert!(lead.wait().unwrap() && !lead.is_most());
        assert!(!lead.wait().unwrap(), "nobody comes");
        drop(daemon);
        assert!(!lead.look().unwrap() && !lead.wait().unwrap());
    }
}
