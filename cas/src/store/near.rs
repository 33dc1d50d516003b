//! What a store is to other hosts, and what it has of them: objects that it gives, snapshots that hang on them, trees that are made whole.

use std::{collections::HashSet, sync::Arc};

use super::{Far, Store};
use crate::{
    Content, Digest, Error, Node, ObjectKind, Result, SnapshotId,
    blob::{CHUNK_AVERAGE, List},
    dir::Dir,
    record::{RECORD_HEADER, RecordHeader},
    remote::{
        Near, PeerCounts,
        bring::Bring,
        hanging::Origin,
        peer::{FOLLOWING_MAX, Named},
    },
};

/// Bytes of objects that are gathered before they are written, with a sync, and objects that are asked for together.
const BATCH_BYTES: usize = 16 << 20;
const BATCH_OBJECTS: usize = 1024;

/// How far a tree is that is made whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Regular files that are here; of directories that are the same, those of one.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were here before, in this store.
    pub here: u64,
    /// Objects that came.
    pub came: u64,
}

impl Store {
    /// An object of this host, be it in the cache; `None` if it is not here. Nothing is fetched. Errors: the disk's, and `Corrupt`.
    pub fn here(&self, kind: ObjectKind, digest: Digest) -> Result<Option<Vec<u8>>> {
        let kept =
            || self.0.far.get().and_then(|far| far.kept.object(kind, digest)).map(|object| object.to_vec());
        let Some(at) = self.index().locate(digest)? else { return Ok(kept()) };
        let found = match kind {
            ObjectKind::Chunk => {
                let mut bytes = vec![0; at.len as usize];
                self.read_chunk(digest, 0, &mut bytes).map(|()| bytes)
            }
            _ => self.object(at.kind, digest).map(|object| object.to_vec()),
        };
        match found {
            Ok(bytes) => Ok(Some(bytes)),
            // It was collected just now.
            Err(Error::Missing(_) | Error::Absent { .. }) => Ok(kept()),
            Err(error) => Err(error),
        }
    }

    /// The objects behind one in its pack, in the order in which they were put there: that of a tree, mostly. As many as are asked for, and no more than
    /// [`FOLLOWING_MAX`]. Some may be gone since. Error: the disk's.
    pub fn following(&self, digest: Digest, count_max: usize) -> Result<Vec<Named>> {
        let Some(at) = self.index().locate(digest)? else {
            let kept = self.0.far.get().map(|far| far.kept.following(digest, count_max));
            return kept.unwrap_or(Ok(Vec::new()));
        };
        let Some(pack) = self.pack(at.pack) else { return Ok(Vec::new()) };
        let end = self.index().pack(at.pack)?.map_or(0, |state| state.committed);
        let (mut offset, mut named) = (at.offset + at.span(), Vec::new());
        while offset + RECORD_HEADER as u64 <= end && named.len() < count_max.min(FOLLOWING_MAX) {
            let mut header = [0; RECORD_HEADER];
            let read = pack.file()?.read_at(&mut header, offset);
            // Damage ends the list; whoever reads what is behind it is told.
            let Ok(RECORD_HEADER) = read else { break };
            let Ok(header) = RecordHeader::decode(&header) else { break };
            named.push(Named { name: (header.kind, header.digest), len: header.len });
            offset += header.span();
        }
        Ok(named)
    }

    /// Other hosts that are asked, and what came of it.
    pub fn peer_counts(&self) -> Vec<PeerCounts> {
        self.0.far.get().map(|far| far.near.counts()).unwrap_or_default()
    }

    /// From here on these snapshots hang on another host, but for those that hang already. Durable when it returns. Errors: the disk's, `HangingFull`.
    pub fn hang(&self, ids: &[SnapshotId], origin: &Origin) -> Result<()> {
        self.0.hanging.hang(ids, origin)
    }

    /// What is sealed on top of a snapshot hangs on what that hangs on. Error: the disk's.
    pub fn hang_like(&self, base: SnapshotId, sealed: SnapshotId) -> Result<()> {
        self.0.hanging.origin(base).map_or(Ok(()), |origin| self.0.hanging.hang(&[sealed], &origin))
    }

    /// How many snapshots hang on other hosts.
    pub fn hanging_count(&self) -> usize {
        self.0.hanging.count()
    }

    /// Forgets of snapshots that they hang, but for those that are listed and the `live` ones, of which the caller finds out while nobody makes more of them. False:
    /// somebody does just now, or the caller cannot tell. Error: the disk's.
    pub fn forget_hanging(&self, live: impl FnOnce() -> Option<HashSet<SnapshotId>>) -> Result<bool> {
        let Some(_closed) = self.gate().try_close() else { return Ok(false) };
        let Some(mut live) = live() else { return Ok(false) };
        live.extend(self.list()?.into_iter().map(|listed| listed.id));
        self.keep_hanging(|id| live.contains(&id))?;
        Ok(true)
    }

    /// Whether a snapshot hangs on another host.
    pub fn hangs(&self, id: SnapshotId) -> bool {
        self.0.hanging.origin(id).is_some()
    }

    /// All that something of this host hangs on.
    pub fn origins(&self) -> Vec<Origin> {
        self.0.hanging.origins()
    }

    /// Forgets of snapshots that they hang, but for these. Error: the disk's.
    pub(crate) fn keep_hanging(&self, is_live: impl Fn(SnapshotId) -> bool) -> Result<()> {
        self.0.hanging.retain(is_live)
    }

