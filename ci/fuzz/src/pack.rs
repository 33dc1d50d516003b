//! Packs: a store whose packs are bytes from anywhere opens, with an index made from them, and whatever it then hands out
//! is what its digest says.

use cas::{
    Digest, ObjectKind, Store,
    dir::Dir,
    disk::{Disk, Open},
    sim::SimDisk,
    store::{FsckOptions, Roots},
};
use xxhash_rust::xxh3::xxh3_64;

use super::world::open_store;

const KINDS: [ObjectKind; 6] = [
    ObjectKind::Chunk,
    ObjectKind::List,
    ObjectKind::Dir,
    ObjectKind::DirPage,
    ObjectKind::Xattrs,
    ObjectKind::Snapshot,
];
const OBJECTS_MAX: usize = 64;
/// Chunks have a sum for each block of so many bytes, as a power of two.
const BLOCK_SHIFT: u8 = 14;

/// `r` and the bytes of a meta pack; or `s` and objects, each a kind (u8), flags (u8) and a length (u16) in front, which get
/// headers with right checksums here. Of the flags 1 makes the digest wrong, 2 the checksum, 4 puts the object into a
/// second pack, which is of the first version, 8 leaves room for a lost reader.
pub fn run(data: &[u8]) {
    let Some((&what, bytes)) = data.split_first() else { return };
    let (packs, objects) = match what {
        b'r' => ([bytes.to_vec(), Vec::new()], Vec::new()),
        b's' => {
            let objects: Vec<_> = objects(bytes).take(OBJECTS_MAX).collect();
            let pack =
                |number: u8| sealed_pack(number, objects.iter().filter(|object| object.pack() == number));
            ([pack(0), pack(1)], objects)
        }
        _ => return,
    };
    let disk = disk_with(&packs);
    let Ok(store) = open_store(&disk) else { return };
    for object in &objects {
        look(&store, object);
    }
    check(&store);
    drop(store);
    // What was accepted once opens again, from the index that was made of it.
    let store = open_store(&disk.kill()).expect("a store that was opened opens again");
    check(&store);
    let _ = store.gc(|| Ok(Roots::default()), false, &mut |_| {});
    drop(store);
    open_store(&disk.kill()).expect("a store opens after gc");
}

/// An object to put into a pack.
pub struct Object<'a> {
    kind: u8,
    flags: u8,
    payload: &'a [u8],
}

impl Object<'_> {
    fn pack(&self) -> u8 {
        self.flags >> 2 & 1
    }

    fn digest(&self) -> Digest {
        let mut digest = Digest::of(self.payload);
        digest.0[0] ^= self.flags & 1;
        digest
    }

    /// The sums in front of a chunk that has more than one block.
    fn sums(&self) -> Vec<u8> {
        const BLOCK: usize = 1 << BLOCK_SHIFT;
        if self.kind != 1 || self.payload.len() <= BLOCK {
            return Vec::new();
        }
        let mut sums: Vec<u8> =
            self.payload.chunks(BLOCK).flat_map(|block| xxh3_64(block).to_le_bytes()).collect();
        sums.resize(sums.len().next_multiple_of(64), 0);
        sums
    }
}

/// The objects of an input.
pub fn objects(mut bytes: &[u8]) -> impl Iterator<Item = Object<'_>> {
    std::iter::from_fn(move || {
        let ([kind, flags, low, high], rest) = bytes.split_first_chunk()?;
        let (payload, rest) = rest.split_at_checked(u16::from_le_bytes([*low, *high]).into())?;
        bytes = rest;
        Some(Object { kind: *kind, flags: *flags, payload })
    })
}

/// A pack as docs/format.md describes it, written by nobody but that page.
pub fn sealed_pack<'a>(number: u8, objects: impl Iterator<Item = &'a Object<'a>>) -> Vec<u8> {
    let version = if number == 0 { 2_u32 } else { 1 };
    let mut pack = b"AETHPACK".to_vec();
    pack.extend(version.to_le_bytes());
    pack.extend([2, 0, 0, 0]);
    pack.extend((u64::from(number) + 1).to_le_bytes());
    pack.extend([0; 32]);
    pack.extend(xxh3_64(&pack).to_le_bytes());
    for object in objects {
        let mut head = b"AREC".to_vec();
        head.extend([object.kind, 0, 0, 0]);
        head.extend((object.payload.len() as u32).to_le_bytes());
        let sums = if version == 2 { object.sums() } else { Vec::new() };
        head.extend([if sums.is_empty() { 0 } else { BLOCK_SHIFT }, 0, 0, 0]);
        head.extend(object.digest().0);
        let checksum = xxh3_64(if sums.is_empty() { object.payload } else { &sums });
        head.extend((checksum ^ u64::from(object.flags & 2)).to_le_bytes());
        head.extend(xxh3_64(&head).to_le_bytes());
        pack.extend(head);
        pack.extend(sums);
        pack.extend(object.payload);
        let room = if object.flags & 8 != 0 { 64 } else { 0 };
        pack.resize(pack.len().next_multiple_of(64) + room, 0);
    }
    pack
}

fn disk_with(packs: &[Vec<u8>; 2]) -> SimDisk {
    let disk = SimDisk::new(0);
    disk.create_dir("store/packs").expect("a disk that was just made");
    for (number, pack) in packs.iter().enumerate() {
        let path = format!("store/packs/{:016x}.meta", number + 1);
        let file = disk.open(&path, Open::Create).expect("a disk that was just made");
        file.write_at(pack, 0).expect("a disk that was just made");
    }
    disk
}

/// Reads an object in every way. Objects in meta packs have the digest that they are asked for by, or are an error.
fn look(store: &Store, object: &Object<'_>) {
    let digest = object.digest();
    for kind in KINDS {
        if let Ok(bytes) = store.object(kind, digest) {
            assert_eq!(Digest::of(&bytes), digest, "bytes that do not have their digest");
        }
    }
    let mut buf = [0; 64];
    for offset in [0, (1 << BLOCK_SHIFT) - 9, object.payload.len().saturating_sub(64)] {
        if store.read_chunk(digest, offset as u64, &mut buf).is_ok() && object.flags & 1 == 0 {
            assert_eq!(buf, object.payload[offset..offset + 64], "part of a chunk is not what it says");
        }
    }
    let _ = store.read_chunk(digest, u64::MAX, &mut buf);
    if let Ok(dir) = Dir::open(store, digest) {
        for index in 0..dir.count().min(OBJECTS_MAX as u32) {
            if let Ok(entry) = dir.entry(index) {
                let found = dir.find(entry.name).expect("its page was just read");
                assert_eq!(found.map(|(at, _)| at), Some(index));
            }
        }
        let _ = (dir.find(b"name"), dir.lower_bound(b"name"));
    }
    let _ = (store.xattrs(digest), store.snapshot(cas::SnapshotId(digest)));
}

/// Everything that walks the whole store.
fn check(store: &Store) {
    let _ = (store.stats(), store.list());
    let _ = store.fsck(FsckOptions { repair: false }, &[], &mut |_| {});
    let _ = store.fsck(FsckOptions { repair: true }, &[], &mut |_| {});
    let _ = store.gc(|| Ok(Roots::default()), true, &mut |_| {});
}
