//! One pack as readers see it: the file, and how much of it there is.
//!
//! Whatever is read of it is checked on the way into memory, every time: see docs/decisions/0011. A pack outlives the
//! deletion of its file for as long as somebody holds it. Who may append is the pool's business (pool.rs).

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    Digest, Error, Object, ObjectKind, Result,
    disk::{Disk, DiskFile, Open, Patience},
    record::{
        ALIGN, BadHeader, OBJECT_BYTES_MAX, PACK_HEADER, PACK_VERSION, PackHeader, PackKind, RECORD_HEADER,
        RecordHeader,
    },
};

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

/// A pack that can be read.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) id: u64,
    pub(crate) kind: PackKind,
    disk: Arc<dyn Disk>,
    opened: OnceLock<Arc<dyn DiskFile>>,
    /// Bytes in the file: nothing is read behind them.
    len: AtomicU64,
}

impl Pack {
    /// The pack `id`, whose file is opened when it is first read.
    pub(crate) fn open(disk: Arc<dyn Disk>, id: u64, kind: PackKind) -> Pack {
        Pack { id, kind, disk, opened: OnceLock::new(), len: AtomicU64::new(0) }
    }

    /// Makes the file of a new pack, its header in it. Nothing is synced.
    pub(crate) fn create(disk: Arc<dyn Disk>, id: u64, kind: PackKind) -> Result<Pack> {
        let pack = Pack::open(disk, id, kind);
        let file = pack.disk.open(&pack.path(), Open::Create).map_err(Error::io(pack.display()))?;
        file.write_at(&PackHeader { kind, id }.encode(), 0).map_err(Error::io(pack.display()))?;
        pack.len.store(PACK_HEADER as u64, Relaxed);
        Ok(Pack { opened: OnceLock::from(file), ..pack })
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
        if let Some(file) = self.opened.get() {
            return Ok(file);
        }
        let io = |e| Error::io(self.display())(e);
        let file = self.disk.open(&self.path(), Open::Write).map_err(io)?;
        let mut header = [0; PACK_HEADER];
        let header_len = file.read_at(&mut header, 0).map_err(io)?;
        match PackHeader::decode(&header) {
            Err(BadHeader::Newer(found)) => {
                return Err(Error::Newer { path: self.display(), found, supported: PACK_VERSION });
            }
            // Every record vouches for itself, so a damaged header costs nothing but this line; fsck reports it.
            Err(BadHeader::Foreign(reason)) if header_len == PACK_HEADER => {
                tracing::warn!(pack = ?self.display(), reason, "damaged pack header");
            }
            Err(BadHeader::Foreign(_)) | Ok(_) => {}
        }
        self.len.fetch_max(file.len().map_err(io)?, Relaxed);
        Ok(self.opened.get_or_init(|| file))
    }

    /// Whether the open file has lost its name.
    pub(crate) fn is_unlinked(&self) -> Result<bool> {
        match self.disk.open(&self.path(), Open::Read) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(Error::io(self.display())(error)),
        }
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

    /// The payload at `at`, checked against its digest.
    pub(crate) fn object(&self, digest: Digest, at: &Location) -> Result<Object> {
        let object = self.checked(digest, at, Patience::Waits, &mut Vec::new())?;
        if Digest::of(&object) != digest {
            return Err(self.corrupt(digest, at, "the bytes do not have this digest"));
        }
        Ok(object)
    }

    /// Bytes of the record at `at`.
    pub(crate) fn record_len(at: &Location) -> usize {
        RECORD_HEADER + at.len as usize
    }

    /// The payload at `at`, checked against the checksum of its record; in `memory`, whatever stands there, if that is enough.
    pub(crate) fn checked(
        &self,
        digest: Digest,
        at: &Location,
        patience: Patience,
        memory: &mut Vec<u8>,
    ) -> Result<Object> {
        self.check_place(digest, at)?;
        let record_len = Pack::record_len(at);
        if memory.capacity() < record_len {
            // Not grown: what stands there would be copied, and pages of new memory are zeros without being touched.
            *memory = vec![0; record_len];
        }
        memory.resize(record_len, 0);
        let read = self.read_at(&mut [], memory, at.offset, patience)?;
        let record = std::mem::take(memory);
        self.whole(digest, at, read, record.len())?;
        let (header, payload) = record.split_at(RECORD_HEADER);
        self.check(digest, at, header.try_into().expect("split off there"), payload)?;
        Ok(Object::behind(RECORD_HEADER, record))
    }

    /// Fills `buf`, which has its length, with the payload at `at`, checked against the checksum of its record.
    pub(crate) fn read(
        &self,
        digest: Digest,
        at: &Location,
        buf: &mut [u8],
        patience: Patience,
    ) -> Result<()> {
        self.check_place(digest, at)?;
        let mut header = [0; RECORD_HEADER];
        let read = self.read_at(&mut header, buf, at.offset, patience)?;
        self.whole(digest, at, read, RECORD_HEADER + buf.len())?;
        self.check(digest, at, &header, buf)
    }

    /// What the disk said to a read. Error: `NotNow`, if it did not have to answer.
    fn read_at(
        &self,
        head: &mut [u8],
        rest: &mut [u8],
        offset: u64,
        patience: Patience,
    ) -> Result<io::Result<usize>> {
        let file = self.file()?;
        match patience {
            Patience::Waits => Ok(file.read_split_at(head, rest, offset)),
            Patience::Now => file.read_split_now(head, rest, offset).transpose().ok_or(Error::NotNow),
        }
    }

    /// What is wrong at `at`.
    pub(crate) fn corrupt(&self, digest: Digest, at: &Location, reason: &'static str) -> Error {
        Error::Corrupt { digest, pack: self.display(), offset: at.offset, reason }
    }

    /// Whether the record can be, and is within the file.
    fn check_place(&self, digest: Digest, at: &Location) -> Result<()> {
        let start = at.offset.saturating_add(RECORD_HEADER as u64);
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
        Ok(())
    }

    fn check(
        &self,
        digest: Digest,
        at: &Location,
        header: &[u8; RECORD_HEADER],
        payload: &[u8],
    ) -> Result<()> {
        let header = RecordHeader::decode(header).map_err(|reason| self.corrupt(digest, at, reason))?;
        if header.digest != digest || header.len != at.len {
            return Err(self.corrupt(digest, at, "another object stands here"));
        }
        if !header.matches(payload) {
            return Err(self.corrupt(digest, at, "the checksum is wrong"));
        }
        Ok(())
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
