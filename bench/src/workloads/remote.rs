//! A published snapshot on a host that has nothing of it: each request to the store is late, as over a network, and what is fetched is counted.
//!
//! Every piece of work is by a new daemon on an empty state. Native is what has to come over the network in any case: a plain download
//! of the packs. The bandwidth is that of the server and of this machine's memory, which does what both ends do with its two or more processors; so
//! the comparison with a download is made once more over lines of a bandwidth that one has.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    AETHER,
    scan::{find, grep},
};
use crate::{
    Result,
    args::Group,
    bucket::{self, Bucket, Pack},
    clock,
    daemon::Daemon,
    kernel,
    process::Process,
    proxy::{Proxy, Traffic},
    samples::{NATIVE, Requests, Sample, Unit, Usage},
    shell,
    stage::Stage,
    stop,
};

/// Of each request: another region of the same continent.
const DELAY: Duration = Duration::from_millis(20);
/// In turns; what begins a round ends the next one.
const WORKS: [Work; 9] = [
    open,
    look,
    read_one,
    |turn| turn.read_all(Way::Straight),
    |turn| turn.download(Way::Straight),
    |turn| turn.read_all(Way::Gigabit),
    |turn| turn.download(Way::Gigabit),
    |turn| turn.read_all(Way::HalfGigabit),
    |turn| turn.download(Way::HalfGigabit),
];
const GIB: f64 = (1 << 30) as f64;
/// Of the file that is read alone.
const FILE_BYTES_MAX: u64 = 64 << 10;

type Work = fn(&mut Turn<'_>) -> Result<()>;

/// To the store.
#[derive(Clone, Copy)]
enum Way {
    /// As fast as this machine carries it.
    Straight,
    Gigabit,
    HalfGigabit,
}

impl Way {
    const ALL: [Way; 3] = [Way::Straight, Way::Gigabit, Way::HalfGigabit];

    fn bytes_per_second(self) -> Option<u64> {
        match self {
            Way::Straight => None,
            Way::Gigabit => Some(125_000_000),
            Way::HalfGigabit => Some(62_500_000),
        }
    }

    /// What is read by it.
    fn grep(self) -> &'static str {
        match self {
            Way::Straight => "`grep -r`",
            Way::Gigabit => "`grep -r` over 1 Gbit/s",
            Way::HalfGigabit => "`grep -r` over 500 Mbit/s",
        }
    }
}

pub(crate) fn run(stage: &Stage, program: &Path, samples: &mut Vec<Sample>) -> Result<()> {
    stage.progress.expect(u64::from(stage.rounds) * WORKS.len() as u64);
    stage.progress.say("remote: publishing");
    let dir = stage.volume.join("remote");
    fs::create_dir(&dir)?;
    let published = Published::create(stage, program, &dir)?;
    for round in 0..stage.rounds {
        for place in 0..WORKS.len() {
            let nth = (round as usize + place) % WORKS.len();
            let at = format!("remote {}/{}, round {}/{}", nth + 1, WORKS.len(), round + 1, stage.rounds);
            stage.progress.step(&at);
            stop::check()?;
            shell::settle()?;
            published.bucket.warm()?;
            kernel::touch_memory(stage.scale.touched_bytes_max);
            WORKS[nth](&mut Turn { published: &published, round, samples })?;
        }
    }
    drop(published);
    shell::remove(&dir)
}

/// A snapshot of the tree's sources in a bucket.
struct Published {
    /// The slow ways there.
    ways: Vec<Proxy>,
    bucket: Bucket,
    packs: Vec<Pack>,
    snapshot: String,
    /// In all files of it.
    file_bytes: f64,
    /// One of the tree, from its root.
    file: PathBuf,
    dir: PathBuf,
}

impl Published {
    fn create(stage: &Stage, program: &Path, dir: &Path) -> Result<Published> {
        let bucket = Bucket::create(program, &dir.join("buckets"))?;
        let (snapshot, file_bytes) = publish(&stage.tree.root, bucket.address(), dir)?;
        let ways = Way::ALL.iter().map(|way| Proxy::start(bucket.address(), DELAY, way.bytes_per_second()));
        let ways = ways.collect::<Result<_>>()?;
        let (packs, file) = (bucket.packs()?, some_file(&stage.tree.root)?);
        Ok(Published { ways, bucket, packs, snapshot, file_bytes, file, dir: dir.to_owned() })
    }

    fn way(&self, way: Way) -> &Proxy {
        &self.ways[way as usize]
    }

    /// By all ways.
    fn traffic(&self) -> Traffic {
        self.ways.iter().map(Proxy::traffic).fold(Traffic::default(), |sum, one| Traffic {
            requests: sum.requests + one.requests,
            bytes: sum.bytes + one.bytes,
        })
    }

