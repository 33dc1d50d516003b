//! What the engine does of its own accord, every second or so: sync, seal what is quiet or holds up the log, trim that.

use std::sync::atomic::Ordering;

use super::Engine;
use crate::session::{Result, live::Session};

impl Engine {
    /// Makes everything recorded so far durable, and removes dead segments. To be called every second or so, from a thread of
    /// its own: it bounds what power loss can take, so nothing slow may hold it up. Failures are logged and tried again.
    pub fn settle(&self) {
        if let Err(error) = self.shared.durability.settle() {
            tracing::error!(%error, "cannot sync; changes since the last sync would not survive power loss");
        }
    }

    /// Seals sessions that are quiet or hold up the log, and trims the log. To be called every second or so. Failures are
    /// logged and tried again.
    pub fn tidy(&self) {
        let log = &self.shared.durability.log;
        let crowded = log.position() - log.start() > self.shared.limits.log_bytes_max;
        let old = log.position().saturating_sub(self.shared.limits.log_bytes_max / 2);
        let now = self.shared.clock.monotonic_us();
        for session in self.sessions() {
            let quiet_us = now.saturating_sub(session.changed_us.load(Ordering::Relaxed));
            let holds_log = crowded && session.anchor.load(Ordering::Acquire) < old;
            let idle = quiet_us > self.shared.limits.idle_us && session.has_changes();
            if holds_log || idle {
                self.relieve(&session, holds_log);
            }
        }
        if let Err(error) = self.trim() {
            tracing::warn!(%error, "cannot trim the log");
        }
        self.forget_hanging();
    }

    /// Seals, or at least writes an anchor if the log is to be trimmed.
    fn relieve(&self, session: &Session, holds_log: bool) {
        let Err(error) = self.seal(session, false, &mut |_| {}) else { return };
        tracing::warn!(%error, session = %session.meta.id, "cannot seal in the background");
        // Not again before it was quiet once more: what is damaged stays so, and a full disk may take hours.
        session.changed_us.store(self.shared.clock.monotonic_us(), Ordering::Relaxed);
        if holds_log && let Err(error) = session.write_anchor() {
            tracing::warn!(%error, session = %session.meta.id, "cannot write an anchor");
        }
    }

    fn trim(&self) -> Result<()> {
        // Read before the sync: what it says is durable afterwards.
        let log = &self.shared.durability.log;
        let position = log.position();
        let needed =
            self.sessions().iter().map(|s| s.anchor.load(Ordering::Acquire)).min().unwrap_or(position);
        if needed > log.start() + self.shared.limits.log_bytes_max / 4 {
            self.shared.durability.sync()?;
            log.trim(needed)?;
        }
        Ok(())
    }
}
