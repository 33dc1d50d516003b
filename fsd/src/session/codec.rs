//! Little-endian fields in and out of a byte string. Every read is checked; what is malformed is `None`.

use cas::{Digest, Time};
use xxhash_rust::xxh3::xxh3_64;

/// Appends fields.
pub(crate) trait Put {
    fn u8(&mut self, v: u8);
    fn u32(&mut self, v: u32);
    fn u64(&mut self, v: u64);
    fn time(&mut self, v: Time);
    fn digest(&mut self, v: &Digest);
    /// A length of 4 bytes, then the bytes.
    fn bytes(&mut self, v: &[u8]);
}

impl Put for Vec<u8> {
    fn u8(&mut self, v: u8) {
        self.push(v);
    }
    fn u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn time(&mut self, v: Time) {
        self.u64(v.secs as u64);
        self.u32(v.nanos);
    }
    fn digest(&mut self, v: &Digest) {
        self.extend_from_slice(&v.0);
    }
    fn bytes(&mut self, v: &[u8]) {
        self.u32(v.len() as u32);
        self.extend_from_slice(v);
    }
}

/// Takes fields off the front.
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.raw(N)?.try_into().ok()
    }
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub(crate) fn time(&mut self) -> Option<Time> {
        let (secs, nanos) = (self.u64()? as i64, self.u32()?);
        (nanos < 1_000_000_000).then_some(Time { secs, nanos })
    }
    pub(crate) fn digest(&mut self) -> Option<Digest> {
        self.array().map(Digest)
    }
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.raw(len as usize)
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

const SUM: usize = 8;

/// With a checksum (XXH3-64) behind it.
pub(crate) fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let sum = xxh3_64(&body);
    body.extend(sum.to_le_bytes());
    body
}

/// What is in front of the checksum, if that is right.
pub(crate) fn opened(bytes: &[u8]) -> Option<&[u8]> {
    let (body, sum) = bytes.split_last_chunk::<SUM>()?;
    (xxh3_64(body) == u64::from_le_bytes(*sum)).then_some(body)
}
