//! What came lately, in memory: until it is on disk; and a frame that was unpacked for one object stays for who reads those beside it.
//!
//! Owns nothing but the memory. Who waits for room, and who writes, is the cache's business.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    Digest, Object, ObjectKind,
    hash::KeyedHash,
    remote::{layer::FrameName, pack::Frame},
};

/// Memory of frames that are gone, for those that come: mapping it anew takes as long as filling it.
const SPARE_MAX: usize = 16;
/// Frames that somebody is taken to be reading, of those that were read last.
const READERS_MAX: usize = 16;
/// About what an object of a frame takes besides its bytes.
const OBJECT_MEMORY_BYTES: usize = 160;

/// See the module.
#[derive(Default)]
pub(super) struct Recent {
    objects: HashMap<Digest, Where, KeyedHash>,
    /// Those that are in memory.
    frames: HashMap<FrameName, Arc<Arrived>>,
    /// Not on disk yet, oldest first, by number.
    pending: VecDeque<(u64, Pending)>,
    next: u64,
    pending_bytes: usize,
    /// Frames that can be read again, in the order that they came.
    spent: VecDeque<Arc<Arrived>>,
    /// Counts reads.
    reads: u64,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

enum Where {
    Alone(Object),
    In(Arc<Arrived>, Range<usize>),
}

/// A frame in memory.
pub(super) struct Arrived {
    /// What it is called.
    pub(super) name: FrameName,
    /// What is in it.
    pub(super) frame: Frame,
    /// When somebody last read something of it, by the count of reads: zero if nobody did.
    read: AtomicU64,
}

/// What goes to the disk.
#[derive(Clone)]
pub(super) enum Pending {
    /// An object by itself.
    Object(ObjectKind, Digest, Object),
    /// A frame, as it came, from where it is in its pack.
    Frame(Arc<Arrived>, u64, Arc<[u8]>),
}

/// An object that is in memory.
pub(super) enum Found {
    /// By itself.
    Alone(Object),
    /// In a frame.
    In(Arc<Arrived>, Range<usize>),
}

impl Found {
    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Found::Alone(object) => object,
            Found::In(arrived, range) => &arrived.frame.bytes[range.clone()],
        }
    }

    /// The object, by itself.
    pub(super) fn object(self) -> Object {
        match self {
            Found::Alone(object) => object,
            Found::In(..) => Object::new(self.bytes().to_vec()),
        }
    }
}

impl Arrived {
    pub(super) fn new(name: FrameName, frame: Frame) -> Arc<Arrived> {
        Arc::new(Arrived { name, frame, read: AtomicU64::new(0) })
    }

    /// An object of the frame, if it is in there.
    pub(super) fn find(self: &Arc<Arrived>, digest: Digest) -> Option<Found> {
        let object = self.frame.objects.iter().find(|object| object.digest == digest)?;
        Some(Found::In(Arc::clone(self), object.range.clone()))
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.frame.bytes.capacity() + self.frame.objects.len() * OBJECT_MEMORY_BYTES
    }
}

impl Pending {
    /// Bytes that go to the disk.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Pending::Object(_, _, object) => object.len(),
            Pending::Frame(_, _, stored) => stored.len(),
        }
    }
}

impl Recent {
    /// An object, if it is here.
    pub(super) fn get(&mut self, digest: Digest) -> Option<Found> {
        match self.objects.get(&digest)? {
            Where::Alone(object) => Some(Found::Alone(object.clone())),
            Where::In(arrived, range) => {
                self.reads += 1;
                arrived.read.store(self.reads, Relaxed);
                Some(Found::In(Arc::clone(arrived), range.clone()))
            }
        }
    }

    pub(super) fn has(&self, digest: Digest) -> bool {
        self.objects.contains_key(&digest)
    }

    /// A frame, if it is here.
    pub(super) fn frame(&self, name: FrameName) -> Option<&Arc<Arrived>> {
        self.frames.get(&name)
    }

