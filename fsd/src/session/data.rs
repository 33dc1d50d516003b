//! Operations on bytes: read, write, truncate, allocate, punch, copy, seek.

use std::{ops::Range, sync::Arc};

use cas::{Attrs, Store, disk::Patience};

use super::{
    Error, Result,
    extent::{Blob, FileBody, Origin},
    inode::Body,
    live::{Change, Session},
    log::Purpose,
    privileges::{Writer, drop_capabilities},
    segment::Segment,
    state::{Effect, State},
    sums::Sum,
    tree::{Found, Source},
};

/// The largest file (`off_t`).
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Bytes that one call of copy moves; the caller goes on from there. Bounds the memory and the time of a request.
const COPY_BYTES_MAX: u64 = 4 << 20;

/// How to change the space under a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Make the file at least this long. Space itself is found when bytes are written.
    Extend,
    /// Keep the size: nothing changes but the times.
    KeepSize,
    /// Give the range back; it reads as zeros.
    Punch,
    /// The range reads as zeros; extend the file if `extend`.
    Zero {
        /// Whether the file may grow.
        extend: bool,
    },
}

/// What to look for in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The first byte of data at the offset or behind it.
    Data,
    /// The first byte of a hole; the end of the file counts as one.
    Hole,
}

/// Part of a file that its session alone can see: its range, and where in which segment it is.
type OwnPart = (Range<u64>, Arc<Segment>, u64);

/// Reads a range that lies within the file: fills all of `buf`.
pub(super) fn fill(store: &Store, file: &FileBody, offset: u64, buf: &mut [u8]) -> Result<()> {
    fill_with(store, Patience::Waits, file, offset, buf)
}

/// [`fill`]. What is not sealed was written not long ago, and is as a rule in memory: only for the store `patience` counts.
fn fill_with(store: &Store, patience: Patience, file: &FileBody, offset: u64, buf: &mut [u8]) -> Result<()> {
    for (range, origin) in file.origins(offset..offset + buf.len() as u64) {
        let part = &mut buf[(range.start - offset) as usize..(range.end - offset) as usize];
        match origin {
            Origin::Hole => part.fill(0),
            Origin::Segment { segment, offset, .. } => segment.read(part, offset)?,
            Origin::Base => match &file.base {
                Some(blob) => store.read_with(patience, &blob.content, blob.size, range.start, part)?,
                None => part.fill(0),
            },
        }
    }
    Ok(())
}

/// The first range of data at `offset` or behind it, cut at `offset` and at `size`.
pub(super) fn next_data(
    store: &Store,
    file: &FileBody,
    size: u64,
    offset: u64,
) -> Result<Option<Range<u64>>> {
    for (range, origin) in file.origins(offset..size) {
        match origin {
            Origin::Hole => {}
            Origin::Segment { .. } => return Ok(Some(range)),
            Origin::Base => {
                let Some(blob) = &file.base else { continue };
                let data = store.next_data(&blob.content, blob.size, range.start)?;
                if let Some(data) = data.filter(|data| data.start < range.end) {
                    return Ok(Some(data.start..data.end.min(range.end)));
                }
            }
        }
    }
    Ok(None)
}

/// Bytes that are data rather than hole.
pub fn data_bytes(store: &Store, found: &Found) -> Result<u64> {
    if found.kind != cas::Kind::File {
        return Ok(0);
    }
    let (file, size) = (found.file()?, found.attrs.size);
    if let Some(blob) = file.base.filter(|_| file.extents.is_empty()) {
        return Ok(store.data_bytes(&blob.content, blob.size)?.min(size));
    }
    let (mut bytes, mut at) = (0, 0);
    while let Some(data) = next_data(store, &file, size, at)? {
        bytes += data.end - data.start;
        at = data.end;
    }
    Ok(bytes)
}

impl State {
    /// Reads at `offset` of a regular file; short only at its end.
    pub fn read(&self, store: &Store, found: &Found, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let file = found.file()?;
        let len = (found.attrs.size.saturating_sub(offset)).min(buf.len() as u64) as usize;
        fill(store, &file, offset, &mut buf[..len])?;
        Ok(len)
    }
}

impl Session {
    /// Reads at `offset`; short only at the end of the file. Errors: `IsADirectory`, `Stale`, and what the store says.
    pub fn read(&self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.read_with(Patience::Waits, ino, offset, buf)
    }

