//! A slot: memory through which one request at a time comes from the kernel, and its reply goes back.
//!
//! A slot is either the kernel's (from its submission to its completion) or ours (from then to the next submission). The kernel
//! touches its memory only while it is the kernel's, and only inside system calls of the thread that submitted it.
#![expect(unsafe_code, reason = "memory that the kernel writes into")]

use std::{
    convert::Infallible,
    io,
    os::fd::{AsFd, BorrowedFd},
    slice,
    sync::{Arc, mpsc},
};

use cas::{disk::Patience, remote::fetch::Ticket};
use libc::iovec;
use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};
use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::super::{
    abi::{InHeader, OutHeader, RingHeader, opcode},
    device::Device,
    exchange::{carry_out, header_of},
    handshake::REQUEST_BYTES_MAX,
    parking::Parked,
    reply::Answer,
    request::Request,
};
use super::roaming::STREAM_BYTES;

/// In front of the payload, so that this begins on a page.
const HEADER_BYTES: usize = 4096;
const PAYLOAD_BYTES: usize = REQUEST_BYTES_MAX as usize;
/// Where the header's own bytes end and the addresses of the two buffers stand.
const IOVECS_OFFSET: usize = 512;
const _: () = assert!(size_of::<RingHeader>() <= IOVECS_OFFSET);
const _: () = assert!(IOVECS_OFFSET + 2 * size_of::<iovec>() <= HEADER_BYTES);
/// Of a payload that a large request has used, an idle slot keeps this much memory.
const KEPT_BYTES: usize = 64 << 10;
/// A request that moves more takes longer than a system call does.
const BULK_BYTES: usize = 32 << 10;
/// A reply to WRITE, with room to spare.
const SHORT_REPLY_BYTES: usize = 64;

/// What became of a request.
pub(super) enum Served {
    /// The reply is in its place.
    Done,
    /// The disk has to be waited for, and the request is as it was.
    Later,
    /// The same for an object that is on its way.
    Fetching(Ticket),
}

/// Memory for requests of one mount, and what answers them.
pub(super) struct Slot {
    map: MmapMut,
    device: Arc<Device>,
    /// Says, by going, that the mount has one slot less.
    _held: mpsc::Sender<Infallible>,
    /// How far requests and replies have reached into the payload since memory was given back.
    reach: usize,
    /// What the last request moved, in one direction.
    last_bytes: usize,
    /// Whether the last request was a READ.
    is_read: bool,
    /// Whether there was a request since somebody last asked.
    is_used: bool,
}

impl Slot {
    /// Memory for requests of `device`; pages that nothing touches cost nothing. Error: there is none.
    pub fn new(device: Arc<Device>, held: mpsc::Sender<Infallible>) -> io::Result<Slot> {
        let mut map = MmapOptions::new().len(HEADER_BYTES + PAYLOAD_BYTES).no_reserve_swap().map_anon()?;
        let base = map.as_mut_ptr();
        let buffers = [
            iovec { iov_base: base.cast(), iov_len: size_of::<RingHeader>() },
            iovec { iov_base: base.wrapping_add(HEADER_BYTES).cast(), iov_len: PAYLOAD_BYTES },
        ];
        // SAFETY: the place is inside the map, which is aligned to a page, behind the header and before the payload, as the
        // assertions above say; nothing else is there.
        unsafe { base.add(IOVECS_OFFSET).cast::<[iovec; 2]>().write(buffers) };
        Ok(Slot { map, device, _held: held, reach: 0, last_bytes: 0, is_read: false, is_used: false })
    }

