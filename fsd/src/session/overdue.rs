//! Which sessions' time is up. Pure: no engine, no clock.
//!
//! When a session expires is a time of the wall clock, because it has to mean the same after a restart. Wall clocks jump, so one look is not
//! believed: a session's time is up when every look for a minute of the clock that does not jump has said so. A wall clock that is set forward by
//! mistake, and right again within that minute, takes nothing with it; one that is wrong for longer does.

use std::collections::HashMap;

use cas::Time;

use super::SessionId;

/// How long all looks have to agree, in microseconds.
const SURE_US: u64 = 60_000_000;
/// With no look for so long, those before it count no more: nobody knows what the clock said meanwhile.
const GAP_US: u64 = SURE_US / 2;

/// What looks so far have found.
#[derive(Debug, Default)]
pub struct Overdue {
    /// Since when, on the clock that does not jump, each look has found it overdue. As many as there are such sessions.
    since_us: HashMap<SessionId, u64>,
    last_us: u64,
}

impl Overdue {
    /// Looks at when sessions expire. Gives those whose time is up, in no order.
    pub fn look(
        &mut self,
        now: Time,
        monotonic_us: u64,
        expire: impl IntoIterator<Item = (SessionId, Time)>,
    ) -> Vec<SessionId> {
        if monotonic_us.saturating_sub(self.last_us) > GAP_US {
            self.since_us.clear();
        }
        self.last_us = monotonic_us;
        let passed = expire.into_iter().filter(|(_, at)| *at <= now);
        let since = |(id, _)| (id, self.since_us.get(&id).copied().unwrap_or(monotonic_us));
        self.since_us = passed.map(since).collect();
        let is_sure = |since: &u64| monotonic_us.saturating_sub(*since) >= SURE_US;
        self.since_us.iter().filter(|(_, since)| is_sure(since)).map(|(id, _)| *id).collect()
    }

    /// It could not be discarded: not again before another minute.
    pub fn put_off(&mut self, id: SessionId) {
        self.since_us.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId([1; 10]);
    const TWO: SessionId = SessionId([2; 10]);
    const TEN: Time = Time { secs: 10, nanos: 0 };

    /// What looks find: a session that expires at second 10, at (wall clock, monotonic) in seconds.
    fn found(looks: &[(i64, u64)]) -> Vec<bool> {
        let mut overdue = Overdue::default();
        let mut look = |&(wall, us): &(i64, u64)| {
            let now = Time { secs: wall, nanos: 0 };
            overdue.look(now, us * 1_000_000, [(ONE, TEN)]) == [ONE]
        };
        looks.iter().map(&mut look).collect()
    }

    #[test]
    fn a_minute_of_looks_has_to_agree() {
        assert_eq!(
            found(&[(9, 0), (10, 1), (40, 30), (69, 60), (70, 61), (99, 90)]),
            [false, false, false, false, true, true]
        );
    }

    #[test]
    fn a_jump_that_is_taken_back_within_a_minute_takes_nothing_with_it() {
        let year = 31_536_000;
        let jump = [(0, 0), (year, 1), (year + 29, 30), (year + 58, 59), (1, 60), (2, 61)];
        assert_eq!(found(&jump), [false; 6]);
        // Each jump has its own minute.
        assert_eq!(
            found(&[jump.as_slice(), &[(year, 80), (year + 30, 110), (year + 59, 139)]].concat()),
            [false; 9]
        );
    }

    #[test]
    fn a_clock_that_was_set_back_is_believed() {
        assert_eq!(
            found(&[(10, 0), (-50, 1), (-20, 30), (9, 59), (10, 60), (40, 90), (69, 119), (70, 120)]),
            [false, false, false, false, false, false, false, true]
        );
    }

    #[test]
    fn what_the_clock_said_while_nobody_looked_counts_for_nothing() {
        assert_eq!(found(&[(10, 0), (70, 60), (100, 90), (130, 120)]), [false, false, false, true]);
    }

    #[test]
    fn each_session_has_its_own_time() {
        let mut overdue = Overdue::default();
        let mut look = |secs: u64, expire: &[(SessionId, Time)]| {
            let now = Time { secs: secs as i64, nanos: 0 };
            let mut found = overdue.look(now, secs * 1_000_000, expire.iter().copied());
            found.sort_unstable();
            found
        };
        let later = Time { secs: 100, nanos: 0 };
        (10..70).for_each(|secs| assert_eq!(look(secs, &[(ONE, TEN), (TWO, TEN)]), []));
        // Somebody has given it more time.
        assert_eq!(look(70, &[(ONE, TEN), (TWO, later)]), [ONE]);
        (71..100).for_each(|secs| assert_eq!(look(secs, &[(ONE, TEN), (TWO, later)]), [ONE]));
        assert_eq!(look(100, &[(TWO, later)]), []);
        (101..160).for_each(|secs| assert_eq!(look(secs, &[(TWO, later)]), []));
        assert_eq!(look(160, &[(TWO, later)]), [TWO]);
        overdue.put_off(TWO);
        assert_eq!(overdue.look(Time { secs: 161, nanos: 0 }, 161_000_000, [(TWO, later)]), []);
    }
}
