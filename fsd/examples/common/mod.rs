//! What the examples that measure share: an engine as the daemon opens it, a timer, and what /proc says of memory.

use std::{error::Error, fs, path::Path, sync::Arc, time::Instant};

use cas::{Store, disk::Disk, sys::SysDisk};
use fsd::{
    host::{SystemClock, SystemEntropy, boot},
    session::{Engine, Limits, Parts},
};

/// What a step gives.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// The engine on the state directory `state`.
pub fn open(state: &Path) -> Outcome<Engine> {
    let disk: Arc<dyn Disk> = Arc::new(SysDisk::open(state)?);
    let store = Store::open(Arc::clone(&disk))?;
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy));
    let (boot, limits) = (boot()?, Limits::default());
    Ok(Engine::open(Parts { disk, store, clock, entropy, boot, accept_loss: false, limits })?)
}

/// Runs `f`, which made so many calls, and prints what one cost.
pub fn timed<T>(what: &str, f: impl FnOnce() -> Outcome<(T, usize)>) -> Outcome<T> {
    let start = Instant::now();
    let (value, calls) = f()?;
    println!("{what}: {calls} calls, {:.0} ns each", start.elapsed().as_nanos() as f64 / calls.max(1) as f64);
    Ok(value)
}

/// What /proc says of this process.
pub fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = |line: &&str| ["VmRSS", "RssAnon", "RssFile"].iter().any(|field| line.starts_with(field));
    let fields =
        status.lines().filter(wanted).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    fields.collect::<Vec<_>>().join(", ")
}
