//! What a process takes, from /proc.

use std::fs;

use serde::Serialize;

use crate::Result;

/// Ticks of /proc/PID/stat in a second: USER_HZ, which is this on every architecture that Linux still builds for but Alpha.
const TICKS: f64 = 100.0;

/// As of now.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) rss_peak_bytes: u64,
}

impl Process {
    pub(crate) fn read(pid: u32) -> Result<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Process::parse(&stat, &status).ok_or_else(|| format!("/proc/{pid} makes no sense").into())
    }

    fn parse(stat: &str, status: &str) -> Option<Process> {
        // The second field is the program's name in brackets, and may hold anything: proc(5).
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        let user: f64 = fields.next()?.parse().ok()?;
        let system: f64 = fields.next()?.parse().ok()?;
        let bytes = |name| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib << 10)
        };
        Some(Process {
            cpu_seconds: (user + system) / TICKS,
            rss_bytes: bytes("VmRSS:")?,
            rss_peak_bytes: bytes("VmHWM:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reads() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9 0 100 200 300";
        let status = "Name:\ta\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let process = Process::parse(stat, status).unwrap();
        assert_eq!(process, Process { cpu_seconds: 2.0, rss_bytes: 1 << 20, rss_peak_bytes: 2 << 20 });
        assert!(Process::read(std::process::id()).unwrap().rss_bytes > 0);
    }
}
