//! How many requests the kernel sent, by operation: what a workload costs is first of all how many there are.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

macro_rules! operations {
    ($($name:ident),* $(,)?) => {
        /// The operations that a mount answers.
        #[derive(Clone, Copy, Debug)]
        #[expect(non_camel_case_types, reason = "the names of fuse_opcode, as counters show them")]
        pub(super) enum Op { $($name),* }

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

operations!(
    lookup,
    forget,
    getattr,
    setattr,
    readlink,
    mknod,
    mkdir,
    unlink,
    rmdir,
    symlink,
    rename,
    link,
    open,
    read,
    write,
    flush,
    fsync,
    opendir,
    readdir,
    readdirplus,
    fsyncdir,
    statfs,
    setxattr,
    getxattr,
    listxattr,
    removexattr,
    create,
    fallocate,
    lseek,
    copy_file_range,
);

/// Counters, one for each operation.
#[derive(Debug)]
pub(super) struct Requests([AtomicU64; NAMES.len()]);

impl Default for Requests {
    fn default() -> Requests {
        Requests([const { AtomicU64::new(0) }; NAMES.len()])
    }
}

impl Requests {
    /// One more.
    pub(super) fn count(&self, op: Op) {
        self.0[op as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Those that occurred, by name.
    pub(super) fn by_name(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        NAMES.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}
