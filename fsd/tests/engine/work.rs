//! How much work things are, counted rather than timed: what DESIGN promises about cost must hold for any size.

use std::sync::{Arc, atomic::Ordering};

use cas::Kind;
use fsd::session::{
    Engine, Limits, New, ROOT, Rename, Session, SetAttrs, SetTime, Side, Source, diff, has_few_extents,
};

use crate::common::{
    counting::{CountingDisk, Counts},
    file,
    host::Opening,
    name,
    template::Template,
};

/// An engine on a disk that counts, with the bounds of a host, and a session over the base.
fn start() -> (Arc<CountingDisk>, Engine, Arc<Session>) {
    let (disk, snapshot) = Template::get().disk();
    let disk = Arc::new(CountingDisk::new(disk));
    let opening = Opening { limits: Limits::default(), ..Opening::first(1) };
    let engine = opening.open(disk.clone()).unwrap();
    let session = engine.create(Some(snapshot), None, (0, 0)).unwrap();
    disk.take();
    (disk, engine, session)
}

fn fork(engine: &Engine, parent: &Session) -> Arc<Session> {
    engine.fork(parent, &[None]).unwrap().remove(0)
}

/// The work of one fork, and how much longer the log is.
fn work_of_fork(disk: &CountingDisk, engine: &Engine, session: &Session) -> (Counts, u64) {
    let before = engine.durability().log.position();
    disk.take();
    fork(engine, session);
    (disk.take(), engine.durability().log.position() - before)
}

#[test]
fn a_fork_is_one_record_whatever_has_changed() {
    let (disk, engine, session) = start();
    let untouched = work_of_fork(&disk, &engine, &session);
    let dir = session.make(ROOT, &name("many"), New { kind: Kind::Dir, ..file() }).unwrap().ino;
    for n in 0..10_000 {
        let ino = session.make(dir, &name(&format!("file {n}")), file()).unwrap().ino;
        session.write(ino, 0, b"changed").unwrap();
    }
    let changed = work_of_fork(&disk, &engine, &session);
    assert_eq!(untouched, changed, "as after no change at all");
    let mut deep = session;
    for depth in 0..100 {
        deep.make(ROOT, &name(&format!("depth {depth}")), file()).unwrap();
        deep = fork(&engine, &deep);
    }
    assert_eq!(work_of_fork(&disk, &engine, &deep), changed, "as the hundredth of a chain");
    let (counts, log_bytes) = changed;
    assert_eq!(counts.len(), 1, "only the log is touched: {counts:?}");
    assert_eq!((counts["log"].writes, counts["log"].reads), (1, 0));
    assert_eq!(counts["log"].written_bytes, log_bytes);
    assert!(log_bytes < 200, "{log_bytes} bytes");
}

#[test]
fn a_file_can_have_a_hundred_thousand_names() {
    const NAMES: u32 = 100_000;
    let (_disk, engine, session) = start();
    let ino = session.make(ROOT, &name("many"), file()).unwrap().ino;
    let before = engine.durability().log.position();
    for n in 1..NAMES {
        session.link(ino, ROOT, &name(&format!("name {n}"))).unwrap();
        session.forget(ino, 1);
    }
    let log_bytes = engine.durability().log.position() - before;
    assert!(log_bytes < 400 * u64::from(NAMES), "{log_bytes} bytes: the last link costs what the first did");
    assert_eq!(session.stat(ino).unwrap().attrs.nlink, NAMES);
    engine.seal(&session, false, &mut |_| {}).unwrap();
    session.write(ino, 0, b"under all of them").unwrap();
    let last = session.lookup(ROOT, &name("name 99999")).unwrap();
    assert_eq!((last.ino, last.attrs.nlink, last.attrs.size), (ino, NAMES, 17));
    (1..NAMES).for_each(|n| session.unlink(ROOT, &name(&format!("name {n}"))).unwrap());
    assert_eq!(session.stat(ino).unwrap().attrs.nlink, 1);
}

