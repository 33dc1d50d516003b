//! Scheduling policies of single threads.
#![expect(unsafe_code, reason = "sched_setscheduler and ioprio_set have no safe wrappers")]

use std::io;

use nix::{errno::Errno, unistd::Pid};

/// What a thread gets of a CPU that others want, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Its share (`SCHED_OTHER`).
    Fair,
    /// Next to nothing (`SCHED_IDLE`).
    Idle,
}

/// Gives a thread of this process, or with 0 the calling one, another policy. Error: ESRCH, there is none any more; EPERM, this
/// process may not leave `Idle`, as no ordinary user may (sched(7), `RLIMIT_NICE`).
pub(crate) fn set_policy(thread: Pid, policy: Policy) -> io::Result<()> {
    let number = match policy {
        Policy::Fair => libc::SCHED_OTHER,
        Policy::Idle => libc::SCHED_IDLE,
    };
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads one `sched_param`, which lives as long as it, and keeps no pointer. A number that is no thread's, or
    // another's by now, can change how fast something runs, and nothing else.
    let outcome = unsafe { libc::sched_setscheduler(thread.as_raw(), number, &raw const priority) };
    Ok(Errno::result(outcome).map(drop)?)
}

/// Lets the calling thread's reads and writes keep the priority of everybody's, whatever its policy will be: of a thread that has
/// none of its own, the kernel derives it from that (`task_nice_ioclass`). Error: as the kernel says.
pub(crate) fn keep_io_priority() -> io::Result<()> {
    // Not in libc: include/uapi/linux/ioprio.h.
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_BEST_EFFORT: libc::c_int = 2;
    const CLASS_SHIFT: libc::c_int = 13;
    const LEVEL_NORMAL: libc::c_int = 4;
    let priority = CLASS_BEST_EFFORT << CLASS_SHIFT | LEVEL_NORMAL;
    // SAFETY: three numbers go in, and no pointer; 0 is the calling thread.
    let outcome = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) };
    Ok(Errno::result(outcome).map(drop)?)
}
