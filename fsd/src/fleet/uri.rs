//! `aether://host:port/session@snapshot/path`: where a session is, in one word. docs/session-id.md is normative.
//!
//! Pure: text in, parts out. Knows nothing of who is at the authority.

use std::fmt;

use cas::SnapshotId;

use crate::session::{SessionId, parse_path};

const SCHEME: &str = "aether:";
/// The port of an authority that names none.
pub const DEFAULT_PORT: u16 = 7440;

/// A host, and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authority {
    /// In lower case; an address of IPv6 in brackets.
    host: String,
    port: u16,
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What a URI says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// Which host; `None` for this one.
    pub authority: Option<Authority>,
    /// An ID in its canonical form, or a name.
    pub session: String,
    /// A point of the session; `None` for what it is now.
    pub snapshot: Option<SnapshotId>,
    /// Below its root: names with a `/` in between.
    pub path: Vec<u8>,
}

impl fmt::Display for Uri {
    /// Without the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.authority.as_ref().map(ToString::to_string).unwrap_or_default();
        write!(f, "aether://{authority}/")?;
        for byte in self.session.bytes() {
            match is_unreserved(byte) {
                true => write!(f, "{}", char::from(byte))?,
                false => write!(f, "%{byte:02X}")?,
            }
        }
        self.snapshot.map_or(Ok(()), |snapshot| write!(f, "@{snapshot}"))
    }
}

/// Why a text is no URI of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; a URI is aether://HOST:PORT/SESSION, with @SNAPSHOT and a /PATH behind it if need be")]
pub struct NotAUri(&'static str);

/// Whether a text is meant as a URI. Names and IDs have no `/`, so none of them is.
pub fn is_uri(text: &str) -> bool {
    text.get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
        && text[SCHEME.len()..].starts_with("//")
}

impl Authority {
    /// `HOST` or `HOST:PORT`.
    pub fn parse(text: &str) -> Result<Authority, NotAUri> {
        let (host, port) = match text.rsplit_once(':') {
            // Colons of IPv6 are within brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let is_digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) if is_digits(port) => port.parse().map_err(|_| NotAUri("there is no such port"))?,
            Some(_) => return Err(NotAUri("the port is no number")),
        };
        let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(is_unreserved),
        };
        if !is_host || port == 0 {
            return Err(NotAUri("the host is none"));
        }
        Ok(Authority { host: host.to_ascii_lowercase(), port })
    }
}

