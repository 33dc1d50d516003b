//! The bytes of every record are pinned, and no bytes make the decoder do anything but answer.

use cas::sim::SimDisk;
use proptest::prelude::*;

use super::{
    super::{Limits, extent::Extents},
    *,
};

fn pool() -> Arc<Pool> {
    Pool::open(Arc::new(SimDisk::new(0)), Limits::default()).unwrap()
}

fn attrs(kind: u32) -> Attrs {
    Attrs {
        mode: 0o640 + kind,
        uid: 1000,
        gid: 100,
        nlink: 1 + kind,
        rdev: 0x0105,
        size: 300_000,
        mtime: Time { secs: -1, nanos: 999_999_999 },
        ctime: Time { secs: 1_800_000_000, nanos: 7 },
    }
}

fn name(text: &[u8]) -> Name {
    Name::parse(text).unwrap()
}

fn xattrs() -> Arc<Xattrs> {
    Arc::new(Xattrs::from([(b"user.a".to_vec(), b"value".to_vec()), (b"user.b".to_vec(), Vec::new())]))
}

fn inode(kind: Kind, xattrs: XattrSet, body: Body) -> Arc<Inode> {
    let (attrs, atime) = (attrs(kind as u32), Time { secs: 5, nanos: 6 });
    Arc::new(Inode { parent: 1, kind, linked: kind == Kind::File, attrs, atime, xattrs, body })
}

/// Inodes of every kind, with every kind of content and attributes.
fn inodes() -> Vec<Effect> {
    let file = |content: Content| {
        let base = Some(Blob { content, size: 400_000 });
        Body::File(FileBody { base, base_visible: 200_000, extents: Extents::default() })
    };
    let none = || XattrSet::Base(None);
    [
        inode(Kind::File, none(), Body::File(FileBody::default())),
        inode(Kind::File, XattrSet::Own(xattrs()), file(Content::Chunk(Digest([0xc1; 32])))),
        inode(Kind::File, XattrSet::Base(Some(Digest([0xaa; 32]))), file(Content::List(Digest([0xc2; 32])))),
        inode(Kind::Dir, none(), Body::Dir(None)),
        inode(Kind::Dir, none(), Body::Dir(Some(BaseDir::new(Digest([0xd1; 32]))))),
        inode(Kind::Symlink, none(), Body::Symlink(b"to/somewhere"[..].into())),
        inode(Kind::Fifo, none(), Body::Special),
        inode(Kind::Socket, none(), Body::Special),
        inode(Kind::CharDevice, none(), Body::Special),
        inode(Kind::BlockDevice, none(), Body::Special),
    ]
    .into_iter()
    .zip(1 << 62..)
    .map(|(inode, ino)| Effect::Inode(ino, inode))
    .collect()
}

/// Every other effect.
fn changes(pool: &Pool) -> Vec<Effect> {
    let ino = 0x4000_0000_0000_0001;
    vec![
        Effect::Attrs(ino, attrs(0), Time { secs: 1, nanos: 2 }),
        Effect::Parent(ino, 0x77),
        Effect::Linked(ino),
        Effect::Xattrs(ino, xattrs()),
        Effect::Write { ino, start: 4096, len: 512, segment: pool.get(9), offset: 1 << 20 },
        Effect::Punch(ino, 10..20),
        Effect::Truncate(ino, 5),
        Effect::Add { dir: 1, name: name(b"added"), ino },
        Effect::Hide { dir: 1, name: name(b"hidden \xff") },
        Effect::Remove { dir: 1, name: name(b"removed") },
        Effect::Orphan(ino),
        Effect::Drop(ino),
        Effect::Sums(
            pool.get(9),
            vec![
                Sum { offset: 1 << 20, len: 512, check: 0x1122_3344_5566_7788 },
                Sum { offset: 2 << 20, len: SUM_BYTES_MAX, check: 1 },
            ],
        ),
        Effect::Unsum(pool.get(9), 5..1 << 20),
    ]
}

