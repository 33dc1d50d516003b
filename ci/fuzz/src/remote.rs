//! What comes from the store that hosts share: frames and footers of packs, layers, manifests, leases, heads. What is accepted holds what it says, and
//! written again gives the same bytes.

use cas::{Digest, SnapshotId, fuzzing};
use fsd::{fleet::heads::Head, session::SessionId};
use xxhash_rust::xxh3::xxh3_64;

/// The first byte chooses the decoder. Checksums are put right: what is behind them is what is to be tried. A frame has in front how long it says it is.
pub fn run(data: &[u8]) {
    let Some((&what, bytes)) = data.split_first() else { return };
    match what {
        b'd' | b'm' => {
            if let Some((raw, stored)) = bytes.split_first_chunk() {
                fuzzing::frame(what == b'm', u32::from_le_bytes(*raw), stored);
            }
        }
        b'f' => fuzzing::footer(&summed(bytes)),
        b'l' => fuzzing::layer(&summed(bytes)),
        b'e' => fuzzing::lease(&summed(bytes)),
        b's' => {
            if let Some(id) = bytes.get(8..40).and_then(|id| id.try_into().ok()) {
                fuzzing::manifest(SnapshotId(Digest(id)), &summed(bytes));
            }
        }
        b'h' => {
            let summed = summed(bytes);
            if let Some(id) = bytes.get(6..16).and_then(|id| id.try_into().ok())
                && let Ok(head) = Head::decode(SessionId(id), &summed)
            {
                assert_eq!(head.encode(), summed, "a head has one spelling");
            }
        }
        _ => {}
    }
}

fn summed(bytes: &[u8]) -> Vec<u8> {
    [bytes, &xxh3_64(bytes).to_le_bytes()].concat()
}
