//! What changing a tree costs below FUSE: `changes <state> [files]`. Makes files as untarring an archive does, streams into
//! one, looks at all of them, seals, looks at them again in the store, and removes them. Prints nanoseconds a call.
//!
//! Each step is a function that is not inlined, so `valgrind --tool=callgrind` counts its instructions by name.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod common;

use std::{
    env,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use cas::{Kind, Time};
use common::{Outcome, memory, open, timed};
use fsd::session::{Engine, Name, New, ROOT, Rename, Session, SetAttrs, SetTime};

/// Files in one directory.
const DIR_FILES: usize = 100;
/// What tar writes at a time, and how much of that makes a file: like most, it does not end with a page.
const PART: [u8; 10 << 10] = [0x5a; 10 << 10];
const FILE_BYTES: usize = 29_001;
const BLOCK: [u8; 4096] = [0xa5; 4096];

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let (state, files) = match &args[..] {
        [state] => (state, Some(11_000)),
        [state, files] => (state, files.to_str().and_then(|text| text.parse().ok())),
        _ => (&env::args_os().next().unwrap_or_default(), None),
    };
    let Some(files) = files else {
        eprintln!("usage: changes <state> [files]");
        return ExitCode::from(2);
    };
    match run(Path::new(state), files) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// A file: directory, name, inode.
type File = (u64, Name, u64);

fn run(state: &Path, files: usize) -> Outcome<()> {
    let engine = open(state)?;
    let session = engine.create(None, None, (0, 0))?;
    let dirs = timed("mkdir", || mkdir(&session, files.div_ceil(DIR_FILES)))?;
    let names = timed("create", || create(&session, &dirs, files))?;
    timed("write 10 KiB", || write(&session, &names))?;
    timed("chown, chmod, utimens", || set_attrs(&session, &names))?;
    let stream = timed("append 4 KiB", || append(&session, files))?;
    timed("overwrite 4 KiB", || overwrite(&session, stream, files))?;
    look("changed", &session, &dirs, &names)?;
    timed("rename", || rename(&session, &names))?;
    fork_and_seal(&engine, &session)?;
    look("sealed", &session, &dirs, &names)?;
    timed("unlink", || unlink(&session, &names))?;
    println!("{}", memory());
    Ok(())
}

fn look(what: &str, session: &Session, dirs: &[u64], names: &[File]) -> Outcome<()> {
    timed(&format!("{what}: look up"), || look_up(session, names))?;
    timed(&format!("{what}: look up what is not there"), || miss(session, names))?;
    timed(&format!("{what}: stat"), || stat(session, names))?;
    timed(&format!("{what}: list"), || list(session, dirs))?;
    timed(&format!("{what}: read whole files"), || read(session, names))
}

/// What a fork and a seal cost after all that, and for how long the seal keeps others waiting.
fn fork_and_seal(engine: &Engine, session: &Session) -> Outcome<()> {
    timed("fork", || Ok((engine.fork(session, &[None])?, 1)))?;
    let (sealed, start) = (AtomicBool::new(false), Instant::now());
    let longest = thread::scope(|scope| {
        let waiting = scope.spawn(|| longest_wait(session, &sealed));
        let result = engine.seal(session, false, &mut |_| {});
        sealed.store(true, Ordering::Relaxed);
        let longest = waiting.join().expect("it does not panic");
        result.map(|_| longest)
    })?;
    println!("seal: {:.0?}; longest wait of a reader: {longest:.1?}", start.elapsed());
    Ok(())
}

/// Looks at the root until `end`, and says what took longest.
fn longest_wait(session: &Session, end: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    while !end.load(Ordering::Relaxed) {
        let start = Instant::now();
        drop(session.stat(ROOT));
        longest = longest.max(start.elapsed());
        thread::sleep(Duration::from_micros(100));
    }
    longest
}

fn new(kind: Kind) -> New {
    New { kind, mode: 0o755, uid: 0, gid: 0, rdev: 0, umask: 0o022, target: None }
}

#[inline(never)]
fn mkdir(session: &Session, count: usize) -> Outcome<(Vec<u64>, usize)> {
    let make =
        |n| Ok(session.make(ROOT, &Name::parse(format!("directory {n}").as_bytes())?, new(Kind::Dir))?.ino);
    Ok(((0..count).map(make).collect::<Outcome<_>>()?, count))
}

#[inline(never)]
fn create(session: &Session, dirs: &[u64], count: usize) -> Outcome<(Vec<File>, usize)> {
    let make = |n: usize| {
        let (dir, name) = (dirs[n / DIR_FILES], Name::parse(format!("file {n}.c").as_bytes())?);
        let ino = session.make(dir, &name, new(Kind::File))?.ino;
        Ok((dir, name, ino))
    };
    Ok(((0..count).map(make).collect::<Outcome<_>>()?, count))
}

#[inline(never)]
fn write(session: &Session, names: &[File]) -> Outcome<((), usize)> {
    for (_, _, ino) in names {
        for offset in (0..FILE_BYTES).step_by(PART.len()) {
            session.write(*ino, offset as u64, &PART[..PART.len().min(FILE_BYTES - offset)])?;
        }
    }
    Ok(((), names.len() * FILE_BYTES.div_ceil(PART.len())))
}

#[inline(never)]
fn set_attrs(session: &Session, names: &[File]) -> Outcome<((), usize)> {
    let time = Some(SetTime::At(Time { secs: 1_700_000_000, nanos: 0 }));
    for (_, _, ino) in names {
        session.set_attrs(*ino, SetAttrs { uid: Some(1000), gid: Some(1000), ..SetAttrs::default() })?;
        session.set_attrs(*ino, SetAttrs { mode: Some(0o644), ..SetAttrs::default() })?;
        session.set_attrs(*ino, SetAttrs { atime: time, mtime: time, ..SetAttrs::default() })?;
    }
    Ok(((), names.len() * 3))
}

#[inline(never)]
fn append(session: &Session, count: usize) -> Outcome<(u64, usize)> {
    let ino = session.make(ROOT, &Name::parse(b"stream")?, new(Kind::File))?.ino;
    for n in 0..count as u64 {
        session.write(ino, n * BLOCK.len() as u64, &BLOCK)?;
    }
    Ok((ino, count))
}

#[inline(never)]
fn overwrite(session: &Session, ino: u64, count: usize) -> Outcome<((), usize)> {
    for n in 0..count as u64 {
        session.write(ino, n * BLOCK.len() as u64, &BLOCK)?;
    }
    Ok(((), count))
}

#[inline(never)]
fn look_up(session: &Session, names: &[File]) -> Outcome<((), usize)> {
    for (dir, name, ino) in names {
        assert_eq!(session.lookup(*dir, name)?.ino, *ino);
    }
    Ok(((), names.len()))
}

#[inline(never)]
fn miss(session: &Session, names: &[File]) -> Outcome<((), usize)> {
    let absent = Name::parse(b"file 5.h")?;
    for (dir, ..) in names {
        assert!(session.lookup(*dir, &absent).is_err());
    }
    Ok(((), names.len()))
}

#[inline(never)]
fn stat(session: &Session, names: &[File]) -> Outcome<((), usize)> {
    for (_, _, ino) in names {
        assert_eq!(session.stat(*ino)?.kind, Kind::File);
    }
    Ok(((), names.len()))
}

/// As READDIRPLUS does, in one piece.
#[inline(never)]
fn list(session: &Session, dirs: &[u64]) -> Outcome<((), usize)> {
    let mut count = 0;
    for dir in dirs {
        session.list(*dir, 0, true, &mut |_, _, _| {
            count += 1;
            true
        })?;
    }
    Ok(((), count))
}

#[inline(never)]
fn read(session: &Session, names: &[File]) -> Outcome<((), usize)> {
    let mut buf = vec![0; 128 << 10];
    for (_, _, ino) in names {
        assert_eq!(session.read(*ino, 0, &mut buf)?, FILE_BYTES);
    }
    Ok(((), names.len()))
}

/// There and back.
#[inline(never)]
fn rename(session: &Session, names: &[File]) -> Outcome<((), usize)> {
    let there = Name::parse(b"on its way")?;
    for (dir, name, _) in names {
        session.rename(*dir, name, *dir, &there, Rename::Replace)?;
        session.rename(*dir, &there, *dir, name, Rename::Replace)?;
    }
    Ok(((), 2 * names.len()))
}

#[inline(never)]
fn unlink(session: &Session, names: &[File]) -> Outcome<((), usize)> {
    for (dir, name, ino) in names {
        session.unlink(*dir, name)?;
        session.forget(*ino, u64::MAX);
    }
    Ok(((), names.len()))
}
