//! Reads, chunks and hashes files of the source, on as many threads as there are; what they make of a file goes to the
//! appender in batches, through channels that bound what is in flight.

use std::{
    fs, io,
    ops::Range,
    os::unix::ffi::OsStringExt,
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime},
};

use crossbeam::channel::Sender;

use super::{
    attributes,
    file::SourceFile,
    scan::{Node, Tree, check},
    stat::Stat,
};
use crate::{
    Content, Digest, Error, Kind, ObjectKind, Result,
    blob::{self, CHUNK_ONLY_MAX, ListBuilder, Piece, Sink, Source},
    dir::OwnedNode,
};

/// A batch with this many bytes goes out.
const BATCH_BYTES: usize = 1 << 20;
/// How often a file is read that changes meanwhile.
const TRIES: u32 = 3;
/// The kernel stamps changes with a clock that ticks every 1 to 10 ms: of two writes within a tick the second does not show.
const TICK: Duration = Duration::from_millis(20);

/// Objects to store and files that are complete, in tree order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) enum Part {
    /// Bytes of the batch to store.
    Object { kind: ObjectKind, digest: Digest, bytes: Range<usize> },
    /// A file or directory, of which all objects came before.
    Loaded(Loaded),
    /// A further name of an inode that came before.
    Linked { node: u32 },
    /// A file that kept changing, or is gone.
    Changed { node: u32 },
}

/// What a name turned out to be.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) node: u32,
    pub(super) stat: Stat,
    pub(super) what: What,
    pub(super) xattrs: Option<Digest>,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// A directory; its entries follow.
    Dir,
    /// Anything else.
    Leaf(OwnedNode),
}

/// Loads one job's nodes in order.
pub(super) struct Loader<'a> {
    tree: &'a Tree,
    cancel: &'a AtomicBool,
    out: &'a Sender<Result<Batch>>,
    batch: Batch,
}

/// Why a try did not succeed.
enum Failure {
    /// The file changed meanwhile; this is what it is now.
    Changed(Stat),
    /// It is gone, or another file has its name.
    Gone,
    Error(Error),
}

