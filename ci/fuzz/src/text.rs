//! What people and programs type: IDs, names, paths, arguments, the configuration file, profiles. What parses is printed and parsed
//! again to the same value.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use cas::{SnapshotId, base32};
use clap::Parser;
use fsd::{
    config::{Args, Config, Surroundings, check_file},
    session::{Name, SessionId, parse_path},
};
use proto::profile;

/// The first byte chooses the parser, the rest is the text.
pub fn run(data: &[u8]) {
    let Some((&what, bytes)) = data.split_first() else { return };
    match (what, std::str::from_utf8(bytes)) {
        (b'i', Ok(text)) => id(text),
        (b'p', _) => path(bytes),
        (b'c', Ok(text)) => drop(check_file(text)),
        (b'a', _) => arguments(bytes),
        (b'f', _) => profile(bytes),
        _ => {}
    }
}

fn id(text: &str) {
    if let Ok(id) = text.parse::<SessionId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(id) = text.parse::<SnapshotId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    let canonical = base32::canonical(text);
    if let Some(canonical) = &canonical {
        assert_eq!(base32::canonical(canonical).as_ref(), Some(canonical));
    }
    if let Some(bytes) = base32::decode(text) {
        assert_eq!(Some(base32::encode(&bytes)), canonical, "what decodes has one canonical spelling");
    }
}

fn path(bytes: &[u8]) {
    if let Ok(name) = Name::parse(bytes) {
        assert_eq!(name.as_bytes(), bytes);
    }
    let Ok(names) = parse_path(bytes) else { return };
    assert!(names.iter().all(|name| Name::parse(name.as_bytes()).is_ok()));
    let joined = names.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/');
    assert_eq!(parse_path(&joined).expect("it was parsed before"), names);
}

fn profile(bytes: &[u8]) {
    let Ok(entries) = profile::decode(bytes) else { return };
    let mut text = profile::HEADER.to_owned();
    entries.iter().for_each(|entry| profile::encode(entry, &mut text));
    assert_eq!(text.as_bytes(), bytes, "what decodes is encoded to the same bytes");
    for entry in entries {
        let names = parse_path(&entry.path).expect("a path from the root down");
        assert_eq!(names.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/'), entry.path);
        assert!(entry.ranges.is_empty() || profile::check_ranges(&entry.ranges).is_ok());
    }
}

/// Arguments one a line; lines that begin with `!` are environment variables. `--config` is left out: it reads files.
fn arguments(bytes: &[u8]) {
    let lines = || bytes.split(|byte| *byte == b'\n').take(32);
    let (variables, arguments): (Vec<_>, Vec<_>) = lines().partition(|line| line.starts_with(b"!"));
    let program = OsString::from("aetherfsd");
    let arguments = arguments.into_iter().map(|line| OsString::from_vec(line.to_vec()));
    let Ok(args) = Args::try_parse_from(std::iter::once(program).chain(arguments)) else { return };
    if args.config.is_some() {
        return;
    }
    let variable = |name: &str| {
        let of = |line: &&[u8]| {
            line.strip_prefix(b"!")?.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec)
        };
        match name {
            // Where the default file would be looked for.
            "HOME" | "XDG_CONFIG_HOME" => Some("/nonexistent".into()),
            _ => variables.iter().find_map(of).map(OsString::from_vec),
        }
    };
    if let Ok(config) = Config::resolve(args, &Surroundings { variable: &variable, is_root: false }) {
        assert!(config.state.is_absolute() && config.socket.is_absolute());
        assert!(config.mounts.iter().all(|mount| mount.dir.is_absolute() && !mount.session.is_empty()));
    }
}
