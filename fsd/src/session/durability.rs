//! Group commit: one sync serves everybody who waits. Segments first, then the log, then the files that the log let go of.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;

use super::{Error, Result, log::Log, segment::Pool};

/// The log and the segments it refers to.
#[derive(Debug)]
pub struct Durability {
    /// The log.
    pub log: Log,
    /// The segments.
    pub pool: Arc<Pool>,
    /// Overwrites that failed: no record tells of them, and what they did is seen.
    spills: AtomicU64,
    /// So many of them are durable.
    spills_synced: AtomicU64,
    /// A sync failed. Linux tells of a lost write once and then calls the pages clean, so no later sync can be believed.
    failed: AtomicBool,
    /// Held by the one sync that is under way. Nothing else is locked around it.
    turn: Mutex<()>,
}

impl Durability {
    /// Joins the two.
    pub fn new(log: Log, pool: Arc<Pool>) -> Durability {
        Durability {
            log,
            pool,
            spills: AtomicU64::new(0),
            spills_synced: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            turn: Mutex::new(()),
        }
    }

    /// An overwrite in place failed, and may have left bytes: the next sync covers them although there is nothing to record.
    pub fn spilt(&self) {
        self.spills.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns when everything that was recorded before the call survives power loss.
    pub fn sync(&self) -> Result<()> {
        let (position, spills) = (self.log.position(), self.spills.load(Ordering::Acquire));
        let is_durable =
            || self.log.synced() >= position && self.spills_synced.load(Ordering::Acquire) >= spills;
        if is_durable() {
            return Ok(());
        }
        let _turn = self.turn.lock();
        // Whoever had the turn before may have done this one's work.
        if is_durable() {
            return Ok(());
        }
        self.sync_now()
    }

    /// Syncs if anything changed, or a replay might find a record that was refused, and removes the files of segments that
    /// the synced log no longer needs.
    pub fn settle(&self) -> Result<()> {
        let _turn = self.turn.lock();
        let is_behind = self.log.synced() < self.log.position()
            || self.log.is_spoilt()
            || self.spills_synced.load(Ordering::Acquire) < self.spills.load(Ordering::Acquire);
        let is_due = is_behind || self.pool.counts().1 > 0;
        let synced = if is_due { self.sync_now() } else { Ok(()) };
        // Room is one thing, a sync that failed another.
        if self.log.is_low() {
            self.log.refill();
        }
        synced
    }

    fn sync_now(&self) -> Result<()> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(Error::SyncFailed);
        }
        // Taken before the log is synced: the records that let go of these segments are in it already.
        let dead = self.pool.dead();
        // What is recorded from here on may name bytes that this sync misses.
        let (covered, spills) = (self.log.position(), self.spills.load(Ordering::Acquire));
        if let Err(error) = self.pool.sync().and_then(|()| self.log.sync(covered)) {
            self.pool.defer(dead);
            // A full disk refuses the mark before anything is synced: that can be tried again.
            if !matches!(error, Error::NoSpace) {
                self.failed.store(true, Ordering::Relaxed);
            }
            return Err(error);
        }
        self.spills_synced.fetch_max(spills, Ordering::AcqRel);
        self.pool.bury(&dead)?;
        Ok(())
    }
}