    /// [`Session::read`] for one who does not wait for the disk: `None` if that had to be.
    pub fn read_now(&self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<Option<usize>> {
        match self.read_with(Patience::Now, ino, offset, buf) {
            Err(Error::Store(cas::Error::NotNow)) => Ok(None),
            read => read.map(Some),
        }
    }

    fn read_with(&self, patience: Patience, ino: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        // Only the handles are taken under the lock; the bytes are read outside it.
        let found = self.found(&self.state.read(), ino)?;
        let (file, size) = (found.file()?, found.attrs.size);
        let len = (size.saturating_sub(offset)).min(buf.len() as u64) as usize;
        fill_with(&self.shared.store, patience, &file, offset, &mut buf[..len])?;
        Ok(len)
    }

    /// [`Session::write_as`] by one who may keep set-ID bits.
    pub fn write(&self, ino: u64, offset: u64, data: &[u8]) -> Result<()> {
        self.write_as(Writer::Privileged, ino, offset, data)
    }

    /// Writes all of `data` at `offset`, extending the file where needed. In place where the session alone owns what is
    /// there, to a new extent otherwise. Errors: `NoSpace`, `FileTooBig`.
    pub fn write_as(&self, by: Writer, ino: u64, offset: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let range = offset..end_of(offset, data.len() as u64)?;
        if self.overwrite(by, ino, &range, data)? { Ok(()) } else { self.write_new(by, ino, &range, data) }
    }

    /// Overwrites in place if every byte of the range is in an extent that nobody else can see.
    fn overwrite(&self, by: Writer, ino: u64, range: &Range<u64>, data: &[u8]) -> Result<bool> {
        let _gate = self.gate.read();
        let Some(parts) = self.exclusive(ino, range)? else { return Ok(false) };
        self.unsum(&parts)?;
        let overwritten = self.write_parts(&parts, range, data).and_then(|()| self.record_overwrite(by, ino));
        // Readers see what it did, and no record tells a sync of it.
        overwritten.inspect_err(|_| self.shared.durability.spilt())?;
        Ok(true)
    }

    fn write_parts(&self, parts: &[OwnPart], range: &Range<u64>, data: &[u8]) -> Result<()> {
        parts.iter().try_for_each(|(part, segment, offset)| {
            let bytes = &data[(part.start - range.start) as usize..(part.end - range.start) as usize];
            segment.write(bytes, *offset)
        })
    }

    /// What else a write changes. A truncation in between wins, as if it had come later: only times and mode are left.
    fn record_overwrite(&self, by: Writer, ino: u64) -> Result<()> {
        let mut change = self.begin()?;
        let found = change.found(ino)?;
        let now = self.shared.clock.now();
        let attrs = Attrs { mode: by.leaves(found.attrs.mode), mtime: now, ctime: now, ..found.attrs };
        change.edit_xattrs(&found, drop_capabilities)?;
        change.set_attrs(found, attrs);
        change.commit(Purpose::Shrink)
    }

    /// Lets go of the sums of what is about to be overwritten. The log says so before a byte is written, so that a replay
    /// never takes new bytes for damage. Once for each place: later overwrites find no sum.
    fn unsum(&self, parts: &[OwnPart]) -> Result<()> {
        let place = |(part, segment, offset): &OwnPart| {
            let range = *offset..offset + (part.end - part.start);
            segment.has_sums(range.clone()).then(|| Effect::Unsum(Arc::clone(segment), range))
        };
        let places: Vec<Effect> = parts.iter().filter_map(place).collect();
        if places.is_empty() {
            return Ok(());
        }
        let mut change = self.begin()?;
        change.effects.extend(places);
        change.commit(Purpose::Shrink)
    }

    /// The places in segments that a range consists of, if all of it is this session's own. Called with the gate held.
    /// Errors: those of what is no file.
    fn exclusive(&self, ino: u64, range: &Range<u64>) -> Result<Option<Vec<OwnPart>>> {
        let state = self.state.read();
        let found = self.found(&state, ino)?;
        found.check_file()?;
        let Source::Changed(inode) = &found.source else { return Ok(None) };
        let Body::File(file) = &inode.body else { return Ok(None) };
        if range.end > inode.attrs.size {
            return Ok(None);
        }
        let own = |(part, origin): (Range<u64>, Origin)| match origin {
            Origin::Segment { segment, offset, epoch }
                if epoch == state.epoch && segment.is_whole(offset + (part.end - part.start)) =>
            {
                Some((part, segment, offset))
            }
            _ => None,
        };
        Ok(file.origins(range.clone()).map(own).collect())
    }

    /// Writes to ranges of a segment that nobody else refers to, then records that they are the file's. The caller has looked
    /// whether it is a file, before space is spent.
    fn write_new(&self, by: Writer, ino: u64, range: &Range<u64>, data: &[u8]) -> Result<()> {
        let durability = &self.shared.durability;
        let reserved = self.cursor.lock().reserve(&durability.pool, range.start, data.len() as u64)?;
        let (mut at, mut sums) = (0, Vec::with_capacity(reserved.len()));
        for piece in &reserved {
            let bytes = &data[at..at + piece.len as usize];
            piece.segment.write(bytes, piece.offset)?;
            sums.push(Sum::of(bytes, piece.offset));
            at += bytes.len();
        }
        let now = self.shared.clock.now();
        let mut change = self.begin()?;
        let found = change.found(ino)?;
        change.adopt(&found)?;
        let mut start = range.start;
        for (piece, sums) in reserved.into_iter().zip(sums) {
            let (segment, offset, len) = (piece.segment, piece.offset, piece.len);
            change.push(Effect::Write { ino, start, len, segment: Arc::clone(&segment), offset });
            change.push(Effect::Sums(segment, sums));
            start += len;
        }
        let (mode, size) = (by.leaves(found.attrs.mode), found.attrs.size.max(range.end));
        let attrs = Attrs { mode, size, mtime: now, ctime: now, ..found.attrs };
        change.edit_xattrs(&found, drop_capabilities)?;
        change.set_attrs(found, attrs);
        change.commit(Purpose::Grow)
    }

    /// fallocate(2). Errors: `FileTooBig`, `IsADirectory`, `NoSpace`.
    pub fn allocate(&self, by: Writer, ino: u64, offset: u64, len: u64, how: Allocate) -> Result<()> {
        let range = offset..end_of(offset, len)?;
        let now = self.shared.clock.now();
        let mut change = self.begin()?;
        let found = change.found(ino)?;
        found.check_file()?;
        let size = found.attrs.size;
        let grows = matches!(how, Allocate::Extend | Allocate::Zero { extend: true });
        let new_size = if grows { size.max(range.end) } else { size };
        let clears = matches!(how, Allocate::Punch | Allocate::Zero { .. });
        let clears = Some(range.start..range.end.min(size)).filter(|r| clears && !r.is_empty());
        change.adopt(&found)?;
        if let Some(range) = clears {
            change.push(Effect::Punch(ino, range));
        }
        let mode = by.leaves(found.attrs.mode);
        let attrs = Attrs { mode, size: new_size, mtime: now, ctime: now, ..found.attrs };
        change.edit_xattrs(&found, drop_capabilities)?;
        change.set_attrs(found, attrs);
        change.commit(if grows { Purpose::Grow } else { Purpose::Shrink })
    }

    /// Copies up to `len` bytes between files, each given with the offset in it, holes as zeros; returns how many: fewer at
    /// the end of the source, or because one call moves at most 4 MiB.
    pub fn copy_range(&self, by: Writer, from: (u64, u64), to: (u64, u64), len: u64) -> Result<u64> {
        let mut buf = vec![0; len.min(COPY_BYTES_MAX) as usize];
        let read = self.read(from.0, from.1, &mut buf)?;
        self.write_as(by, to.0, to.1, &buf[..read])?;
        Ok(read as u64)
    }

    /// The content of a regular file that is in the store as a whole; `None` if some of it is not sealed. Error: `IsADirectory`.
    pub fn sealed_content(&self, ino: u64) -> Result<Option<Blob>> {
        let found = self.found(&self.state.read(), ino)?;
        let file = found.file()?;
        Ok(file.unchanged(found.attrs.size))
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE. Error: `NoData` at or behind the end, or if no data follows.
    pub fn seek(&self, ino: u64, offset: u64, what: Seek) -> Result<u64> {
        let found = self.found(&self.state.read(), ino)?;
        let (file, size) = (found.file()?, found.attrs.size);
        if offset >= size {
            return Err(Error::NoData);
        }
        let store = &self.shared.store;
        let mut at = offset;
        loop {
            match (next_data(store, &file, size, at)?, what) {
                (Some(data), Seek::Data) => return Ok(data.start),
                (None, Seek::Data) => return Err(Error::NoData),
                (Some(data), Seek::Hole) if data.start == at => at = data.end,
                (_, Seek::Hole) => return Ok(at),
            }
        }
    }
}

impl Change<'_> {
    /// The file has this size from now on: cut, or extended by a hole.
    pub(super) fn resize(&mut self, found: &Found, size: u64) -> Result<()> {
        if size > FILE_BYTES_MAX {
            return Err(Error::FileTooBig);
        }
        found.check_file()?;
        if size < found.attrs.size {
            self.push(Effect::Truncate(found.ino, size));
        }
        Ok(())
    }
}

fn end_of(offset: u64, len: u64) -> Result<u64> {
    offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Error::FileTooBig)
}