impl Uri {
    /// The parts of a URI.
    pub fn parse(text: &str) -> Result<Uri, NotAUri> {
        if !is_uri(text) {
            return Err(NotAUri("it does not begin with aether://"));
        }
        let rest = &text[SCHEME.len() + 2..];
        if rest.contains(['?', '#']) {
            return Err(NotAUri("it has a query or a fragment; in a path `?` is %3F and `#` is %23"));
        }
        let (authority, rest) = rest.split_once('/').ok_or(NotAUri("it names no session"))?;
        if authority.contains('@') {
            return Err(NotAUri("who is asking is not said in it: there is no user in front of the host"));
        }
        let authority = match authority {
            "" => None,
            authority => Some(Authority::parse(authority)?),
        };
        let (point, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (session, snapshot) = match point.split_once('@') {
            Some((session, snapshot)) => {
                let id: SnapshotId =
                    snapshot.parse().map_err(|()| NotAUri("behind the @ stands no whole snapshot ID"))?;
                (session, Some(id))
            }
            None => (point, None),
        };
        let session = decoded(session, is_unreserved, false)?;
        let session = String::from_utf8(session).map_err(|_| NotAUri("the session's name is not UTF-8"))?;
        Ok(Uri { authority, session: whole(session)?, snapshot, path: path_of(path)? })
    }
}

/// A whole ID in its canonical form, or a name as it is. No prefix of an ID: what is unique today is not tomorrow.
fn whole(session: String) -> Result<String, NotAUri> {
    if session.is_empty() {
        return Err(NotAUri("it names no session"));
    }
    if !session.starts_with(SessionId::PREFIX) {
        return Ok(session);
    }
    let id = session.parse::<SessionId>();
    id.map(|id| id.to_string()).map_err(|_| NotAUri("it has no whole session ID"))
}

fn path_of(text: &str) -> Result<Vec<u8>, NotAUri> {
    let is_plain = |byte| is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte);
    let mut path = Vec::new();
    for segment in text.split('/').filter(|segment| !segment.is_empty()) {
        let name = decoded(segment, is_plain, true)?;
        if [&b"."[..], b".."].contains(&&*name) {
            return Err(NotAUri("`.` and `..` in a path mean nothing"));
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
    }
    match parse_path(&path) {
        Ok(_) => Ok(path),
        Err(_) => Err(NotAUri("the path has a name that no file can have")),
    }
}

fn decoded(text: &str, is_plain: impl Fn(u8) -> bool, is_path: bool) -> Result<Vec<u8>, NotAUri> {
    let (mut bytes, mut out) = (text.bytes(), Vec::new());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            if !is_plain(byte) {
                return Err(NotAUri("it has a character that has to be written as % and two digits"));
            }
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(NotAUri("behind a % stand no two digits"));
        };
        match (high * 16 + low) as u8 {
            0 => return Err(NotAUri("%00 is in no name")),
            b'/' if is_path => return Err(NotAUri("%2F is in no name")),
            byte => out.push(byte),
        }
    }
    Ok(out)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNAPSHOT: &str = "snp_wm6qjzn9gkej7byaze8h45t16gfs10y3cevt7fjqk7vkx0k0x8bg";

    fn parse(text: &str) -> (String, String, Option<String>, Vec<u8>) {
        let uri = Uri::parse(text).unwrap();
        let authority = uri.authority.as_ref().map(ToString::to_string).unwrap_or_default();
        (authority, uri.session, uri.snapshot.map(|id| id.to_string()), uri.path)
    }

    /// The vectors of docs/session-id.md, and more of the kind.
    #[test]
    fn uris_are_read_as_they_are_specified() {
        let id = "ses_04hmasw9nf6yy093".to_owned();
        let vector = parse("aether://build7.example:7420/ses_04hmasw9nf6yy093");
        assert_eq!(vector, ("build7.example:7420".into(), id.clone(), None, vec![]));
        let vector = parse("aether:///ses_04hmasw9nf6yy093/src/main.rs");
        assert_eq!(vector, (String::new(), id.clone(), None, b"src/main.rs".to_vec()));
        let vector = parse(&format!("aether:///work@{SNAPSHOT}/"));
        assert_eq!(vector, (String::new(), "work".into(), Some(SNAPSHOT.into()), vec![]));
        let vector = parse("aether://h/ses_04hmasw9nf6yy093/a%20b/%FF%fe");
        assert_eq!(vector, ("h:7440".into(), id.clone(), None, b"a b/\xff\xfe".to_vec()));
        let vector = parse("AETHER://BUILD7:1/ses_04HMASW9NF6YY093//a//b/");
        assert_eq!(vector, ("build7:1".into(), id.clone(), None, b"a/b".to_vec()));
        assert_eq!(parse("aether://[::1]/n%C3%A9").0, "[::1]:7440");
        let written = Uri::parse(&format!("aether://[::1]:9/n%c3%a9@{SNAPSHOT}/x")).unwrap().to_string();
        assert_eq!(written, format!("aether://[::1]:9/n%C3%A9@{SNAPSHOT}"));
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for bad in [
            "aether:/ses_04hmasw9nf6yy093",
            "aether://h",
            "aether://h/",
            "aether://h//ses_04hmasw9nf6yy093",
            "aether://h/ses_04hmasw9",
            "aether://h/ses_04hmasw9nf6yy0930",
            "aether://user@h/ses_04hmasw9nf6yy093",
            "aether://h:x/ses_04hmasw9nf6yy093",
            "aether://h:/ses_04hmasw9nf6yy093",
            "aether://h:0/ses_04hmasw9nf6yy093",
            "aether://h:65536/ses_04hmasw9nf6yy093",
            "aether://:1/ses_04hmasw9nf6yy093",
            "aether://[::1/ses_04hmasw9nf6yy093",
            "aether://h/ses_04hmasw9nf6yy093@snp_wm6qjzn9",
            "aether://h/ses_04hmasw9nf6yy093/a%2Fb",
            "aether://h/ses_04hmasw9nf6yy093/a%00b",
            "aether://h/ses_04hmasw9nf6yy093/a%2",
            "aether://h/ses_04hmasw9nf6yy093/a b",
            "aether://h/ses_04hmasw9nf6yy093/../b",
            "aether://h/ses_04hmasw9nf6yy093/%2e%2E/b",
            "aether://h/ses_04hmasw9nf6yy093?a",
            "aether://h/ses_04hmasw9nf6yy093/b#c",
            "ses_04hmasw9nf6yy093",
        ] {
            assert!(Uri::parse(bad).is_err(), "{bad}");
        }
        assert!(!is_uri("aether") && !is_uri("é") && !is_uri("work") && is_uri("aether://"));
    }
}
