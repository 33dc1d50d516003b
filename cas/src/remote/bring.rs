//! Brings contents of files here before anybody reads them: many at a time, so that nobody waits for one request after the other.

use std::collections::VecDeque;

use super::fetch::Ticket;
use crate::{Content, Digest, Error, ObjectKind, Result, Store, blob::List};

/// Objects that are waited for at a time: a few frames for each thread that fetches, and not so many that others wait for long.
const UNDER_WAY_MAX: usize = 128;

/// What came, or was here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Chunks that were here.
    pub here: u64,
    /// Chunks that were fetched.
    pub fetched: u64,
}

/// Has contents fetched, in the order that it is told of them.
#[derive(Debug)]
pub struct Bring {
    store: Store,
    under_way: VecDeque<Ticket>,
    brought: Brought,
}

impl Bring {
    /// Of what the remote store of this one has.
    pub fn new(store: &Store) -> Bring {
        Bring { store: store.fetching(), under_way: VecDeque::new(), brought: Brought::default() }
    }

    /// Has a content fetched. Waits if many are under way. Errors: what the remote store says.
    pub fn content(&mut self, content: &Content) -> Result<()> {
        match content {
            Content::Empty => Ok(()),
            Content::Chunk(digest) => self.chunk(*digest),
            Content::List(digest) => {
                let object = self.store.chunk_list(*digest)?;
                for extent in List::open(&object)?.extents_from(0) {
                    if let Some(chunk) = extent?.chunk {
                        self.chunk(chunk)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Waits for all that is under way. Returns what came.
    pub fn finish(mut self) -> Result<Brought> {
        while let Some(ticket) = self.under_way.pop_front() {
            ticket.wait().map_err(Error::of_fetch)?;
        }
        Ok(self.brought)
    }

    fn chunk(&mut self, digest: Digest) -> Result<()> {
        if self.store.is_here(digest)? {
            self.brought.here += 1;
            return Ok(());
        }
        let ticket = self.store.fetch(ObjectKind::Chunk, digest).ok_or(Error::Missing(digest))?;
        self.brought.fetched += 1;
        self.under_way.push_back(ticket);
        if self.under_way.len() > UNDER_WAY_MAX
            && let Some(first) = self.under_way.pop_front()
        {
            first.wait().map_err(Error::of_fetch)?;
        }
        Ok(())
    }
}
