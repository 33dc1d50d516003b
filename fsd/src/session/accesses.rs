//! What was read of a session, each once, in the order of the first time: inode numbers, and of files coarse ranges. In memory alone, and
//! bounded: beyond the bound the rest is not recorded, which is known.
//!
//! By number, because that is all that a read knows without looking further, and it stays through renames and seals. Names come in when somebody asks
//! ([`Profile`](super::profile::Profile)). A read that is recorded already costs a look into a table.
//!
//! What reads ahead of a program reads more than the program may come to. That is [held back](Accesses::read_ahead) until the program has come
//! that far.
//!
//! Locks: `table`, with nothing locked inside it.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use cas::hash::KeyedHash;
use parking_lot::Mutex;

/// Of a file, what is told apart: about a chunk.
pub const UNIT_BYTES: u64 = 256 << 10;
/// A region of a file is as many units as a number has bits.
const REGION_BYTES: u64 = UNIT_BYTES * u64::BITS as u64;
/// Accesses of a session: as many as a table of 2^18 places takes, which has 6.5 MiB.
pub const ACCESSES_MAX: usize = (1 << 18) / 8 * 7;
/// Of all sessions of a host together.
pub const ACCESSES_ALL_MAX: usize = 2 * ACCESSES_MAX;
/// Accesses that are held back: of a reader ahead, who is a thousand files ahead at most, and some directories. More of them are not recorded.
const HELD_MAX: usize = 4096;

/// Something that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The inode.
    pub ino: u64,
    region: u32,
    units: u64,
}

impl Access {
    /// A name was looked for in a directory, or it was listed.
    pub fn dir(ino: u64) -> Access {
        Access { ino, region: 0, units: 0 }
    }

    /// Some bytes of a file, cut at the end of a region. `None` where no file has bytes.
    fn file(ino: u64, range: &Range<u64>) -> Option<Access> {
        let region = u32::try_from(range.start / REGION_BYTES).ok()?;
        let (first, end) =
            (range.start / UNIT_BYTES % 64, range.end.div_ceil(UNIT_BYTES) - region_unit(region));
        let behind = u64::MAX.checked_shl(end.min(64) as u32).unwrap_or(0);
        Some(Access { ino, region, units: u64::MAX << first & !behind })
    }

    /// Of a file, the ranges that were read, in order and with something between each two. Of a directory none.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let (mut ranges, mut at) = (Vec::new(), 0);
        while at < 64 && self.units >> at != 0 {
            let start = at + (self.units >> at).trailing_zeros();
            let end = start + (self.units >> start).trailing_ones();
            let unit = |unit: u32| (region_unit(self.region) + u64::from(unit)) * UNIT_BYTES;
            ranges.push(unit(start)..unit(end));
            at = end;
        }
        ranges
    }
}

fn region_unit(region: u32) -> u64 {
    u64::from(region) * 64
}

/// Those of one session.
#[derive(Debug)]
pub struct Accesses {
    table: Mutex<Table>,
    /// Of all sessions.
    total: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Table {
    /// By inode and region.
    all: HashMap<(u64, u32), Recorded, KeyedHash>,
    is_full: bool,
    /// What a reader had read ahead, with the number of the window that it was in.
    held: VecDeque<(u64, Access)>,
    /// Of that reader, the windows that it has been through, and those that the program has.
    windows: u64,
    passed: u64,
}

#[derive(Debug)]
struct Recorded {
    nth: u32,
    units: u64,
}

// There are hundreds of thousands.
const _: () = assert!(size_of::<((u64, u32), Recorded)>() <= 32);

impl Accesses {
    /// None yet.
    pub fn new(total: Arc<AtomicUsize>) -> Accesses {
        Accesses { table: Mutex::default(), total }
    }

    /// A name was looked for in a directory, or it was listed.
    pub fn add_dir(&self, ino: u64) {
        self.table.lock().add(Access::dir(ino), &self.total);
    }