    /// The device whose requests come here.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.fd.as_fd()
    }

    /// The address of the addresses of its two buffers. Stays where it is when the slot is moved.
    pub fn iovecs(&self) -> u64 {
        self.map.as_ptr().wrapping_add(IOVECS_OFFSET).addr() as u64
    }

    /// What its request asks for. For a slot that is ours.
    pub fn opcode(&self) -> u32 {
        self.request().opcode
    }

    /// What its request begins with. For a slot that is ours.
    pub fn request(&self) -> InHeader {
        InHeader::read_from_prefix(self.header().in_out.as_bytes())
            .map_or_else(|_| InHeader::default(), |(header, _)| header)
    }

    /// Where it stands aside.
    pub fn parked(&self) -> Parked {
        self.device.dispatch.parked().clone()
    }

    /// By what the kernel knows the request. For a slot that is ours.
    pub fn commit_id(&self) -> u64 {
        self.header().exchange.commit_id
    }

    /// Carries out its request and puts the reply in its place. For a slot that is ours. `scratch` is for small arguments: a
    /// reply overwrites the payload that it came in.
    pub fn serve(&mut self, patience: Patience, scratch: &mut Vec<u8>) -> Served {
        let device = Arc::clone(&self.device);
        let (header, payload) = self.parts();
        let arguments = header.fixed;
        let Ok((request, _)) = InHeader::read_from_prefix(header.in_out.as_bytes()) else {
            unreachable!("128 bytes are enough for 40")
        };
        let others_bytes = (header.exchange.payload_bytes as usize).min(payload.len());
        let first_bytes = (request.len as usize).saturating_sub(size_of::<InHeader>() + others_bytes);
        let first = &arguments.as_bytes()[..first_bytes.min(size_of_val(&arguments))];
        let answer = if request.opcode == opcode::WRITE {
            // Its bytes are taken from where they are.
            let mut reply = [0; SHORT_REPLY_BYTES];
            let parsed = Request::of_parts(request, first, &payload[..others_bytes], device.setxattr_ext);
            let answer = carry_out(&device.dispatch, &parsed, patience, &mut reply);
            if let Answer::Done(len) = answer {
                payload[..len].copy_from_slice(&reply[..len]);
            }
            answer
        } else {
            scratch.clear();
            scratch.extend_from_slice(&payload[..others_bytes]);
            let parsed = Request::of_parts(request, first, scratch, device.setxattr_ext);
            carry_out(&device.dispatch, &parsed, patience, payload)
        };
        let answer = match answer {
            Answer::Later => return Served::Later,
            Answer::Fetching(ticket) => return Served::Fetching(ticket),
            // Forgets, which nobody replies to, do not come this way.
            Answer::None => Answer::Failed(Errno::ENOSYS),
            answer => answer,
        };
        let is_read = request.opcode == opcode::READ;
        self.put_reply(&answer, request.unique, others_bytes, is_read);
        Served::Done
    }

    /// Replies with an error. For a slot that is ours.
    pub fn refuse(&mut self, errno: Errno) {
        let request_bytes = (self.header().exchange.payload_bytes as usize).min(PAYLOAD_BYTES);
        self.put_reply(&Answer::Failed(errno), self.request().unique, request_bytes, false);
    }

    fn put_reply(&mut self, answer: &Answer, unique: u64, request_bytes: usize, is_read: bool) {
        let (header, _) = self.parts();
        let reply = header_of(answer, unique).unwrap_or_default();
        let reply_bytes = reply.len as usize - size_of::<OutHeader>();
        header.exchange.payload_bytes = reply_bytes as u32;
        header.in_out.as_mut_bytes()[..size_of::<OutHeader>()].copy_from_slice(reply.as_bytes());
        self.is_read = is_read;
        self.last_bytes = request_bytes.max(reply_bytes);
        self.reach = self.reach.max(self.last_bytes);
        self.is_used = true;
    }

    /// Whether a large request has left more memory here than is kept.
    pub fn is_large(&self) -> bool {
        self.reach > KEPT_BYTES
    }

    /// Whether its last request, or the reply, moved so much that others should not wait for its turn.
    pub fn is_bulk(&self) -> bool {
        self.last_bytes > BULK_BYTES
    }

    /// Whether its last request was one of the kernel's for what a program will read next.
    pub fn was_read_ahead(&self) -> bool {
        self.is_read && self.last_bytes >= STREAM_BYTES
    }

    /// Gives back what a large request took, if there was no request since the last call. May be called while the slot is the
    /// kernel's, by the thread that submitted it.
    pub fn trim(&mut self) {
        if std::mem::take(&mut self.is_used) || !self.is_large() {
            return;
        }
        let (offset, len) = (HEADER_BYTES + KEPT_BYTES, PAYLOAD_BYTES - KEPT_BYTES);
        // SAFETY: no reference into the payload is alive, since the slot is borrowed for us alone. Its bytes may turn to zeros: they
        // are those of a request that was answered. The kernel may hold the pages of neither a request nor a reply now: it
        // copies inside this thread's own system calls, of which this is not one, and what it copies later goes to new pages.
        let advised = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) };
        if let Err(error) = advised {
            tracing::debug!(%error, "memory of an idle slot stays");
        }
        self.reach = 0;
    }

    /// Goes, but for its memory, which the kernel may still have.
    pub fn leak(mut self) {
        match MmapMut::map_anon(1) {
            Ok(other) => std::mem::forget(std::mem::replace(&mut self.map, other)),
            // Then the rest of it stays, too.
            Err(_) => std::mem::forget(self),
        }
    }

    fn header(&self) -> &RingHeader {
        // SAFETY: the map is larger than the header, aligned to a page, and any bytes are a header. The slot is ours: the kernel
        // writes nothing there, and who has it mutably has it alone.
        unsafe { &*self.map.as_ptr().cast::<RingHeader>() }
    }

    fn parts(&mut self) -> (&mut RingHeader, &mut [u8]) {
        let base = self.map.as_mut_ptr();
        // SAFETY: two parts of the map that do not overlap, by the sizes above; any bytes are valid for both. The slot is ours,
        // so the kernel touches neither, and both are borrowed from `self`, which is borrowed for us alone.
        unsafe {
            let payload = slice::from_raw_parts_mut(base.add(HEADER_BYTES), PAYLOAD_BYTES);
            (&mut *base.cast::<RingHeader>(), payload)
        }
    }
}
