//! Maps file ranges to data. Pure: no locks, no clock, and no I/O but through the sources it names.
//!
//! A file is its base blob, as far as that is still visible, under extents that cover ranges of it. Most changed files
//! have one extent, a database may have a hundred thousand: short lists are a vector, long ones a persistent map.

use std::{ops::Range, sync::Arc};

use cas::Content;
use imbl::OrdMap;

use super::segment::Segment;

/// Beyond this many extents the list becomes a persistent map: copying a vector of them costs as much as one map node.
const FEW_MAX: usize = 24;

/// A range of a file that does not come from the base.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Bytes, at least 1.
    pub len: u64,
    /// Where they are.
    pub data: Data,
}

/// Where the bytes of an extent are.
#[derive(Clone, Debug)]
pub enum Data {
    /// Nowhere: they read as zeros, whatever the base has there.
    Hole,
    /// In a segment.
    Segment {
        /// Which one.
        segment: Arc<Segment>,
        /// The first byte there.
        offset: u64,
        /// The session's epoch when it was written. A fork or a seal begins a new one, so only an extent of the present
        /// epoch is known to this session alone.
        epoch: u64,
    },
}

impl Extent {
    /// The part of it from `skip` on, `len` bytes.
    fn slice(&self, skip: u64, len: u64) -> Extent {
        let data = match &self.data {
            Data::Hole => Data::Hole,
            Data::Segment { segment, offset, epoch } => {
                Data::Segment { segment: Arc::clone(segment), offset: offset + skip, epoch: *epoch }
            }
        };
        Extent { len, data }
    }

    /// Whether `next` goes on where this one ends, in the same epoch.
    fn continues(&self, next: &Extent) -> bool {
        match (&self.data, &next.data) {
            (Data::Hole, Data::Hole) => true,
            (
                Data::Segment { segment: a, offset: at, epoch: e },
                Data::Segment { segment: b, offset: bt, epoch: f },
            ) => e == f && Arc::ptr_eq(a, b) && at + self.len == *bt,
            _ => false,
        }
    }
}

/// Disjoint extents by their first byte.
#[derive(Clone, Debug)]
pub enum Extents {
    /// Sorted by offset.
    Few(Vec<(u64, Extent)>),
    /// More than [`FEW_MAX`] at some time.
    Many(OrdMap<u64, Extent>),
}

impl Default for Extents {
    fn default() -> Extents {
        Extents::Few(Vec::new())
    }
}

impl Extents {
    /// Puts `extent` at `start`, over whatever is there.
    pub fn insert(&mut self, start: u64, extent: Extent) {
        let end = start + extent.len;
        self.clear(start..end);
        let (mut start, mut extent) = (start, extent);
        if let Some((at, before)) = self.last_before(start)
            && at + before.len == start
            && before.continues(&extent)
        {
            extent = Extent { len: before.len + extent.len, data: before.data.clone() };
            start = at;
        }
        if let Some((at, after)) = self.first_from(end)
            && at == end
            && extent.continues(after)
        {
            extent.len += after.len;
            self.remove(end);
        }
        self.put(start, extent);
    }

    /// Removes what covers `range`, cutting extents that reach over its ends.
    pub fn clear(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((at, before)) = self.last_before(range.start)
            && at + before.len > range.start
        {
            let (before, end) = (before.clone(), at + before.len);
            self.put(at, before.slice(0, range.start - at));
            if end > range.end {
                self.put(range.end, before.slice(range.end - at, end - range.end));
                return;
            }
        }
        while let Some((at, extent)) = self.first_from(range.start).filter(|(at, _)| *at < range.end) {
            let (extent, end) = (extent.clone(), at + extent.len);
            self.remove(at);
            if end > range.end {
                self.put(range.end, extent.slice(range.end - at, end - range.end));
                return;
            }
        }
    }

    /// The extents that touch `range`, in order, cut to it.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Extent)> + '_ {
        // An empty range touches nothing, though it may lie in the middle of an extent.
        let range = if range.is_empty() { 0..0 } else { range };
        let first = self.last_before(range.start).filter(|(at, e)| at + e.len > range.start);
        let mut next = first.or_else(|| self.first_from(range.start));
        std::iter::from_fn(move || {
            let (at, extent) = next.filter(|(at, _)| *at < range.end)?;
            next = self.first_from(at + extent.len);
            let (from, to) = (at.max(range.start), (at + extent.len).min(range.end));
            Some((from, extent.slice(from - at, to - from)))
        })
    }

    /// All of them, whole, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Extent)> + '_ {
        self.within(0..u64::MAX)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Extents::Few(few) => few.len(),
            Extents::Many(many) => many.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last extent that begins before `offset`.
    fn last_before(&self, offset: u64) -> Option<(u64, &Extent)> {
        match self {
            Extents::Few(few) => {
                let i = few.partition_point(|(at, _)| *at < offset);
                i.checked_sub(1).map(|i| (few[i].0, &few[i].1))
            }
            Extents::Many(many) => {
                offset.checked_sub(1).and_then(|o| many.get_prev(&o)).map(|(at, e)| (*at, e))
            }
        }
    }

    /// The first extent that begins at `offset` or behind it.
    fn first_from(&self, offset: u64) -> Option<(u64, &Extent)> {
        match self {
            Extents::Few(few) => {
                let i = few.partition_point(|(at, _)| *at < offset);
                few.get(i).map(|(at, e)| (*at, e))
            }
            Extents::Many(many) => many.get_next(&offset).map(|(at, e)| (*at, e)),
        }
    }

    fn put(&mut self, start: u64, extent: Extent) {
        match self {
            Extents::Few(few) => {
                let i = few.partition_point(|(at, _)| *at < start);
                if few.get(i).is_some_and(|(at, _)| *at == start) {
                    few[i].1 = extent;
                } else if few.len() < FEW_MAX {
                    few.insert(i, (start, extent));
                } else {
                    let mut many: OrdMap<u64, Extent> = few.drain(..).collect();
                    many.insert(start, extent);
                    *self = Extents::Many(many);
                }
            }
            Extents::Many(many) => {
                many.insert(start, extent);
            }
        }
    }

    fn remove(&mut self, start: u64) {
        match self {
            Extents::Few(few) => few.retain(|(at, _)| *at != start),
            Extents::Many(many) => {
                many.remove(&start);
            }
        }
    }
}

