//! The root key of a daemon, by which it knows its own tokens.

use std::fmt;

use biscuit_auth::{Algorithm, KeyPair, PrivateKey};

use crate::TokenError;

/// Bytes of a root key.
pub const KEY_BYTES: usize = 32;

/// A root key. Whoever has it can sign tokens.
pub struct RootKey(pub(crate) KeyPair);

impl RootKey {
    /// A new one, of the system's random bits.
    pub fn generate() -> RootKey {
        RootKey(KeyPair::new())
    }

    /// One that was kept. Error: `BadKey`.
    pub fn from_bytes(bytes: &[u8]) -> Result<RootKey, TokenError> {
        if bytes.len() != KEY_BYTES {
            return Err(TokenError::BadKey);
        }
        let key = PrivateKey::from_bytes(bytes, Algorithm::Ed25519).map_err(|_| TokenError::BadKey)?;
        Ok(RootKey(KeyPair::from(&key)))
    }

    /// To be kept where nobody else reads it.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.private().to_bytes().to_vec()
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_and_not_told() {
        let key = RootKey::generate();
        let bytes = key.to_bytes();
        assert_eq!(bytes.len(), KEY_BYTES);
        assert_eq!(RootKey::from_bytes(&bytes).unwrap().0.public(), key.0.public());
        assert_eq!(RootKey::from_bytes(&bytes[1..]).unwrap_err(), TokenError::BadKey);
        assert_eq!(format!("{key:?}"), "RootKey");
    }
}
