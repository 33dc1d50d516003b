use proptest::prelude::*;

use super::{
    build::{encode_leaf, pages},
    header::Shape,
    index::{self, Index, Page},
    leaf::{Leaf, starts_page},
    *,
};
use crate::{Content, Error, Node, Time};

fn attrs(size: u64) -> Attrs {
    let time = |secs, nanos| Time { secs, nanos };
    Attrs {
        mode: 0o644,
        uid: 1,
        gid: 2,
        nlink: 1,
        rdev: 0,
        size,
        mtime: time(-5, 7),
        ctime: time(1_700_000_000, 999_999_999),
    }
}

fn file(name: &[u8], ino: u64, size: u64) -> DirEntry {
    let content = match size {
        0 => Content::Empty,
        _ => Content::Chunk(Digest([size as u8; 32])),
    };
    DirEntry {
        name: name.to_vec(),
        ino,
        attrs: attrs(size),
        node: OwnedNode::File(content),
        xattrs: None,
        totals: Totals::default(),
    }
}

fn subdir(name: &[u8], ino: u64) -> DirEntry {
    DirEntry {
        attrs: Attrs { mode: 0o755, nlink: 2, ..attrs(0) },
        node: OwnedNode::Dir(Digest([0xdd; 32])),
        totals: Totals { files: 10, bytes: 1000, links: 1, ino_max: 99 },
        ..file(name, ino, 0)
    }
}

fn symlink(name: &[u8], ino: u64, target: &[u8]) -> DirEntry {
    DirEntry {
        attrs: attrs(target.len() as u64),
        node: OwnedNode::Symlink(target.to_vec()),
        ..file(name, ino, 0)
    }
}

fn samples() -> Vec<DirEntry> {
    let device = |name: &[u8], ino, node| DirEntry {
        attrs: Attrs { rdev: 0x0103, ..attrs(0) },
        node,
        ..file(name, ino, 0)
    };
    vec![
        device(b"block", 10, OwnedNode::BlockDevice),
        device(b"char", 11, OwnedNode::CharDevice),
        subdir(b"dir", 12),
        file(b"empty", 13, 0),
        DirEntry { node: OwnedNode::Fifo, ..file(b"fifo", 14, 0) },
        DirEntry {
            node: OwnedNode::File(Content::List(Digest([0xbb; 32]))),
            xattrs: Some(Digest([0xcc; 32])),
            ..file(b"large", 15, 1 << 30)
        },
        symlink(b"link", 16, b"../target"),
        file(b"small\xff", 17, 3),
        DirEntry { node: OwnedNode::Socket, ..file(b"socket", 18, 0) },
    ]
}

fn encode(entries: &[DirEntry]) -> Result<Vec<u8>> {
    let bytes = encode_leaf(entries, Shape::Whole)?;
    Leaf::check(&bytes, Shape::Whole)?;
    Ok(bytes)
}

/// The entries again, as their writer would hold them.
fn decode(bytes: &[u8]) -> Result<(Vec<DirEntry>, Totals)> {
    let (leaf, header) = Leaf::check(bytes, Shape::Whole)?;
    let owned = (0..header.count).map(|index| {
        let Entry { name, ino, attrs, node, xattrs } = leaf.entry(index);
        let node = match node {
            Node::File(content) => OwnedNode::File(content),
            Node::Dir(digest) => OwnedNode::Dir(digest),
            Node::Symlink(target) => OwnedNode::Symlink(target.to_vec()),
            Node::Fifo => OwnedNode::Fifo,
            Node::Socket => OwnedNode::Socket,
            Node::CharDevice => OwnedNode::CharDevice,
            Node::BlockDevice => OwnedNode::BlockDevice,
        };
        DirEntry { name: name.to_vec(), ino, attrs, node, xattrs, totals: Totals::default() }
    });
    Ok((owned.collect(), header.totals))
}

