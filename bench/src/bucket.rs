//! A bucket of this run: s3s-fs, an S3 whose buckets are directories. It is faster than what it is to show, and what is in it can be looked at.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::FileExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{Result, daemon::path, shell, stop, tree};

const NAME: &str = "bench";
/// Where the daemons' store is, for them and in the bucket.
pub(crate) const URL: &str = "s3://bench/store";
const PREFIX: &str = "store";
const REGION: &str = "us-east-1";
const ACCESS_KEY: &str = "bench";
const SECRET_KEY: &str = "bench-secret";
/// Of a download: as many as a daemon has.
const CONNECTIONS: &str = "16";
/// How often, 20 ms apart, a new server is asked whether it is there.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes at the end of a pack that say what it is, and which of them says of which kind: docs/format.md.
const TRAILER: usize = 24;
const KIND: usize = 14;
const META: u8 = 2;

/// Served until it is dropped.
pub(crate) struct Bucket {
    child: Child,
    address: SocketAddr,
    dir: PathBuf,
}

/// One in the bucket.
pub(crate) struct Pack {
    name: String,
    pub(crate) bytes: u64,
    /// It holds directories, not contents of files.
    pub(crate) is_meta: bool,
}

/// The server, which `tools/bench` has compiled.
pub(crate) fn program() -> Result<PathBuf> {
    let program = tree::cache()?.with_file_name("s3s").join("bin/s3s-fs");
    match program.exists() {
        true => Ok(program),
        false => {
            Err(format!("there is no {}: tools/bench --only remote installs it", program.display()).into())
        }
    }
}

impl Bucket {
    /// An empty one, in a new directory.
    pub(crate) fn create(program: &Path, dir: &Path) -> Result<Bucket> {
        fs::create_dir_all(dir.join(NAME))?;
        // Free until now: the server wants to be told one.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = File::create(dir.with_extension("log"))?;
        let mut command = Command::new(program);
        command.arg("--host").arg(address.ip().to_string()).arg("--port").arg(address.port().to_string());
        command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]).arg(dir);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        let mut bucket = Bucket { child, address, dir: dir.to_owned() };
        for _ in 0..TRIES {
            if TcpStream::connect(address).is_ok() {
                return Ok(bucket);
            }
            if let Some(status) = bucket.child.try_wait()? {
                return Err(format!("{} ended: {status}", program.display()).into());
            }
            stop::check()?;
            thread::sleep(PAUSE);
        }
        Err(format!("{} does not answer", program.display()).into())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All packs of the store.
    pub(crate) fn packs(&self) -> Result<Vec<Pack>> {
        let packs = fs::read_dir(self.dir.join(NAME).join(PREFIX).join("packs"))?;
        packs.map(|entry| pack(&entry?.path())).collect()
    }

    /// Has everything in it in the page cache: it is a network that is measured, not a disk.
    pub(crate) fn warm(&self) -> Result<()> {
        shell::read_all(&[&self.dir])
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // It has nothing to finish.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What has a program find it at an address, in its environment.
pub(crate) fn environment(address: SocketAddr) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ]
}

/// Downloads packs from the bucket at an address, and keeps nothing: as fast as it can be had from there. With as many connections as a
/// daemon has. `list` is a file to say them in.
pub(crate) fn download(address: SocketAddr, packs: &[Pack], list: &Path) -> Result<()> {
    let lines = packs.iter().map(|Pack { name, .. }| {
        format!("url = \"http://{address}/{NAME}/{PREFIX}/packs/{name}\"\noutput = \"/dev/null\"\n")
    });
    fs::write(list, lines.collect::<String>())?;
    let mut curl = Command::new("curl");
    curl.args(["--disable", "--silent", "--show-error", "--fail", "--noproxy", "*"]);
    curl.args(["--parallel", "--parallel-immediate", "--parallel-max", CONNECTIONS]);
    curl.arg("--aws-sigv4").arg(format!("aws:amz:{REGION}:s3"));
    curl.arg("--user").arg(format!("{ACCESS_KEY}:{SECRET_KEY}"));
    curl.args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--config", path(list)?]);
    shell::run(&mut curl).map(drop)
}

fn pack(file: &Path) -> Result<Pack> {
    let bytes = fs::metadata(file)?.len();
    let mut trailer = [0; TRAILER];
    let begin = bytes.checked_sub(TRAILER as u64).ok_or_else(|| format!("{}: too short", file.display()))?;
    File::open(file)?.read_exact_at(&mut trailer, begin)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Pack { name, bytes, is_meta: trailer[KIND] == META })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_packs_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a-pack");
        let trailer = |kind| {
            [&[b'x'; 100][..], &[1, 0, 0, 0, 0, 0, 0, 0], b"AFrp", &[1, 0, kind, 0], &[b's'; 8]].concat()
        };
        for (kind, is_meta) in [(1, false), (2, true)] {
            fs::write(&file, trailer(kind)).unwrap();
            let found = pack(&file).unwrap();
            assert_eq!((found.name.as_str(), found.bytes, found.is_meta), ("a-pack", 124, is_meta));
        }
        fs::write(&file, "short").unwrap();
        assert!(pack(&file).is_err());
    }
}
