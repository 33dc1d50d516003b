//! Identifiers as people type them: Crockford base32 in lower case behind a three-letter prefix.

use std::{fmt, str::FromStr, sync::LazyLock};

use crate::Digest;

/// Lower-case Crockford base32 without padding, most significant bit first. Input may be upper case, and the letters that
/// Crockford leaves out are read as the digits they resemble (`o` as 0, `i` and `l` as 1).
pub mod base32 {
    use super::*;
    use data_encoding::{Encoding, Specification};

    static ENCODING: LazyLock<Encoding> = LazyLock::new(|| {
        let mut spec = Specification::new();
        spec.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
        spec.translate.from.push_str("ABCDEFGHJKMNPQRSTVWXYZoOiIlL");
        spec.translate.to.push_str("abcdefghjkmnpqrstvwxyz001111");
        spec.encoding().expect("a valid table of 32 symbols")
    });

    /// `bytes` as text: 8 characters for every 5 bytes, rounded up, the unused low bits zero.
    pub fn encode(bytes: &[u8]) -> String {
        ENCODING.encode(bytes)
    }

    /// The bytes that `text` stands for; `None` if it has other characters, a length no encoder gives, or non-zero unused bits.
    pub fn decode(text: &str) -> Option<Vec<u8>> {
        ENCODING.decode(text.as_bytes()).ok()
    }

    /// `text` in the spelling that [`encode`] would give, or `None` if it has characters that base32 lacks.
    pub fn canonical(text: &str) -> Option<String> {
        text.chars()
            .map(|c| match c.to_ascii_lowercase() {
                'o' => Some('0'),
                'i' | 'l' => Some('1'),
                c @ ('0'..='9' | 'a'..='h' | 'j' | 'k' | 'm' | 'n' | 'p'..='t' | 'v'..='z') => Some(c),
                _ => None,
            })
            .collect()
    }
}

/// The name of a snapshot: the digest of its record. Written `snp_` and 52 base32 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub Digest);

impl SnapshotId {
    /// What every snapshot ID begins with.
    pub const PREFIX: &'static str = "snp_";
    /// Characters behind the prefix.
    pub const CHARS: usize = 52;
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, base32::encode(&self.0.0))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SnapshotId {
    type Err = ();
    /// Only whole IDs; prefixes are resolved by who knows the candidates.
    fn from_str(text: &str) -> Result<SnapshotId, ()> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(())?;
        let bytes = base32::decode(digits).ok_or(())?;
        Ok(SnapshotId(Digest(bytes.try_into().map_err(|_| ())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_round_trip_and_forgive_look_alikes() {
        let id = SnapshotId(Digest::of(b"x"));
        let text = id.to_string();
        assert_eq!(text.len(), SnapshotId::PREFIX.len() + SnapshotId::CHARS);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(base32::encode(&[0; 10]), "0".repeat(16));
        assert_eq!(base32::decode("OoIl0000"), base32::decode("00110000"));
        assert_eq!(base32::canonical("OoIlAB").as_deref(), Some("0011ab"));
        assert_eq!(base32::decode("u0000000"), None);
    }
}
