//! Extended attributes: their namespaces, their bounds, and that they stay.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path};

use nix::unistd::geteuid;
use proto::v1::MountRequest;
use tonic::Code;

use crate::daemon::Daemon;

/// Those of a file, but for what a security module adds by itself.
fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = xattr::list(path).expect("listxattr").map(|name| name.into_string().expect("text"));
    names
        .map(|name| (name.clone(), xattr::get(path, &name).expect("getxattr").expect("it is listed")))
        .collect()
}

fn errno(result: std::io::Result<()>) -> Option<i32> {
    result.expect_err("it should be refused").raw_os_error()
}

#[test]
fn attributes_have_namespaces_and_bounds() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let (file, link) = (dir.join("file"), dir.join("link"));
    fs::write(&file, b"content").expect("write");
    symlink("file", &link).expect("symlink");
    let longest = format!("user.{}", "n".repeat(250));
    let mut expected = BTreeMap::from([
        ("user.plain".to_owned(), b"value".to_vec()),
        ("user.empty".to_owned(), Vec::new()),
        ("user.any bytes\n".to_owned(), (0..=255).collect()),
        (longest.clone(), vec![9; 64 << 10]),
    ]);
    if geteuid().is_root() {
        expected.insert("trusted.overlay.opaque".to_owned(), b"y".to_vec());
        expected.insert("security.other".to_owned(), b"label".to_vec());
        xattr::set(&link, "trusted.of-the-link", b"itself").expect("setxattr of a symlink");
    }
    for (name, value) in &expected {
        xattr::set(&file, name, value).unwrap_or_else(|error| panic!("{name}: {error}"));
        xattr::set(&dir, name, value).unwrap_or_else(|error| panic!("{name} of a directory: {error}"));
    }
    assert_eq!(errno(xattr::set(&file, "nonsense.name", b"")), Some(libc::EOPNOTSUPP));
    assert_eq!(errno(xattr::set(&file, format!("{longest}n"), b"")), Some(libc::ERANGE));
    assert_eq!(errno(xattr::set(&file, "user.large", &[0; (64 << 10) + 1])), Some(libc::E2BIG));
    assert_eq!(errno(xattr::remove(&file, "user.missing")), Some(libc::ENODATA));
    assert_eq!(xattr::get(&file, "user.missing").expect("getxattr"), None);
    // Half a MiB in all: seven more of the largest are too many, six are not.
    let large = |n: usize| format!("user.large{n}");
    let set = (0..8).take_while(|n| xattr::set(&file, large(*n), &[1; 64 << 10]).is_ok()).count();
    assert_eq!(set, 6, "with what is there already it is one short of 512 KiB");
    assert_eq!(errno(xattr::set(&file, large(6), &[1; 64 << 10])), Some(libc::E2BIG));
    (0..6).for_each(|n| expected.extend([(large(n), vec![1; 64 << 10])]));

    let check = |dir: &Path| {
        assert!(attributes(&dir.join("file")) == expected, "{:?}", attributes(&dir.join("file")).keys());
        assert_eq!(attributes(dir).get("user.plain").map(Vec::as_slice), Some(&b"value"[..]));
        if geteuid().is_root() {
            assert_eq!(attributes(&dir.join("link")).len(), 1);
        }
    };
    daemon.check_everywhere(&session, &dir, check);
    expected.keys().for_each(|name| xattr::remove(&file, name).expect("removexattr"));
    assert_eq!(attributes(&file), BTreeMap::new());
}

#[test]
fn a_mount_without_attributes_hides_them_and_keeps_them() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted("", "mnt");
    let file = dir.join("file");
    fs::write(&file, b"content").expect("write");
    xattr::set(&file, "user.kept", b"value").expect("setxattr");
    let capable = dir.join("capable");
    fs::write(&capable, b"content").expect("write");
    if geteuid().is_root() {
        // cap_net_raw=ep, in the form of linux/capability.h.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        xattr::set(&capable, "security.capability", &capability).expect("setxattr");
    }
    daemon.unmount_unused(&dir);

    let without = MountRequest { no_xattrs: true, ..Default::default() };
    let both = MountRequest { acl: true, ..without.clone() };
    let refused = daemon.mount_with(&session, &dir, both).expect_err("they do not go together");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    daemon.mount_with(&session, &dir, without).expect("mount");
    assert!(daemon.show(&session).mounts[0].no_xattrs);
    assert_eq!(errno(xattr::get(&file, "user.kept").map(drop)), Some(libc::EOPNOTSUPP));
    assert_eq!(errno(xattr::set(&file, "user.new", b"")), Some(libc::EOPNOTSUPP));
    assert_eq!(errno(xattr::remove(&file, "user.kept")), Some(libc::EOPNOTSUPP));
    assert_eq!(errno(xattr::list(&file).map(drop)), Some(libc::EOPNOTSUPP));
    fs::write(&capable, b"changed").expect("write");
    let ops = ["getxattr", "setxattr", "listxattr", "removexattr"];
    let before = ops.map(|op| daemon.requests(op));
    for n in 0..10 {
        fs::write(dir.join(n.to_string()), b"x").expect("write");
        assert!(xattr::set(&file, "user.new", b"").is_err() && xattr::remove(&file, "user.kept").is_err());
        assert!(xattr::list(&file).is_err());
    }
    assert_eq!(ops.map(|op| daemon.requests(op)), before, "the kernel was told once");

    daemon.remount(&session, &dir);
    assert_eq!(xattr::get(&file, "user.kept").expect("getxattr"), Some(b"value".to_vec()));
    assert_eq!(xattr::get(&file, "user.new").expect("getxattr"), None);
    assert_eq!(xattr::get(&capable, "security.capability").expect("getxattr"), None, "it was written to");
}
