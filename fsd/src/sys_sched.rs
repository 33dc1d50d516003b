//! Scheduling policies of single threads.
#![expect(unsafe_code, reason = "the scheduler's system calls have no safe wrappers")]

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

/// The policy of a thread of this process, or with 0 of the calling one. None: another one. Error: ESRCH, there is no such thread.
pub(crate) fn policy(thread: Pid) -> io::Result<Option<Policy>> {
    // SAFETY: a number goes in, a number comes out.
    let number = Errno::result(unsafe { libc::sched_getscheduler(thread.as_raw()) })?;
    Ok(match number {
        libc::SCHED_OTHER => Some(Policy::Fair),
        libc::SCHED_IDLE => Some(Policy::Idle),
        _ => None,
    })
}

/// Gives a thread of this process, or with 0 the calling one, another policy. Error: ESRCH, there is none any more; EPERM, this
/// process may not leave `Idle`, for want of CAP_SYS_NICE and of a `RLIMIT_NICE` that lets it (sched(7)).
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

/// Lets the calling thread's reads and writes keep the priority that they have, whatever its policy will be: of a thread that was given
/// none, the kernel derives it from policy and nice value each time (`task_nice_ioclass`). Error: as the kernel says.
pub(crate) fn keep_io_priority() -> io::Result<()> {
    // Not in libc: include/uapi/linux/ioprio.h. The priority that is derived: `task_nice_ioprio`.
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_NONE: i64 = 0;
    const CLASS_BEST_EFFORT: libc::c_int = 2;
    const CLASS_SHIFT: libc::c_int = 13;
    // SAFETY: numbers go in and come out; 0 is the calling thread.
    let given = Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) })?;
    if given >> CLASS_SHIFT != CLASS_NONE {
        return Ok(());
    }
    // SAFETY: as above. It cannot fail for the calling thread, so -1 is a nice value.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let priority = (CLASS_BEST_EFFORT << CLASS_SHIFT) | ((nice + 20) / 5);
    // SAFETY: as above.
    let outcome = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) };
    Ok(Errno::result(outcome).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_set_and_the_disk_does_not_notice() {
        let this = Pid::from_raw(0);
        assert_eq!(policy(this).unwrap(), Some(Policy::Fair));
        keep_io_priority().unwrap();
        set_policy(this, Policy::Idle).unwrap();
        assert_eq!(policy(this).unwrap(), Some(Policy::Idle));
        // SAFETY: numbers go in and come out.
        let class = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) } >> 13;
        assert_eq!(class, 2, "best effort");
        let nobody = Pid::from_raw(i32::MAX);
        assert_eq!(set_policy(nobody, Policy::Idle).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