/// The blob that a changed file grew out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Where its bytes are.
    pub content: Content,
    /// Its size in bytes.
    pub size: u64,
}

/// A regular file's bytes. The size is in the inode's attributes.
#[derive(Clone, Debug, Default)]
pub struct FileBody {
    /// What lies under the extents.
    pub base: Option<Blob>,
    /// Bytes of the base, from the front, that were never cut off by a truncation.
    pub base_visible: u64,
    /// What was written or punched since.
    pub extents: Extents,
}

/// Where a range of a file comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Zeros that take no space.
    Hole,
    /// The base blob, at the same offset.
    Base,
    /// A segment, from this offset.
    Segment {
        /// Which one.
        segment: Arc<Segment>,
        /// The first byte there.
        offset: u64,
        /// See [`Data::Segment`].
        epoch: u64,
    },
}

impl From<Data> for Origin {
    fn from(data: Data) -> Origin {
        match data {
            Data::Hole => Origin::Hole,
            Data::Segment { segment, offset, epoch } => Origin::Segment { segment, offset, epoch },
        }
    }
}

impl Origin {
    /// Where the part behind the first `len` bytes comes from.
    pub fn skip(&self, len: u64) -> Origin {
        match self {
            Origin::Segment { segment, offset, epoch } => {
                Origin::Segment { segment: Arc::clone(segment), offset: offset + len, epoch: *epoch }
            }
            other => other.clone(),
        }
    }
}

impl FileBody {
    /// The body of a file of the base.
    pub fn of_base(blob: Blob) -> FileBody {
        FileBody { base: Some(blob), base_visible: blob.size, extents: Extents::default() }
    }

    /// The blob that this is, byte for byte, if the file has this size.
    pub fn unchanged(&self, size: u64) -> Option<Blob> {
        self.base.filter(|blob| blob.size == size && self.base_visible == size && self.extents.is_empty())
    }

    /// Cuts everything from `size` on.
    pub fn truncate(&mut self, size: u64) {
        self.base_visible = self.base_visible.min(size);
        self.extents.clear(size..u64::MAX);
    }

    /// Makes `range` a hole.
    pub fn punch(&mut self, range: Range<u64>) {
        self.extents.clear(range.clone());
        let covered = range.start..range.end.min(self.base_visible);
        if !covered.is_empty() {
            self.extents.insert(covered.start, Extent { len: covered.end - covered.start, data: Data::Hole });
        }
    }

    /// Says where each part of `range` comes from, in order and without gaps.
    pub fn origins(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Origin)> + '_ {
        let mut extents = self.extents.within(range.clone()).peekable();
        let mut at = range.start;
        std::iter::from_fn(move || {
            let start = at;
            let (end, origin) = match extents.next_if(|(next, _)| *next == start) {
                Some((_, extent)) => (start + extent.len, extent.data.into()),
                None => self.under(start, extents.peek().map_or(range.end, |(next, _)| *next)),
            };
            at = end;
            (start < end).then_some((start..end, origin))
        })
    }

    /// How far it goes, and where it comes from, what no extent covers: the base as far as it is visible, then nothing.
    fn under(&self, start: u64, end: u64) -> (u64, Origin) {
        if start < self.base_visible {
            (end.min(self.base_visible), Origin::Base)
        } else {
            (end, Origin::Hole)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a byte of the file is: 0 a hole, 1 the base, else the number of the write that put it there.
    fn picture(body: &FileBody, size: u64) -> Vec<u64> {
        let mut bytes = Vec::new();
        for (range, origin) in body.origins(0..size) {
            assert_eq!(range.start, bytes.len() as u64, "no gap, no overlap");
            for i in 0..range.end - range.start {
                bytes.push(match &origin {
                    Origin::Hole => 0,
                    Origin::Base => 1,
                    Origin::Segment { offset, .. } => offset + i,
                });
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn extents_paint_like_a_plain_array(
            base in 0u64..300,
            steps in prop::collection::vec((0u8..4, 0u64..400, 1u64..80), 0..120),
        ) {
            let pool = Arc::new(Segment::detached());
            let mut body = FileBody { base_visible: base, ..FileBody::default() };
            let mut want = vec![0u64; 512];
            want[..base as usize].fill(1);
            let mut next = 1000;
            for (what, at, len) in steps {
                let range = at as usize..(at + len) as usize;
                match what {
                    0 | 1 => {
                        let data = Data::Segment { segment: Arc::clone(&pool), offset: next, epoch: 0 };
                        body.extents.insert(at, Extent { len, data });
                        for (i, b) in want[range].iter_mut().enumerate() { *b = next + i as u64; }
                        next += len + (what as u64) * 7;
                    }
                    2 => { body.punch(at..at + len); want[range].fill(0); }
                    _ => { body.truncate(at); want[at as usize..].fill(0); }
                }
                prop_assert_eq!(picture(&body, 512), want.clone());
            }
        }
    }
}
