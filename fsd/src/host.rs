//! What the daemon asks of its host: the time, chance, limits, and what its files and its memory amount to.
//!
//! The only place that reads the system's clocks; everything above gets them as arguments.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use cas::{Time, remote::name::RemoteName};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::session::{Boot, Clock, Entropy, SessionId};

/// The clocks of this host.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic side begins now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    pub fn new() -> SystemClock {
        SystemClock { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    fn now(&self) -> Time {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Time { secs: since.as_secs() as i64, nanos: since.subsec_nanos() },
            // A clock that is set before 1970: good enough for a host that has lost its battery.
            Err(before) => Time { secs: -(before.duration().as_secs() as i64), nanos: 0 },
        }
    }

    fn monotonic_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }
}

/// The kernel's random bits.
#[derive(Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn session_id(&self) -> SessionId {
        let mut bits = [0; 10];
        getrandom::fill(&mut bits).expect("getrandom(2) does not fail once the kernel has booted");
        SessionId(bits)
    }

    fn remote_name(&self) -> RemoteName {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).expect("getrandom(2) does not fail once the kernel has booted");
        RemoteName(bits)
    }
}

/// Which run of this machine it is.
pub fn boot() -> io::Result<Boot> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits = text.trim().replace('-', "");
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok();
    let id = bytes.and_then(|bytes| bytes.try_into().ok());
    id.map(Boot).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the boot ID is no UUID"))
}

/// Raises the number of files that may be open to what the host allows, and returns it. Packs and segments stay open.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Files that may be open.
pub fn open_files_max() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// Memory of this process that is in RAM, in bytes; 0 where /proc does not say.
pub fn memory_rss_bytes() -> u64 {
    // The second field: resident pages, proc_pid_statm(5).
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok()));
    pages.unwrap_or(0).saturating_mul(page_bytes())
}

/// File descriptors that this process has open; 0 where /proc does not say.
pub fn open_files() -> u64 {
    // The one that reads the directory is not counted.
    fs::read_dir("/proc/self/fd").map_or(0, |fds| (fds.count() as u64).saturating_sub(1))
}

fn page_bytes() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok().flatten().map_or(4096, |bytes| bytes as u64)
}

/// Bytes on the disk of a file, or of the files in a directory; 0 for what is not there.
pub fn disk_bytes(path: &Path) -> u64 {
    let allocated = |path: &Path| fs::symlink_metadata(path).map_or(0, |m| m.blocks() * 512);
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| allocated(&entry.path())).sum(),
        Err(_) => allocated(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward_and_ids_differ() {
        let clock = SystemClock::new();
        let (a, b) = (clock.monotonic_us(), clock.monotonic_us());
        assert!(a <= b);
        assert!(clock.now().secs > 1_700_000_000 && clock.now().is_valid());
        assert_ne!(SystemEntropy.session_id(), SystemEntropy.session_id());
        assert_eq!(boot().unwrap(), boot().unwrap());
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(memory_rss_bytes() > 100_000);
        assert_eq!(disk_bytes(Path::new("/no/such/file")), 0);
    }
}