/// What a fork and its parent have from one place is not read, however large; what only looks large is not either.
#[test]
fn a_diff_costs_what_has_changed() {
    let (disk, engine, session) = start();
    let names = ["dense", "sparse", "in pieces", "sealed"];
    let inos = names.map(|path| session.make(ROOT, &name(path), file()).unwrap().ino);
    for mib in 0..8 {
        session.write(inos[0], mib << 20, &vec![mib as u8; 1 << 20]).unwrap();
        session.write(inos[3], mib << 20, &vec![mib as u8; 1 << 20]).unwrap();
    }
    session.write(inos[1], (1 << 62) - 10, b"at the end").unwrap();
    (0..500).for_each(|n| session.write(inos[2], n << 20, b"a piece").unwrap());
    let compare = |other: &Session| {
        let side = |session: &Session| Side { state: session.peek(), origin: session.meta.origin };
        disk.take();
        let differences = diff(engine.store(), &side(&session), &side(other), false, usize::MAX).unwrap();
        let paths =
            differences.iter().map(|difference| String::from_utf8_lossy(difference.path()).into_owned());
        (paths.collect::<Vec<_>>(), disk.take().values().map(|count| count.read_bytes).sum::<u64>())
    };
    let forked = fork(&engine, &session);
    forked.set_attrs(inos[0], SetAttrs { mtime: Some(SetTime::Now), ..Default::default() }).unwrap();
    assert_eq!(compare(&forked), (Vec::new(), 0), "nothing has changed");
    for (ino, at) in inos.into_iter().zip([5 << 20, 1 << 50, 77 << 20, 0]) {
        forked.write(ino, at, &[0xcc; 4096]).unwrap();
    }
    let (paths, read_bytes) = compare(&forked);
    assert_eq!(paths, ["dense", "in pieces", "sealed", "sparse"]);
    // Bytes are checked as they were written, so a few more than what changed are read: far from the 16 MiB that there are.
    assert!(read_bytes <= 64 * 4096, "{read_bytes} bytes were read");
    // Bytes that were sealed have names: two that differ need not be looked at.
    engine.seal(&forked, false, &mut |_| {}).unwrap();
    engine.seal(&session, false, &mut |_| {}).unwrap();
    let (paths, read_bytes) = compare(&forked);
    assert_eq!(paths, ["dense", "in pieces", "sealed", "sparse"]);
    assert!(read_bytes < 100_000, "{read_bytes} bytes were read");
    assert_eq!(compare(&session), (Vec::new(), 0));
}

/// Looks up and reads a file of the base, one that an ancestor wrote, and a name that is not there.
fn work_of_reading(disk: &CountingDisk, session: &Session) -> Counts {
    disk.take();
    let mut buf = [0; 4096];
    for path in ["sub/deep/deeper/bottom", "big", "wide/f200", "written", "nowhere"] {
        let mut dir = ROOT;
        for part in path.split('/') {
            match session.lookup(dir, &name(part)) {
                Ok(found) => dir = found.ino,
                Err(_) => assert_eq!(path, "nowhere"),
            }
        }
        if path != "nowhere" {
            session.read(dir, 0, &mut buf).unwrap();
        }
    }
    disk.take()
}

#[test]
fn reads_cost_the_same_at_any_depth() {
    let (disk, engine, session) = start();
    let ino = session.make(ROOT, &name("written"), file()).unwrap().ino;
    session.write(ino, 0, &[7; 8192]).unwrap();
    work_of_reading(&disk, &fork(&engine, &session));
    let shallow = work_of_reading(&disk, &fork(&engine, &session));
    let mut deep = fork(&engine, &session);
    for depth in 2..=200u32 {
        // Each one changes something of its own.
        deep.make(ROOT, &name(&format!("depth {depth}")), file()).unwrap();
        deep = fork(&engine, &deep);
        assert_eq!(deep.meta.depth, depth);
    }
    let found = work_of_reading(&disk, &deep);
    assert_eq!(found, shallow);
    assert_eq!(found["segments"].reads, 1, "one for the file that was written");
    let reads: u64 = found.values().map(|count| count.reads).sum();
    assert!(reads <= 5, "one for each file, two for part of a large one: {found:?}");
}

#[test]
fn a_small_write_into_a_large_file_stores_what_was_written() {
    let (disk, engine, session) = start();
    let big = session.lookup(ROOT, &name("big")).unwrap();
    assert!(big.attrs.size > 1 << 20);
    disk.take();
    session.write(big.ino, 500_000, &[9; 4096]).unwrap();
    let counts = disk.take();
    assert_eq!(counts["segments"].written_bytes, 4096);
    assert_eq!(counts.values().map(|count| count.reads).sum::<u64>(), 0, "nothing is copied up");
    let before = engine.durability().log.position();
    session.write(big.ino, 500_000, &[8; 4096]).unwrap();
    let counts = disk.take();
    assert_eq!((counts["segments"].writes, counts["segments"].written_bytes), (1, 4096), "in place");
    assert!(engine.durability().log.position() - before < 200, "no extent, only the times");
    let forked = fork(&engine, &session);
    session.write(big.ino, 500_100, &[7; 10]).unwrap();
    assert_eq!(disk.take()["segments"].written_bytes, 10, "shared bytes are not copied either");
    let mut buf = [0; 4096];
    let big = forked.lookup(ROOT, &name("big")).unwrap();
    forked.read(big.ino, 500_000, &mut buf).unwrap();
    assert_eq!(buf, [8; 4096]);
}

