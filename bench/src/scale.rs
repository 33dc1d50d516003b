//! How much of everything: for figures, or to see that it runs.

/// Bounds and sizes of the workloads.
pub(crate) struct Scale {
    /// Of the tree; more are left out.
    pub(crate) tree_files_max: Option<u32>,
    pub(crate) volume_bytes_min: u64,
    /// Of free memory, before each turn: more than the page cache of a mount that is read whole.
    pub(crate) touched_bytes_max: u64,
    /// Untarred, copied, removed: as many as a small project has.
    pub(crate) unpacked_files: u32,
    pub(crate) small_writes_mib: u32,
    pub(crate) large_writes_mib: u32,
    /// Of the file that fio reads.
    pub(crate) read_mib: u32,
    /// Of each operation that is timed by itself, and of those of them that wait for the disk.
    pub(crate) calls: u32,
    pub(crate) synced_calls: u32,
    pub(crate) forks: u32,
    /// Of the part of the tree that is looked at in each of them.
    pub(crate) part_files_max: u64,
    /// The series of forks.
    pub(crate) tree_files: &'static [u32],
    pub(crate) depths: &'static [u32],
    pub(crate) changed_files: &'static [u32],
    /// What cargo builds.
    pub(crate) cargo_package: &'static str,
}

impl Scale {
    pub(crate) const FULL: Scale = Scale {
        tree_files_max: None,
        // A million small files need the inodes of this size.
        volume_bytes_min: 32 << 30,
        touched_bytes_max: 3 << 30,
        unpacked_files: 11_000,
        small_writes_mib: 100,
        large_writes_mib: 512,
        read_mib: 1024,
        calls: 5000,
        synced_calls: 500,
        forks: 30,
        part_files_max: 6000,
        tree_files: &[1000, 10_000, 100_000, 1_000_000],
        depths: &[1, 10, 100, 1000],
        changed_files: &[0, 100, 1000, 10_000, 100_000],
        cargo_package: "bench",
    };

    pub(crate) const QUICK: Scale = Scale {
        tree_files_max: Some(3000),
        volume_bytes_min: 8 << 30,
        touched_bytes_max: 0,
        unpacked_files: 1000,
        small_writes_mib: 8,
        large_writes_mib: 64,
        read_mib: 16,
        calls: 200,
        synced_calls: 20,
        forks: 30,
        part_files_max: 300,
        tree_files: &[1000, 10_000],
        depths: &[1, 10, 100],
        changed_files: &[0, 100, 1000],
        cargo_package: "memchr",
    };
}
