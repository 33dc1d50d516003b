//! Engines: on a simulated disk that can be killed and cut off, or on a directory of this host.

use std::{sync::Arc, time::Duration};

use cas::{
    Store,
    disk::Disk,
    remote::{lease::Naming, name::RemoteName, sim::SimRemote},
    sim::SimDisk,
    store::Options,
    sys::SysDisk,
};
use fsd::{
    fleet::{Fleet, heads::HostId},
    session::{Boot, Engine, Entropy, Error, Limits, Parts, Result},
};

use super::{
    ambient::{ManualClock, SeededEntropy},
    faulty::{Fault, FaultyDisk},
};

/// Bounds that make a few operations fill log files and segments.
pub fn tight() -> Limits {
    Limits {
        log_file_bytes: 4 << 10,
        log_bytes_max: 32 << 10,
        part_bytes: 2 << 10,
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 64 << 10,
        idle_us: 60_000_000,
        ..Limits::default()
    }
}

/// Of the remote store: less than any base has, so that what came goes again.
const CACHE_BYTES: u64 = 64 << 10;

/// Does what a shell does: has an object brought here that an operation needs, and tries again.
pub fn again<T>(store: &Store, mut operation: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match operation() {
            Err(Error::Store(cas::Error::Absent { kind, digest })) => {
                let ticket = store.fetch(kind, digest).expect("only a remote store makes things absent");
                ticket.wait().expect("the remote store has it");
            }
            done => return done,
        }
    }
}

/// How to open an engine.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The run of the machine.
    pub boot: u8,
    /// See [`Parts::accept_loss`].
    pub accept_loss: bool,
    /// Bounds.
    pub limits: Limits,
    /// A pack is full at this size.
    pub pack_bytes_max: u64,
    /// Time, shared by all engines of a test.
    pub clock: Arc<ManualClock>,
    /// A fault of simulated disks.
    pub fault: Option<Fault>,
    /// The store that hosts share, if there is one.
    pub remote: Option<SimRemote>,
    /// Chance, shared likewise: no ID comes twice.
    pub entropy: Arc<SeededEntropy>,
}

impl Opening {
    /// The first run, with tight bounds and a clock that stands still unless told.
    pub fn first(seed: u64) -> Opening {
        let (clock, entropy) = (Arc::new(ManualClock::new(0)), Arc::new(SeededEntropy::new(seed)));
        let (limits, pack_bytes_max) = (tight(), 8 << 20);
        Opening {
            boot: 1,
            accept_loss: false,
            limits,
            pack_bytes_max,
            fault: None,
            remote: None,
            clock,
            entropy,
        }
    }

    /// The same, after the machine was started again.
    pub fn rebooted(&self) -> Opening {
        Opening { boot: self.boot + 1, ..self.clone() }
    }

    /// Opens store and engine on any disk.
    pub fn open(&self, disk: Arc<dyn Disk>) -> Result<Engine> {
        // Small caches: what a test damages is read again.
        let options = Options {
            pack_bytes_max: self.pack_bytes_max,
            batch_bytes: 64 << 10,
            object_cache_bytes: 64 << 10,
            unused: Duration::ZERO,
        };
        let store = Store::open_with(Arc::clone(&disk), options)?;
        if let Some(remote) = &self.remote {
            let entropy = Arc::clone(&self.entropy);
            let host = Fleet::host_of(&disk, || HostId(entropy.remote_name().0))?;
            let naming = Naming { host: RemoteName(host.0), fresh: Box::new(move || entropy.remote_name()) };
            store.attach(Arc::new(remote.clone()), naming, CACHE_BYTES)?;
        }
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        let (boot, accept_loss, limits) = (Boot([self.boot; 16]), self.accept_loss, self.limits);
        Engine::open(Parts { disk, store, clock, entropy, boot, accept_loss, limits })
    }

    /// Opens on a simulated disk.
    pub fn open_sim(&self, disk: &SimDisk) -> Result<Engine> {
        match self.fault {
            Some(fault) => self.open(Arc::new(FaultyDisk { disk: disk.clone(), fault })),
            None => self.open(Arc::new(disk.clone())),
        }
    }

    /// Opens on a directory of this host, with the bounds of a host.
    pub fn open_dir(&self, dir: &std::path::Path) -> Result<Engine> {
        let disk = SysDisk::open(dir).unwrap();
        Opening { limits: Limits::default(), ..self.clone() }.open(Arc::new(disk))
    }
}
