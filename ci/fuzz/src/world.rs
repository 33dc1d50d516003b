//! Engines for targets that need one: time and chance are fixed, every run has a disk of its own, and all share a store
//! with one small tree in it, which is made anew from time to time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use cas::{
    Attrs, Content, Kind, Snapshot, SnapshotId, Store, Time,
    blob::Source,
    dir::{DirEntry, OwnedNode, Totals},
    remote::name::RemoteName,
    sim::SimDisk,
    store::{Options, Writer},
};
use fsd::session::{Boot, Clock, Engine, Entropy, Limits, Parts, Result, SessionId};
use parking_lot::Mutex;

/// The run of the machine that engines are told.
pub const BOOT: Boot = Boot([1; 16]);
/// After so many runs the store is made anew: what they sealed is forgotten.
const RUNS_PER_STORE: u32 = 256;

/// Bounds that a few operations reach.
pub fn tight() -> Limits {
    Limits {
        log_file_bytes: 4 << 10,
        log_bytes_max: 32 << 10,
        part_bytes: 2 << 10,
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 64 << 10,
        idle_us: 60_000_000,
        ..Limits::default()
    }
}

/// A store that several runs share, and the tree in it.
#[derive(Clone, Debug)]
pub struct Base {
    /// The store.
    pub store: Store,
    /// A small tree with one of everything.
    pub snapshot: SnapshotId,
}

static SHARED: Mutex<Option<(Base, u32)>> = Mutex::new(None);

impl Base {
    /// The one of this run.
    pub fn shared() -> Base {
        let mut shared = SHARED.lock();
        match &mut *shared {
            Some((base, runs)) if *runs > 0 => {
                *runs -= 1;
                base.clone()
            }
            slot => slot.insert((Base::create(), RUNS_PER_STORE)).0.clone(),
        }
    }

    /// A new one.
    pub fn create() -> Base {
        let store = open_store(&SimDisk::new(0)).expect("an empty disk takes a store");
        let snapshot = put_tree(&store);
        Base { store, snapshot }
    }

    /// An engine over it that finds its log and segments on `disk`. The sessions it makes are numbered from `first_id` on.
    pub fn open(&self, disk: &SimDisk, first_id: u64) -> Result<Engine> {
        Engine::open(Parts {
            disk: Arc::new(disk.clone()),
            store: self.store.clone(),
            clock: Arc::new(Steps::default()),
            entropy: Arc::new(Steps(AtomicU64::new(first_id))),
            boot: BOOT,
            accept_loss: false,
            limits: tight(),
        })
    }
}

/// A store with small packs.
pub fn open_store(disk: &SimDisk) -> cas::Result<Store> {
    let options = Options {
        pack_bytes_max: 1 << 20,
        batch_bytes: 16 << 10,
        object_cache_bytes: 64 << 10,
        ..Options::default()
    };
    Store::open_with(Arc::new(disk.clone()), options)
}

/// Time and chance: the next number.
#[derive(Debug, Default)]
struct Steps(AtomicU64);

impl Clock for Steps {
    fn now(&self) -> Time {
        Time { secs: 1_800_000_000, nanos: (self.0.fetch_add(1, Ordering::Relaxed) % 1_000_000_000) as u32 }
    }

    fn monotonic_us(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Entropy for Steps {
    fn session_id(&self) -> SessionId {
        let mut id = [0x5e; 10];
        id[..8].copy_from_slice(&self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        SessionId(id)
    }

    fn remote_name(&self) -> RemoteName {
        RemoteName(u128::from(self.0.fetch_add(1, Ordering::Relaxed)).to_be_bytes())
    }
}

/// Nested directories, an empty file, one of one chunk, one of several with a hole, a symlink, two names of one file, a
/// device, extended attributes.
pub(crate) fn put_tree(store: &Store) -> SnapshotId {
    let mut writer = store.writer().expect("a store that was just made");
    let mut big: Vec<u8> = (0..400_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    big[65_536..196_608].fill(0);
    let xattrs = [(b"user.a".to_vec(), b"value".to_vec())].into();
    let xattrs = writer.put_xattrs(&xattrs).expect("a set within its bounds");
    let linked = put_file(&mut writer, b"two names");
    let deep = vec![
        DirEntry { attrs: attrs(9, 2), ..entry("linked", 10, OwnedNode::File(linked)) },
        DirEntry {
            attrs: Attrs { rdev: 0x105, ..attrs(0, 1) },
            ..entry("device", 11, OwnedNode::CharDevice)
        },
    ];
    let (digest, totals) = writer.put_dir(deep).expect("entries as they should be");
    let deep = DirEntry { attrs: attrs(0, 2), totals, ..entry("deep", 9, OwnedNode::Dir(digest)) };
    let small = put_file(&mut writer, &[b's'; 5000]);
    let sub = vec![
        deep,
        DirEntry { attrs: attrs(9, 2), ..entry("linked too", 10, OwnedNode::File(linked)) },
        DirEntry { attrs: attrs(5000, 1), xattrs, ..entry("small", 12, OwnedNode::File(small)) },
    ];
    let (digest, totals) = writer.put_dir(sub).expect("entries as they should be");
    let sub = DirEntry { attrs: attrs(0, 3), totals, ..entry("sub", 8, OwnedNode::Dir(digest)) };
    let big_content = put_file(&mut writer, &big);
    let root = vec![
        sub,
        DirEntry { attrs: attrs(big.len() as u64, 1), ..entry("big", 5, OwnedNode::File(big_content)) },
        DirEntry { attrs: attrs(0, 1), ..entry("empty", 6, OwnedNode::File(Content::Empty)) },
        DirEntry { attrs: attrs(9, 1), ..entry("symlink", 7, OwnedNode::Symlink(b"sub/small".to_vec())) },
    ];
    let (dir, _) = writer.put_dir(root).expect("entries as they should be");
    let snapshot = Snapshot { attrs: attrs(0, 3), xattrs, dir };
    let id = writer.put_snapshot(&snapshot).expect("a directory's attributes");
    writer.finish().expect("a disk that does not fail");
    store.keep(id, Some("base"), Time::default()).expect("a name that nobody has");
    id
}

fn attrs(size: u64, nlink: u32) -> Attrs {
    let time = Time { secs: 1_700_000_000, nanos: 5 };
    Attrs { mode: 0o755, uid: 1, gid: 1, nlink, rdev: 0, size, mtime: time, ctime: time }
}

fn entry(name: &str, ino: u64, node: OwnedNode) -> DirEntry {
    let (attrs, name) = (attrs(0, if node.kind() == Kind::Dir { 2 } else { 1 }), name.into());
    DirEntry { name, ino, attrs, node, xattrs: None, totals: Totals::default() }
}

fn put_file(writer: &mut Writer, bytes: &[u8]) -> Content {
    writer.put_file(bytes.len() as u64, &Bytes(bytes), None).expect("bytes in memory can be read")
}

/// A file in memory.
struct Bytes<'a>(&'a [u8]);

impl Source for Bytes<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        buf.copy_from_slice(&self.0[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> std::io::Result<Option<std::ops::Range<u64>>> {
        let size = self.0.len() as u64;
        Ok((offset < size).then_some(offset..size))
    }
}
