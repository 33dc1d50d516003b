//! One pack as readers see it: the file, and how much of it there is.
//!
//! Whatever is read of it is checked on the way into memory, every time: see docs/decisions/0011. A pack outlives the
//! deletion of its file for as long as somebody holds it. Who may append is the pool's business (pool.rs).

use std::{
    io::{self, IoSliceMut},
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    Digest, Error, Object, ObjectKind, Result,
    disk::{Disk, DiskFile, Open, Patience},
    object::Passed,
    record::{
        ALIGN, BLOCK_BYTES, BadHeader, OBJECT_BYTES_MAX, PACK_HEADER, PACK_VERSION, PackHeader, PackKind,
        RECORD_HEADER, RecordHeader, record_span, sum_at, sums_bytes,
    },
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Where the packs are.
pub(crate) const PACKS_DIR: &str = "store/packs";

/// Where an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: u64,
    /// Of the record's header, from the start of the pack.
    pub(crate) offset: u64,
    /// Of the payload.
    pub(crate) len: u32,
    pub(crate) kind: ObjectKind,
}

impl Location {
    /// Bytes that the record takes.
    pub(crate) fn span(&self) -> u64 {
        record_span(self.kind, self.len)
    }
}

/// What is wrong with bytes that are not those that were written.
const WRONG: &str = "the checksum is wrong";

/// The path of a pack on its disk.
pub(crate) fn pack_path(id: u64, kind: PackKind) -> String {
    format!("{PACKS_DIR}/{id:016x}.{}", kind.suffix())
}

/// The pack that a file's name stands for; None for a name that no pack has.
pub(crate) fn parse_pack_name(name: &str) -> Option<(u64, PackKind)> {
    let (digits, suffix) = name.split_once('.')?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    let kind = [PackKind::Data, PackKind::Meta].into_iter().find(|k| k.suffix() == suffix)?;
    (digits == format!("{id:016x}")).then_some((id, kind))
}

#[derive(Debug)]
struct Opened {
    file: Arc<dyn DiskFile>,
    /// See [`PackHeader::has_sums`]; `None` if the header is damaged and each record has to say it.
    has_sums: Option<bool>,
}

/// A pack that can be read.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) id: u64,
    pub(crate) kind: PackKind,
    disk: Arc<dyn Disk>,
    opened: OnceLock<Opened>,
    /// Bytes in the file: nothing is read behind them.
    len: AtomicU64,
    /// When it was last read, by the count of evictions.
    era: AtomicU64,
}

impl Pack {
    /// The pack `id`, whose file is opened when it is first read.
    pub(crate) fn open(disk: Arc<dyn Disk>, id: u64, kind: PackKind) -> Pack {
        Pack { id, kind, disk, opened: OnceLock::new(), len: AtomicU64::new(0), era: AtomicU64::new(0) }
    }

    /// Makes the file of a new pack, its header in it. Nothing is synced.
    pub(crate) fn create(disk: Arc<dyn Disk>, id: u64, kind: PackKind) -> Result<Pack> {
        let pack = Pack::open(disk, id, kind);
        let file = pack.disk.open(&pack.path(), Open::Create).map_err(Error::io(pack.display()))?;
        let header = PackHeader { kind, id, has_sums: true };
        file.write_at(&header.encode(), 0).map_err(Error::io(pack.display()))?;
        pack.len.store(PACK_HEADER as u64, Relaxed);
        Ok(Pack { opened: OnceLock::from(Opened { file, has_sums: Some(true) }), ..pack })
    }

    pub(crate) fn path(&self) -> String {
        pack_path(self.id, self.kind)
    }

    /// The path as an error shows it.
    pub(crate) fn display(&self) -> PathBuf {
        self.disk.display(&self.path())
    }

    /// The open file. The first call opens it and takes its length.
    pub(crate) fn file(&self) -> Result<&Arc<dyn DiskFile>> {
        Ok(&self.opened()?.file)
    }

    /// Whether what is written now may be appended: records of the first version have another form.
    pub(crate) fn is_of_this_version(&self) -> Result<bool> {
        Ok(self.opened()?.has_sums == Some(true))
    }