    /// Has all of a snapshot in this store, where nothing goes that something stands on: then it hangs on nobody. The caller has it be a root. Errors: what keeps an
    /// object from coming; the disk's; `Cancelled`. What came stays.
    pub fn make_whole(
        &self,
        id: SnapshotId,
        progress: &mut dyn FnMut(Whole),
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Whole> {
        let mut making = Making::new(self.fetching());
        let snapshot = making.store.snapshot(id)?;
        making.put(ObjectKind::Snapshot, id.0)?;
        snapshot.xattrs.map_or(Ok(()), |xattrs| making.put(ObjectKind::Xattrs, xattrs))?;
        // No recursion: trees may be deeper than a stack.
        let mut dirs = vec![snapshot.dir];
        while let Some(dir) = dirs.pop() {
            if is_cancelled() {
                return Err(Error::Cancelled);
            }
            making.dir(dir, &mut dirs)?;
            progress(making.whole);
        }
        making.flush()?;
        self.keep_hanging(|other| other != id)?;
        Ok(making.whole)
    }
}

/// A tree on its way into the store: directories before what is in them, so that a collection in between finds all that came.
struct Making {
    store: Store,
    /// Directories that are dealt with, each once, as often as the tree names it: no more than it has.
    met: HashSet<Digest>,
    batch: Vec<(ObjectKind, Digest, Vec<u8>)>,
    batch_bytes: usize,
    whole: Whole,
}

impl Making {
    fn new(store: Store) -> Making {
        let (met, whole) = (HashSet::new(), Whole::default());
        Making { store, met, batch: Vec::new(), batch_bytes: 0, whole }
    }

    fn dir(&mut self, digest: Digest, below: &mut Vec<Digest>) -> Result<()> {
        if !self.met.insert(digest) {
            return Ok(());
        }
        let dir = Dir::open(&self.store, digest)?;
        self.put(ObjectKind::Dir, digest)?;
        if dir.page_count() > 1 {
            (0..dir.page_count())
                .try_for_each(|page| self.put(ObjectKind::DirPage, dir.page_digest(page)))?;
        }
        let mut chunks = Vec::new();
        for index in (0..dir.count()).rev() {
            let entry = dir.entry(index)?;
            entry.xattrs.map_or(Ok(()), |xattrs| self.put(ObjectKind::Xattrs, xattrs))?;
            match entry.node {
                Node::Dir(dir) => below.push(dir),
                Node::File(content) => {
                    self.whole.files += 1;
                    self.whole.bytes = self.whole.bytes.saturating_add(entry.attrs.size);
                    self.content(content, &mut chunks)?;
                }
                Node::Symlink(_) | Node::Fifo | Node::Socket | Node::CharDevice | Node::BlockDevice => {}
            }
        }
        self.chunks(&mut chunks)
    }

    fn content(&mut self, content: Content, chunks: &mut Vec<Digest>) -> Result<()> {
        match content {
            Content::Empty => {}
            Content::Chunk(chunk) => chunks.push(chunk),
            Content::List(list) => {
                let object = self.store.chunk_list(list)?;
                self.put(ObjectKind::List, list)?;
                for extent in List::open(&object)?.extents_from(0) {
                    chunks.extend(extent?.chunk);
                    if chunks.len() >= BATCH_OBJECTS {
                        self.chunks(chunks)?;
                    }
                }
            }
        }
        if chunks.len() >= BATCH_OBJECTS { self.chunks(chunks) } else { Ok(()) }
    }

    /// Many are asked for before one is waited for.
    fn chunks(&mut self, chunks: &mut Vec<Digest>) -> Result<()> {
        let mut bring = Bring::new(&self.store);
        for chunk in &*chunks {
            bring.range(&Content::Chunk(*chunk), 0..CHUNK_AVERAGE as u64)?;
        }
        bring.finish()?;
        chunks.drain(..).try_for_each(|chunk| self.put(ObjectKind::Chunk, chunk))
    }

    /// One object, unless it is in the store.
    fn put(&mut self, kind: ObjectKind, digest: Digest) -> Result<()> {
        if self.store.index().locate(digest)?.is_some() {
            self.whole.here += 1;
            return Ok(());
        }
        let bytes = self.store.bytes_of(kind, digest)?;
        self.whole.came += 1;
        self.batch_bytes += bytes.len();
        self.batch.push((kind, digest, bytes));
        if self.batch_bytes < BATCH_BYTES && self.batch.len() < BATCH_OBJECTS { Ok(()) } else { self.flush() }
    }

    /// Nothing is fetched while the writer keeps gc away.
    fn flush(&mut self) -> Result<()> {
        let mut writer = self.store.writer()?;
        for (kind, digest, bytes) in self.batch.drain(..) {
            writer.put_object(kind, digest, &bytes)?;
        }
        writer.finish()?;
        self.batch_bytes = 0;
        Ok(())
    }
}

/// Who is asked before the remote store, for a store that does not keep them alive.
pub(super) fn near(
    store: &Store,
    peers: Vec<Arc<dyn crate::remote::peer::Peer>>,
    is_alone: bool,
) -> Arc<Near> {
    let shared = Arc::downgrade(&store.0);
    let has = move |(kind, digest)| {
        let Some(shared) = shared.upgrade() else { return false };
        // Doubt costs a fetch.
        Store(shared, super::Absence::Told).is_here(kind, digest).unwrap_or(false)
    };
    Arc::new(Near::new(peers, is_alone, Box::new(has)))
}

impl std::fmt::Debug for Far {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Far").field("remote", &self.remote).field("near", &self.near).finish_non_exhaustive()
    }
}
