//! Splits a file into holes and chunks. The same bytes are always split at the same places, whatever the source says of
//! holes and whatever the base already has; memory is bounded by a few chunks.
//!
//! A block of 64 KiB that is all zeros is a hole. The runs of data between holes are cut by FastCDC, each by itself.

use std::{collections::VecDeque, io, ops::Range, sync::LazyLock};

use fastcdc::v2020::{Normalization, cut, select_masks};

use super::{
    CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN, HOLE_UNIT, Source,
    base::{Base, Block},
};
use crate::{Digest, Error, Result};

/// How much is read before the first try to find a cut: most chunks end before this, and what is read in vain costs.
const CUT_TRY: usize = 2 * CHUNK_AVERAGE;
/// Consumed bytes that the buffer holds before it moves the rest to its front.
const CONSUMED_MAX: usize = 2 * CHUNK_MAX;

/// Part of a file, in order, without gaps.
pub(crate) enum Piece<'a> {
    /// Zeros.
    Hole,
    /// A chunk of the base, which the sink has accepted.
    Known(Digest),
    /// A chunk.
    Data(&'a [u8]),
}

/// Where pieces go.
pub(crate) trait Sink {
    /// Takes the piece that ends at `end`.
    fn put(&mut self, end: u64, piece: Piece<'_>) -> Result<()>;
    /// Whether a chunk of the base is still there to be referred to.
    fn has(&mut self, chunk: Digest) -> Result<bool>;
}

/// Splits the `size` bytes of `source`.
pub(super) fn split(
    size: u64,
    source: &dyn Source,
    base: Option<Base<'_>>,
    sink: &mut dyn Sink,
) -> Result<()> {
    let blocks = Blocks { size, source, base, hint: None, hole: None, read: VecDeque::new() };
    Splitter { blocks, pos: 0, data_end: 0, run_ended: false, buffer: Vec::new(), consumed: 0 }.run(sink)
}

/// Bytes that are all zeros. Written so that it compiles to vector code.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(512).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

/// An error of the source, which knows no path; callers that know one put it in.
pub(crate) fn unreadable(source: io::Error) -> Error {
    Error::Unreadable { path: "the file being stored".into(), source }
}

struct Splitter<'a> {
    blocks: Blocks<'a>,
    /// Everything before this has gone to the sink.
    pos: u64,
    /// From `pos` to here there is no hole.
    data_end: u64,
    /// At `data_end` a hole begins, or the file ends.
    run_ended: bool,
    /// The file's bytes from `pos` on, behind `consumed` older ones.
    buffer: Vec<u8>,
    consumed: usize,
}

impl Splitter<'_> {
    fn run(mut self, sink: &mut dyn Sink) -> Result<()> {
        while self.pos < self.blocks.size {
            let hole_end = self.hole_end()?;
            if hole_end > self.pos {
                sink.put(hole_end, Piece::Hole)?;
                self.advance(hole_end);
            }
            (self.data_end, self.run_ended) = (self.pos, self.pos == self.blocks.size);
            while !self.at_run_end()? {
                self.put_chunk(sink)?;
            }
        }
        Ok(())
    }

    fn put_chunk(&mut self, sink: &mut dyn Sink) -> Result<()> {
        if let Some((end, chunk)) = self.unchanged_chunk()?
            && sink.has(chunk)?
        {
            sink.put(end, Piece::Known(chunk))?;
            self.advance(end);
            return Ok(());
        }
        let len = self.next_cut()?;
        let end = self.pos + len as u64;
        sink.put(end, Piece::Data(&self.buffer[self.consumed..self.consumed + len]))?;
        self.advance(end);
        Ok(())
    }

    /// The base's chunk at `pos`, if cutting the new file would give it again.
    fn unchanged_chunk(&mut self) -> Result<Option<(u64, Digest)>> {
        let Some(base) = &self.blocks.base else { return Ok(None) };
        let Some(known) = base.chunk_at(self.pos)? else { return Ok(None) };
        self.find_data(known.end.saturating_add(2))?;
        let run_ends_with_it = self.run_ended && self.data_end == known.end;
        let same = run_ends_with_it
            || known.cut_by_length && self.data_end >= known.end
            || known.cut_by_content && self.data_end >= known.end + 2;
        Ok(same.then_some((known.end, known.chunk)))
    }

    /// Bytes from `pos` to the next cut.
    fn next_cut(&mut self) -> Result<usize> {
        for want in [CUT_TRY, CHUNK_MAX] {
            self.fill(want)?;
            let window = &self.buffer[self.consumed..];
            let window = &window[..window.len().min(CHUNK_MAX)];
            let len = cut_len(window);
            // A cut before the window's end stays one in any longer window.
            if len < window.len() || window.len() < want {
                return Ok(len);
            }
        }
        Ok(CHUNK_MAX)
    }

    /// Reads on until `want` bytes from `pos` are in the buffer, or all of the run.
    fn fill(&mut self, want: usize) -> Result<()> {
        if self.consumed > CONSUMED_MAX {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        loop {
            let have = self.buffer.len() - self.consumed;
            let offset = self.pos + have as u64;
            if have >= want {
                return Ok(());
            }
            self.find_data(offset + 1)?;
            if offset == self.data_end {
                return Ok(());
            }
            self.blocks.append(offset, &mut self.buffer)?;
        }
    }

    /// Moves `data_end` to `to` or beyond, or to the end of the run.
    fn find_data(&mut self, to: u64) -> Result<()> {
        while !self.run_ended && self.data_end < to {
            if self.blocks.hole_until(self.data_end)? > self.data_end {
                self.run_ended = true;
            } else {
                self.data_end = self.blocks.block(self.data_end).end;
                self.run_ended = self.data_end == self.blocks.size;
            }
        }
        Ok(())
    }

    fn at_run_end(&mut self) -> Result<bool> {
        self.find_data(self.pos.saturating_add(1))?;
        Ok(self.pos == self.data_end)
    }

    /// Where the hole at `pos` ends; `pos` if there is none.
    fn hole_end(&mut self) -> Result<u64> {
        let mut end = self.pos;
        while end < self.blocks.size {
            let next = self.blocks.hole_until(end)?;
            if next == end {
                break;
            }
            end = next;
        }
        Ok(end)
    }

    fn advance(&mut self, to: u64) {
        let step = usize::try_from(to - self.pos).unwrap_or(usize::MAX);
        self.consumed = self.consumed.saturating_add(step).min(self.buffer.len());
        self.pos = to;
        self.blocks.forget_before(to);
    }
}