    fn pack_bytes(&self, which: impl Fn(&Pack) -> bool) -> f64 {
        self.packs.iter().filter(|pack| which(pack)).map(|pack| pack.bytes).sum::<u64>() as f64
    }
}

/// By a host that is gone then. Without what git made of the tree, which nobody looks at. Returns the snapshot, and the bytes in its files.
fn publish(tree: &Path, store: SocketAddr, dir: &Path) -> Result<(String, f64)> {
    let daemon =
        Daemon::create_with(&dir.join("publisher"), &["--remote", bucket::URL], bucket::environment(store))?;
    let (session, _) = daemon.create_session(&daemon.import(tree)?)?;
    let root = dir.join("published");
    daemon.mount(&session, &root, &[])?;
    shell::remove(&root.join(".git"))?;
    let sizes = shell::run(Command::new("find").arg(&root).args(["-type", "f", "-printf", "%s\\n"]))?;
    let file_bytes = sizes.lines().map(str::parse::<u64>).sum::<std::result::Result<u64, _>>()? as f64;
    daemon.unmount(&root)?;
    let snapshot = daemon.seal(&session)?;
    daemon.publish(&snapshot)?;
    daemon.remove()?;
    Ok((snapshot, file_bytes))
}

/// In the middle of all that are neither empty nor large.
fn some_file(tree: &Path) -> Result<PathBuf> {
    let mut find = Command::new("find");
    find.arg(tree).args(["-name", ".git", "-prune", "-o", "-type", "f", "-size", "+0"]);
    find.arg("-size").arg(format!("-{FILE_BYTES_MAX}c")).args(["-printf", "%P\\n"]);
    let names = shell::run(&mut find)?;
    let mut names: Vec<&str> = names.lines().filter(|name| tree.join(name).is_file()).collect();
    names.sort_unstable();
    let middle = names.get(names.len() / 2).ok_or("the tree has no file of a usual size")?;
    Ok(PathBuf::from(middle))
}

/// A new host; gone with its state when it is removed.
struct Host {
    daemon: Daemon,
    root: PathBuf,
}

impl Host {
    fn create(published: &Published, way: Way) -> Result<Host> {
        let environment = bucket::environment(published.way(way).address());
        let daemon =
            Daemon::create_with(&published.dir.join("host"), &["--remote", bucket::URL], environment)?;
        Ok(Host { daemon, root: published.dir.join("mounted") })
    }

    /// One with the snapshot mounted, of which nothing was read.
    fn mounted(published: &Published, way: Way) -> Result<Host> {
        let host = Host::create(published, way)?;
        let (session, _) = host.daemon.create_session(&published.snapshot)?;
        host.daemon.mount(&session, &host.root, &[])?;
        Ok(host)
    }

    fn remove(self) -> Result<()> {
        self.daemon.unmount(&self.root)?;
        self.daemon.remove()
    }

    fn server(&self) -> Result<(Process, Requests)> {
        Ok((Process::read(self.daemon.pid())?, self.daemon.requests()?))
    }
}

struct Turn<'a> {
    published: &'a Published,
    round: u32,
    samples: &'a mut Vec<Sample>,
}

fn open(turn: &mut Turn<'_>) -> Result<()> {
    let published = turn.published;
    let host = Host::create(published, Way::Straight)?;
    let mut parts = [0.0; 3];
    let work = "`create --from`, `mount`, `ls`; wanted: at most 0.5 s";
    turn.measure(&host, work, "create, mount, ls", |Host { daemon, root }| {
        let mut session = String::new();
        parts[0] = clock::seconds(|| {
            session = daemon.create_session(&published.snapshot)?.0;
            Ok(())
        })?;
        parts[1] = clock::seconds(|| daemon.mount(&session, root, &[]).map(drop))?;
        parts[2] = clock::seconds(|| shell::run(Command::new("ls").arg(root)).map(drop))?;
        Ok(())
    })?;
    for (part, seconds) in ["create", "mount", "ls"].iter().zip(parts) {
        turn.put(&format!("create, mount, ls: {part} alone"), AETHER, Unit::Seconds, seconds);
    }
    host.remove()
}

fn look(turn: &mut Turn<'_>) -> Result<()> {
    let host = Host::mounted(turn.published, Way::Straight)?;
    let (_, bytes) =
        turn.measure(&host, "`find -size`; wanted: at most 3 s", "find", |host| find(&host.root))?;
    let meta_bytes = turn.published.pack_bytes(|pack| pack.is_meta);
    turn.compare(
        "find: bytes of packs since the start, against all meta packs; wanted: at most 1.30",
        meta_bytes,
        bytes,
    );
    host.remove()
}

