//! Packs that may still grow, and numbers for new ones. A pack is in the pool or with one appender, never both.

use std::{collections::HashMap, ops::Range, sync::Arc};

use parking_lot::Mutex;

use crate::{
    Digest, ObjectKind, Result,
    disk::Disk,
    index::Index,
    pack::Location,
    pack::Pack,
    record::{PACK_HEADER, PackKind, RECORD_HEADER, RecordHeader, sums_of},
};

/// Numbers taken from the index at once: one commit for so many packs.
const RESERVE: u64 = 64;

/// Packs with room.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Packs>);

#[derive(Debug, Default)]
struct Packs {
    free: HashMap<PackKind, Vec<(Arc<Pack>, u64)>>,
    numbers: Range<u64>,
}

impl Pool {
    /// Lets others append to `pack` behind `committed`.
    pub(crate) fn put(&self, pack: Arc<Pack>, committed: u64) {
        self.0.lock().free.entry(pack.kind).or_default().push((pack, committed));
    }

    /// A pack to append to: one with room, or else a new one.
    pub(crate) fn take(&self, disk: &Arc<dyn Disk>, index: &Index, kind: PackKind) -> Result<Appender> {
        let free = self.0.lock().free.get_mut(&kind).and_then(Vec::pop);
        match free {
            Some((pack, committed)) => Ok(Appender::new(pack, committed)),
            None => self.create(disk, index, kind),
        }
    }

    /// A new pack to append to.
    pub(crate) fn create(&self, disk: &Arc<dyn Disk>, index: &Index, kind: PackKind) -> Result<Appender> {
        let id = self.number(index)?;
        let pack = Arc::new(Pack::create(disk.clone(), id, kind).inspect_err(|_| {
            // The file may be there without its header; if this fails too, the next open removes it.
            let _ = disk.remove(&crate::pack::pack_path(id, kind));
        })?);
        Ok(Appender::new(pack, 0))
    }

    /// Forgets every pack: gc is about to replace some of them.
    pub(crate) fn drain(&self) -> Vec<(Arc<Pack>, u64)> {
        self.0.lock().free.drain().flat_map(|(_, packs)| packs).collect()
    }

    fn number(&self, index: &Index) -> Result<u64> {
        let mut packs = self.0.lock();
        if packs.numbers.is_empty() {
            let first = index.reserve_packs(RESERVE)?;
            packs.numbers = first..first + RESERVE;
        }
        Ok(packs.numbers.next().expect("the range was just filled"))
    }
}

/// Appends records to one pack, in large writes.
#[derive(Debug)]
pub(crate) struct Appender {
    pub(crate) pack: Arc<Pack>,
    /// What the index vouches for; 0 for a pack that it does not know yet.
    pub(crate) committed: u64,
    written: u64,
    buffer: Vec<u8>,
}

impl Appender {
    fn new(pack: Arc<Pack>, committed: u64) -> Appender {
        Appender { pack, committed, written: committed.max(PACK_HEADER as u64), buffer: Vec::new() }
    }

    /// Bytes of the pack with all that was appended.
    pub(crate) fn len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Whether no record is in the pack.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == PACK_HEADER as u64
    }

    /// Appends a record; `batch_bytes` are gathered before they are written.
    pub(crate) fn append(
        &mut self,
        kind: ObjectKind,
        digest: Digest,
        payload: &[u8],
        batch_bytes: usize,
    ) -> Result<Location> {
        let sums = sums_of(kind, payload);
        let header = RecordHeader::of(kind, digest, &sums, payload);
        let at = Location { pack: self.pack.id, offset: self.len(), len: header.len, kind };
        let end = self.buffer.len() + header.span() as usize;
        self.buffer.reserve(RECORD_HEADER.max(end - self.buffer.len()));
        self.buffer.extend_from_slice(&header.encode());
        self.buffer.extend_from_slice(&sums);
        self.buffer.extend_from_slice(payload);
        self.buffer.resize(end, 0);
        if self.buffer.len() >= batch_bytes {
            self.flush()?;
        }
        Ok(at)
    }

    /// Writes what was gathered, and lets it go to the disk while more is gathered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.pack.append(&self.buffer, self.written)?;
        self.pack.start_sync(self.written, self.buffer.len() as u64)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Gives the buffer's memory back; for a pack that is full.
    pub(crate) fn release_buffer(&mut self) {
        self.buffer = Vec::new();
    }
}
