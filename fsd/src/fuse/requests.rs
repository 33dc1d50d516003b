//! How many requests the kernel sent, by operation: what a workload costs is first of all how many there are.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use super::request::Operation;

macro_rules! operations {
    ($($name:ident),* $(,)?) => {
        /// The operations that a mount answers.
        #[derive(Clone, Copy, Debug)]
        #[expect(non_camel_case_types, reason = "the names of fuse_opcode, as counters show them")]
        pub(super) enum Op { $($name),* }

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

impl Op {
    /// What a request counts as; `None` for those that say nothing about a workload.
    pub(super) fn of(operation: &Operation<'_>) -> Option<Op> {
        Some(match operation {
            Operation::Lookup { .. } => Op::lookup,
            Operation::Forget { .. } | Operation::BatchForget { .. } => Op::forget,
            Operation::Getattr => Op::getattr,
            Operation::Setattr(_) => Op::setattr,
            Operation::Readlink => Op::readlink,
            Operation::Symlink { .. } => Op::symlink,
            Operation::Mknod { .. } => Op::mknod,
            Operation::Mkdir { .. } => Op::mkdir,
            Operation::Unlink { .. } => Op::unlink,
            Operation::Rmdir { .. } => Op::rmdir,
            Operation::Rename { .. } => Op::rename,
            Operation::Link { .. } => Op::link,
            Operation::Open { .. } => Op::open,
            Operation::Read { .. } => Op::read,
            Operation::Write { .. } => Op::write,
            Operation::Statfs => Op::statfs,
            Operation::Fsync => Op::fsync,
            Operation::Setxattr { .. } => Op::setxattr,
            Operation::Getxattr { .. } => Op::getxattr,
            Operation::Listxattr { .. } => Op::listxattr,
            Operation::Removexattr { .. } => Op::removexattr,
            Operation::Release => Op::release,
            Operation::Flush => Op::flush,
            Operation::Opendir => Op::opendir,
            Operation::Readdir { .. } => Op::readdir,
            Operation::Readdirplus { .. } => Op::readdirplus,
            Operation::Fsyncdir => Op::fsyncdir,
            Operation::Create { .. } => Op::create,
            Operation::Tmpfile { .. } => Op::tmpfile,
            Operation::Fallocate { .. } => Op::fallocate,
            Operation::Lseek { .. } => Op::lseek,
            Operation::CopyFileRange(_) => Op::copy_file_range,
            Operation::Syncfs => Op::syncfs,
            Operation::Interrupt { .. } | Operation::Destroy | Operation::Unknown => return None,
        })
    }

    /// Its name, as counters and logs show it.
    pub(super) fn name(self) -> &'static str {
        NAMES[self as usize]
    }
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
    release,
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
    tmpfile,
    syncfs,
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
