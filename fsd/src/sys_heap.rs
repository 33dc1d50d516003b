//! The C library's heap, told to be one, and not to keep large buffers.
//!
//! glibc gives each thread a heap of its own, up to eight for each CPU. What one thread fills another empties here: a request is
//! served by the thread of the CPU that it was made on, and caches drop what is oldest, whoever put it there. So every heap grows
//! towards what all of them need together. After a `grep -r` over 386,000 files 75 MiB in use took 143. In one heap they take 82, and
//! a lock that all share costs nothing that could be measured (docs/decisions/0026): threads keep small pieces for themselves.
//!
//! And it raises the size from which it maps memory apart, up to 32 MiB, whenever a mapped buffer is freed (mallopt(3)). Buffers of
//! mounts (16 MiB each for fuser's threads) then come from heaps that only shrink from their ends: 120 mounts that came and went
//! left 600 MiB resident, 1000 left 950. With a fixed size they are given back when they are freed: 14 MiB.
#![expect(unsafe_code, reason = "mallopt has no safe wrapper")]

/// From this size on a buffer is mapped, and unmapped when it is freed. Not smaller: each costs two system calls and its page
/// faults.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 512 << 10;

/// Heaps of the process.
#[cfg(target_env = "gnu")]
const HEAPS_MAX: libc::c_int = 1;

/// For the life of the process. To be called at its start, while it has one thread: a heap that a thread has stays.
pub(crate) fn keep_small() {
    #[cfg(target_env = "gnu")]
    {
        let set = |parameter, value| {
            // SAFETY: mallopt takes two numbers, keeps no pointers, and may be called at any time.
            unsafe { libc::mallopt(parameter, value) == 1 }
        };
        if !set(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) {
            tracing::warn!("the heap keeps its own size for large buffers; memory of old mounts may stay");
        }
        if !set(libc::M_ARENA_MAX, HEAPS_MAX) {
            tracing::warn!("every thread has a heap of its own; they take twice the memory");
        }
    }
}
