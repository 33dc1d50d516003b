//! Writers, forks, seals and readers at the same time: a fork holds every call that returned before it began, none in part,
//! and keeps what it holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use fsd::session::{Engine, Limits, ROOT, Session};
use parking_lot::{Condvar, Mutex};

use crate::common::{
    counting::CountingDisk,
    faulty::Fault,
    file,
    host::{Opening, tight},
    name, setting,
    template::Template,
};

/// Bytes of each record that a writer overwrites.
const RECORD: usize = 600;

fn start() -> (Engine, Arc<Session>) {
    let (disk, snapshot) = Template::get().disk();
    let limits = Limits { log_file_bytes: 64 << 10, log_bytes_max: 1 << 20, ..tight() };
    let fault = Some(Fault::Slow("segments/"));
    let engine = Opening { limits, fault, ..Opening::first(1) }.open_sim(&disk).unwrap();
    let session = engine.create(Some(snapshot), None, (0, 0)).unwrap();
    (engine, session)
}

/// What a session holds of `n` counted writes: file `n / 8` holds the number of the last one, in place.
fn read(session: &Session, writer: u64) -> u64 {
    let mut last = 0;
    let mut missing = false;
    for file in 0.. {
        let Ok(found) = session.lookup(ROOT, &name(&format!("{writer} {file}"))) else { break };
        let mut buf = [0; RECORD];
        let read = session.read(found.ino, 0, &mut buf).unwrap();
        session.forget(found.ino, 1);
        if read == 0 {
            // Made, and not written yet: the last one.
            missing = true;
            continue;
        }
        assert!(!missing, "a later file has bytes, and this one was made before");
        assert!(buf.chunks_exact(8).all(|chunk| chunk == &buf[..8]), "half of a write");
        last = u64::from_le_bytes(buf[..8].try_into().unwrap());
        assert_eq!((last - 1) / 8, file, "a write to the next file is there, and not this one's last");
    }
    last
}

/// Writes the numbers 1, 2, 3..., each over the one before it, eight to a file; says which were acknowledged.
fn write(session: &Session, writer: u64, count: u64, done: &AtomicU64) {
    let mut ino = 0;
    for n in 1..=count {
        if n % 8 == 1 {
            ino = session.make(ROOT, &name(&format!("{writer} {}", n / 8)), file()).unwrap().ino;
        }
        let bytes: Vec<u8> = n.to_le_bytes().repeat(RECORD / 8);
        session.write(ino, 0, &bytes).unwrap();
        done.store(n, SeqCst);
    }
}

#[test]
fn a_fork_is_a_cut_through_all_writers() {
    let (engine, session) = start();
    let count = setting("AETHERFS_PARALLEL_WRITES", 3000);
    let done = [AtomicU64::new(0), AtomicU64::new(0)];
    let stop = AtomicBool::new(false);
    let forks = thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                scope.spawn({
                    let (s, d) = (&session, &done);
                    move || write(s, writer, count, &d[writer as usize])
                })
            })
            .collect();
        let (engine, session, stop, done) = (&engine, &session, &stop, &done);
        let keeper = scope.spawn(move || {
            while !stop.load(SeqCst) {
                engine.seal(session, false, &mut |_| thread::yield_now()).unwrap();
                engine.settle();
                engine.tidy();
            }
        });
        let forker = scope.spawn(move || {
            let mut forks = Vec::new();
            while !stop.load(SeqCst) {
                let before = [done[0].load(SeqCst), done[1].load(SeqCst)];
                let [fork, twin]: [_; 2] = engine.fork(session, &[None, None]).unwrap().try_into().unwrap();
                let found = [read(&fork, 0), read(&fork, 1)];
                assert_eq!([read(&twin, 0), read(&twin, 1)], found, "two forks of one request are one cut");
                engine.discard(&twin).unwrap();
                assert!(found[0] >= before[0] && found[1] >= before[1], "{found:?} of {before:?}");
                forks.push((fork, found));
                if forks.len() > 40 {
                    let (oldest, _) = forks.remove(0);
                    engine.discard(&oldest).unwrap();
                }
            }
            forks
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        stop.store(true, SeqCst);
        keeper.join().unwrap();
        forker.join().unwrap()
    });
    assert!(forks.len() > 20, "{} forks", forks.len());
    for (fork, found) in forks {
        assert_eq!(
            [read(&fork, 0), read(&fork, 1)],
            found,
            "what the parent did later is none of its business"
        );
    }
    assert_eq!([read(&session, 0), read(&session, 1)], [count, count]);
}

/// Where threads wait for each other. Unlike at a barrier, who waits in vain ends, and the test with it.
#[derive(Default)]
struct Meeting(Mutex<(usize, u64)>, Condvar);

impl Meeting {
    fn of(&self, everybody: usize) {
        let mut state = self.0.lock();
        state.0 += 1;
        let this = state.1;
        if state.0 == everybody {
            *state = (0, this + 1);
            self.1.notify_all();
        }
        while state.1 == this {
            assert!(
                !self.1.wait_for(&mut state, Duration::from_secs(60)).timed_out(),
                "somebody did not come"
            );
        }
    }
}

/// It counted syncs that took 2 ms each, and on a busy machine there were 127 where 120 were allowed: now each waits for those
/// that it is to be shared with.
#[test]
fn syncs_of_many_writers_share_their_work() {
    const WRITERS: usize = 6;
    const ROUNDS: u64 = 40;
    let (disk, snapshot) = Template::get().disk();
    let (meeting, is_first) = (Arc::new(Meeting::default()), Arc::new(AtomicBool::new(false)));
    let hold = {
        let (meeting, is_first) = (Arc::clone(&meeting), Arc::clone(&is_first));
        move |folder: &str| {
            if folder == "log" && is_first.swap(false, SeqCst) {
                // It is under way, then: all others have written.
                meeting.of(WRITERS);
                meeting.of(WRITERS);
            }
        }
    };
    let disk = Arc::new(CountingDisk::with_syncs_held(disk, hold));
    let engine = Opening { limits: Limits::default(), ..Opening::first(1) }.open(disk.clone()).unwrap();
    let session = engine.create(Some(snapshot), None, (0, 0)).unwrap();
    let write = |writer: usize, round: u64| {
        let name = name(&writer.to_string());
        let ino = match session.lookup(ROOT, &name) {
            Ok(found) => found.ino,
            Err(_) => session.make(ROOT, &name, file()).unwrap().ino,
        };
        session.write(ino, round * 100, &[1; 100]).unwrap();
        engine.durability().log.position()
    };
    disk.take();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (meeting, is_first, write, engine) = (&meeting, &is_first, &write, &engine);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let position = if writer == 0 {
                        let position = write(writer, round);
                        is_first.store(true, SeqCst);
                        position
                    } else {
                        meeting.of(WRITERS);
                        let position = write(writer, round);
                        meeting.of(WRITERS);
                        position
                    };
                    engine.durability().sync().unwrap();
                    assert!(engine.durability().log.synced() >= position);
                    meeting.of(WRITERS);
                }
            });
        }
    });
    assert_eq!(
        disk.take()["log"].syncs,
        2 * ROUNDS,
        "one for the first, and one for all that came meanwhile"
    );
    engine.close().unwrap();
}
