//! Other hosts, as they are configured: an address, and with it what it takes to be let in there.

use std::path::{Path, PathBuf};

use super::{ConfigError, absolute};
use crate::fleet::{peers::PeerPlace, uri::Authority};

/// Hosts that one daemon asks.
const PEERS_MAX: usize = 16;

/// What holds for peers that do not say otherwise.
pub(super) struct Shared {
    pub(super) ca: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
}

impl Shared {
    /// All of them. Error: the first that is none.
    pub(super) fn parse_all(&self, texts: &[String]) -> Result<Vec<PeerPlace>, ConfigError> {
        let mut all: Vec<PeerPlace> = Vec::new();
        for text in texts {
            let peer = |reason| ConfigError::Peer { text: text.clone(), reason };
            let place = self.parse(text)?;
            if all.iter().any(|other| other.authority == place.authority) {
                return Err(peer("it is there twice"));
            }
            if all.len() == PEERS_MAX {
                return Err(peer("there are more than 16"));
            }
            all.push(place);
        }
        Ok(all)
    }

    fn parse(&self, text: &str) -> Result<PeerPlace, ConfigError> {
        let refused = |reason| ConfigError::Peer { text: text.to_owned(), reason };
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        // A token in clear text would be everybody's.
        let authority =
            address.strip_prefix("https://").ok_or_else(|| refused("it is no https:// address"))?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let authority =
            Authority::parse(authority).map_err(|_| refused("it has no host, or a wrong port"))?;
        let (mut ca, mut token_file) = (self.ca.clone(), self.token_file.clone());
        for part in parts {
            match part.split_once('=') {
                Some(("ca", file)) if !file.is_empty() => ca = Some(file.into()),
                Some(("token", file)) if !file.is_empty() => token_file = Some(file.into()),
                _ => return Err(refused("behind the address come ca=FILE and token=FILE alone")),
            }
        }
        let token_file =
            token_file.ok_or_else(|| refused("it has no token; name the file with --peer-token-file"))?;
        let ca = ca.as_deref().map(absolute).transpose()?;
        Ok(PeerPlace { authority, ca, token_file: absolute(Path::new(&token_file))? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str], token_file: Option<&str>) -> Result<Vec<PeerPlace>, ConfigError> {
        let shared = Shared { ca: Some("/ca".into()), token_file: token_file.map(Into::into) };
        shared.parse_all(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_peer_has_files_of_its_own_or_those_of_all() {
        let places = parse(&["https://Near:1/", "https://[::1],ca=/own,token=/t"], Some("/all")).unwrap();
        let of = |authority: &str, ca: &str, token: &str| PeerPlace {
            authority: Authority::parse(authority).unwrap(),
            ca: Some(ca.into()),
            token_file: token.into(),
        };
        assert_eq!(places, [of("near:1", "/ca", "/all"), of("[::1]:7440", "/own", "/t")]);
    }

    #[test]
    fn what_is_no_peer_is_refused() {
        for (texts, words) in [
            (&["http://h:1"][..], "https://"),
            (&["h:1"], "https://"),
            (&["https://h:0"], "port"),
            (&["https://h:1/path"], "port"),
            (&["https://h:1,token="], "token=FILE"),
            (&["https://h:1,key=x"], "token=FILE"),
            (&["https://h:1", "https://H:1"], "twice"),
        ] {
            let error = parse(texts, Some("/all")).unwrap_err().to_string();
            assert!(error.contains(words), "{texts:?}: {error}");
        }
        assert!(parse(&["https://h:1"], None).unwrap_err().to_string().contains("--peer-token-file"));
        let many: Vec<String> = (1..=17).map(|port| format!("https://h:{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(parse(&many, Some("/all")).unwrap_err().to_string().contains("16"));
    }
}
