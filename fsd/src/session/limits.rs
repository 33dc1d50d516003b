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
        }
    }
}
