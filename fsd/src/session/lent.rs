//! Snapshots that stay on this host for others, which opened a session here and fetch of it what they touch: until when, on the disk.
//!
//! Who opened one asks for it again long before that time, as long as something of his stands on it. So it goes a week after the last one who needs it, or who lost
//! the network for so long; and it survives this host's restarts, for which nobody over there has to be awake. What nobody asked for again goes after hours, and before
//! that if there is no room for others: who looks at a session each second takes none from those who stand on something. docs/format.md is normative.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cas::{
    Digest, SnapshotId,
    disk::{Disk, put_whole, read_whole},
};
use parking_lot::Mutex;

use super::{
    Error, Result,
    codec::{Put, Take, opened, sealed},
};

const FILE: &str = "lent";
const NEW: &str = "lent.new";
const MAGIC: u32 = u32::from_le_bytes(*b"AFln");
const VERSION: u8 = 1;
/// Snapshots at a time.
pub const LENT_MAX: usize = 4096;
const FILE_BYTES_MAX: u64 = (LENT_MAX * 40 + 64) as u64;
/// For so long from the last time that somebody asked.
pub const LEND: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// For so long from the first time: those who need it ask again within an hour, and may fail to twice.
pub const LEND_FIRST: Duration = Duration::from_secs(3 * 60 * 60);
/// What would stay hardly longer than it does is not written down anew.
const STEP: Duration = Duration::from_secs(60 * 60);
const STEP_FIRST: Duration = Duration::from_secs(10 * 60);
/// What is certain to whoever renews, and to whoever opens.
pub const STAYS: Duration = LEND.saturating_sub(STEP);
/// The same from the first time on.
pub const STAYS_FIRST: Duration = LEND_FIRST.saturating_sub(STEP_FIRST);

/// Seconds since 1970 until which a snapshot stays.
type Until = BTreeMap<SnapshotId, i64>;

/// See the module.
#[derive(Debug)]
pub struct Lent {
    disk: Arc<dyn Disk>,
    /// Held while the file is written.
    until: Mutex<Until>,
}

impl Lent {
    /// What is remembered. Errors: the disk's, `Damaged`.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Lent> {
        let bytes = read_whole(&*disk, FILE, FILE_BYTES_MAX).map_err(Error::io(disk.display(FILE)))?;
        let until = match bytes {
            Some(bytes) => decode(&bytes).ok_or_else(|| Error::Damaged {
                path: disk.display(FILE),
                position: 0,
                reason: "it is not what was written; restore it, or remove it: what other hosts have opened here then goes with the next gc".into(),
            })?,
            None => Until::new(),
        };
        Ok(Lent { disk, until: Mutex::new(until) })
    }

    /// Has snapshots stay that somebody opened, which the caller keeps until this returns: it is on the disk then. Until when at least, in seconds since 1970. Errors:
    /// `TooMany`, the disk's.
    pub fn lend(&self, snapshots: &[SnapshotId], now: i64) -> Result<i64> {
        self.lend_for(snapshots, now, (LEND_FIRST, STEP_FIRST))
    }

    /// The same for what somebody says that he needs.
    pub fn renew(&self, snapshots: &[SnapshotId], now: i64) -> Result<i64> {
        self.lend_for(snapshots, now, (LEND, STEP))
    }

    fn lend_for(
        &self,
        snapshots: &[SnapshotId],
        now: i64,
        (lend, step): (Duration, Duration),
    ) -> Result<i64> {
        let mut until = self.until.lock();
        let (end, least) = (now + lend.as_secs() as i64, now + (lend - step).as_secs() as i64);
        if let Some(first) = snapshots.iter().map(|id| until.get(id).copied().unwrap_or(i64::MIN)).min()
            && first >= least
        {
            return Ok(first);
        }
        let mut changed = until.clone();
        changed.retain(|_, until| *until > now);
        for id in snapshots {
            changed.entry(*id).and_modify(|until| *until = end.max(*until)).or_insert(end);
        }
        make_room(&mut changed, snapshots, now + LEND_FIRST.as_secs() as i64);
        if changed.len() > LENT_MAX {
            return Err(Error::TooMany {
                what: "snapshots that other hosts have opened here",
                max: LENT_MAX,
                advice: "wait until some have not been needed for a week",
            });
        }
        let io = |error| Error::io(self.disk.display(FILE))(error);
        put_whole(&*self.disk, "", NEW, FILE, &encode(&changed)).map_err(io)?;
        *until = changed;
        Ok(end)
    }

    /// Those that stay now.
    pub fn snapshots(&self, now: i64) -> Vec<SnapshotId> {
        self.until.lock().iter().filter(|(_, until)| **until > now).map(|(id, _)| *id).collect()
    }

    /// Whether it stays now.
    pub fn has(&self, id: SnapshotId, now: i64) -> bool {
        self.until.lock().get(&id).is_some_and(|until| *until > now)
    }
}

