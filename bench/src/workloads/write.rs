//! Files are made, written and removed.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Bench, both, progress, remove};
use crate::{Result, samples::Samples, shell};

/// As many files as a small project has.
const UNTAR_FILES: usize = 11_000;
const MIB: usize = 1 << 20;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Samples>> {
    let archive = archive(bench)?;
    let mut untar = Samples::new(format!("untar up to {UNTAR_FILES} files"));
    let mut unlink = Samples::new("`rm -r` of them");
    let mut small = Samples::new("write 100 MiB by 4 KiB");
    let mut large = Samples::new("write 512 MiB by 1 MiB");
    let (daemon, snapshot) = bench.imported("write")?;
    let (session, _) = daemon.create(&snapshot)?;
    let mount = daemon.mount(&session, "mnt")?;
    let native = bench.root.join("written");
    fs::create_dir(&native)?;
    for round in 0..bench.rounds {
        progress("write", round, bench);
        for (samples, work) in [
            (&mut untar, &(|dir: &Path| unpack(&archive, dir)) as &dyn Fn(&Path) -> Result<()>),
            (&mut unlink, &|dir| remove(&dir.join("unpacked"))),
            (&mut small, &|dir| write(&dir.join("small"), 4096, 100 * MIB)),
            (&mut large, &|dir| write(&dir.join("large"), MIB, 512 * MIB)),
        ] {
            shell::settle()?;
            both(samples, &native, &mount, work)?;
        }
        for dir in [&native, &mount] {
            fs::remove_file(dir.join("small"))?;
            fs::remove_file(dir.join("large"))?;
        }
    }
    daemon.unmount(&mount)?;
    bench.end(daemon, "write")?;
    remove(&native)?;
    Ok(vec![untar, unlink, small, large])
}

/// The first files of the tree, packed.
fn archive(bench: &Bench) -> Result<PathBuf> {
    let path = bench.root.join("archive.tar");
    let names =
        Command::new("find").current_dir(&bench.native).args([".", "-type", "f", "-print0"]).output()?;
    let first: Vec<_> = names.stdout.split_inclusive(|byte| *byte == 0).take(UNTAR_FILES).collect();
    let mut tar = Command::new("tar")
        .arg("-cf")
        .arg(&path)
        .arg("-C")
        .arg(&bench.native)
        .args(["--null", "--files-from=-"])
        .stdin(Stdio::piped())
        .spawn()?;
    tar.stdin.take().ok_or("tar has no stdin")?.write_all(&first.concat())?;
    match tar.wait()?.success() {
        true => Ok(path),
        false => Err("tar failed".into()),
    }
}

fn unpack(archive: &Path, dir: &Path) -> Result<()> {
    let target = dir.join("unpacked");
    fs::create_dir(&target)?;
    shell::run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(target)).map(drop)
}

fn write(path: &Path, piece_bytes: usize, bytes: usize) -> Result<()> {
    let piece = vec![b'w'; piece_bytes];
    let mut file = File::create(path)?;
    for _ in 0..bytes / piece_bytes {
        file.write_all(&piece)?;
    }
    Ok(())
}
