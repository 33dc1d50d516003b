//! What carries a mount's requests, and how that is decided.

use std::{fs, io, sync::Arc};

use parking_lot::Mutex;

use super::ring::{self, Rings};

/// Where the kernel says whether FUSE may use io_uring, and is told so.
const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";

/// What carries requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Messages that are read from /dev/fuse and written to it.
    DevFuse,
    /// io_uring.
    IoUring,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TransportChoice {
    /// io_uring where it can be had, else /dev/fuse.
    #[default]
    Auto,
    /// /dev/fuse
    DevFuse,
    /// io_uring, or no mount
    IoUring,
}

impl Transport {
    /// What asks for this one and no other.
    pub fn choice(self) -> TransportChoice {
        match self {
            Transport::DevFuse => TransportChoice::DevFuse,
            Transport::IoUring => TransportChoice::IoUring,
        }
    }

    /// Its name, as arguments and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Transport::DevFuse => "dev-fuse",
            Transport::IoUring => "io-uring",
        }
    }
}

/// Why io_uring cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NoRings {
    /// The kernel is too old, or built without.
    #[error("this kernel's FUSE does not know io_uring (Linux 6.14 and later do)")]
    Unknown,
    /// It is not switched on.
    #[error("it is switched off; as root: echo Y > {SWITCH}")]
    Off,
    /// A container or a policy forbids it.
    #[error("this system does not let the daemon use it: {0}")]
    Forbidden(io::Error),
    /// The kernel said no when it came to it.
    #[error("the kernel refused it for this mount: {0}")]
    Refused(io::Error),
}

/// Whether FUSE may use io_uring, and this process have it. Error: `Unknown`, `Off`, `Forbidden`.
pub fn may_use_io_uring() -> Result<(), NoRings> {
    is_on()?;
    ring::try_one().map_err(NoRings::Forbidden)
}

fn is_on() -> Result<(), NoRings> {
    match fs::read_to_string(SWITCH).map_err(|_| NoRings::Unknown)?.trim() {
        "Y" => Ok(()),
        _ => Err(NoRings::Off),
    }
}

/// The rings of a daemon, made when the first mount wants them.
#[derive(Debug, Default)]
pub(super) struct LazyRings(Mutex<Option<Arc<Rings>>>);

impl LazyRings {
    /// Ready for a mount: they have to be, before the kernel is told that they are. Error: they cannot be had.
    pub fn get(&self) -> Result<Arc<Rings>, NoRings> {
        is_on()?;
        let mut rings = self.0.lock();
        if let Some(rings) = &*rings {
            return Ok(Arc::clone(rings));
        }
        let made = Arc::new(Rings::start().map_err(NoRings::Forbidden)?);
        Ok(Arc::clone(rings.insert(made)))
    }

    /// The next mount gets others: one of these does not work, or not any more. Mounts that they serve keep them.
    pub fn renew(&self) {
        *self.0.lock() = None;
    }
}
