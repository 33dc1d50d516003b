//! MAP_SHARED: what msync(2) has written is in a fork, and what a write changes is seen in a map.
//!
//! The map is made by a program in C, compiled here: a map of a file is nothing that safe Rust can make.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use crate::daemon::Daemon;

/// Maps a file, then obeys: `s` stores an X at each page and syncs the map, `f` stores a Y and syncs the file, `u` stores a Z
/// and syncs nothing, `r` tells the first byte of the second page.
const PROGRAM: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int fd = open(argv[1], O_RDWR);
    char *map = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || map == MAP_FAILED) return 1;
    for (int order; (order = getchar()) != EOF;) {
        if (order == 's') {
            for (int at = 0; at < 65536; at += 4096) map[at] = 'X';
            if (msync(map, 65536, MS_SYNC)) return 2;
            puts("synced");
        } else if (order == 'f' || order == 'u') {
            for (int at = 0; at < 65536; at += 4096) map[at] = order == 'f' ? 'Y' : 'Z';
            if (order == 'f' && fsync(fd)) return 3;
            puts("stored");
        } else if (order == 'r') {
            putchar(map[4096]);
            putchar('\n');
        }
        fflush(stdout);
    }
    return 0;
}
"#;

#[test]
fn a_shared_map_and_the_file_are_one() {
    let Some(daemon) = Daemon::start() else { return };
    let program = daemon.compiled("map", PROGRAM);
    let (session, dir) = daemon.mounted("", "mnt");
    fs::write(dir.join("file"), vec![b'.'; 65_536]).expect("write");
    let mut child = Command::new(&program)
        .arg(dir.join("file"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut orders = child.stdin.take().expect("piped");
    let mut answers = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut ask = |order: &[u8]| {
        orders.write_all(order).expect("it listens");
        answers.next().expect("an answer").expect("text")
    };

    let before = daemon.fork(&session).expect("fork");
    assert_eq!(ask(b"r"), ".");
    let syncs = || daemon.requests("fsync");
    assert_eq!((syncs(), ask(b"s").as_str()), (0, "synced"));
    assert!(syncs() > 0, "msync(2) is a sync like any other");
    let after = daemon.fork(&session).expect("fork");
    let stored = |content: Vec<u8>, what| content.iter().filter(|byte| **byte == what).count();
    assert_eq!(stored(daemon.read(&before, "file").expect("read"), b'X'), 0);
    assert_eq!(stored(daemon.read(&after, "file").expect("read"), b'X'), 16);
    assert_eq!(stored(fs::read(dir.join("file")).expect("read"), b'X'), 16);
    assert_eq!(ask(b"f"), "stored");
    let after = daemon.fork(&session).expect("fork");
    assert_eq!(stored(daemon.read(&after, "file").expect("read"), b'Y'), 16, "fsync is as good as msync");
    assert_eq!(ask(b"u"), "stored");
    assert_eq!(
        stored(fs::read(dir.join("file")).expect("read"), b'Z'),
        16,
        "others on the mount see it unsynced"
    );

    fs::write(dir.join("other"), b"").expect("write");
    let file = fs::File::options().write(true).open(dir.join("file")).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, b"w", 4096).expect("write");
    assert_eq!(ask(b"r"), "w", "a write is seen in the map at once");
    drop(orders);
    assert!(child.wait().expect("the program").success());
}