#[test]
fn a_small_file_is_one_write_of_bytes_and_a_few_of_the_log() {
    let (disk, _engine, session) = start();
    session.make(ROOT, &name("first"), file()).unwrap();
    let ino = session.make(ROOT, &name("second"), file()).unwrap().ino;
    session.write(ino, 0, b"opens the segment").unwrap();
    disk.take();
    let ino = session.make(ROOT, &name("third"), file()).unwrap().ino;
    session.write(ino, 0, &[1; 1000]).unwrap();
    session.unlink(ROOT, &name("first")).unwrap();
    let counts = disk.take();
    assert_eq!((counts["segments"].writes, counts["log"].writes), (1, 3), "{counts:?}");
    assert!(counts["log"].written_bytes < 1200, "{counts:?}");
}

/// Streams of small writes: each is its bytes and a record, and touches the pages that a file of its own would.
#[test]
fn a_stream_of_pages_is_two_writes_a_page_and_one_extent() {
    const PAGES: u64 = 1000;
    let (disk, _engine, session) = start();
    let ino = session.make(ROOT, &name("odd"), file()).unwrap().ino;
    session.write(ino, 0, &[1; 1001]).unwrap();
    let ino = session.make(ROOT, &name("stream"), file()).unwrap().ino;
    for (what, log_writes) in
        [("appended", PAGES), ("overwritten, and the sums go", 2 * PAGES), ("again", PAGES)]
    {
        disk.take();
        (0..PAGES).for_each(|page| session.write(ino, page * 4096, &[2; 4096]).unwrap());
        let counts = disk.take();
        let (bytes, log) = (counts["segments"], counts["log"]);
        assert_eq!((bytes.writes, bytes.written_pages, log.writes), (PAGES, PAGES, log_writes), "{what}");
        assert!(log.written_bytes < log_writes * 256, "{what}: {log:?}");
        assert_eq!(
            counts.values().map(|count| count.reads + count.syncs).sum::<u64>(),
            0,
            "{what}: {counts:?}"
        );
    }
    match session.stat(ino).unwrap().source {
        Source::Changed(inode) => {
            assert!(has_few_extents(&inode), "what follows on each other is one extent")
        }
        Source::Base(_) => unreachable!("it was just written"),
    }
}

#[test]
fn a_whole_small_file_is_one_read() {
    let (disk, _engine, session) = start();
    let found = session.lookup(ROOT, &name("small")).unwrap();
    let mut buf = vec![0; 128 << 10];
    // The first time the index is read, too: pages of it stay in memory, bytes of files do not.
    session.read(found.ino, 0, &mut buf).unwrap();
    disk.take();
    let read = session.read(found.ino, 0, &mut buf).unwrap() as u64;
    assert_eq!(read, found.attrs.size);
    let counts = disk.take();
    assert_eq!(counts.len(), 1, "{counts:?}");
    assert_eq!(
        (counts["store"].reads, counts["store"].read_bytes),
        (1, read + 64),
        "its record, in one piece"
    );
}

/// Part of a large file costs the blocks that it is in, not their chunk.
#[test]
fn a_few_bytes_of_a_large_file_are_two_reads() {
    const BLOCK: u64 = 16 << 10;
    let (disk, engine, session) = start();
    let ino = session.make(ROOT, &name("noise"), file()).unwrap().ino;
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = (0..4 << 20).map(|_| noise()).collect();
    session.write(ino, 0, &bytes).unwrap();
    engine.seal(&session, false, &mut |_| {}).unwrap();
    let mut buf = [0; 4096];
    session.read(ino, 0, &mut buf).unwrap();
    let mut least = u64::MAX;
    for at in (0..1000).map(|n| n * 4096) {
        disk.take();
        session.read(ino, at, &mut buf).unwrap();
        assert!(buf == bytes[at as usize..at as usize + 4096], "at {at}");
        let counts = disk.take();
        let store = &counts["store"];
        // Two of each where two chunks meet. The index may be read, too, until its pages are in memory.
        assert!(store.reads <= 8 && store.read_bytes <= 4 * BLOCK + 8 * 4096, "at {at}: {store:?}");
        least = least.min(store.read_bytes);
    }
    assert!(least <= BLOCK + 64 + 512, "{least} bytes for 4096");
}

