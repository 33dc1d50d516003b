//! What looking at a tree costs below FUSE: `walk <source> <state> [passes]`. Imports the source, and then lists every
//! directory, looks up every name, asks for every inode's attributes and reads every file, as a kernel would whose own
//! caches are empty. Prints nanoseconds a call, and the memory that the process has in the end.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod common;

use std::{env, path::Path, process::ExitCode, sync::atomic::AtomicBool, time::Instant};

use cas::Kind;
use common::{Outcome, memory, open, timed};
use fsd::session::{Name, ROOT, Session};

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let (source, state, passes) = match &args[..] {
        [source, state] => (source, state, 3),
        [source, state, passes] => (source, state, passes.to_string_lossy().parse().unwrap_or(3)),
        _ => {
            eprintln!("usage: walk <source> <state> [passes]");
            return ExitCode::from(2);
        }
    };
    match run(Path::new(source), Path::new(state), passes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(source: &Path, state: &Path, passes: usize) -> Outcome<()> {
    let engine = open(state)?;
    let imported = engine.import(source, None, &|_| (), &AtomicBool::new(false))?;
    drop(engine);
    // As a daemon that was just started: nothing is checked, nothing is cached but by the kernel.
    let engine = open(state)?;
    let session = engine.create(Some(imported.id), None, (0, 0))?;
    for pass in 1..=passes {
        let names = timed(&format!("pass {pass}: list"), || list(&session))?;
        timed(&format!("pass {pass}: look up"), || look_up(&session, &names))?;
        timed(&format!("pass {pass}: stat"), || stat(&session, &names))?;
        println!("{} names known; {}", session.known.len(), memory());
    }
    let names = list(&session)?.0;
    for (what, step) in [("read by 128 KiB", 128 << 10), ("read by 1 MiB", 1 << 20)] {
        for pass in 1..=2 {
            let start = Instant::now();
            let bytes = read(&session, &names, step)?;
            let took = start.elapsed().as_secs_f64();
            println!("pass {pass}: {what}: {bytes} bytes, {:.0} MB/s", bytes as f64 / took / 1e6);
        }
    }
    let start = Instant::now();
    let calls = read_scattered(&session, &names)?;
    println!(
        "4 KiB anywhere in files over 1 MiB: {:.1} us a read",
        start.elapsed().as_secs_f64() * 1e6 / calls
    );
    println!("{}", memory());
    Ok(())
}

/// Directory, name, inode, kind.
type Names = Vec<(u64, Name, u64, Kind)>;

/// Every directory in pieces, as READDIRPLUS would have them: each entry counts as looked up.
#[inline(never)]
fn list(session: &Session) -> Outcome<(Names, usize)> {
    let (mut names, mut queue) = (Names::new(), vec![ROOT]);
    while let Some(dir) = queue.pop() {
        let mut cookie = 0;
        loop {
            let (mut taken, first) = (0, names.len());
            session.list(dir, cookie, true, &mut |name, found, next| {
                let room = taken < 64;
                if room {
                    taken += 1;
                    cookie = next;
                    if let Ok(name) = Name::parse(name) {
                        names.push((dir, name, found.ino, found.kind));
                    }
                }
                room
            })?;
            let dirs = names[first..].iter().filter(|(.., kind)| *kind == Kind::Dir);
            queue.extend(dirs.map(|(_, _, ino, _)| *ino));
            if taken == 0 {
                break;
            }
        }
    }
    let count = names.len();
    Ok((names, count))
}

#[inline(never)]
fn look_up(session: &Session, names: &Names) -> Outcome<((), usize)> {
    for (dir, name, ino, _) in names {
        assert_eq!(session.lookup(*dir, name)?.ino, *ino);
    }
    Ok(((), names.len()))
}

#[inline(never)]
fn stat(session: &Session, names: &Names) -> Outcome<((), usize)> {
    for (_, _, ino, kind) in names {
        assert_eq!(session.stat(*ino)?.kind, *kind);
    }
    Ok(((), names.len()))
}

fn files<'a>(session: &'a Session, names: &'a Names) -> impl Iterator<Item = Outcome<(u64, u64)>> + 'a {
    let files = names.iter().filter(|(.., kind)| *kind == Kind::File);
    files.map(|(_, _, ino, _)| Ok((*ino, session.stat(*ino)?.attrs.size)))
}

#[inline(never)]
fn read(session: &Session, names: &Names, step: u64) -> Outcome<u64> {
    let (mut buf, mut bytes) = (vec![0; step as usize], 0);
    for file in files(session, names) {
        let (ino, size) = file?;
        for offset in (0..size).step_by(step as usize) {
            bytes += session.read(ino, offset, &mut buf)? as u64;
        }
    }
    Ok(bytes)
}

#[inline(never)]
fn read_scattered(session: &Session, names: &Names) -> Outcome<f64> {
    let large = files(session, names).filter(|file| !matches!(file, Ok((_, size)) if *size < 1 << 20));
    let large = large.collect::<Outcome<Vec<_>>>()?;
    let (mut buf, mut at) = ([0; 4096], 0u64);
    let calls = if large.is_empty() { 0 } else { 20_000 };
    for call in 0..calls {
        let (ino, size) = large[call % large.len()];
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        session.read(ino, (at >> 20) % (size / 4096) * 4096, &mut buf)?;
    }
    Ok(calls as f64)
}