/// Lets those go that go first, if they go before `soon`, but for the `new` ones: nobody has said that he needs them.
fn make_room(until: &mut Until, new: &[SnapshotId], soon: i64) {
    let Some(over) = until.len().checked_sub(LENT_MAX).filter(|over| *over > 0) else { return };
    let is_loose = |(id, end): &(&SnapshotId, &i64)| **end <= soon && !new.contains(id);
    let mut loose: Vec<_> = until.iter().filter(is_loose).map(|(id, end)| (*end, *id)).collect();
    loose.sort_unstable();
    for (_, id) in loose.into_iter().take(over) {
        until.remove(&id);
    }
}

fn encode(until: &Until) -> Vec<u8> {
    let mut out = Vec::new();
    out.u32(MAGIC);
    out.u8(VERSION);
    out.u32(until.len() as u32);
    for (id, until) in until {
        out.digest(&id.0);
        out.u64(*until as u64);
    }
    sealed(out)
}

fn decode(bytes: &[u8]) -> Option<Until> {
    let mut from = Take(opened(bytes)?);
    if from.u32()? != MAGIC || from.u8()? != VERSION {
        return None;
    }
    let count = from.u32()?;
    let mut until = Until::new();
    for _ in 0..count {
        let (id, end) = (SnapshotId(Digest(from.array()?)), from.u64()? as i64);
        if until.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return None;
        }
        until.insert(id, end);
    }
    from.is_empty().then_some(until)
}

#[cfg(test)]
mod tests {
    use cas::sim::SimDisk;

    use super::*;

    fn snapshot(nth: u16) -> SnapshotId {
        SnapshotId(Digest::of(&nth.to_le_bytes()))
    }

    #[test]
    fn what_is_lent_stays_for_a_week_from_the_last_time_and_survives_power_loss() {
        let (disk, week) = (SimDisk::new(1), LEND.as_secs() as i64);
        let lent = Lent::open(Arc::new(disk.clone())).unwrap();
        assert_eq!(lent.renew(&[snapshot(1), snapshot(2)], 100).unwrap(), 100 + week);
        assert_eq!(lent.renew(&[snapshot(1)], 200).unwrap(), 100 + week, "it is not worth a write");
        assert_eq!(lent.renew(&[snapshot(1)], 100 + week - 1).unwrap(), 99 + 2 * week);
        let lent = Lent::open(Arc::new(disk.crash(&mut || 1))).unwrap();
        assert_eq!(lent.snapshots(100 + week), [snapshot(1)]);
        assert!(lent.has(snapshot(1), 98 + 2 * week) && !lent.has(snapshot(1), 99 + 2 * week));
    }

    #[test]
    fn what_nobody_asked_for_again_goes_after_hours_and_takes_no_room() {
        let (first, week) = (LEND_FIRST.as_secs() as i64, LEND.as_secs() as i64);
        let lent = Lent::open(Arc::new(SimDisk::new(1))).unwrap();
        assert_eq!(lent.lend(&[snapshot(1), snapshot(2)], 0).unwrap(), first);
        assert_eq!(lent.renew(&[snapshot(2)], 1).unwrap(), 1 + week);
        assert_eq!(lent.lend(&[snapshot(2)], 2).unwrap(), 1 + week, "nobody makes it shorter");
        assert_eq!(lent.snapshots(first), [snapshot(2)]);
        // Somebody looks again and again at what changes all the time.
        const MANY: u16 = LENT_MAX as u16 + 500;
        for nth in 10..10 + MANY {
            lent.lend(&[snapshot(nth)], 10 + i64::from(nth) / 8).unwrap();
        }
        assert!(lent.has(snapshot(2), 2000), "it is needed");
        assert!(!lent.has(snapshot(10), 2000) && lent.has(snapshot(9 + MANY), 2000));
        assert_eq!(lent.snapshots(0).len(), LENT_MAX);
        lent.renew(&[snapshot(3)], 2000).unwrap();
        assert!(lent.has(snapshot(3), 2000 + first));
    }

    #[test]
    fn they_are_bounded_and_damage_is_told() {
        let disk = SimDisk::new(1);
        let lent = Lent::open(Arc::new(disk.clone())).unwrap();
        let many: Vec<_> = (0..LENT_MAX as u16).map(snapshot).collect();
        lent.renew(&many, 0).unwrap();
        assert!(matches!(lent.renew(&[snapshot(5000)], 0), Err(Error::TooMany { .. })));
        let week = LEND.as_secs() as i64;
        lent.renew(&[snapshot(5000)], week).unwrap();
        assert_eq!(lent.snapshots(week), [snapshot(5000)]);
        let bytes = encode(&Until::from([(snapshot(1), 7)]));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), None, "at {at}");
        }
    }
}