    /// Some bytes of a file were read.
    pub fn add_file(&self, ino: u64, range: Range<u64>) {
        let mut table = self.table.lock();
        for access in regions(ino, range) {
            table.add(access, &self.total);
        }
    }

    /// Something was read by who reads ahead of a program: it counts when the program has come that far. Of a directory the range does not
    /// matter.
    pub fn read_ahead(&self, ino: u64, range: Range<u64>) {
        let mut table = self.table.lock();
        let window = table.windows;
        let room = HELD_MAX.saturating_sub(table.held.len());
        table.held.extend(regions(ino, range).take(room).map(|access| (window, access)));
    }

    /// The reader ahead is through with a window.
    pub fn window_read(&self) {
        self.table.lock().windows += 1;
    }

    /// The program has come to the end of so many more windows.
    pub fn windows_passed(&self, windows: usize) {
        let mut table = self.table.lock();
        table.passed += windows as u64;
        let passed = table.passed;
        table.release(passed, &self.total);
    }

    /// Nobody reads ahead any more. The window that the program is in counts as read: how far it came in there is not known.
    pub fn end_ahead(&self) {
        let mut table = self.table.lock();
        let passed = table.passed;
        table.release(passed + 1, &self.total);
        table.held = VecDeque::new();
        (table.windows, table.passed) = (0, 0);
    }

    /// What was read so far, in the order of the first time; and whether there was no room for more. As far as anybody knows, the program has come to the end
    /// of the window that it is in.
    pub fn all(&self) -> (Vec<Access>, bool) {
        let mut table = self.table.lock();
        let passed = table.passed;
        table.release(passed + 1, &self.total);
        let mut all: Vec<_> = table.all.iter().map(|(key, one)| (one.nth, access(key, one))).collect();
        let is_full = table.is_full;
        drop(table);
        all.sort_unstable_by_key(|(nth, _)| *nth);
        (all.into_iter().map(|(_, access)| access).collect(), is_full)
    }
}

impl Drop for Accesses {
    fn drop(&mut self) {
        self.total.fetch_sub(self.table.get_mut().all.len(), Ordering::Relaxed);
    }
}

fn access((ino, region): &(u64, u32), recorded: &Recorded) -> Access {
    Access { ino: *ino, region: *region, units: recorded.units }
}

/// A read, cut into what is of one region each.
fn regions(ino: u64, range: Range<u64>) -> impl Iterator<Item = Access> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let end = (at / REGION_BYTES + 1).saturating_mul(REGION_BYTES).min(range.end);
        let access = Access::file(ino, &(at..end));
        at = end;
        access
    })
}

impl Table {
    fn add(&mut self, access: Access, total: &AtomicUsize) {
        let Access { ino, region, units } = access;
        let nth = self.all.len() as u32;
        match self.all.entry((ino, region)) {
            Entry::Occupied(mut recorded) => recorded.get_mut().units |= units,
            Entry::Vacant(_) if self.is_full => {}
            Entry::Vacant(place) => {
                let has_room = (nth as usize) < ACCESSES_MAX && take_one(total);
                self.is_full = !has_room;
                if has_room {
                    place.insert(Recorded { nth, units });
                }
            }
        }
    }

    /// What was held back of the windows before this one counts.
    fn release(&mut self, window: u64, total: &AtomicUsize) {
        while let Some((of, access)) = self.held.front()
            && *of < window
        {
            let access = *access;
            self.held.pop_front();
            self.add(access, total);
        }
    }
}