fn read_one(turn: &mut Turn<'_>) -> Result<()> {
    let host = Host::mounted(turn.published, Way::Straight)?;
    let file = host.root.join(&turn.published.file);
    turn.measure(&host, "`cat` of one file; wanted: at most 0.2 s", "cat", |_| {
        shell::run(Command::new("cat").arg(&file)).map(drop)
    })?;
    turn.put("cat: bytes of the file", AETHER, Unit::Bytes, fs::metadata(&file)?.len() as f64);
    host.remove()
}

impl Turn<'_> {
    fn read_all(&mut self, way: Way) -> Result<()> {
        let host = Host::mounted(self.published, way)?;
        let work = against_download(way);
        let (seconds, bytes) = self.measure(&host, &work, way.grep(), |host| grep(&host.root))?;
        self.put(&a_gib(way), AETHER, Unit::Seconds, seconds / self.published.file_bytes * GIB);
        let pack_bytes = self.published.pack_bytes(|_| true);
        let work = format!(
            "{}: bytes of packs since the start, against all packs; wanted: at most 1.30",
            way.grep()
        );
        self.compare(&work, pack_bytes, bytes);
        host.remove()
    }

    fn download(&mut self, way: Way) -> Result<()> {
        let Published { packs, dir, .. } = self.published;
        let address = self.published.way(way).address();
        let seconds = clock::seconds(|| bucket::download(address, packs, &dir.join("packs")))?;
        self.put(&against_download(way), NATIVE, Unit::Seconds, seconds);
        let pack_bytes = self.published.pack_bytes(|_| true);
        self.put(&a_gib(way), NATIVE, Unit::Seconds, seconds / pack_bytes * GIB);
        Ok(())
    }

    /// Does something on a host, and puts down how long it took and what it took from the store. Returns the seconds, and how many bytes of packs the
    /// host has fetched by then, with what it needed to mount.
    fn measure(
        &mut self,
        host: &Host,
        work: &str,
        short: &str,
        act: impl FnOnce(&Host) -> Result<()>,
    ) -> Result<(f64, f64)> {
        let traffic = || self.published.traffic();
        let (server, before, sent) = (host.server()?, host.daemon.fetched()?, traffic());
        let seconds = clock::seconds(|| act(host))?;
        let Traffic { requests, bytes } = traffic();
        let (after, fetched) = (host.server()?, host.daemon.fetched()?);
        self.put(work, AETHER, Unit::Seconds, seconds);
        if let Some(sample) = self.samples.last_mut() {
            sample.daemon = Some(Usage::between(server, after));
        }
        let mut put = |what, unit, value| self.put(&format!("{short}: {what}"), AETHER, unit, value);
        put("requests to the store", Unit::Count, (requests - sent.requests) as f64);
        put("bytes from the store", Unit::Bytes, (bytes - sent.bytes) as f64);
        put("requests for parts of packs", Unit::Count, (fetched.requests - before.requests) as f64);
        put("bytes of those", Unit::Bytes, (fetched.bytes - before.bytes) as f64);
        if fetched.requests > 0 {
            put("p50 of those, to a factor of two", Unit::Seconds, us(fetched.p50_us));
            put("p99 of those, to a factor of two", Unit::Seconds, us(fetched.p99_us));
        }
        stop::check()?;
        Ok((seconds, fetched.bytes as f64))
    }

    fn compare(&mut self, work: &str, native: f64, aether: f64) {
        self.put(work, NATIVE, Unit::Bytes, native);
        self.put(work, AETHER, Unit::Bytes, aether);
    }

    fn put(&mut self, work: &str, side: &str, unit: Unit, value: f64) {
        let (work, side) = (work.to_owned(), side.to_owned());
        let (group, round) = (Group::Remote, self.round);
        self.samples.push(Sample { group, work, side, round, unit, value, at: None, daemon: None });
    }
}

fn against_download(way: Way) -> String {
    format!("{}, against a plain download of all packs; wanted: at most 2.00", way.grep())
}

/// As bandwidths, where the one above is of times.
fn a_gib(way: Way) -> String {
    format!("{}: a GiB of files, against a GiB of a plain download; wanted: at most 2.00", way.grep())
}

fn us(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_usual_size_is_chosen() {
        let dir = tempfile::tempdir().unwrap();
        for part in ["a", "b", "c", ".git"] {
            fs::create_dir(dir.path().join(part)).unwrap();
            fs::write(dir.path().join(part).join("file"), part).unwrap();
        }
        fs::write(dir.path().join("b/empty"), "").unwrap();
        fs::write(dir.path().join("b/large"), vec![b'x'; FILE_BYTES_MAX as usize]).unwrap();
        assert_eq!(some_file(dir.path()).unwrap(), Path::new("b/file"));
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!(some_file(dir.path()).unwrap(), Path::new("c/file"));
        assert!(some_file(&dir.path().join(".git")).is_err());
    }
}