impl<'a> Loader<'a> {
    pub(super) fn new(tree: &'a Tree, cancel: &'a AtomicBool, out: &'a Sender<Result<Batch>>) -> Loader<'a> {
        Loader { tree, cancel, out, batch: Batch::default() }
    }

    /// Loads `nodes` and sends what comes of them. An error ends the job and is for the appender.
    pub(super) fn run(mut self, nodes: Range<u32>) -> Result<()> {
        for node in nodes {
            check(self.cancel)?;
            self.load(node)?;
            self.send_if(BATCH_BYTES)?;
        }
        self.send_if(0)
    }

    fn load(&mut self, index: u32) -> Result<()> {
        let node = self.tree.node(index);
        if node.link.is_some_and(|link| !link.first) {
            self.batch.parts.push(Part::Linked { node: index });
            return Ok(());
        }
        let mut before = node.stat;
        for _ in 0..TRIES {
            match self.try_load(index, node, &before) {
                Ok(loaded) => {
                    self.batch.parts.push(Part::Loaded(loaded));
                    return Ok(());
                }
                Err(Failure::Changed(now)) => before = now,
                Err(Failure::Gone) => break,
                Err(Failure::Error(error)) => return Err(self.with_path(error, index)),
            }
        }
        self.batch.parts.push(Part::Changed { node: index });
        Ok(())
    }

    fn try_load(&mut self, index: u32, node: &Node, before: &Stat) -> std::result::Result<Loaded, Failure> {
        let path = self.tree.path(index);
        let loaded = |stat, what, xattrs| Loaded { node: index, stat, what, xattrs };
        let leaf = match node.stat.kind {
            Kind::File => {
                let file = SourceFile::open(&path, before)?;
                wait_for_next_tick(before);
                let content = self.load_content(&file, before)?;
                let xattrs = self.put_xattrs(&attributes::of_file(&file.file)?)?;
                let after = unchanged(before, file.stat()?)?;
                return Ok(loaded(after, What::Leaf(OwnedNode::File(content)), xattrs));
            }
            Kind::Symlink => {
                let target = fs::read_link(&path)?.into_os_string().into_vec();
                let after = Stat::new(&fs::symlink_metadata(&path)?).ok_or(Failure::Gone)?;
                let after = unchanged(before, after)?;
                if target.len() as u64 != after.size {
                    return Err(Failure::Gone);
                }
                OwnedNode::Symlink(target)
            }
            Kind::Dir => {
                let xattrs = self.put_xattrs(&attributes::of_path(&path)?)?;
                return Ok(loaded(*before, What::Dir, xattrs));
            }
            Kind::Fifo => OwnedNode::Fifo,
            Kind::Socket => OwnedNode::Socket,
            Kind::CharDevice => OwnedNode::CharDevice,
            Kind::BlockDevice => OwnedNode::BlockDevice,
        };
        let xattrs = self.put_xattrs(&attributes::of_path(&path)?)?;
        Ok(loaded(*before, What::Leaf(leaf), xattrs))
    }

    /// Stores the file's bytes as [`Writer::put_file`](crate::store::Writer::put_file) would.
    fn load_content(&mut self, file: &SourceFile, stat: &Stat) -> std::result::Result<Content, Failure> {
        if stat.size == 0 {
            return Ok(Content::Empty);
        }
        if stat.size > CHUNK_ONLY_MAX {
            return self.load_chunks(file, stat);
        }
        let start = self.batch.bytes.len();
        self.batch.bytes.resize(start + stat.size as usize, 0);
        if let Err(error) = file.read_at(&mut self.batch.bytes[start..], 0) {
            self.batch.bytes.truncate(start);
            return Err(cut_short(error, file));
        }
        Ok(Content::Chunk(self.put_tail(ObjectKind::Chunk, start)))
    }

    fn load_chunks(&mut self, file: &SourceFile, stat: &Stat) -> std::result::Result<Content, Failure> {
        let mut sink = SendChunks { loader: self, list: ListBuilder::default() };
        blob::split_file(stat.size, file, &mut sink).map_err(|error| match error {
            Error::Unreadable { source, .. } => cut_short(source, file),
            error => Failure::Error(error),
        })?;
        let list = sink.list.finish().map_err(Failure::Error)?;
        Ok(Content::List(self.put(ObjectKind::List, &list)))
    }

    fn put_xattrs(&mut self, xattrs: &crate::xattrs::Xattrs) -> std::result::Result<Option<Digest>, Failure> {
        let bytes = attributes::encode(xattrs).map_err(Failure::Error)?;
        Ok(bytes.map(|bytes| self.put(ObjectKind::Xattrs, &bytes)))
    }

    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> Digest {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(bytes);
        self.put_tail(kind, start)
    }

    /// Makes an object of the batch's bytes from `start` on.
    fn put_tail(&mut self, kind: ObjectKind, start: usize) -> Digest {
        let bytes = start..self.batch.bytes.len();
        let digest = Digest::of(&self.batch.bytes[bytes.clone()]);
        self.batch.parts.push(Part::Object { kind, digest, bytes });
        digest
    }

    /// Sends the batch if it has `bytes` or more. Waits while the appender has enough to do.
    fn send_if(&mut self, bytes: usize) -> Result<()> {
        if self.batch.bytes.len() < bytes || self.batch.parts.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        // Nobody listens any more: the appender has failed.
        self.out.send(Ok(batch)).map_err(|_| Error::Cancelled)
    }

    fn with_path(&self, error: Error, index: u32) -> Error {
        match error {
            Error::Unreadable { source, .. } => Error::Unreadable { path: self.tree.path(index), source },
            Error::Malformed { reason, .. } => Error::Unsupported { path: self.tree.path(index), reason },
            error => error,
        }
    }
}

/// Sends a large file's chunks as they come.
struct SendChunks<'l, 'a> {
    loader: &'l mut Loader<'a>,
    list: ListBuilder,
}

impl Sink for SendChunks<'_, '_> {
    fn put(&mut self, end: u64, piece: Piece<'_>) -> Result<()> {
        let chunk = match piece {
            Piece::Hole => None,
            Piece::Known(digest) => Some(digest),
            Piece::Data(bytes) => Some(self.loader.put(ObjectKind::Chunk, bytes)),
        };
        self.list.push(end, chunk);
        check(self.loader.cancel)?;
        self.loader.send_if(BATCH_BYTES)
    }

    fn has(&mut self, _: Digest) -> Result<bool> {
        Ok(false)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.raw_os_error() {
            // ELOOP: a symlink has taken the file's name; ENXIO: a socket.
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ESTALE | libc::ENXIO) => Failure::Gone,
            _ => Failure::Error(blob::unreadable(error)),
        }
    }
}

/// A file that ends before the size it had is one that changed.
fn cut_short(error: io::Error, file: &SourceFile) -> Failure {
    match file.stat() {
        Ok(now) if error.kind() == io::ErrorKind::UnexpectedEof => Failure::Changed(now),
        _ => Failure::Error(blob::unreadable(error)),
    }
}

fn unchanged(before: &Stat, after: Stat) -> std::result::Result<Stat, Failure> {
    if before.is_unchanged(&after) {
        Ok(after)
    } else if before.is_same_file(&after) {
        Err(Failure::Changed(after))
    } else {
        Err(Failure::Gone)
    }
}

/// Waits until a change of the file would show in its ctime.
#[expect(
    clippy::disallowed_methods,
    reason = "compared with the kernel's stamps on files, which no test can set"
)]
fn wait_for_next_tick(stat: &Stat) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::new(stat.ctime.secs.max(0) as u64, stat.ctime.nanos);
    if now < changed + TICK {
        std::thread::sleep(TICK);
    }
}
