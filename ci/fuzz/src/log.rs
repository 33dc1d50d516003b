//! The log: files and records are decoded and replayed by an engine on a simulated disk. A log that is accepted gives
//! sessions that can be read, changed, forked, sealed, compared and discarded without a panic, and that replay again.

use std::sync::Arc;

use cas::{
    Kind,
    disk::{Disk, Open},
    sim::SimDisk,
};
use fsd::session::{
    Engine, Name, New, Pool, ROOT, Rename, Session, SetAttrs, SetXattr, Side, State, diff,
    fuzzing::log_record,
};
use xxhash_rust::xxh3::xxh3_64;

use super::world::{BOOT, Base, tight};

/// What a directory walk looks at, at most.
const ENTRIES_MAX: usize = 200;
const SESSIONS_MAX: usize = 4;
const DIFFERENCES_MAX: usize = 10_000;
/// Far from the IDs in the seeds.
const FIRST_ID: u64 = 1 << 40;

/// `r` and the bytes of a log file; or `b` and bodies of records, each behind its length (u16), which get headers with right
/// checksums here. A length of 0 is a mark.
pub fn run(data: &[u8]) {
    let Some((&what, bytes)) = data.split_first() else { return };
    let (start, file) = match what {
        b'r' => (
            bytes.get(8..16).map_or(0, |at| u64::from_le_bytes(at.try_into().expect("8 bytes"))),
            bytes.to_vec(),
        ),
        b'b' => {
            let pool = Pool::open(Arc::new(SimDisk::new(0)), tight()).expect("a disk that was just made");
            bodies(bytes).for_each(|body| log_record(body, &pool));
            (0, sealed_file(bodies(bytes)))
        }
        _ => return,
    };
    let disk = disk_with(start, &file);
    let base = Base::shared();
    let Ok(engine) = base.open(&disk, FIRST_ID) else { return };
    let found = engine.sessions().len();
    engine.sessions().iter().take(SESSIONS_MAX).for_each(look);
    drop(engine);
    // What was accepted once is accepted again, in the words of this program.
    let disk = disk.kill();
    let engine = base.open(&disk, FIRST_ID).expect("a log that was accepted is accepted again");
    assert_eq!(engine.sessions().len(), found, "a start loses no session");
    engine.sessions().iter().take(SESSIONS_MAX).for_each(|session| use_up(&engine, session));
    engine.settle();
    engine.tidy();
    let left = engine.sessions().len();
    drop(engine);
    let engine = base.open(&disk.kill(), FIRST_ID).expect("what this program appended, it reads");
    assert_eq!(engine.sessions().len(), left, "a start loses no session");
}

/// The bodies of records, one behind the other.
pub fn bodies(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (body, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
        bytes = rest;
        Some(body)
    })
}

/// A log file as docs/format.md describes it, written by nobody but that page.
pub fn sealed_file<'a>(bodies: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut file = b"aelg".to_vec();
    file.extend(1u32.to_le_bytes());
    file.extend([0; 16]);
    file.extend(BOOT.0);
    file.extend(xxh3_64(&file).to_le_bytes());
    let mut position = 0u64;
    for body in bodies {
        let mut head = (body.len() as u32).to_le_bytes().to_vec();
        head.extend([0; 4]);
        head.extend(position.to_le_bytes());
        head.extend([0; 8]);
        let check = xxh3_64(&[&head, body].concat());
        head.extend(check.to_le_bytes());
        position += (head.len() + body.len()) as u64;
        file.extend(head);
        file.extend(body);
    }
    file
}

/// A disk with one log file, and a segment for records to name.
fn disk_with(start: u64, file: &[u8]) -> SimDisk {
    let disk = SimDisk::new(0);
    let put = |path: &str, bytes: &[u8]| {
        let file = disk.open(path, Open::Create).expect("a disk that was just made");
        file.write_at(bytes, 0).expect("a disk that was just made");
    };
    disk.create_dir("log").expect("a disk that was just made");
    disk.create_dir("segments").expect("a disk that was just made");
    put(&format!("log/{start:016x}.log"), file);
    put("segments/0000000000000001", &[7; 16 << 10]);
    disk
}

