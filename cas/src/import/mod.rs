//! Makes a snapshot of a directory tree.
//!
//! The tree is scanned, then read by several threads while one thread, the appender, stores what they read in tree order:
//! so the same tree gives the same packs, and a later scan of the snapshot reads them forward. A file that changes while it
//! is read is read again; if the source does not come to rest, nothing is imported.

mod assemble;
mod attributes;
mod file;
mod inode;
mod load;
mod scan;
mod stat;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    thread,
};

use assemble::Assembly;
use crossbeam::channel::{Receiver, Sender, bounded};
use load::{Batch, Loader, Part};
use scan::{Tree, check};

use crate::{
    Error, Kind, Result, SnapshotId, Store,
    store::{Writer, Written},
};

/// Jobs that are being loaded or wait to be stored, for each thread.
const JOBS_PER_THREAD: usize = 4;
/// Batches of one job that wait to be stored; with those in the making this bounds the memory in flight.
const BATCHES_PER_JOB: usize = 4;
/// A job ends when it has so many names...
const JOB_NAMES_MAX: u32 = 256;
/// ...or so many bytes to read.
const JOB_BYTES_MAX: u64 = 4 << 20;
/// Paths that [`Error::SourceChanged`] names.
const CHANGED_MAX: usize = 10;

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Names are being listed.
    Scanning {
        /// Names so far.
        files: u64,
        /// Bytes of regular files so far.
        bytes: u64,
    },
    /// Files are being read and stored.
    Loading {
        /// Names that are stored.
        files_done: u64,
        /// Names in all.
        files: u64,
        /// Bytes that are stored.
        bytes_done: u64,
        /// Bytes of regular files in all.
        bytes: u64,
    },
}

/// A finished import. The snapshot is durable, but not yet in the catalogue: see [`Store::keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The snapshot.
    pub id: SnapshotId,
    /// Names in it, the root excluded.
    pub files: u64,
    /// Bytes of its regular files, for each of their names.
    pub bytes: u64,
    /// What was added to the store, and what was there before.
    pub written: Written,
}

/// Imports the directory `source`, mounts in it included. `progress` is called from the calling thread; `cancel` may be set
/// from any, and ends the import with [`Error::Cancelled`].
pub fn import(
    store: &Store,
    source: &Path,
    progress: &(dyn Fn(Progress) + Sync),
    cancel: &AtomicBool,
) -> Result<Imported> {
    let tree = Tree::scan(source, progress, cancel)?;
    let mut appender = Appender::new(&tree, store.writer()?, progress, cancel);
    appender.load_all()?;
    appender.changed.extend(tree.changed_dirs(cancel)?);
    if !appender.changed.is_empty() {
        appender.changed.truncate(CHANGED_MAX);
        return Err(Error::SourceChanged(appender.changed));
    }
    let (id, totals, writer) = appender.assembly.finish()?;
    check(cancel)?;
    Ok(Imported { id, files: totals.files, bytes: totals.bytes, written: writer.finish()? })
}

/// Takes what the loaders send, in tree order.
struct Appender<'a> {
    tree: &'a Tree,
    progress: &'a dyn Fn(Progress),
    cancel: &'a AtomicBool,
    assembly: Assembly<'a>,
    /// Files that kept changing. Once there is one, nothing more is stored.
    changed: Vec<PathBuf>,
    files_done: u64,
    bytes_done: u64,
}

/// Nodes to load, and where to send them.
type Job = (Range<u32>, Sender<Result<Batch>>);

impl<'a> Appender<'a> {
    fn new(
        tree: &'a Tree,
        writer: Writer,
        progress: &'a dyn Fn(Progress),
        cancel: &'a AtomicBool,
    ) -> Appender<'a> {
        let assembly = Assembly::new(tree, writer);
        Appender { tree, progress, cancel, assembly, changed: Vec::new(), files_done: 0, bytes_done: 0 }
    }

    fn load_all(&mut self) -> Result<()> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let (tree, cancel) = (self.tree, self.cancel);
        thread::scope(|scope| {
            let (jobs, queue) = bounded::<Job>(threads * JOBS_PER_THREAD);
            for _ in 0..threads {
                let queue = queue.clone();
                scope.spawn(move || load_jobs(tree, cancel, &queue));
            }
            drop(queue);
            self.take_all(jobs, threads * JOBS_PER_THREAD)
        })
    }

    /// Hands out jobs and takes their results in the order they were handed out. Jobs are started in that order, too: so the
    /// one that is waited for is never behind one that waits for room.
    fn take_all(&mut self, jobs: Sender<Job>, in_flight_max: usize) -> Result<()> {
        let mut ranges = job_ranges(self.tree);
        let mut in_flight: VecDeque<Receiver<Result<Batch>>> = VecDeque::new();
        loop {
            while in_flight.len() < in_flight_max
                && let Some(nodes) = ranges.next()
            {
                let (sender, receiver) = bounded(BATCHES_PER_JOB);
                jobs.send((nodes, sender)).expect("loaders live until there are no more jobs");
                in_flight.push_back(receiver);
            }
            let Some(job) = in_flight.pop_front() else { return Ok(()) };
            for batch in job {
                check(self.cancel)?;
                self.take(batch?)?;
            }
            if self.changed.len() >= CHANGED_MAX {
                return Ok(());
            }
        }
    }

    fn take(&mut self, batch: Batch) -> Result<()> {
        let Batch { bytes, parts } = batch;
        for part in parts {
            let node = match part {
                Part::Object { kind, digest, bytes: range } => {
                    if self.changed.is_empty() {
                        self.assembly.writer.put_object(kind, digest, &bytes[range])?;
                    }
                    continue;
                }
                Part::Changed { node } => {
                    self.changed.push(self.tree.path(node));
                    node
                }
                Part::Loaded(loaded) => {
                    let node = loaded.node;
                    if self.changed.is_empty() {
                        self.assembly.add(loaded)?;
                    }
                    node
                }
                Part::Linked { node } => {
                    if self.changed.is_empty() {
                        self.assembly.add_link(node)?;
                    }
                    node
                }
            };
            self.count(node);
        }
        (self.progress)(Progress::Loading {
            files_done: self.files_done,
            files: self.tree.files(),
            bytes_done: self.bytes_done,
            bytes: self.tree.bytes,
        });
        Ok(())
    }

    fn count(&mut self, node: u32) {
        self.files_done += u64::from(node != 0);
        let stat = &self.tree.node(node).stat;
        if stat.kind == Kind::File {
            self.bytes_done = self.bytes_done.saturating_add(stat.size);
        }
    }
}

fn load_jobs(tree: &Tree, cancel: &AtomicBool, queue: &Receiver<Job>) {
    for (nodes, out) in queue {
        if let Err(error) = Loader::new(tree, cancel, &out).run(nodes) {
            // Nobody to tell: the appender has failed before.
            let _ = out.send(Err(error));
        }
    }
}

/// All nodes in order, cut so that a job is worth handing over and a few of them fit into memory.
fn job_ranges(tree: &Tree) -> impl Iterator<Item = Range<u32>> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        let (mut end, mut bytes) = (start, 0u64);
        while end < tree.len() && end - start < JOB_NAMES_MAX && bytes < JOB_BYTES_MAX {
            let stat = &tree.node(end).stat;
            bytes = bytes.saturating_add(if stat.kind == Kind::File { stat.size } else { 0 });
            end += 1;
        }
        let range = start..end;
        start = end;
        (!range.is_empty()).then_some(range)
    })
}