fn samples(pool: &Pool) -> Vec<Record> {
    let (id, other) = (SessionId(*b"0123456789"), SessionId(*b"abcdefghij"));
    let origin = SnapshotId(Digest([0x5a; 32]));
    let created = Time { secs: 1_800_000_000, nanos: 1 };
    let meta = Meta { id, name: None, parent: None, origin, depth: 0, created };
    let fork = Meta { id: other, name: Some("a label".into()), parent: Some(id), depth: 1, ..meta.clone() };
    let base = SnapshotId(Digest([0xb5; 32]));
    let (none, mut labels) = (Notes::default(), notes());
    labels.expire(created, None).unwrap();
    vec![
        Record::Part { id, index: 0, effects: inodes() },
        Record::Anchor {
            meta: meta.clone(),
            notes: none.clone(),
            base,
            next_ino: 1 << 62,
            parts: 1,
            effects: changes(pool),
        },
        Record::Fork { parent: id, meta: fork.clone(), notes: none.clone() },
        Record::Apply(other, changes(pool)),
        Record::Discard(id),
        Record::Trim(0x0102_0304_0506),
        Record::Anchor { meta, notes: notes(), base, next_ino: 1 << 62, parts: 0, effects: Vec::new() },
        Record::Fork { parent: id, meta: fork, notes: labels },
        Record::Notes(id, notes()),
        Record::Notes(id, none),
    ]
}

/// Every kind of thing that can be attached.
fn notes() -> Notes {
    let mut notes = Notes::default();
    notes.expire(Time { secs: 1_800_000_000, nanos: 9 }, Some(60)).unwrap();
    notes.label("team/a", "gr\u{fc}n = \"1\"").unwrap();
    notes.label("b.0", "").unwrap();
    notes
}

fn bytes_of(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

/// One line of hexadecimal digits for each sample.
#[test]
fn bytes_are_pinned() {
    let pool = pool();
    let golden = include_str!("../../../tests/golden/records.hex");
    let encoded: Vec<String> =
        samples(&pool).iter().map(|record| data_encoding::HEXLOWER.encode(&bytes_of(record))).collect();
    assert_eq!(encoded.join("\n"), golden.trim(), "records.hex");
    for line in golden.lines() {
        let bytes = data_encoding::HEXLOWER.decode(line.as_bytes()).unwrap();
        let record = Record::decode(&bytes, &pool).expect("what was written once is read for ever");
        assert_eq!(bytes_of(&record), bytes);
    }
}

#[test]
fn no_front_of_a_record_is_one() {
    let pool = pool();
    for bytes in samples(&pool).iter().map(bytes_of) {
        assert!((0..bytes.len()).all(|len| Record::decode(&bytes[..len], &pool).is_none()));
        assert!(Record::decode(&[&bytes[..], &[0]].concat(), &pool).is_none());
    }
}

/// Found by fuzzing: a sum named a segment of any number, and the next one to be made got a higher one.
#[test]
fn no_effect_names_a_segment_that_cannot_be() {
    let pool = pool();
    let (id, least) = (SessionId(*b"0123456789"), SEGMENT_ID_MAX.to_le_bytes());
    for effect in [
        Effect::Write { ino: 1, start: 0, len: 1, segment: pool.get(SEGMENT_ID_MAX), offset: 0 },
        Effect::Sums(pool.get(SEGMENT_ID_MAX), Vec::new()),
        Effect::Unsum(pool.get(SEGMENT_ID_MAX), 0..1),
    ] {
        let mut bytes = bytes_of(&Record::Apply(id, vec![effect]));
        assert!(Record::decode(&bytes, &pool).is_some());
        let at = bytes.windows(8).rposition(|window| window == least).unwrap();
        bytes[at] = 1;
        assert!(Record::decode(&bytes, &pool).is_none());
    }
}

/// What decodes is written as the same bytes again.
fn check(bytes: &[u8], pool: &Pool) -> Result<(), TestCaseError> {
    if let Some(record) = Record::decode(bytes, pool) {
        prop_assert_eq!(bytes_of(&record), bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn only_canonical_bytes_are_accepted(
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let pool = pool();
        let mut bytes = bytes_of(which.get(&samples(&pool)));
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check(&bytes, &pool)?;
    }

    #[test]
    fn garbage_is_refused_or_canonical(mut bytes in prop::collection::vec(any::<u8>(), 1..200), kind in 1u8..11) {
        bytes[0] = kind;
        check(&bytes, &pool())?;
    }
}
