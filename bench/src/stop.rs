//! Ctrl-C and SIGTERM: the program that runs is ended, so the run fails, and cleans up as after any failure.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::Result;

static STOPPED: AtomicBool = AtomicBool::new(false);
/// The process group of the program that runs; 0 for none.
static RUNNING: AtomicI32 = AtomicI32::new(0);

pub(crate) fn on_signals() -> Result<()> {
    Ok(ctrlc::set_handler(|| {
        STOPPED.store(true, SeqCst);
        let group = RUNNING.load(SeqCst);
        if group != 0 {
            // It may have ended just now.
            let _ = killpg(Pid::from_raw(group), Signal::SIGTERM);
        }
    })?)
}

/// Fails if somebody wants the run to end. Programs that clean up do not ask.
pub(crate) fn check() -> Result<()> {
    match STOPPED.load(SeqCst) {
        true => Err("interrupted".into()),
        false => Ok(()),
    }
}

/// Waits for a program that leads a process group of its own, which a signal ends meanwhile.
pub(crate) fn during<T>(group: u32, wait: impl FnOnce() -> T) -> T {
    RUNNING.store(group.cast_signed(), SeqCst);
    let result = wait();
    RUNNING.store(0, SeqCst);
    result
}
