//! JSON views of the daemon's messages. The field names are promised in docs/cli.md: adding is free, renaming is not.

use data_encoding::BASE64;
use proto::v1::{DirEntry, FileKind, MountInfo, SessionInfo, SnapshotInfo, Travel};
use serde_json::{Map, Value, json};

use crate::quote::quoted;
use crate::text::{file_io_name, kind_name, time_rfc3339, transport_name};

/// Sets `field` to a path or name; one that is not UTF-8 is quoted, and its bytes are in `field_base64`.
pub(crate) fn put_bytes(object: &mut Value, field: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object[field] = json!(text),
        Err(_) => {
            object[field] = json!(quoted(bytes));
            object[format!("{field}_base64")] = json!(BASE64.encode(bytes));
        }
    }
}

/// `null` for the interface's "none".
pub(crate) fn optional(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

/// Four octal digits.
pub(crate) fn mode(mode: u32) -> String {
    format!("{mode:04o}")
}

pub(crate) fn mount(mount: &MountInfo) -> Value {
    let mut object = json!({
        "read_only": mount.read_only,
        "allow_other": mount.allow_other,
        "acl": mount.acl,
        "no_xattrs": mount.no_xattrs,
        "io": optional(file_io_name(mount.io())),
        "transport": optional(transport_name(mount.transport())),
        "transport_note": optional(&mount.transport_note),
    });
    put_bytes(&mut object, "dir", &mount.dir);
    object
}

pub(crate) fn session(session: &SessionInfo) -> Value {
    let expires = session.expires_ns != 0;
    json!({
        "type": "session",
        "id": session.id,
        "name": optional(&session.name),
        "base": optional(&session.base),
        "parent": optional(&session.parent),
        "created": time_rfc3339(session.created_ns),
        "created_ns": session.created_ns,
        "fork_depth": session.fork_depth,
        "mounts": session.mounts.iter().map(mount).collect::<Vec<_>>(),
        "changed_inodes": session.changed_inodes,
        "changed_bytes": session.changed_bytes,
        "log_position": session.log_position,
        "sealed": optional(&session.sealed),
        "travel": session.travel.as_ref().map(travel),
        "labels": session.labels.iter().map(|label| (label.key.clone(), json!(label.value))).collect::<Map<_, _>>(),
        "expires": expires.then(|| time_rfc3339(session.expires_ns)),
        "expires_ns": expires.then_some(session.expires_ns),
        "expires_in_s": expires.then_some(session.expires_in_s),
    })
}

pub(crate) fn travel(travel: &Travel) -> Value {
    json!({
        "published": optional(&travel.published),
        "seq": travel.seq,
        "epoch": travel.epoch,
        "holder": optional(&travel.holder),
        "held_here": travel.held_here,
        "unpublished": travel.unpublished,
        "unsettled": travel.unsettled,
        "taken": travel.taken,
        "follows": optional(&travel.follows),
        "taken_fork": optional(&travel.taken_fork),
    })
}

pub(crate) fn snapshot(snapshot: &SnapshotInfo) -> Value {
    json!({
        "type": "snapshot",
        "id": snapshot.id,
        "names": snapshot.names,
        "created": time_rfc3339(snapshot.created_ns),
        "created_ns": snapshot.created_ns,
        "files": snapshot.files,
        "bytes": snapshot.bytes,
    })
}

pub(crate) fn dir_entry(entry: &DirEntry) -> Value {
    let mut object = json!({
        "kind": kind_name(entry.kind()),
        "mode": mode(entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": time_rfc3339(entry.mtime_ns),
        "mtime_ns": entry.mtime_ns,
        "nlink": entry.nlink,
        "ino": entry.ino,
    });
    put_bytes(&mut object, "name", &entry.name);
    match entry.kind() {
        FileKind::Symlink => put_bytes(&mut object, "target", &entry.target),
        FileKind::CharDevice | FileKind::BlockDevice => {
            object["rdev_major"] = json!(entry.rdev_major);
            object["rdev_minor"] = json!(entry.rdev_minor);
        }
        FileKind::Unspecified
        | FileKind::Regular
        | FileKind::Directory
        | FileKind::Fifo
        | FileKind::Socket => {}
    }
    object
}

/// `first` with the fields of `more` added.
pub(crate) fn with(first: Value, more: Value) -> Value {
    let mut fields = match first {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    if let Value::Object(more) = more {
        fields.extend(more);
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_come_twice() {
        let mut object = json!({});
        put_bytes(&mut object, "path", "gr\u{fc}n".as_bytes());
        put_bytes(&mut object, "old_path", b"\xff");
        assert_eq!(object, json!({"path": "gr\u{fc}n", "old_path": "\"\\377\"", "old_path_base64": "/w=="}));
    }
}