    fn opened(&self) -> Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let io = |e| Error::io(self.display())(e);
        let file = self.disk.open(&self.path(), Open::Write).map_err(io)?;
        let mut header = [0; PACK_HEADER];
        let header_len = file.read_at(&mut header, 0).map_err(io)?;
        let has_sums = match PackHeader::decode(&header) {
            Err(BadHeader::Newer(found)) => {
                return Err(Error::Newer { path: self.display(), found, supported: PACK_VERSION });
            }
            // Every record vouches for itself, so a damaged header costs nothing but this line; fsck reports it.
            Err(BadHeader::Foreign(reason)) => {
                if header_len == PACK_HEADER {
                    tracing::warn!(pack = ?self.display(), reason, "damaged pack header");
                }
                None
            }
            Ok(header) => Some(header.has_sums),
        };
        self.len.fetch_max(file.len().map_err(io)?, Relaxed);
        Ok(self.opened.get_or_init(|| Opened { file, has_sums }))
    }

    /// Whether the open file has lost its name.
    pub(crate) fn is_unlinked(&self) -> Result<bool> {
        match self.disk.open(&self.path(), Open::Read) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(Error::io(self.display())(error)),
        }
    }

    /// It is read in this era.
    pub(crate) fn touch(&self, era: u64) {
        // Who reads all the time writes nothing that others would have to fetch.
        if self.era.load(Relaxed) != era {
            self.era.store(era, Relaxed);
        }
    }

    /// The era it was last read in.
    pub(crate) fn last_era(&self) -> u64 {
        self.era.load(Relaxed)
    }

    /// Bytes in the file, as far as this process knows: it alone appends.
    pub(crate) fn len(&self) -> Result<u64> {
        self.file()?;
        Ok(self.len.load(Relaxed))
    }

    /// Appends at `offset`, which the caller owns.
    pub(crate) fn append(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file()?.write_at(bytes, offset).map_err(Error::io(self.display()))?;
        self.len.fetch_max(offset + bytes.len() as u64, Relaxed);
        Ok(())
    }

    /// Asks for write-back of what was appended.
    pub(crate) fn start_sync(&self, offset: u64, len: u64) -> Result<()> {
        self.file()?.start_sync(offset, len).map_err(Error::io(self.display()))
    }

    /// Makes what was appended durable (the file's name is `sync_dir`'s business).
    pub(crate) fn sync(&self) -> Result<()> {
        self.file()?.sync().map_err(Error::io(self.display()))
    }

    /// Cuts off what no index entry names.
    pub(crate) fn cut(&self, len: u64) -> Result<()> {
        self.file()?.set_len(len).map_err(Error::io(self.display()))?;
        self.len.store(len, Relaxed);
        Ok(())
    }

    /// The payload at `at`, checked against its digest; if it was before, against the checksum of its record.
    pub(crate) fn object(&self, digest: Digest, at: &Location, passed: Option<Passed>) -> Result<Object> {
        self.check_place(digest, at)?;
        let mut bytes = vec![0; at.len as usize];
        self.read(digest, at, 0, &mut bytes, Patience::Waits)?;
        if passed.is_none() && Digest::of(&bytes) != digest {
            return Err(self.corrupt(digest, at, "the bytes do not have this digest"));
        }
        Ok(Object::again(bytes, passed.unwrap_or_default()))
    }

    /// Fills `buf` from `offset` of the payload at `at`, checked against the checksum of its record, or against the sums of its
    /// blocks, which `buf` must not reach beyond.
    pub(crate) fn read(
        &self,
        digest: Digest,
        at: &Location,
        offset: usize,
        buf: &mut [u8],
        patience: Patience,
    ) -> Result<()> {
        let sums_bytes = self.check_place(digest, at)?;
        let mut front = vec![0; RECORD_HEADER + sums_bytes];
        if buf.len() == at.len as usize {
            self.read_parts(digest, at, &mut [&mut front, buf], at.offset, patience)?;
            let header = self.header(digest, at, &front)?;
            let is_intact = header.matches(&front[RECORD_HEADER..], buf);
            return if is_intact { Ok(()) } else { Err(self.corrupt(digest, at, WRONG)) };
        }
        if sums_bytes == 0 {
            // All or nothing can be checked of it.
            let mut whole = vec![0; at.len as usize];
            self.read(digest, at, 0, &mut whole, patience)?;
            buf.copy_from_slice(&whole[offset..offset + buf.len()]);
            return Ok(());
        }
        self.read_parts(digest, at, &mut [&mut front], at.offset, patience)?;
        if !self.header(digest, at, &front)?.matches_sums(&front[RECORD_HEADER..]) {
            return Err(self.corrupt(digest, at, WRONG));
        }
        self.read_blocks(digest, at, &front, offset, buf, patience)
    }

    /// Reads the blocks that `buf` is in, and checks each. `front` is what stands in front of the payload.
    fn read_blocks(
        &self,
        digest: Digest,
        at: &Location,
        front: &[u8],
        offset: usize,
        buf: &mut [u8],
        patience: Patience,
    ) -> Result<()> {
        let end = offset + buf.len();
        let first = offset / BLOCK_BYTES;
        let start = first * BLOCK_BYTES;
        let stop = end.next_multiple_of(BLOCK_BYTES).min(at.len as usize);
        let mut edges = vec![0; offset - start + stop - end];
        let (before, behind) = edges.split_at_mut(offset - start);
        let place = at.offset + (front.len() + start) as u64;
        self.read_parts(digest, at, &mut [before, buf, behind], place, patience)?;
        let parts = [&*before, &*buf, &*behind];
        let is_intact = (start..stop).step_by(BLOCK_BYTES).enumerate().all(|(nth, block)| {
            let range = block - start..stop.min(block + BLOCK_BYTES) - start;
            xxh3_of(&parts, range) == sum_at(&front[RECORD_HEADER..], first + nth)
        });
        if is_intact { Ok(()) } else { Err(self.corrupt(digest, at, WRONG)) }
    }

    /// Fills all of `parts` from `offset` of the file, for the object at `at`. Error: `NotNow`, if the disk has to be waited for.
    fn read_parts(
        &self,
        digest: Digest,
        at: &Location,
        parts: &mut [&mut [u8]],
        offset: u64,
        patience: Patience,
    ) -> Result<()> {
        let file = self.file()?;
        let len = parts.iter().map(|part| part.len()).sum();
        let mut parts: Vec<_> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
        let read = match patience {
            Patience::Waits => file.read_parts_at(&mut parts, offset),
            Patience::Now => file.read_parts_now(&mut parts, offset).transpose().ok_or(Error::NotNow)?,
        };
        self.whole(digest, at, read, len)
    }

    /// What is wrong at `at`.
    pub(crate) fn corrupt(&self, digest: Digest, at: &Location, reason: &'static str) -> Error {
        Error::Corrupt { digest, pack: self.display(), offset: at.offset, reason }
    }

    /// Whether the record can be, and is within the file; the bytes of its sums.
    fn check_place(&self, digest: Digest, at: &Location) -> Result<usize> {
        let sums_bytes = match self.opened()?.has_sums {
            Some(true) => sums_bytes(at.kind, at.len),
            Some(false) => 0,
            None => self.sums_bytes_of(at)?,
        };
        let start = at.offset.saturating_add((RECORD_HEADER + sums_bytes) as u64);
        let end = start.saturating_add(u64::from(at.len));
        let known = at.offset.is_multiple_of(ALIGN)
            && at.offset >= PACK_HEADER as u64
            && at.len as usize <= OBJECT_BYTES_MAX;
        if !known {
            return Err(self.corrupt(digest, at, "the index names an impossible place"));
        }
        if end > self.len()? {
            return Err(self.corrupt(digest, at, "the pack is truncated"));
        }
        Ok(sums_bytes)
    }

    /// What the record at `at` itself says of its sums, if there is one.
    fn sums_bytes_of(&self, at: &Location) -> Result<usize> {
        let mut header = [0; RECORD_HEADER];
        // What cannot be read is found out, and told, by who reads the rest.
        let read = self.file()?.read_at(&mut header, at.offset).unwrap_or_default();
        let header = (read == RECORD_HEADER).then(|| RecordHeader::decode(&header).ok()).flatten();
        Ok(header.map_or(0, |header| header.sums_bytes()))
    }

    /// The header of the record at `at`, which `front` begins with.
    fn header(&self, digest: Digest, at: &Location, front: &[u8]) -> Result<RecordHeader> {
        let bytes = front[..RECORD_HEADER].try_into().expect("a slice of one header");
        let header = RecordHeader::decode(bytes).map_err(|reason| self.corrupt(digest, at, reason))?;
        let is_it = header.digest == digest && header.len == at.len;
        if is_it && header.sums_bytes() == front.len() - RECORD_HEADER {
            Ok(header)
        } else {
            Err(self.corrupt(digest, at, "another object stands here"))
        }
    }

    /// What became of reading all `len` bytes of a record.
    fn whole(&self, digest: Digest, at: &Location, read: io::Result<usize>, len: usize) -> Result<()> {
        match read {
            Ok(read) if read == len => Ok(()),
            Ok(_) => Err(self.corrupt(digest, at, "the pack is truncated")),
            // The medium cannot give these bytes back. That is damage of this object, as if they were wrong.
            Err(e) if e.raw_os_error() == Some(libc::EIO) => {
                Err(self.corrupt(digest, at, "the disk cannot read it"))
            }
            Err(e) => Err(Error::io(self.display())(e)),
        }
    }
}

/// The sum of a range of what `parts` are together.
fn xxh3_of(parts: &[&[u8]], range: Range<usize>) -> u64 {
    let mut at = 0;
    let pieces = parts.iter().filter_map(|part| {
        let (start, end) = (range.start.max(at), range.end.min(at + part.len()));
        let piece = (start < end).then(|| &part[start - at..end - at]);
        at += part.len();
        piece
    });
    let pieces: Vec<_> = pieces.collect();
    match pieces[..] {
        [piece] => xxh3_64(piece),
        _ => {
            let mut sum = Xxh3::new();
            pieces.iter().for_each(|piece| sum.update(piece));
            sum.digest()
        }
    }
}
