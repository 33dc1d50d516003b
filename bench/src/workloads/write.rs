//! Files are made, written, copied and removed.

use std::{fs::File, io::Write, path::Path, process::Command};

use crate::{
    Result,
    args::Group,
    shell,
    turn::{Turn, Workload, begin_scratch, end_scratch},
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

pub(crate) const WORKLOAD: Workload = Workload {
    group: Group::Write,
    prepare: begin_scratch,
    steps: &[untar, copy, remove, untar_without_xattrs, small, large],
    finish: end_scratch,
};

fn untar(turn: &mut Turn<'_>) -> Result<()> {
    unpack(turn, &format!("untar {} files", turn.scale().unpacked_files))
}

/// The other sides do once more what they did.
fn untar_without_xattrs(turn: &mut Turn<'_>) -> Result<()> {
    turn.side.unmount()?;
    turn.side.mount_without_xattrs()?;
    unpack(turn, "untar them, mounted with --no-xattrs")?;
    turn.side.unmount()?;
    turn.side.mount()?;
    shell::remove(&turn.scratch().join("unpacked"))
}

fn unpack(turn: &mut Turn<'_>, work: &str) -> Result<()> {
    let target = turn.scratch().join("unpacked");
    std::fs::create_dir(&target)?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&turn.stage.archive).arg("-C").arg(target);
    turn.time(work, |_| shell::run(&mut tar).map(drop))
}

fn copy(turn: &mut Turn<'_>) -> Result<()> {
    let (from, to) = (turn.scratch().join("unpacked"), turn.scratch().join("copied"));
    let mut cp = Command::new("cp");
    cp.arg("-r").arg(from).arg(to);
    turn.time("`cp -r` of them", |_| shell::run(&mut cp).map(drop))
}

fn remove(turn: &mut Turn<'_>) -> Result<()> {
    let (unpacked, copied) = (turn.scratch().join("unpacked"), turn.scratch().join("copied"));
    turn.time("`rm -r` of them", |_| shell::remove(&unpacked))?;
    shell::remove(&copied)
}

fn small(turn: &mut Turn<'_>) -> Result<()> {
    let mib = turn.scale().small_writes_mib;
    write(turn, &format!("write {mib} MiB by 4 KiB"), 4 * KIB, mib)
}

fn large(turn: &mut Turn<'_>) -> Result<()> {
    let mib = turn.scale().large_writes_mib;
    write(turn, &format!("write {mib} MiB by 1 MiB"), MIB, mib)
}

fn write(turn: &mut Turn<'_>, work: &str, piece_bytes: usize, mib: u32) -> Result<()> {
    let path = turn.scratch().join("written");
    turn.time(work, |_| fill(&path, piece_bytes, mib))?;
    Ok(std::fs::remove_file(path)?)
}

/// Bytes without zeros among them, which could become holes.
fn fill(path: &Path, piece_bytes: usize, mib: u32) -> Result<()> {
    let piece = vec![b'w'; piece_bytes];
    let mut file = File::create(path)?;
    for _ in 0..mib as usize * MIB / piece_bytes {
        file.write_all(&piece)?;
    }
    Ok(())
}
