//! What each method asks of who calls it over the network. A method that is not here is refused there, so that one which is added and forgotten is.
//! docs/operations.md has this table for people.

use token::Right;

/// What a method asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: says no more than that somebody is here.
    Nothing,
    /// A right, for what the request names: that is checked where it is looked up.
    Of(Right),
    /// A right, by a token for all sessions.
    OfAll(Right),
    /// To be on this host, at the socket: it is about the host's paths, or about tokens. A token that makes tokens would outlive its own end.
    Socket,
}

/// What a method asks for, by its path in HTTP; `None` for one that is not known.
pub(super) fn need(path: &str) -> Option<Need> {
    use Need::{Nothing, Of, OfAll, Socket};
    use Right::{Fork, Manage, Read, Write};

    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    match (service, method) {
        ("grpc.health.v1.Health", "Check" | "Watch") => Some(Nothing),
        ("aether.v1.Aether", method) => Some(match method {
            "List" | "ListRemote" | "Show" | "Fetch" | "Profile" | "Diff" | "ListDir" | "Stat"
            | "ReadFile" => Of(Read),
            "Seal" | "Publish" | "Handoff" | "Expire" | "Label" | "Discard" => Of(Write),
            "Fork" => Of(Fork),
            "Create" => OfAll(Fork),
            "Gc" | "GcRemote" | "GcWhy" | "Pin" | "Unpin" | "Fsck" | "Stats" | "Doctor" => OfAll(Manage),
            "Import" | "Mount" | "Unmount" | "Advance" => Socket,
            "CreateToken" | "ListTokens" | "RevokeToken" => Socket,
            _ => return None,
        }),
        ("aether.v1.Peer", "Read" | "Open") => Some(Of(Read)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_has_an_entry() {
        let files = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap().file;
        let mut paths = Vec::new();
        for file in &files {
            for service in &file.service {
                for method in &service.method {
                    paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        assert!(paths.len() >= 30, "{paths:?}");
        for path in paths {
            assert!(need(&path).is_some(), "{path} has no entry in serve/rights.rs");
        }
    }

    #[test]
    fn what_is_not_known_has_none() {
        for path in [
            "",
            "/",
            "/aether.v1.Aether",
            "/aether.v1.Aether/",
            "/aether.v1.Aether/Format",
            "/aether.v2.Aether/List",
            "aether.v1.Aether/List",
        ] {
            assert_eq!(need(path), None, "{path}");
        }
        assert_eq!(need("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"), None);
    }
}