#[test]
fn every_kind_survives_a_round_trip() {
    let mut entries = samples();
    let (decoded, totals) = decode(&encode(&entries).unwrap()).unwrap();
    for entry in &mut entries {
        entry.totals = Totals::default();
    }
    assert_eq!(decoded, entries);
    assert_eq!(totals, Totals { files: 19, bytes: 1000 + (1 << 30) + 3, links: 1, ino_max: 99 });
}

#[test]
fn bytes_are_pinned() {
    let one = [symlink(b"n", 0x0102, b"to")];
    let expected = "4146647201000000".to_owned() // magic, version, flags
        + "0100000003000000" // count, heap_len
        + "0100000000000000000000000000000000000000000000000201000000000000" // totals
        + "0000000001000a00" // name_off, name_len, kind, content
        + "0201000000000000" // ino
        + "a4010000010000000200000001000000" // mode, uid, gid, nlink
        + "00000000000000000200000000000000" // rdev, size
        + "fbffffffffffffff00f1536500000000" // mtime, ctime
        + "07000000ffc99a3b" // nanoseconds
        + &"00".repeat(64) // digests
        + "6e746f";
    assert_eq!(data_encoding::HEXLOWER.encode(&encode(&one).unwrap()), expected);
    let digest = Digest::of(&encode(&samples()).unwrap()).to_string();
    assert_eq!(digest, GOLDEN_SAMPLES);
    assert_eq!(Digest::of(&encode(&[]).unwrap()).to_string(), GOLDEN_EMPTY);
}

const GOLDEN_SAMPLES: &str = "3aa73fb4ae34bc31c639fc9b40259e905cced93bee589135090bce4d9d7fd29b";
const GOLDEN_EMPTY: &str = "f63da440219596213ffb8bd3e9fed532147d1e09a8c255a185cff2ae7ffd1a66";
const GOLDEN_WIDE: &str = "bf48fc756a3d26a1bc5af36b2e328556df3047a26040c96dfdda88ad5c48765f";

#[test]
fn what_no_reader_would_accept_is_not_written() {
    let refused = |entry: DirEntry| match encode(&[entry]) {
        Err(Error::Malformed { reason, .. }) => reason,
        other => panic!("accepted: {other:?}"),
    };
    let with = |change: fn(&mut DirEntry)| {
        let mut entry = file(b"n", 2, 3);
        change(&mut entry);
        refused(entry)
    };
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'n'; 256]] {
        assert_eq!(refused(file(name, 2, 0)), "not a file name");
    }
    assert_eq!(with(|entry| entry.ino = 1), "inode number out of range");
    assert_eq!(with(|entry| entry.ino = 1 << 63), "inode number out of range");
    assert_eq!(with(|entry| entry.attrs.mode = 0o10000), "mode or time out of range");
    assert_eq!(with(|entry| entry.attrs.mtime.nanos = 1_000_000_000), "mode or time out of range");
    assert_eq!(with(|entry| entry.attrs.nlink = 0), "too few links");
    assert_eq!(with(|entry| entry.attrs.rdev = 1), "a device number on what is no device");
    assert_eq!(with(|entry| entry.attrs.size = 0), "content does not match kind and size");
    assert_eq!(with(|entry| entry.attrs.size = 1 << 20), "content does not match kind and size");
    assert_eq!(with(|entry| entry.node = OwnedNode::Fifo), "content does not match kind and size");
    assert_eq!(refused(symlink(b"l", 2, b"")), "content does not match kind and size");
    assert_eq!(refused(symlink(b"l", 2, &[b't'; 4096])), "content does not match kind and size");
    assert_eq!(refused(symlink(b"l", 2, b"a\0b")), "a NUL in a symlink's target");
    assert!(encode(&[file(b"a", 2, 0), file(b"a", 3, 0)]).is_err());
    assert!(encode(&[file(b"b", 2, 0), file(b"a", 3, 0)]).is_err());
}

