//! What is submitted to a ring: commands to a mount's device, and a look-out for messages.
#![expect(unsafe_code, reason = "the io-uring crate has no way to say how many buffers a command brings")]

use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{
    IoUring, cqueue, opcode,
    squeue::{Entry128, PushError},
    types::Fd,
};
use zerocopy::IntoBytes;

use super::{
    super::abi::{RingCommand, ring_command},
    slot::Slot,
};

/// Where `len` is in `struct io_uring_sqe`.
const LEN_OFFSET: usize = 24;
/// A slot's header and its payload.
const BUFFERS: u32 = 2;
const _: () = assert!(size_of::<Entry128>() == 128 && LEN_OFFSET + size_of::<u32>() <= 128);

/// Gives a slot to the kernel, for requests of a queue. `token` comes back with each.
pub(super) fn register(slot: &Slot, queue: u16, token: u64) -> Entry128 {
    let command = RingCommand { queue, ..Default::default() };
    let mut entry =
        device_command(slot.device(), ring_command::REGISTER, &command, Some(slot.iovecs()), token);
    // SAFETY: Entry128 is `repr(C)` and holds nothing but the 128 bytes of a submission, of which these four are a plain number
    // that the command's builder leaves zero.
    unsafe { (&raw mut entry).cast::<u8>().add(LEN_OFFSET).cast::<u32>().write_unaligned(BUFFERS) };
    entry
}

/// Gives a slot with a reply back, for the next request.
pub(super) fn commit_and_fetch(slot: &Slot, queue: u16, token: u64) -> Entry128 {
    let command = RingCommand { commit_id: slot.commit_id(), queue, ..Default::default() };
    device_command(slot.device(), ring_command::COMMIT_AND_FETCH, &command, None, token)
}

/// Completes when `fd` can be read.
pub(super) fn look_out(fd: BorrowedFd<'_>, token: u64) -> Entry128 {
    let readable = libc::POLLIN as u32;
    opcode::PollAdd::new(Fd(fd.as_raw_fd()), readable).build().user_data(token).into()
}

/// Puts a command where the kernel takes it from at the next submission. Error: there is no room before that.
pub(super) fn push(ring: &mut IoUring<Entry128, cqueue::Entry>, command: &Entry128) -> Result<(), PushError> {
    // SAFETY: what a command refers to has to stay valid until its completion. A slot's memory does: the thread keeps the slot
    // until the kernel has completed it, and leaks its memory if that cannot be waited for. The descriptor of a look-out is the thread's own, and is looked up at submission.
    unsafe { ring.submission().push(command) }
}

fn device_command(
    fd: BorrowedFd<'_>,
    code: u32,
    command: &RingCommand,
    iovecs: Option<u64>,
    token: u64,
) -> Entry128 {
    let mut area = [0; 80];
    area[..size_of::<RingCommand>()].copy_from_slice(command.as_bytes());
    opcode::UringCmd80::new(Fd(fd.as_raw_fd()), code).cmd(area).addr(iovecs).build().user_data(token)
}
