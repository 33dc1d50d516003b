//! What comes from another host, and what leads there: its answers, part by part; the list of what hangs on it; URIs.

use cas::{
    Digest, ObjectKind,
    remote::{
        hanging,
        peer::{FOLLOWING_MAX, Name, fuzz_answer},
    },
};
use fsd::fleet::{peers::part, uri::Uri};
use prost::Message;
use proto::v1::ReadReply;
use xxhash_rust::xxh3::xxh3_64;

/// Parts of an answer that are looked at.
const PARTS_MAX: usize = 64;
/// What is asked for: an object of these bytes, one that is nowhere, and one of none.
pub const CONTENT: &[u8] = b"the bytes of an object";

/// The names of those.
pub fn wanted() -> [Name; 3] {
    [CONTENT, b"nowhere", b""].map(|bytes| (ObjectKind::Chunk, Digest::of(bytes)))
}

/// The first byte chooses what it is. Parts have a length (u16) in front; of the list the checksum is put right.
pub fn run(data: &[u8]) {
    let Some((&what, bytes)) = data.split_first() else { return };
    match (what, std::str::from_utf8(bytes)) {
        (b'a', _) => answer(bytes),
        (b'h', _) => hanging::fuzz_list(&[bytes, &xxh3_64(bytes).to_le_bytes()].concat()),
        (b'u', Ok(text)) => uri(text),
        _ => {}
    }
}

fn answer(mut bytes: &[u8]) {
    let messages = std::iter::from_fn(|| {
        let ([low, high], rest) = bytes.split_first_chunk()?;
        let (message, rest) = rest.split_at_checked(u16::from_le_bytes([*low, *high]).into())?;
        bytes = rest;
        Some(message)
    });
    // What does not decode ends the call before anybody looks into it.
    let decoded = messages.take(PARTS_MAX).map_while(|message| ReadReply::decode(message).ok());
    let parts = decoded.map_while(|reply| part(reply).ok()).collect();
    fuzz_answer(&wanted(), FOLLOWING_MAX, parts);
}

fn uri(text: &str) {
    let Ok(uri) = Uri::parse(text) else { return };
    let written = uri.to_string();
    let again = Uri::parse(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
    assert_eq!(again, Uri { path: Vec::new(), ..uri });
}