#[test]
fn names_are_found_by_binary_search() {
    let bytes = encode(&samples()).unwrap();
    let (leaf, header) = Leaf::check(&bytes, Shape::Whole).unwrap();
    for index in 0..header.count {
        assert_eq!(leaf.search(leaf.name(index)), Ok(index));
    }
    assert_eq!(leaf.search(b"aaa"), Err(0));
    assert_eq!(leaf.search(b"dirk"), Err(3));
    assert_eq!(leaf.search(b"zzz"), Err(9));
}

fn wide(count: u64) -> Vec<DirEntry> {
    let mut entries: Vec<_> =
        (0..count).map(|n| file(format!("file-{n}").as_bytes(), n + 2, n % 200)).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

fn page_objects(entries: &[DirEntry]) -> Vec<Vec<u8>> {
    pages(entries).map(|page| encode_leaf(page, Shape::Page).unwrap()).collect()
}

#[test]
fn a_change_in_a_wide_directory_changes_few_pages() {
    let mut entries = wide(5000);
    let before = page_objects(&entries);
    assert!((5..20).contains(&before.len()), "{} pages", before.len());
    let changed = |after: &[Vec<u8>]| after.iter().filter(|page| !before.contains(page)).count();

    let at = entries.iter().position(|entry| !starts_page(&entry.name)).unwrap();
    entries[at].attrs.mode = 0o600;
    let after = page_objects(&entries);
    assert_eq!((after.len(), changed(&after)), (before.len(), 1));

    let removed = entries.remove(at);
    assert_eq!(changed(&page_objects(&entries)), 1);
    let mut renamed = removed;
    renamed.name = b"zzz".to_vec();
    entries.push(renamed);
    assert!(changed(&page_objects(&entries)) <= 3);
}

#[test]
fn attributes_do_not_move_page_boundaries() {
    let mut entries = wide(5000);
    let counts = |entries: &[DirEntry]| pages(entries).map(<[DirEntry]>::len).collect::<Vec<_>>();
    let before = counts(&entries);
    for entry in &mut entries {
        entry.attrs.uid += 1;
        entry.attrs.mtime.secs += 1;
    }
    assert_eq!(counts(&entries), before);
}

fn wide_index(entries: &[DirEntry]) -> Vec<u8> {
    let objects = page_objects(entries);
    let table: Vec<_> = pages(entries)
        .zip(&objects)
        .map(|(page, bytes)| Page {
            first_name: &page[0].name,
            count: page.len() as u32,
            digest: Digest::of(bytes),
            totals: Header::read(bytes).unwrap().totals,
        })
        .collect();
    index::encode(&table).unwrap()
}

#[test]
fn an_index_knows_its_pages() {
    let entries = wide(5000);
    let bytes = wide_index(&entries);
    let (index, header) = Index::check(&bytes).unwrap();
    assert_eq!(header.count, 5000);
    assert_eq!(header.totals.files, 5000);
    let objects = page_objects(&entries);
    for (number, page) in pages(&entries).enumerate() {
        let object = Object::new(objects[number].clone());
        assert!(check_page(&object, index, number as u32).is_ok());
        assert!(check_page(&object, index, (number as u32 + 1) % index.pages()).is_err());
        for entry in page {
            assert_eq!(index.page_of(&entry.name), number as u32);
        }
    }
    assert_eq!(index.page_of(b""), 0);
    assert_eq!(Digest::of(&bytes).to_string(), GOLDEN_WIDE);
}

#[test]
fn a_page_is_not_a_directory() {
    let entries = samples();
    let page = encode_leaf(&entries, Shape::Page).unwrap();
    assert!(check_dir_page(&page).is_ok());
    assert!(check_dir(&page).is_err());
    assert!(check_dir_page(&encode(&entries).unwrap()).is_err());
    assert!(check_dir_page(&encode_leaf(&[], Shape::Page).unwrap()).is_err());
}

fn any_entry() -> impl Strategy<Value = DirEntry> {
    let times = (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Time { secs, nanos });
    let attrs = (0u32..0o10000, any::<u32>(), any::<u32>(), 2u32.., times.clone(), times).prop_map(
        |(mode, uid, gid, nlink, mtime, ctime)| Attrs {
            mode,
            uid,
            gid,
            nlink,
            rdev: 0,
            size: 0,
            mtime,
            ctime,
        },
    );
    let digest = prop::array::uniform32(1u8..).prop_map(Digest);
    let target = prop::collection::vec(1u8.., 1..30);
    let node = prop_oneof![
        Just((OwnedNode::File(Content::Empty), 0)),
        (digest.clone(), 1u64..=256 << 10)
            .prop_map(|(chunk, size)| (OwnedNode::File(Content::Chunk(chunk)), size)),
        (digest.clone(), (256 << 10) + 1..=i64::MAX as u64)
            .prop_map(|(list, size)| (OwnedNode::File(Content::List(list)), size)),
        digest.clone().prop_map(|dir| (OwnedNode::Dir(dir), 0)),
        target.prop_map(|target| (OwnedNode::Symlink(target.clone()), target.len() as u64)),
        Just((OwnedNode::Fifo, 0)),
        Just((OwnedNode::Socket, 0)),
        Just((OwnedNode::BlockDevice, 0)),
    ];
    (2u64..1 << 63, attrs, node, prop::option::of(digest)).prop_map(|(ino, attrs, (node, size), xattrs)| {
        DirEntry {
            name: Vec::new(),
            ino,
            attrs: Attrs { size, ..attrs },
            node,
            xattrs,
            totals: Totals::default(),
        }
    })
}

fn any_dir() -> impl Strategy<Value = Vec<DirEntry>> {
    let name =
        prop::collection::vec(any::<u8>().prop_filter("a name's byte", |&b| b != 0 && b != b'/'), 1..12)
            .prop_filter("not dots, not the start of a page", |name| {
                name != b"." && name != b".." && !starts_page(name)
            });
    prop::collection::btree_map(name, any_entry(), 0..12)
        .prop_map(|map| map.into_iter().map(|(name, entry)| DirEntry { name, ..entry }).collect())
}

/// Flips, and numbers put where they hurt.
fn damage(bytes: &mut [u8], damages: &[(prop::sample::Index, u8)]) {
    for (at, flip) in damages {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
    }
}

proptest! {
    #[test]
    fn directories_survive_a_round_trip(entries in any_dir()) {
        let bytes = encode(&entries).unwrap();
        let (decoded, totals) = decode(&bytes).unwrap();
        prop_assert_eq!(totals.files, entries.len() as u64);
        prop_assert_eq!(decoded, entries);
    }

    #[test]
    fn only_canonical_bytes_are_accepted(
        entries in any_dir(),
        damages in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = encode(&entries).unwrap();
        damage(&mut bytes, &damages);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok((decoded, totals)) = decode(&bytes) {
            let mut again = encode_leaf(&decoded, Shape::Whole).unwrap();
            // What subdirectories add is theirs to say.
            if decoded.iter().any(|entry| entry.node.kind() == Kind::Dir) {
                let mut header = Vec::new();
                Header { totals, ..Header::read(&again).unwrap() }.write(&mut header);
                again[..header.len()].copy_from_slice(&header);
            }
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), damages in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..6)) {
        prop_assert!(check_dir(&bytes).is_err());
        let mut index = wide_index(&wide(5000));
        let honest = index.clone();
        damage(&mut index, &damages);
        if let Ok((checked, _)) = Index::check(&index) {
            let table: Vec<_> = (0..checked.pages()).map(|page| checked.page(page)).collect();
            prop_assert_eq!(index::encode(&table).unwrap(), index.clone());
        } else {
            prop_assert_ne!(index, honest);
        }
    }
}
