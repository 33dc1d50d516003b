//! Brings contents of files here before anybody reads them: many at a time, so that nobody waits for one request after the other.

use std::ops::Range;

use super::fetch::Ticket;
use crate::{Content, Digest, Error, ObjectKind, Result, Store, blob::List};

/// Chunks that are asked for together, and about their bytes: enough for small files to lie side by side in a pack, and for each thread that fetches to
/// have some requests of large ones; few enough that what was named first comes first, and that nobody waits for long.
const TOGETHER_MAX: usize = 1024;
const TOGETHER_BYTES: u64 = 32 << 20;

/// What came, or was here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Chunks that were here.
    pub here: u64,
    /// Chunks that were fetched.
    pub fetched: u64,
}

/// Has contents fetched, about in the order that it is told of them.
#[derive(Debug)]
pub struct Bring {
    store: Store,
    /// Not asked for yet, and their bytes.
    named: Vec<Digest>,
    named_bytes: u64,
    /// Of the last time that was asked.
    under_way: Vec<Ticket>,
    brought: Brought,
}

impl Bring {
    /// Of what the remote store of this one has.
    pub fn new(store: &Store) -> Bring {
        let (named, under_way) = (Vec::new(), Vec::new());
        Bring { store: store.fetching(), named, named_bytes: 0, under_way, brought: Brought::default() }
    }

    /// Has what is in a range of a content fetched, in whole chunks. May wait for what it was told of before. Errors: what the remote store says.
    pub fn range(&mut self, content: &Content, range: Range<u64>) -> Result<()> {
        match content {
            Content::Empty => Ok(()),
            Content::Chunk(digest) => self.chunk(*digest, range.end - range.start),
            Content::List(digest) => {
                let object = self.store.chunk_list(*digest)?;
                for extent in List::open(&object)?.extents_from(range.start) {
                    let extent = extent?;
                    if extent.range.start >= range.end {
                        break;
                    }
                    if let Some(chunk) = extent.chunk {
                        self.chunk(chunk, extent.range.end - extent.range.start)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Waits for all that is under way. Returns what came.
    pub fn finish(mut self) -> Result<Brought> {
        self.ask()?;
        wait(self.under_way)?;
        // Directories on the way here were read one after the other, as a reader does.
        self.store.forget_readers();
        Ok(self.brought)
    }

    fn chunk(&mut self, digest: Digest, bytes: u64) -> Result<()> {
        if self.store.is_here(ObjectKind::Chunk, digest)? {
            self.brought.here += 1;
            return Ok(());
        }
        self.brought.fetched += 1;
        self.named.push(digest);
        self.named_bytes += bytes;
        let is_enough = self.named.len() == TOGETHER_MAX || self.named_bytes >= TOGETHER_BYTES;
        if is_enough { self.ask() } else { Ok(()) }
    }

    /// While this comes, the next ones are named.
    fn ask(&mut self) -> Result<()> {
        let Some(&first) = self.named.first() else { return Ok(()) };
        let tickets = self.store.fetch_together(ObjectKind::Chunk, &self.named);
        let before = std::mem::replace(&mut self.under_way, tickets.ok_or(Error::Missing(first))?);
        (self.named_bytes, self.named) = (0, Vec::new());
        wait(before)
    }
}

fn wait(tickets: Vec<Ticket>) -> Result<()> {
    tickets.into_iter().try_for_each(|ticket| ticket.wait().map_err(Error::of_fetch))
}
