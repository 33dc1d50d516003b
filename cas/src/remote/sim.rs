//! A remote store in memory, which counts and fails on demand. Clones share it.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;

use super::{Dated, Failure, Remote};

/// See the module.
#[derive(Clone, Default)]
pub struct SimRemote(Arc<Inner>);

impl fmt::Debug for SimRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sim://")
    }
}

#[derive(Default)]
struct Inner {
    objects: Mutex<BTreeMap<String, Object>>,
    /// Seconds since 1970, by its own clock.
    clock: AtomicI64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    calls: AtomicU64,
    /// Calls that succeed before all others fail; less than 0: all do.
    calls_left: AtomicI64,
    is_failing: std::sync::atomic::AtomicBool,
}

/// What was written, and when.
type Object = (Arc<Vec<u8>>, i64);

impl SimRemote {
    /// Another store that has the same.
    pub fn copy(&self) -> SimRemote {
        let copy = SimRemote::default();
        *copy.0.objects.lock() = self.0.objects.lock().clone();
        copy.pass(self.0.clock.load(SeqCst));
        copy
    }

    /// Lets its clock go on.
    pub fn pass(&self, secs: i64) {
        self.0.clock.fetch_add(secs, SeqCst);
    }

    /// Reads since this was last asked, and their bytes.
    pub fn take_reads(&self) -> (u64, u64) {
        (self.0.reads.swap(0, SeqCst), self.0.read_bytes.swap(0, SeqCst))
    }

    /// Objects written since this was last asked.
    pub fn take_writes(&self) -> u64 {
        self.0.writes.swap(0, SeqCst)
    }

    /// Calls since this was last asked, those that failed as well.
    pub fn take_calls(&self) -> u64 {
        self.0.calls.swap(0, SeqCst)
    }

    /// After so many calls it cannot be reached.
    pub fn fail_after(&self, calls: u64) {
        self.0.calls_left.store(calls as i64, SeqCst);
        self.0.is_failing.store(true, SeqCst);
    }

    /// It can be reached again.
    pub fn heal(&self) {
        self.0.is_failing.store(false, SeqCst);
    }

    /// Changes a byte of an object.
    pub fn flip(&self, name: &str, at: usize) {
        let mut objects = self.0.objects.lock();
        let (bytes, _) = objects.get_mut(name).expect("an object of this name");
        Arc::make_mut(bytes)[at] ^= 1;
    }

    fn call(&self, name: &str) -> Result<(), Failure> {
        self.0.calls.fetch_add(1, SeqCst);
        if self.0.is_failing.load(SeqCst) && self.0.calls_left.fetch_sub(1, SeqCst) <= 0 {
            return Err(Failure::Unreachable {
                object: self.display(name),
                reason: "it cannot be reached".to_owned(),
            });
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Arc<Vec<u8>>, Failure> {
        self.call(name)?;
        let found = self.0.objects.lock().get(name).map(|(bytes, _)| Arc::clone(bytes));
        found.ok_or_else(|| Failure::NotFound(self.display(name)))
    }

    fn counted(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.reads.fetch_add(1, SeqCst);
        self.0.read_bytes.fetch_add(bytes.len() as u64, SeqCst);
        bytes.to_vec()
    }

    fn failed(&self, name: &str, reason: &str) -> Failure {
        Failure::Failed { object: self.display(name), reason: reason.to_owned() }
    }
}

impl Remote for SimRemote {
    fn read(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, Failure> {
        let whole = self.get(name)?;
        let part = whole.get(range.start as usize..range.end as usize);
        Ok(self.counted(part.ok_or_else(|| self.failed(name, "it is shorter than that"))?))
    }

    fn read_whole(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, Failure> {
        let whole = self.get(name)?;
        if whole.len() as u64 > bytes_max {
            return Err(self.failed(name, "it is larger than it can be"));
        }
        Ok(self.counted(&whole))
    }

    fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        self.call(name)?;
        self.0.writes.fetch_add(1, SeqCst);
        self.0.objects.lock().insert(name.to_owned(), (Arc::new(bytes), self.0.clock.load(SeqCst)));
        Ok(())
    }

    fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool, Failure> {
        self.call(name)?;
        let mut objects = self.0.objects.lock();
        if objects.contains_key(name) {
            return Ok(false);
        }
        self.0.writes.fetch_add(1, SeqCst);
        objects.insert(name.to_owned(), (Arc::new(bytes), self.0.clock.load(SeqCst)));
        Ok(true)
    }

    fn dated(&self, prefix: &str) -> Result<Vec<Dated>, Failure> {
        self.call(prefix)?;
        let objects = self.0.objects.lock();
        let below = objects.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        let dated = |(name, (bytes, written_secs)): (&String, &Object)| Dated {
            name: name.clone(),
            bytes: bytes.len() as u64,
            written_secs: *written_secs,
        };
        Ok(below.map(dated).collect())
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.call(name)?;
        self.0.objects.lock().remove(name);
        Ok(())
    }

    fn display(&self, name: &str) -> String {
        format!("sim://{name}")
    }
}
