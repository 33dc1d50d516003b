//! A record of a head. Pure: bytes in, values out; docs/format.md is normative.

use std::fmt;

use cas::{SnapshotId, Time, base32};
use xxhash_rust::xxh3::xxh3_64;

use crate::session::{
    LABEL_BYTES_MAX, SessionId,
    codec::{Put, Take},
};

const MAGIC: u32 = u32::from_le_bytes(*b"AFhd");
const VERSION: u8 = 1;
const SUM: usize = 8;
/// Bytes of the largest record: everything of fixed length, and a label.
pub const HEAD_BYTES_MAX: usize = 256 + LABEL_BYTES_MAX;
const ENDED: u8 = 1;
const HELD: u8 = 2;
const FORKED: u8 = 4;
const NAMED: u8 = 8;

/// 128 random bits: which attempt to append this is. A lost answer is told from a lost race by it.
pub type Nonce = [u8; 16];

/// A host, for as long as its state is there: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub [u8; 16]);

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whose.
    pub session: SessionId,
    /// Its number among that session's, from 1.
    pub seq: u64,
    /// Grows with each change of hands.
    pub epoch: u64,
    /// Who may write the session; nobody: whoever comes first.
    pub holder: Option<HostId>,
    /// What is published of it.
    pub root: SnapshotId,
    /// The snapshot that its inode numbers go back to.
    pub origin: SnapshotId,
    /// The session that it was forked from.
    pub parent: Option<SessionId>,
    /// Its label.
    pub name: Option<String>,
    /// When it was created.
    pub created: Time,
    /// It was discarded: there is no record behind this one.
    pub ended: bool,
    /// See [`Nonce`].
    pub nonce: Nonce,
}

impl Head {
    /// The bytes of the record.
    pub fn encode(&self) -> Vec<u8> {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = flag(self.ended, ENDED)
            | flag(self.holder.is_some(), HELD)
            | flag(self.parent.is_some(), FORKED)
            | flag(self.name.is_some(), NAMED);
        let mut out = Vec::new();
        out.u32(MAGIC);
        out.u8(VERSION);
        out.u8(flags);
        out.extend(self.session.0);
        out.u64(self.seq);
        out.u64(self.epoch);
        out.extend(self.nonce);
        out.digest(&self.root.0);
        out.digest(&self.origin.0);
        out.time(self.created);
        out.extend(self.holder.map(|host| host.0).into_iter().flatten());
        out.extend(self.parent.map(|parent| parent.0).into_iter().flatten());
        if let Some(name) = &self.name {
            out.bytes(name.as_bytes());
        }
        out.extend(xxh3_64(&out).to_le_bytes());
        out
    }

    /// The record of this session that `bytes` stand for, if they are what [`Head::encode`] gives for it.
    pub fn decode(session: SessionId, bytes: &[u8]) -> Result<Head, &'static str> {
        let (body, sum) = bytes.split_last_chunk::<SUM>().ok_or("shorter than a record can be")?;
        if xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err("the checksum is wrong");
        }
        let head = Head::take(&mut Take(body)).ok_or("not a record of version 1")?;
        if head.session != session {
            return Err("of another session");
        }
        Ok(head)
    }

    fn take(from: &mut Take<'_>) -> Option<Head> {
        if from.u32()? != MAGIC || from.u8()? != VERSION {
            return None;
        }
        let flags = from.u8()?;
        if flags & !(ENDED | HELD | FORKED | NAMED) != 0 {
            return None;
        }
        let session = SessionId(from.array()?);
        let (seq, epoch) = (from.u64()?, from.u64()?);
        let nonce = from.array()?;
        let (root, origin) = (SnapshotId(from.digest()?), SnapshotId(from.digest()?));
        let created = from.time()?;
        let holder = if flags & HELD == 0 { None } else { Some(HostId(from.array()?)) };
        let parent = if flags & FORKED == 0 { None } else { Some(SessionId(from.array()?)) };
        let name = match flags & NAMED {
            0 => None,
            _ => Some(String::from_utf8(from.bytes()?.to_vec()).ok()?),
        };
        let is_label = |name: &String| (1..=LABEL_BYTES_MAX).contains(&name.len());
        let follows = |number: u64| (1..u64::MAX).contains(&number);
        let is_ours = follows(seq) && follows(epoch) && from.is_empty() && name.as_ref().is_none_or(is_label);
        let ended = flags & ENDED != 0;
        let head = Head { session, seq, epoch, holder, root, origin, parent, name, created, ended, nonce };
        is_ours.then_some(head)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host_{}", base32::encode(&self.0))
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use cas::Digest;
    use proptest::prelude::*;

    use super::*;

    fn head() -> impl Strategy<Value = Head> {
        let ids = (any::<[u8; 10]>(), any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 16]>());
        let numbers = (1..u64::MAX, 1..u64::MAX, any::<i64>(), 0..1_000_000_000_u32, any::<bool>());
        let rest =
            (any::<Option<[u8; 16]>>(), any::<Option<[u8; 10]>>(), proptest::option::of("[a-z]{1,128}"));
        (ids, numbers, rest).prop_map(
            |((session, root, origin, nonce), (seq, epoch, secs, nanos, ended), rest)| Head {
                session: SessionId(session),
                seq,
                epoch,
                holder: rest.0.map(HostId),
                root: SnapshotId(Digest(root)),
                origin: SnapshotId(Digest(origin)),
                parent: rest.1.map(SessionId),
                name: rest.2,
                created: Time { secs, nanos },
                ended,
                nonce,
            },
        )
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(head in head()) {
            let bytes = head.encode();
            prop_assert!(bytes.len() <= HEAD_BYTES_MAX);
            prop_assert_eq!(Head::decode(head.session, &bytes), Ok(head));
        }

        #[test]
        fn only_canonical_bytes_are_accepted(
            head in head(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = head.encode();
            for (at, flip) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            let end = bytes.len() - SUM;
            let sum = xxh3_64(&bytes[..end]).to_le_bytes();
            bytes[end..].copy_from_slice(&sum);
            if let Ok(decoded) = Head::decode(head.session, &bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
        }
    }

    #[test]
    fn it_is_of_one_session() {
        let id = SnapshotId(Digest([7; 32]));
        let head = Head {
            session: SessionId([1; 10]),
            seq: 1,
            epoch: 1,
            holder: None,
            root: id,
            origin: id,
            parent: None,
            name: None,
            created: Time::default(),
            ended: false,
            nonce: [2; 16],
        };
        assert!(Head::decode(head.session, &head.encode()).is_ok());
        assert_eq!(Head::decode(SessionId([2; 10]), &head.encode()), Err("of another session"));
    }
}