/// Room for one more in the whole host.
fn take_one(total: &AtomicUsize) -> bool {
    let more = |taken: usize| (taken < ACCESSES_ALL_MAX).then_some(taken + 1);
    total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn accesses() -> Accesses {
        Accesses::new(Arc::default())
    }

    /// Numbers in the order of the first time, with ranges in KiB.
    fn told(accesses: &Accesses) -> Vec<(u64, Vec<(u64, u64)>)> {
        let kib = |range: Range<u64>| (range.start >> 10, range.end >> 10);
        let one = |access: Access| (access.ino, access.ranges().into_iter().map(kib).collect());
        accesses.all().0.into_iter().map(one).collect()
    }

    #[test]
    fn each_is_told_once_and_in_the_order_of_the_first_time() {
        let accesses = accesses();
        for ino in [7, 3, 7, 5, 3] {
            accesses.add_dir(ino);
            accesses.add_file(ino + 100, 0..10);
        }
        let want = [7, 107, 3, 103, 5, 105].map(|ino| (ino, if ino > 100 { vec![(0, 256)] } else { vec![] }));
        assert_eq!(told(&accesses), want);
    }

    #[test]
    fn ranges_are_whole_units_and_joined() {
        let accesses = accesses();
        accesses.add_file(1, 0..1);
        accesses.add_file(1, MIB - 1..MIB + 1);
        accesses.add_file(1, 256 << 10..300 << 10);
        // Over the end of the first region, and all of the third.
        accesses.add_file(1, 16 * MIB - 1..16 * MIB + 1);
        accesses.add_file(1, 32 * MIB..48 * MIB);
        let kib = |mib: u64| mib << 10;
        let first = vec![(0, 512), (768, 1280), (kib(16) - 256, kib(16))];
        let want = [(1, first), (1, vec![(kib(16), kib(16) + 256)]), (1, vec![(kib(32), kib(48))])];
        assert_eq!(told(&accesses), want);
        // Where no file is; and nothing at all.
        accesses.add_file(2, u64::MAX - 5..u64::MAX);
        accesses.add_file(3, 5..5);
        assert_eq!(told(&accesses).len(), 3);
    }

    #[test]
    fn what_is_read_ahead_counts_when_somebody_has_come_that_far() {
        let accesses = accesses();
        let window = |first: u64| {
            (first..first + 3).for_each(|ino| accesses.read_ahead(ino, 0..1));
            accesses.window_read();
        };
        let inos = || told(&accesses).into_iter().map(|(ino, _)| ino).collect::<Vec<_>>();
        window(10);
        window(20);
        window(30);
        accesses.add_file(99, 0..1);
        // The program is in the first window.
        assert_eq!(inos(), [99, 10, 11, 12]);
        accesses.windows_passed(1);
        assert_eq!(inos(), [99, 10, 11, 12, 20, 21, 22]);
        accesses.end_ahead();
        assert_eq!(inos(), [99, 10, 11, 12, 20, 21, 22]);
        // The next reader begins anew.
        accesses.read_ahead(40, 0..1);
        accesses.window_read();
        accesses.read_ahead(50, 0..1);
        accesses.end_ahead();
        assert_eq!(inos(), [99, 10, 11, 12, 20, 21, 22, 40]);
        (0..2 * HELD_MAX as u64).for_each(|ino| accesses.read_ahead(1000 + ino, 0..1));
        assert_eq!(inos().len(), 8 + HELD_MAX);
    }

    #[test]
    fn the_bounds_of_a_session_and_of_the_host_are_kept() {
        let total = Arc::<AtomicUsize>::default();
        let sessions: Vec<_> = (0..3).map(|_| Accesses::new(Arc::clone(&total))).collect();
        for (nth, session) in sessions.iter().enumerate() {
            let is_last = nth == 2;
            (0..ACCESSES_MAX as u64 + 1).for_each(|ino| session.add_dir(ino));
            let (all, is_full) = session.all();
            assert_eq!((all.len(), is_full), (if is_last { 0 } else { ACCESSES_MAX }, true));
        }
        let mut sessions = sessions;
        drop(sessions.remove(0));
        let next = Accesses::new(Arc::clone(&total));
        next.add_dir(1);
        assert_eq!(next.all().0.len(), 1, "what goes gives its room back");
        drop((sessions, next));
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }
}
