//! What goes back to the kernel: replies put together in the buffer that they are sent from.

use cas::{Kind, remote::fetch::Ticket};
use nix::errno::Errno;
use zerocopy::{Immutable, IntoBytes};

use super::abi::{Dirent, EntryOut};

/// How a request ends.
#[derive(Debug)]
pub(super) enum Answer {
    /// It does not yet: an object that it needs is on its way. Nothing was done; it is carried out again when that is here.
    Fetching(Ticket),
    /// The kernel waits for none.
    None,
    /// There is none yet: who does not wait for the disk has to let somebody else carry the request out.
    Later,
    /// It failed. `Errno::UnknownErrno` never goes out.
    Failed(Errno),
    /// It succeeded, and the reply has this many bytes behind its header.
    Done(usize),
}

/// A reply under way: the bytes behind its header.
#[derive(Debug)]
pub(super) struct Reply<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> Reply<'b> {
    /// An empty one, in a buffer that is as large as replies may become.
    pub fn new(buffer: &'b mut [u8]) -> Reply<'b> {
        Reply { buffer, len: 0 }
    }

    /// Its end.
    pub fn done(&self) -> Answer {
        Answer::Done(self.len)
    }

    /// One of the protocol's structs.
    pub fn put<T: IntoBytes + Immutable>(&mut self, value: &T) -> Answer {
        self.bytes(value.as_bytes())
    }

    /// Plain bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Answer {
        match self.buffer.get_mut(self.len..self.len + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len += bytes.len();
                self.done()
            }
            None => Answer::Failed(Errno::ERANGE),
        }
    }

    /// Bytes that somebody else fills in: up to `size`, as many as `fill` says.
    pub fn fill<E>(
        &mut self,
        size: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Answer, E> {
        let size = size.min(self.buffer.len() - self.len);
        self.len += fill(&mut self.buffer[self.len..self.len + size])?;
        Ok(self.done())
    }
}

/// A listing under way: as many names as the kernel has room for.
#[derive(Debug)]
pub(super) struct Listing<'r, 'b> {
    reply: &'r mut Reply<'b>,
    size_max: usize,
}

impl<'r, 'b> Listing<'r, 'b> {
    /// A listing of at most `size` bytes.
    pub fn new(reply: &'r mut Reply<'b>, size: u32) -> Listing<'r, 'b> {
        let size_max = reply.buffer.len().min(size as usize);
        Listing { reply, size_max }
    }

    /// Its end.
    pub fn done(&self) -> Answer {
        self.reply.done()
    }

    /// One more name, with what it stands for in READDIRPLUS; `next` is where a later listing goes on behind it. False if
    /// there is no room for it.
    pub fn add(&mut self, entry: Option<&EntryOut>, ino: u64, next: u64, kind: Kind, name: &[u8]) -> bool {
        let dirent = Dirent { ino, next, name_bytes: name.len() as u32, kind: kind.mode_bits() >> 12 };
        let bytes = entry.map_or(0, |_| size_of::<EntryOut>()) + size_of::<Dirent>() + name.len();
        let padding = bytes.next_multiple_of(8) - bytes;
        if self.reply.len + bytes + padding > self.size_max {
            return false;
        }
        if let Some(entry) = entry {
            self.reply.put(entry);
        }
        self.reply.put(&dirent);
        self.reply.bytes(name);
        self.reply.bytes(&[0; 7][..padding]);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_padded_and_those_without_room_left_out() {
        let mut buffer = [9; 100];
        let mut reply = Reply::new(&mut buffer);
        let mut listing = Listing::new(&mut reply, 64);
        assert!(listing.add(None, 5, 1, Kind::File, b"abc"));
        assert!(listing.add(None, 6, 2, Kind::Dir, b"abcdefgh"));
        assert!(!listing.add(None, 7, 3, Kind::File, b"a"));
        assert!(matches!(reply.done(), Answer::Done(64)));
        assert_eq!(&buffer[16..32], b"\x03\0\0\0\x08\0\0\0abc\0\0\0\0\0");
        assert_eq!(buffer[64], 9);
    }

    #[test]
    fn what_does_not_fit_fails() {
        let mut buffer = [0; 4];
        assert!(matches!(Reply::new(&mut buffer).bytes(b"12345"), Answer::Failed(Errno::ERANGE)));
        assert!(matches!(Reply::new(&mut buffer).bytes(b"1234"), Answer::Done(4)));
    }
}
