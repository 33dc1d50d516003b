//! All sessions that have a head, wherever they are: a page at a time, so that it does not matter how many there are.

use std::collections::HashMap;

use super::{
    Fleet, FleetError, Result,
    heads::{Head, HeadError, HostId},
};
use crate::session::SessionId;

/// Heads that are read at a time.
const PAGE: usize = 256;
/// Hosts of which the last sign of life is remembered until the end. More of them are asked about again.
const HOSTS_MAX: usize = 4096;

/// Who may write a session, as far as that can be told by looking once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This host.
    Here,
    /// Whichever host mounts it first.
    Nobody,
    /// Another host.
    Other {
        /// When it gave its last sign of life: seconds since 1970, by its clock. None: it never gave one.
        seen_secs: Option<i64>,
        /// That is long ago. Whether the host is dead is found out by who takes the session over: clocks differ.
        is_stale: bool,
    },
}

/// A session and its head, or why that cannot be read.
pub type Known = (SessionId, std::result::Result<(Head, Holder), HeadError>);

impl Fleet {
    /// Shows every session that has a head and was not discarded, sorted by ID, until `show` gives an error. Of sessions that `wanted` does not want not even hosts are
    /// asked about. Errors: `Heads`, and those of `show`.
    pub fn overview<E: From<FleetError>>(
        &self,
        wanted: impl Fn(SessionId) -> bool,
        mut show: impl FnMut(Known) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let (mut seen, mut last) = (HashMap::new(), None);
        loop {
            let page = self.heads.page(last, PAGE).map_err(FleetError::Heads)?;
            last = page.last().map(|(session, _)| *session).or(last);
            let is_last = page.len() < PAGE;
            for (session, head) in page.into_iter().filter(|(session, _)| wanted(*session)) {
                match head {
                    Ok(head) if head.ended => {}
                    Ok(head) => {
                        let holder = self.holder(&head, &mut seen)?;
                        show((session, Ok((head, holder))))?;
                    }
                    Err(error) => show((session, Err(error)))?,
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn holder(&self, head: &Head, seen: &mut HashMap<HostId, Option<i64>>) -> Result<Holder> {
        let Some(host) = head.holder else { return Ok(Holder::Nobody) };
        if host == self.host {
            return Ok(Holder::Here);
        }
        let seen_secs = match seen.get(&host) {
            Some(seen_secs) => *seen_secs,
            None => {
                // A sign that cannot be read is none, and hides no session.
                let beat = match self.heads.last_beat(host) {
                    Err(HeadError::Unknown(_)) => None,
                    beat => beat.map_err(FleetError::Heads)?,
                };
                let seen_secs = beat.map(beat_secs);
                if seen.len() < HOSTS_MAX {
                    seen.insert(host, seen_secs);
                }
                seen_secs
            }
        };
        let (now, dead) = (self.engine.clock().now().secs, self.patience.dead.as_secs());
        let is_stale = seen_secs.is_none_or(|seen| now.saturating_sub(seen) > dead as i64);
        Ok(Holder::Other { seen_secs, is_stale })
    }
}

/// When a sign of life was given: see [`Fleet::beat`].
fn beat_secs(beat: u64) -> i64 {
    (beat >> 20) as i64
}
