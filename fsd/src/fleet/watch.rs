//! Signs of life. A host that holds sessions writes one every few seconds; a host is dead for who has seen its sign unchanged for long enough, by
//! its own clock. That only decides when somebody tries to take a session: who has it is in its head.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use super::{Fleet, FleetError, Result, heads::Head, ledger::Entry, stays};

/// How long is long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between signs of life of this host.
    pub beat: Duration,
    /// Without one another host is dead. Several times `beat`.
    pub dead: Duration,
}

/// Three signs of life are missed before a host is dead.
const BEATS_MISSED: u32 = 3;
const DEAD_SECS: u32 = 30;

impl Patience {
    /// A host is dead after so many seconds.
    pub fn of_secs(dead: u32) -> Patience {
        let dead = Duration::from_secs(dead.into());
        Patience { beat: dead / BEATS_MISSED, dead }
    }
}

impl Default for Patience {
    fn default() -> Patience {
        Patience::of_secs(DEAD_SECS)
    }
}

/// Who waits for a sign of life looks so often.
const LOOKS: u32 = 10;

impl Fleet {
    /// Whether a session may be taken from whoever holds it. Waits for a sign of life of a host from which it is to be taken over.
    pub(super) fn may_take(&self, head: &Head, take_over: bool) -> Result<()> {
        let (session, Some(holder)) = (head.session, head.holder) else { return Ok(()) };
        if holder == self.host() {
            // It held it in a state that is gone.
            return Ok(());
        }
        if !take_over {
            return Err(FleetError::Held { session, holder, root: head.root });
        }
        let first = self.heads.last_beat(holder).map_err(FleetError::Heads)?;
        for _ in 0..LOOKS {
            thread::sleep(self.patience.dead / LOOKS);
            if self.heads.last_beat(holder).map_err(FleetError::Heads)? != first {
                return Err(FleetError::Alive { session, holder });
            }
        }
        Ok(())
    }

    /// Gives a sign of life, if it is time and this host holds something. Again and again, from a thread of its own: nothing may hold it up.
    pub fn beat(&self) {
        let clock = self.engine.clock();
        let now = (clock.monotonic_us(), clock.now().secs);
        let last = *self.last_beat.lock();
        // The monotonic clock stands still while a machine sleeps; the other one may be set.
        let since = last.map(|last| {
            let elapsed = Duration::from_micros(now.0.saturating_sub(last.0));
            elapsed.max(Duration::from_secs(now.1.saturating_sub(last.1).unsigned_abs()))
        });
        // Whoever is at it holds it.
        let holds = |entry: Arc<Mutex<Entry>>| {
            entry.try_lock().is_none_or(|entry| !entry.is_empty() && stays(&entry, self.host()))
        };
        if since.is_some_and(|since| since < self.patience.beat)
            || !self.known().into_iter().any(|(_, entry)| holds(entry))
        {
            return;
        }
        // A value that this host never gave before, in an earlier life either.
        let beat = (now.1.unsigned_abs() << 20) | (self.beats.fetch_add(1, Relaxed) & 0xf_ffff);
        match self.heads.beat(self.host(), beat) {
            Ok(()) => {
                *self.last_beat.lock() = Some(now);
                if since.is_none_or(|since| since >= self.patience.dead / 2) {
                    self.slept.store(true, Relaxed);
                }
            }
            Err(error) => tracing::debug!(%error, "no sign of life"),
        }
    }

    /// How long [`Fleet::beat`] and [`Fleet::tick`] may be let wait.
    pub fn pause(&self) -> Duration {
        self.patience.beat
    }
}
