//! The engine and the service around it, in this process: judged by a dull model, on simulated disks, in a store that hangs and lies. One program:
//! each further one would have the model compiled into it again.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod against_model;
mod chains;
mod common;
mod daemon;
mod damage;
mod durability;
mod full_disk;
mod grpc;
mod hostile;
mod life;
mod limits;
mod model;
mod notes;
mod parallel;
mod promises;
mod recovery;
mod rot;
mod simulation;
mod stories;
mod travel;
mod visiting;
mod work;