/// What is known of an inode is in memory, and what an operation changes is one record.
#[test]
fn looking_is_no_work_and_a_change_is_one_record() {
    let (disk, _engine, session) = start();
    let small = session.lookup(ROOT, &name("small")).unwrap().ino;
    assert!(session.lookup(ROOT, &name("nowhere")).is_err());
    disk.take();
    session.stat(small).unwrap();
    session.lookup(ROOT, &name("small")).unwrap();
    assert!(session.lookup(ROOT, &name("nowhere")).is_err());
    session.list(ROOT, 0, true, &mut |_, _, _| true).unwrap();
    assert_eq!(disk.take(), Counts::new());
    // The root has extended attributes, which a new file may inherit: they are read once.
    session.make(ROOT, &name("first"), file()).unwrap();
    disk.take();
    let records: [&dyn Fn(); 6] = [
        &|| drop(session.make(ROOT, &name("new"), file()).unwrap()),
        &|| drop(session.set_attrs(small, SetAttrs { mode: Some(0o600), ..Default::default() }).unwrap()),
        &|| session.rename(ROOT, &name("new"), ROOT, &name("newer"), Rename::Replace).unwrap(),
        &|| drop(session.link(small, ROOT, &name("again")).unwrap()),
        &|| session.unlink(ROOT, &name("small")).unwrap(),
        &|| session.unlink(ROOT, &name("newer")).unwrap(),
    ];
    for (n, record) in records.into_iter().enumerate() {
        record();
        let counts = disk.take();
        assert_eq!((counts.len(), counts["log"].writes), (1, 1), "{n}: {counts:?}");
        assert!(counts["log"].written_bytes < 700, "{n}: {counts:?}");
    }
}

/// What is deleted before it was ever synced costs no sync, and never reaches the store.
#[test]
fn bytes_that_nobody_refers_to_are_not_stored() {
    let (disk, engine, session) = start();
    let ino = session.make(ROOT, &name("short-lived"), file()).unwrap().ino;
    session.write(ino, 0, &[3; 500_000]).unwrap();
    session.unlink(ROOT, &name("short-lived")).unwrap();
    session.forget(ino, 1);
    disk.take();
    let sealed = engine.seal(&session, false, &mut |_| {}).unwrap();
    assert!(sealed.written.new_bytes < 5000, "only the root and the snapshot: {:?}", sealed.written);
    engine.settle();
    engine.settle();
    assert_eq!(engine.durability().pool.counts(), (0, 0), "no segment is left");
}

#[test]
fn who_does_not_wait_reads_what_is_in_memory_and_nothing_else() {
    let (disk, _engine, session) = start();
    let written = session.make(ROOT, &name("written"), file()).unwrap().ino;
    session.write(written, 0, &[7; 8192]).unwrap();
    for ino in ["small", "big"].map(|path| session.lookup(ROOT, &name(path)).unwrap().ino) {
        let (mut waited, mut now) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        // The index is in memory from here on.
        let len = session.read(ino, 0, &mut waited).unwrap();
        assert_eq!(session.read_now(ino, 0, &mut now).unwrap(), Some(len));
        assert_eq!(now[..len], waited[..len]);
    }
    disk.is_distant.store(true, Ordering::Relaxed);
    let small = session.lookup(ROOT, &name("small")).unwrap();
    disk.take();
    assert_eq!(session.read_now(small.ino, 0, &mut vec![0; 64 << 10]).unwrap(), None);
    assert_eq!(disk.take(), Counts::new(), "and asks no disk");
    assert_eq!(session.read_now(small.ino, small.attrs.size, &mut [0; 9]).unwrap(), Some(0), "its end");
    // What is not sealed is taken to be in memory.
    assert_eq!(session.read_now(written, 0, &mut [0; 9]).unwrap(), Some(9));
    assert_eq!(session.read(small.ino, 0, &mut [0; 9]).unwrap(), 9, "who waits gets it");
}
