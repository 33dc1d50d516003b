//! Nobody but its owner reads the state, whatever umask the daemon was started with.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::daemon::Daemon;

#[test]
fn state_files_are_private_after_all_that_makes_files() {
    let Some(mut daemon) = Daemon::start_with_umask("0") else { return };
    let tree = daemon.new_dir("tree");
    fs::write(tree.join("file"), vec![7; 700_000]).expect("a file");
    let base = daemon.import(&tree).expect("import");
    let session = daemon.create(&base).expect("create");
    let dir = daemon.new_dir("mnt");
    daemon.mount(&session, &dir).expect("mount");
    let mut file = File::create(dir.join("new")).expect("a file in the mount");
    file.write_all(&[1; 3 << 20]).expect("room");
    file.sync_all().expect("fsync");
    drop(file);
    fs::write(dir.join("file"), "changed").expect("a change");
    assert_private(&daemon, 8);
    daemon.seal(&session).expect("seal");
    let fork = daemon.fork(&session).expect("fork");
    daemon.discard(&fork, false).expect("discard");
    daemon.gc().expect("gc");
    fs::write(dir.join("after"), "the seal").expect("a change");
    assert_private(&daemon, 8);
    daemon.kill();
    assert_private(&daemon, 8);
    // An index that is made anew is a new file.
    fs::remove_file(daemon.state_dir().join("store/index.redb")).expect("it is there");
    daemon.restart();
    assert_private(&daemon, 8);
    daemon.terminate();
    assert_private(&daemon, 8);
}

/// Directories 0700, files 0600, and at least so many of them.
fn assert_private(daemon: &Daemon, least: usize) {
    let mut open = vec![daemon.state_dir()];
    let socket = fs::symlink_metadata(daemon.path("s"));
    assert!(socket.is_err() || mode(&daemon.path("s")) == 0o600, "the socket");
    let mut seen = 0;
    while let Some(path) = open.pop() {
        // Segments and log files come and go while they are looked at.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o7777, wanted, "{}", path.display());
        assert!(metadata.is_dir() || metadata.is_file() || metadata.file_type().is_socket());
        seen += 1;
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(entries.map(|entry| entry.path()).collect::<Vec<PathBuf>>());
        }
    }
    assert!(seen >= least, "only {seen} files were looked at");
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777
}