/// The file as blocks of the hole unit: which are holes, and the bytes of the others.
struct Blocks<'a> {
    size: u64,
    source: &'a dyn Source,
    base: Option<Base<'a>>,
    /// The source's last answer: from the first offset on, the next data is there.
    hint: Option<(u64, Range<u64>)>,
    /// The last hole that was found: where it was looked for, and where it ends.
    hole: Option<(u64, u64)>,
    /// Blocks that were read to see whether they are holes, and are not yet in the buffer.
    read: VecDeque<(u64, Vec<u8>)>,
}

impl Blocks<'_> {
    /// The block that holds `offset`.
    fn block(&self, offset: u64) -> Range<u64> {
        let start = offset - offset % HOLE_UNIT;
        start..start.saturating_add(HOLE_UNIT).min(self.size)
    }

    /// If the block that begins at `start` is a hole, how far it is known to go on; else `start`.
    fn hole_until(&mut self, start: u64) -> Result<u64> {
        if let Some((at, until)) = self.hole
            && at == start
        {
            return Ok(until);
        }
        let until = self.look(start)?;
        if until > start {
            self.hole = Some((start, until));
        }
        Ok(until)
    }

    fn look(&mut self, start: u64) -> Result<u64> {
        if self.read.iter().any(|(at, _)| *at == start) {
            return Ok(start);
        }
        let block = self.block(start);
        let known = self.base.as_ref().map_or(Ok(Block::Unknown), |base| base.block(&block))?;
        match known {
            Block::Data => return Ok(start),
            Block::HoleUntil(until) => return Ok(self.whole_blocks(until)),
            Block::Unknown => {}
        }
        let data_start = self.next_data(start)?;
        if data_start >= block.end {
            return Ok(self.whole_blocks(data_start));
        }
        let mut bytes = vec![0; (block.end - block.start) as usize];
        self.source.read_at(&mut bytes, start).map_err(unreadable)?;
        if is_zero(&bytes) {
            return Ok(block.end);
        }
        self.read.push_back((start, bytes));
        Ok(start)
    }

    /// `offset` without the part of a block before it, unless that is the end of the file.
    fn whole_blocks(&self, offset: u64) -> u64 {
        if offset >= self.size { self.size } else { offset - offset % HOLE_UNIT }
    }

    /// Where the source says that data begins, at `offset` or behind it.
    fn next_data(&mut self, offset: u64) -> Result<u64> {
        if let Some((from, range)) = &self.hint
            && (*from..range.end).contains(&offset)
        {
            return Ok(range.start.max(offset));
        }
        let range = self.source.next_data(offset).map_err(unreadable)?;
        let range = range.filter(|range| range.start < range.end).unwrap_or(self.size..u64::MAX);
        let start = range.start.max(offset);
        self.hint = Some((offset, range));
        Ok(start)
    }

    /// Appends the bytes from `offset` to the end of its block, which is data.
    fn append(&mut self, offset: u64, buffer: &mut Vec<u8>) -> Result<()> {
        let block = self.block(offset);
        if let Some((start, bytes)) = self.read.iter().find(|(start, _)| *start == block.start) {
            buffer.extend_from_slice(&bytes[(offset - start) as usize..]);
            return Ok(());
        }
        let old = buffer.len();
        buffer.resize(old + (block.end - offset) as usize, 0);
        self.source.read_at(&mut buffer[old..], offset).map_err(unreadable)
    }

    fn forget_before(&mut self, offset: u64) {
        while self.read.front().is_some_and(|(start, bytes)| start + bytes.len() as u64 <= offset) {
            self.read.pop_front();
        }
    }
}

/// Where FastCDC cuts `window`, which is the rest of a run or [`CHUNK_MAX`] bytes of it.
fn cut_len(window: &[u8]) -> usize {
    static MASKS: LazyLock<(u64, u64)> = LazyLock::new(|| select_masks(CHUNK_AVERAGE, Normalization::Level1));
    let (short, long) = *MASKS;
    cut(window, CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX, short, long, short << 1, long << 1).1
}
