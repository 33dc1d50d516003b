//! The C library's heap, told not to keep large buffers.
//!
//! glibc raises the size from which it maps memory apart, up to 32 MiB, whenever a mapped buffer is freed (mallopt(3)). Buffers of
//! mounts (16 MiB each for fuser's threads) then come from heaps that only shrink from their ends: 120 mounts that came and went
//! left 600 MiB resident, 1000 left 950. With a fixed size they are given back when they are freed: 14 MiB.
#![expect(unsafe_code, reason = "mallopt has no safe wrapper")]

/// From this size on a buffer is mapped, and unmapped when it is freed. Not smaller: each costs two system calls and its page
/// faults.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 512 << 10;

/// Fixes the size for the life of the process. To be called at its start.
pub(crate) fn give_large_buffers_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes two numbers, keeps no pointers, and may be called at any time.
        let taken = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) };
        if taken != 1 {
            tracing::warn!("the heap keeps its own size for large buffers; memory of old mounts may stay");
        }
    }
}
