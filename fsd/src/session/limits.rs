//! Every bound of the engine that a host, or a test, may want another value for. Tests shrink them.

/// Bounds on what the engine lets grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a log file, header included. Reserved ahead, so small enough not to be noticed on a small disk. A record that
    /// is longer than that gets a longer file.
    pub log_file_bytes: u64,
    /// With more log than this, sessions that hold its beginning are sealed.
    pub log_bytes_max: u64,
    /// An anchor is cut into records of about this size.
    pub part_bytes: usize,
    /// A session's first segment; each further one is four times as large. Small, because a host may hold a thousand
    /// sessions that each wrote a few bytes.
    pub segment_bytes_min: u64,
    /// The largest segment: what one `fallocate` reserves at a time.
    pub segment_bytes_max: u64,
    /// A session that changed and has been quiet for this long is sealed.
    pub idle_us: u64,
    /// Sessions: some kilobytes of memory each.
    pub sessions_max: usize,
    /// Snapshots that are kept.
    pub snapshots_max: usize,
    /// Names of snapshots. All may be those of one, and a message holds them all.
    pub names_max: usize,
    /// Entries of a diff, which is sorted in memory.
    pub differences_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            log_file_bytes: 8 << 20,
            log_bytes_max: 64 << 20,
            part_bytes: 1 << 20,
            segment_bytes_min: 1 << 20,
            segment_bytes_max: 64 << 20,
            idle_us: 60_000_000,
            sessions_max: 65_536,
            snapshots_max: 65_536,
            names_max: 16_384,
            differences_max: 1 << 20,
        }
    }
}
