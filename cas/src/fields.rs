//! Little-endian fields at fixed places of a record. Callers have checked that the record is long enough.

use crate::{Digest, Time};

/// `N` bytes at `at`.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// The digest at `at`; 32 zero bytes stand for none.
pub(crate) fn digest_at(bytes: &[u8], at: usize) -> Option<Digest> {
    let digest: [u8; 32] = array(bytes, at);
    (digest != [0; 32]).then_some(Digest(digest))
}

/// The bytes of an optional digest: none is 32 zero bytes.
pub(crate) fn digest_bytes(digest: Option<Digest>) -> [u8; 32] {
    digest.map_or([0; 32], |digest| digest.0)
}

/// A time whose seconds and nanoseconds stand apart, so that records have no padding.
pub(crate) fn time_at(bytes: &[u8], secs_at: usize, nanos_at: usize) -> Time {
    Time { secs: i64::from_le_bytes(array(bytes, secs_at)), nanos: u32_at(bytes, nanos_at) }
}
