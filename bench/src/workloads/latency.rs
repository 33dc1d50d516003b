//! Single operations, timed one by one: p50, mean and p99. Where a client is moved from CPU to CPU its times have two humps, of which p50
//! shows one.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::{
    Result,
    args::Group,
    clock,
    noise::Noise,
    samples::Unit,
    stop,
    turn::{Turn, Workload, begin_scratch, end_scratch},
};

pub(crate) const WORKLOAD: Workload = Workload {
    group: Group::Latency,
    prepare,
    steps: &[look_up, open_and_read, make_and_remove, sync],
    finish: end_scratch,
};

const BLOCK: usize = 4096;

/// A file to read, in the store by now, and one to look at.
fn prepare(turn: &mut Turn<'_>) -> Result<()> {
    begin_scratch(turn)?;
    let mut file = File::create(data(turn))?;
    let mut noise = Noise::new(2);
    for _ in 0..turn.scale().calls {
        file.write_all(&noise.bytes(BLOCK))?;
    }
    file.sync_all()?;
    turn.side.seal()
}

fn look_up(turn: &mut Turn<'_>) -> Result<()> {
    let (dir, path, round) = (turn.scratch(), data(turn), turn.round);
    // A name that was never asked for: no negative entry answers.
    each(turn, "look up a missing name", |nth| {
        match fs::symlink_metadata(dir.join(format!("missing-{round}-{nth}"))) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => Err(format!("a name that is not there: {other:?}").into()),
        }
    })?;
    each(turn, "stat, warm", |_| Ok(fs::symlink_metadata(&path).map(drop)?))
}

fn open_and_read(turn: &mut Turn<'_>) -> Result<()> {
    let path = data(turn);
    each(turn, "open and close", |_| Ok(File::open(&path).map(drop)?))?;
    // Each page once, in no order, without any ahead of it.
    let file = File::open(&path)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    let order = Noise::new(3).order(turn.scale().calls);
    let mut block = [0; BLOCK];
    each(turn, "pread 4 KiB that the page cache has not", |nth| {
        Ok(file.read_exact_at(&mut block, u64::from(order[nth as usize]) * BLOCK as u64)?)
    })?;
    each(turn, "pread 4 KiB, warm", |nth| {
        Ok(file.read_exact_at(&mut block, u64::from(order[nth as usize]) * BLOCK as u64)?)
    })
}

fn make_and_remove(turn: &mut Turn<'_>) -> Result<()> {
    let dir = turn.scratch();
    let path = |name: &str, nth: u32| dir.join(format!("{name}-{nth}"));
    let block = [b'w'; BLOCK];
    each(turn, "create, write 4 KiB, close", |nth| Ok(File::create(path("a", nth))?.write_all(&block)?))?;
    each(turn, "rename", |nth| Ok(fs::rename(path("a", nth), path("b", nth))?))?;
    each(turn, "unlink", |nth| Ok(fs::remove_file(path("b", nth))?))?;
    each(turn, "mkdir", |nth| Ok(fs::create_dir(path("d", nth))?))?;
    each(turn, "rmdir", |nth| Ok(fs::remove_dir(path("d", nth))?))
}

fn sync(turn: &mut Turn<'_>) -> Result<()> {
    let (path, calls) = (turn.scratch().join("synced"), turn.scale().synced_calls);
    let file = create(&path)?;
    let block = [b'w'; BLOCK];
    some(turn, calls, "write 4 KiB and fsync", |nth| {
        file.write_all_at(&block, u64::from(nth) * BLOCK as u64)?;
        Ok(file.sync_all()?)
    })?;
    Ok(fs::remove_file(path)?)
}

fn data(turn: &Turn<'_>) -> PathBuf {
    turn.scratch().join("data")
}

fn create(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().write(true).create_new(true).open(path)?)
}

fn each(turn: &mut Turn<'_>, what: &str, call: impl FnMut(u32) -> Result<()>) -> Result<()> {
    some(turn, turn.scale().calls, what, call)
}

fn some(turn: &mut Turn<'_>, calls: u32, what: &str, mut call: impl FnMut(u32) -> Result<()>) -> Result<()> {
    let mut times = Vec::with_capacity(calls as usize);
    turn.measure(&format!("{what}, p50"), |_| {
        for nth in 0..calls {
            times.push(clock::seconds(|| call(nth))?);
        }
        times.sort_by(f64::total_cmp);
        Ok(percentile(&times, 50))
    })?;
    let mean = times.iter().sum::<f64>() / f64::from(calls);
    turn.put(&format!("{what}, mean"), Unit::Seconds, mean);
    turn.put(&format!("{what}, p99"), Unit::Seconds, percentile(&times, 99));
    stop::check()
}

/// Of sorted times: what that many of a hundred do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let times: Vec<f64> = (1..=200).map(f64::from).collect();
        assert!((percentile(&times, 50) - 100.0).abs() < 1e-9);
        assert!((percentile(&times, 99) - 198.0).abs() < 1e-9);
        assert!((percentile(&[5.0], 99) - 5.0).abs() < 1e-9);
    }
}
