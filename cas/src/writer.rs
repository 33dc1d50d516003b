//! Adds objects: gathers them in packs of its own, and shows them to others in one commit.
//!
//! A writer owns its packs while it lives, so what it writes stands in the order it was put. Until `finish` has
//! committed the index nobody can tell that it ever was.

use std::collections::HashMap;

use crate::{
    Digest, Error, ObjectKind, Result, Store,
    gate::Hold,
    index::{Change, PackState},
    pack::{Location, PACKS_DIR},
    pool::Appender,
    record::{OBJECT_BYTES_MAX, PackKind, record_span},
};

/// Appends objects to packs of its own. Dropped without `finish`: what it wrote is cut off again.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    data: Option<Appender>,
    meta: Option<Appender>,
    /// Packs that this writer has filled.
    full: Vec<Appender>,
    new: HashMap<Digest, Location>,
    written: Written,
    _hold: Hold,
}

/// What a writer added (new) and what it found there already (known).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Objects that were added.
    pub new_objects: u64,
    /// Their payloads' bytes.
    pub new_bytes: u64,
    /// Objects that were there before, each time they were put.
    pub known_objects: u64,
    /// Their payloads' bytes.
    pub known_bytes: u64,
}

impl Writer {
    pub(crate) fn new(store: Store) -> Writer {
        let hold = store.hold();
        Writer {
            store,
            data: None,
            meta: None,
            full: Vec::new(),
            new: HashMap::new(),
            written: Written::default(),
            _hold: hold,
        }
    }

    /// Adds an object unless the store (or this writer) has it. `digest` must be that of `bytes`. True if it was new.
    pub fn put_object(&mut self, kind: ObjectKind, digest: Digest, bytes: &[u8]) -> Result<bool> {
        debug_assert_eq!(Digest::of(bytes), digest, "an object goes under its own name");
        if bytes.len() > OBJECT_BYTES_MAX {
            return Err(Error::Malformed { what: "object", reason: "larger than 64 MiB" });
        }
        if self.has(digest)? {
            self.written.known_objects += 1;
            self.written.known_bytes += bytes.len() as u64;
            return Ok(false);
        }
        let batch_bytes = self.store.options().batch_bytes;
        let at = self.room(kind, bytes.len())?.append(kind, digest, bytes, batch_bytes)?;
        self.new.insert(digest, at);
        self.written.new_objects += 1;
        self.written.new_bytes += bytes.len() as u64;
        Ok(true)
    }

    /// Whether the store or this writer has it already.
    pub fn has(&self, digest: Digest) -> Result<bool> {
        Ok(self.new.contains_key(&digest) || self.store.index().locate(digest)?.is_some())
    }

    /// The store this writer adds to. It does not show what this writer has put before `finish`.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What was put so far.
    pub fn written(&self) -> Written {
        self.written
    }

    /// Syncs the packs, then commits the index: from here on everything put is durable and visible.
    pub fn finish(mut self) -> Result<Written> {
        if self.new.is_empty() {
            return Ok(self.written);
        }
        let mut change = Change::default();
        for appender in self.appenders() {
            appender.flush()?;
            let state = PackState { kind: appender.pack.kind, committed: appender.len(), closed: false };
            change.packs.insert(appender.pack.id, Some(state));
        }
        for appender in self.appenders() {
            appender.pack.sync()?;
        }
        if self.appenders().any(|a| a.committed == 0) {
            self.store.sync_packs_dir()?;
        }
        change.added = std::mem::take(&mut self.new).into_iter().collect();
        // In key order redb fills page after page.
        change.added.sort_unstable_by_key(|(digest, _)| *digest);
        if let Err(error) = self.store.index().commit(&change) {
            let store = self.store.clone();
            store.settle(self.appenders(), &change);
            return Err(error);
        }
        for appender in self.appenders() {
            appender.committed = appender.len();
        }
        Ok(self.written)
    }

    /// The appender that the next object of this kind goes to.
    fn room(&mut self, kind: ObjectKind, len: usize) -> Result<&mut Appender> {
        let span = record_span(kind, len as u32);
        let kind = PackKind::of(kind);
        let slot = match kind {
            PackKind::Data => &mut self.data,
            PackKind::Meta => &mut self.meta,
        };
        let max = self.store.options().pack_bytes_max;
        // An object that is larger than a whole pack may be goes into one alone.
        if let Some(mut full) = slot.take_if(|a| !a.is_empty() && a.len() + span > max) {
            full.flush()?;
            full.release_buffer();
            self.full.push(full);
        }
        match slot {
            Some(appender) => Ok(appender),
            None => {
                let mut appender = self.store.take_pack(kind)?;
                if !appender.is_empty() && appender.len() + span > max {
                    // Room for others, not for this one: it goes back when this writer ends.
                    self.full.push(appender);
                    appender = self.store.create_pack(kind)?;
                }
                Ok(slot.insert(appender))
            }
        }
    }

    fn appenders(&mut self) -> impl Iterator<Item = &mut Appender> {
        self.data.iter_mut().chain(&mut self.meta).chain(&mut self.full)
    }
}

impl Drop for Writer {
    /// Cuts off what is not committed, and lets other writers have the packs.
    fn drop(&mut self) {
        let store = self.store.clone();
        let mut removed = false;
        for appender in self.appenders() {
            match store.give_back(appender) {
                Ok(gone) => removed |= gone,
                Err(error) => tracing::warn!(
                    pack = ?appender.pack.display(),
                    %error,
                    "an unfinished pack cannot be cut; the next start will do it"
                ),
            }
        }
        if removed && let Err(error) = store.sync_packs_dir() {
            tracing::warn!(directory = PACKS_DIR, %error, "removals are not durable yet");
        }
    }
}