/// Reads all of a session that a walk from its root meets, and compares it with its origin.
fn look(session: &Arc<Session>) {
    let state = session.peek();
    walk(session, &state);
    if let Ok(origin) = Side::snapshot(session.store(), session.meta.origin) {
        let side = Side { state: session.freeze(), origin: session.meta.origin };
        let _ = diff(session.store(), &origin, &side, true, DIFFERENCES_MAX);
        let _ = diff(session.store(), &side, &origin, false, DIFFERENCES_MAX);
    }
    let inodes: Vec<u64> = state.inodes.keys().copied().take(ENTRIES_MAX).collect();
    for ino in inodes {
        let Ok(found) = session.stat(ino) else { continue };
        let _ = (session.xattrs(ino), session.data_bytes(&found));
        let mut buf = [0; 100];
        for offset in [0, found.attrs.size / 2, found.attrs.size.saturating_sub(50), u64::MAX] {
            let _ = session.read(ino, offset, &mut buf);
        }
    }
}

fn walk(session: &Session, state: &State) {
    let (store, mut seen) = (session.store(), 0);
    let Ok(root) = state.walk(store, &[]) else { return };
    let mut open = vec![root];
    while let Some(found) = open.pop() {
        let _ = found.xattrs(store);
        match found.kind {
            Kind::Dir => {
                let Ok(dir) = state.open_dir(store, &found) else { continue };
                let Ok(entries) = state.entries(&dir) else { continue };
                seen += entries.len();
                if seen < ENTRIES_MAX {
                    open.extend(entries.into_iter().map(|(_, found)| found));
                }
            }
            Kind::File => drop(state.read(store, &found, 0, &mut [0; 64])),
            Kind::Symlink => drop(found.target()),
            Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {}
        }
    }
}

/// Changes a session in every way, seals, forks and discards it. Anything may fail.
fn use_up(engine: &Engine, session: &Arc<Session>) {
    let name = |text: &str| Name::parse(text.as_bytes()).expect("a name");
    let new = |kind| New { kind, mode: 0o644, uid: 0, gid: 0, rdev: 0, umask: 0, target: None };
    let state = session.peek();
    let inodes: Vec<u64> = state.inodes.keys().copied().filter(|ino| *ino != ROOT).take(8).collect();
    let made = session.make(ROOT, &name("made"), new(Kind::File));
    let dir = session.make(ROOT, &name("made dir"), new(Kind::Dir));
    for ino in inodes.iter().copied().chain([ROOT]) {
        let _ = session.write(ino, 1, b"written");
        let _ = session.set_xattr(ino, b"user.x", b"y", SetXattr::Any);
        let _ = session.link(ino, ROOT, &name("link"));
        let _ = session.set_attrs(ino, SetAttrs { size: Some(5), ..SetAttrs::default() });
        let _ = session.make(ino, &name("below"), new(Kind::File));
        if let Ok(dir) = &dir {
            let _ = session.rename(ROOT, &name("link"), dir.ino, &name("moved"), Rename::Replace);
        }
    }
    for (dir, delta) in state.dirs.iter().take(8) {
        for name in delta.names.keys().take(8) {
            let found = session.lookup(*dir, name);
            let _ = session.rename(*dir, name, ROOT, name, Rename::Replace);
            let _ = (session.unlink(*dir, name), session.rmdir(*dir, name));
            if let Ok(found) = found {
                session.forget(found.ino, 1);
            }
        }
    }
    if let (Ok(made), Ok(dir)) = (made, dir) {
        let _ = session.rename(ROOT, &name("made"), dir.ino, &name("there"), Rename::Replace);
        let _ = session.write(made.ino, 0, &[1; 5000]);
    }
    let forks = engine.fork(session, &[None, None]);
    let _ = engine.seal(session, false, &mut |_| {});
    look(session);
    if let Ok(forks) = forks {
        look(&forks[0]);
        let _ = engine.discard(&forks[0]);
    }
}
