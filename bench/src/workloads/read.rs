//! One large file is read: forwards, at random, and through a memory map. By fio, which says how long the reads alone took.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    Result,
    args::Group,
    noise::Noise,
    shell,
    turn::{Turn, Workload, begin_scratch, end_scratch},
};

pub(crate) const WORKLOAD: Workload =
    Workload { group: Group::Read, prepare, steps: &[cold, new, warm], finish: end_scratch };

/// How fio reads.
struct Job {
    what: &'static str,
    rw: &'static str,
    engine: &'static str,
    block: &'static str,
}

const SEQUENTIAL: Job = Job { what: "read by 1 MiB", rw: "read", engine: "psync", block: "1m" };
const RANDOM: Job = Job { what: "read by 4 KiB at random", rw: "randread", engine: "psync", block: "4k" };
const MAPPED: Job = Job { what: "read a memory map", rw: "read", engine: "mmap", block: "4k" };
const MAPPED_RANDOM: Job =
    Job { what: "read a memory map at random", rw: "randread", engine: "mmap", block: "4k" };

/// The part of the file that is read at random: each of its blocks may be a trip to the disk.
const RANDOM_PART: u32 = 16;

/// Random bytes, which no store keeps smaller than they are.
fn prepare(turn: &mut Turn<'_>) -> Result<()> {
    begin_scratch(turn)?;
    let mut file = File::create(data(turn))?;
    let mut noise = Noise::new(1);
    for _ in 0..turn.scale().read_mib {
        file.write_all(&noise.bytes(1 << 20))?;
    }
    file.sync_all()?;
    turn.side.seal()
}

fn cold(turn: &mut Turn<'_>) -> Result<()> {
    turn.side.cold(turn.stage.scale)?;
    read(turn, &SEQUENTIAL, "no cache")?;
    turn.side.cold(turn.stage.scale)?;
    read(turn, &RANDOM, "no cache")
}

fn new(turn: &mut Turn<'_>) -> Result<()> {
    for job in [&SEQUENTIAL, &RANDOM, &MAPPED] {
        turn.side.renew(turn.stage.scale)?;
        read(turn, job, "new mount")?;
    }
    Ok(())
}

fn warm(turn: &mut Turn<'_>) -> Result<()> {
    shell::read_all(&[&turn.scratch()])?;
    for job in [&SEQUENTIAL, &RANDOM, &MAPPED, &MAPPED_RANDOM] {
        read(turn, job, "warm")?;
    }
    Ok(())
}

fn data(turn: &Turn<'_>) -> PathBuf {
    turn.scratch().join("data")
}

fn read(turn: &mut Turn<'_>, job: &Job, state: &str) -> Result<()> {
    let (path, file_mib) = (data(turn), turn.scale().read_mib);
    let mib = if job.rw == "randread" { file_mib / RANDOM_PART } else { file_mib };
    turn.measure(&format!("{} of {mib} MiB, {state}", job.what), |_| fio(job, &path, file_mib, mib))
}

/// Returns what reading so much of the file took, in seconds.
fn fio(job: &Job, path: &Path, file_mib: u32, mib: u32) -> Result<f64> {
    let mut fio = Command::new("fio");
    fio.args(["--name=bench", "--output-format=json", "--readonly", "--invalidate=0", "--thread"]);
    fio.arg(format!("--rw={}", job.rw)).arg(format!("--ioengine={}", job.engine));
    fio.arg(format!("--bs={}", job.block)).arg(format!("--size={file_mib}m"));
    fio.arg(format!("--io_size={mib}m")).arg("--filename").arg(path);
    let answer: Value = serde_json::from_str(&shell::run(&mut fio)?)?;
    let read = &answer["jobs"][0]["read"];
    let number = |name: &str| read[name].as_f64().ok_or_else(|| format!("fio does not say {name}"));
    Ok(number("io_bytes")? / number("bw_bytes")?)
}