    /// Bytes that are not on disk yet.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether all is on disk.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Memory for a frame.
    pub(super) fn memory(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes an object that is not on disk.
    pub(super) fn put(&mut self, kind: ObjectKind, digest: Digest, object: Object) {
        if let Entry::Vacant(vacant) = self.objects.entry(digest) {
            vacant.insert(Where::Alone(object.clone()));
            self.write(Pending::Object(kind, digest, object));
        }
    }

    /// Has something written, by and by.
    pub(super) fn write(&mut self, pending: Pending) {
        self.bytes += pending.bytes();
        self.pending_bytes += pending.bytes();
        self.pending.push_back((self.next, pending));
        self.next += 1;
    }

    /// Takes a frame that came, from where it is in its pack, and as it is there.
    pub(super) fn put_new(&mut self, arrived: &Arc<Arrived>, offset: u64, stored: Arc<[u8]>) {
        if self.enter(arrived) {
            self.write(Pending::Frame(Arc::clone(arrived), offset, stored));
        }
    }

    /// Takes a frame that was on the disk.
    pub(super) fn put_again(&mut self, arrived: &Arc<Arrived>) {
        if self.enter(arrived) {
            // Somebody wanted something of it.
            self.reads += 1;
            arrived.read.store(self.reads, Relaxed);
            self.spent.push_back(Arc::clone(arrived));
        }
    }

    /// False: it is here.
    fn enter(&mut self, arrived: &Arc<Arrived>) -> bool {
        let Entry::Vacant(vacant) = self.frames.entry(arrived.name) else { return false };
        vacant.insert(Arc::clone(arrived));
        self.bytes += arrived.memory_bytes();
        for object in &arrived.frame.objects {
            // What is by itself is not on disk yet, and is counted.
            if !matches!(self.objects.get(&object.digest), Some(Where::Alone(_))) {
                let place = Where::In(Arc::clone(arrived), object.range.clone());
                self.objects.insert(object.digest, place);
            }
        }
        true
    }

    /// Lets go of frames that can be read again until so many more bytes have room: of those that were read the one that nobody reads for longest, of others
    /// the oldest. False: there is none.
    pub(super) fn make_room(&mut self, bytes: usize, bytes_max: usize) -> bool {
        while self.bytes + bytes > bytes_max {
            let reads = || self.spent.iter().map(|arrived| arrived.read.load(Relaxed)).enumerate();
            let read = reads().filter(|(_, read)| *read > 0);
            // Somebody is in each of these.
            let is_left = read.clone().count() > READERS_MAX;
            let unread = reads().find(|(_, read)| *read == 0 && !is_left);
            let victim = unread.or_else(|| read.min_by_key(|(_, read)| *read)).map(|(nth, _)| nth);
            let Some(arrived) = victim.and_then(|nth| self.spent.remove(nth)) else { return false };
            self.leave(arrived);
        }
        true
    }

    /// Lets go of all that can be read again.
    pub(super) fn rest(&mut self) {
        std::mem::take(&mut self.spent).into_iter().for_each(|arrived| self.leave(arrived));
        self.spare = Vec::new();
    }

    /// The oldest that is not on disk is lost.
    pub(super) fn drop_oldest(&mut self) {
        if let Some((_, pending)) = self.pending.pop_front() {
            self.left(pending, false);
        }
    }

    /// What to write together, so many bytes or one, and the number to say when it is [written](Recent::written).
    pub(super) fn batch(&self, bytes_max: u64) -> (Vec<Pending>, u64) {
        let (mut bytes, mut end) = (0, 0);
        let some = self.pending.iter().take_while(|(number, pending)| {
            let len = pending.bytes() as u64;
            bytes += len;
            let fits = bytes <= bytes_max || bytes == len;
            end = if fits { number + 1 } else { end };
            fits
        });
        (some.map(|(_, pending)| pending.clone()).collect(), end)
    }

    /// All before this number is on disk.
    pub(super) fn written(&mut self, end: u64) {
        while let Some((_, pending)) = self.pending.pop_front_if(|(number, _)| *number < end) {
            self.left(pending, true);
        }
    }

    /// Something is not pending any more.
    fn left(&mut self, pending: Pending, is_written: bool) {
        self.bytes -= pending.bytes();
        self.pending_bytes -= pending.bytes();
        match pending {
            Pending::Object(_, digest, _) => {
                if matches!(self.objects.get(&digest), Some(Where::Alone(_))) {
                    self.objects.remove(&digest);
                }
            }
            Pending::Frame(arrived, ..) if is_written => self.spent.push_back(arrived),
            Pending::Frame(arrived, ..) => self.leave(arrived),
        }
    }

    fn leave(&mut self, arrived: Arc<Arrived>) {
        self.frames.remove(&arrived.name);
        self.bytes -= arrived.memory_bytes();
        for object in &arrived.frame.objects {
            let is_there = self.objects.get(&object.digest);
            if matches!(is_there, Some(Where::In(other, _)) if Arc::ptr_eq(other, &arrived)) {
                self.objects.remove(&object.digest);
            }
        }
        if self.spare.len() < SPARE_MAX
            && let Some(Arrived { frame, .. }) = Arc::into_inner(arrived)
        {
            self.spare.push(frame.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::remote::{name::RemoteName, pack::Unpacked};

    const BYTES_MAX: usize = 40_000;

    #[derive(Clone, Debug)]
    enum Step {
        New(u8),
        Again(u8),
        Alone(u8),
        Read(u8),
        Room(usize),
        Written(u64),
        Lost,
        Rest,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..12_u8).prop_map(Step::New),
            2 => (0..12_u8).prop_map(Step::Again),
            2 => (0..30_u8).prop_map(Step::Alone),
            4 => (0..30_u8).prop_map(Step::Read),
            2 => (0..BYTES_MAX).prop_map(Step::Room),
            2 => (1..20_000_u64).prop_map(Step::Written),
            1 => Just(Step::Lost),
            1 => Just(Step::Rest),
        ]
    }

    fn digest(nth: u8) -> Digest {
        Digest([nth; 32])
    }

    /// Frames next to each other have objects in common.
    fn arrived(nth: u8) -> Arc<Arrived> {
        let object = |at: usize| Unpacked {
            digest: digest(nth * 2 + at as u8),
            kind: ObjectKind::Chunk,
            range: at * 1000..(at + 1) * 1000,
        };
        let bytes = (0..4000).map(|at| nth * 2 + (at / 1000) as u8).collect();
        Arrived::new(
            (RemoteName([1; 16]), u32::from(nth)),
            Frame { objects: (0..4).map(object).collect(), bytes },
        )
    }

    /// Adds up, and nothing hangs on what is gone.
    fn check(recent: &Recent) {
        let pending: usize = recent.pending.iter().map(|(_, pending)| pending.bytes()).sum();
        let frames: usize = recent.frames.values().map(|arrived| arrived.memory_bytes()).sum();
        assert_eq!((recent.pending_bytes, recent.bytes), (pending, pending + frames));
        let is_pending = |name: FrameName| {
            let mut pending = recent.pending.iter();
            pending.any(|(_, pending)| matches!(pending, Pending::Frame(arrived, ..) if arrived.name == name))
        };
        let is_spent = |name| recent.spent.iter().any(|arrived| arrived.name == name);
        assert!(recent.frames.keys().all(|name| is_pending(*name) != is_spent(*name)));
        for (digest, place) in &recent.objects {
            match place {
                Where::Alone(object) => {
                    assert_eq!(object[0], digest.0[0]);
                    let alone = |pending: &Pending| matches!(pending, Pending::Object(_, other, _) if other == digest);
                    assert!(recent.pending.iter().any(|(_, pending)| alone(pending)));
                }
                Where::In(arrived, range) => {
                    assert!(Arc::ptr_eq(&recent.frames[&arrived.name], arrived));
                    assert_eq!(arrived.frame.bytes[range.start], digest.0[0]);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_in_memory_adds_up_and_is_what_it_is_called(steps in prop::collection::vec(step(), 1..200)) {
            let mut recent = Recent::default();
            for step in steps {
                match step {
                    Step::New(nth) => {
                        if recent.make_room(5000, BYTES_MAX) {
                            recent.put_new(&arrived(nth), 0, Arc::from(vec![nth; 700]));
                            let arrived = recent.frame((RemoteName([1; 16]), u32::from(nth))).unwrap();
                            prop_assert!((0..4).all(|at| arrived.find(digest(nth * 2 + at)).is_some()));
                        }
                    }
                    Step::Again(nth) => recent.put_again(&arrived(nth)),
                    Step::Alone(nth) => {
                        recent.put(ObjectKind::Chunk, digest(nth), Object::new(vec![nth; 500]));
                        prop_assert!(recent.has(digest(nth)));
                    }
                    Step::Read(nth) => {
                        let found = recent.get(digest(nth));
                        prop_assert!(found.is_none_or(|found| found.bytes().iter().all(|byte| *byte == nth)));
                    }
                    Step::Room(bytes) => {
                        let has_room = recent.make_room(bytes, BYTES_MAX);
                        prop_assert!(has_room == (recent.bytes + bytes <= BYTES_MAX));
                        prop_assert!(has_room || recent.spent.is_empty());
                    }
                    Step::Written(bytes_max) => {
                        let (batch, end) = recent.batch(bytes_max);
                        let bytes: usize = batch.iter().map(Pending::bytes).sum();
                        prop_assert!(batch.len() <= 1 || bytes as u64 <= bytes_max);
                        let left = recent.pending.len() - batch.len();
                        recent.written(end);
                        prop_assert_eq!(recent.pending.len(), left);
                    }
                    Step::Lost => recent.drop_oldest(),
                    Step::Rest => {
                        recent.rest();
                        prop_assert!(recent.spent.is_empty());
                    }
                }
                check(&recent);
            }
        }
    }

    #[test]
    fn what_was_read_goes_before_what_nobody_has_come_to() {
        let mut recent = Recent::default();
        let readers = READERS_MAX as u8;
        (0..readers + 4).for_each(|nth| recent.put_new(&arrived(nth * 3), 0, Arc::from([])));
        recent.written(u64::MAX);
        let drop_one = |recent: &mut Recent| {
            let before: Vec<_> = recent.frames.keys().map(|(_, nth)| nth / 3).collect();
            assert!(recent.make_room(0, recent.bytes - 1));
            let gone =
                before.into_iter().filter(|nth| recent.frame((RemoteName([1; 16]), nth * 3)).is_none());
            gone.collect::<Vec<_>>()
        };
        // All but the first two and the last two.
        (2..readers + 2).rev().for_each(|nth| drop(recent.get(digest(nth * 6))));
        assert_eq!(drop_one(&mut recent), [0], "somebody is in all that were read");
        recent.get(digest(6)).unwrap();
        assert_eq!(drop_one(&mut recent), [u32::from(readers) + 1], "nobody is where the first reader was");
        assert_eq!(drop_one(&mut recent), [u32::from(readers) + 2], "the oldest of the rest");
        recent.put_again(&arrived(60));
        assert_eq!(drop_one(&mut recent), [u32::from(readers)], "what was unpacked again has a reader");
    }
}
