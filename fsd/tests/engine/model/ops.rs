//! Random operations. They name what they work on by small numbers that are looked up when they are carried out, so any
//! part of a sequence is a sequence, and shrinking works.

use cas::{Kind, Time};
use fsd::session::{Allocate, New, Rename, Seek, SetAttrs, SetTime, SetXattr, Writer};
use proptest::prelude::*;

/// Which node: the `child`-th that fits in the `dir`-th directory, or with `held` one that is looked up already. Every third
/// `dir` is one that is being listed, if there is any, and every fourth `child` the file that was written last.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    pub dir: u8,
    pub child: u16,
    pub held: bool,
}

/// Which name in a directory.
#[derive(Clone, Copy, Debug)]
pub enum NamePick {
    /// One of a few, there or not.
    Pool(u8),
    /// One that is there.
    There(u16),
}

/// An operation on one session.
#[derive(Clone, Debug)]
pub enum Op {
    Stat(Pick),
    Make(Pick, NamePick, New),
    /// A file without a name, in a directory.
    MakeUnnamed(Pick, New),
    Link(Pick, Pick, NamePick),
    Unlink(Pick, NamePick),
    Rmdir(Pick, NamePick),
    Rename(Pick, NamePick, Pick, NamePick, Rename),
    Write(Pick, u32, u32, u8),
    Read(Pick, u32, u32),
    Allocate(Pick, u32, u32, Allocate),
    Copy(Pick, u32, Pick, u32, u32),
    Seek(Pick, u32, Seek),
    SetAttrs(Pick, SetAttrs),
    SetXattr(Pick, u8, u16, SetXattr),
    RemoveXattr(Pick, u8),
    /// Begins a listing in pieces of so many entries.
    List(Pick, u8, bool),
    /// Goes on with one of the listings under way.
    More(u16),
    Open(u16),
    Close(u16),
    Shrink(u16),
    Fork,
    /// With something attached.
    ForkNoted,
    Discard,
    /// With these operations while the store is written.
    Seal(Vec<Op>),
    /// Has it end so many seconds from now, or never.
    Expire(Option<u64>),
    /// Attaches one of a few labels, with a value of so many bytes, or takes it off.
    Label(u8, Option<u16>),
    Anchor,
    Diff(Option<u8>),
    Sync,
    Gc,
    Tick,
    Reopen,
}

/// An operation and the session it is on.
#[derive(Clone, Debug)]
pub struct Step {
    pub session: u8,
    pub op: Op,
}

/// Names that operations fight for.
pub fn pool(n: u8) -> Vec<u8> {
    const POOL: [&[u8]; 12] =
        [b"a", b"b", b"c", b"d", b"e", b"x y", b"\xff\xfe\n", b"f150", b"sub", b"linked", b"A", b"-"];
    match n as usize % (POOL.len() + 1) {
        n if n < POOL.len() => POOL[n].to_vec(),
        _ => vec![b'n'; 255],
    }
}

fn pick() -> impl Strategy<Value = Pick> {
    (any::<u8>(), any::<u16>(), prop::bool::weighted(0.3)).prop_map(|(dir, child, held)| Pick {
        dir,
        child,
        held,
    })
}

/// A name for something new, mostly.
fn free() -> impl Strategy<Value = NamePick> {
    prop_oneof![6 => any::<u8>().prop_map(NamePick::Pool), 1 => any::<u16>().prop_map(NamePick::There)]
}

/// A name that is there, mostly.
fn taken() -> impl Strategy<Value = NamePick> {
    prop_oneof![1 => any::<u8>().prop_map(NamePick::Pool), 6 => any::<u16>().prop_map(NamePick::There)]
}

/// Offsets near the front, around the first chunk's end, and further out.
fn offset() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0u32..9000,
        2 => (0u32..16).prop_map(|n| n * 4096),
        1 => 250_000u32..270_000,
        1 => 0u32..1_600_000,
    ]
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![5 => 0u32..5000, 2 => Just(4096u32), 1 => 0u32..40_000, 1 => 0u32..400_000]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => Just(Kind::File),
        4 => Just(Kind::Dir),
        2 => Just(Kind::Symlink),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Socket),
        1 => Just(Kind::CharDevice),
    ]
}

fn new() -> impl Strategy<Value = New> {
    (kind(), 0u32..0o10000, 0u32..3, any::<u8>()).prop_map(|(kind, mode, owner, n)| New {
        kind,
        mode,
        umask: 0,
        uid: owner,
        gid: owner + 7,
        rdev: n.into(),
        target: (kind == Kind::Symlink).then(|| vec![b't'; n.into()]),
    })
}

fn rename() -> impl Strategy<Value = Rename> {
    prop_oneof![4 => Just(Rename::Replace), 1 => Just(Rename::NoReplace), 2 => Just(Rename::Exchange)]
}

fn allocate() -> impl Strategy<Value = Allocate> {
    prop_oneof![
        1 => Just(Allocate::Extend),
        1 => Just(Allocate::KeepSize),
        3 => Just(Allocate::Punch),
        2 => any::<bool>().prop_map(|extend| Allocate::Zero { extend }),
    ]
}

fn set_time() -> impl Strategy<Value = Option<SetTime>> {
    let at = (-5i64..2_000_000_000, 0u32..1_000_000_000);
    let at = at.prop_map(|(secs, nanos)| SetTime::At(Time { secs, nanos }));
    prop::option::weighted(0.3, prop_oneof![Just(SetTime::Now), at])
}

fn set_attrs() -> impl Strategy<Value = SetAttrs> {
    let rare = |range: std::ops::Range<u32>| prop::option::weighted(0.3, range);
    let size = prop::option::weighted(0.4, offset().prop_map(u64::from));
    let by = prop_oneof![Just(Writer::Privileged), Just(Writer::Ordinary)];
    (rare(0..0o10000), rare(0..5), rare(0..5), size, set_time(), set_time(), by).prop_map(
        |(mode, uid, gid, size, atime, mtime, by)| SetAttrs { mode, uid, gid, size, atime, mtime, by },
    )
}

fn set_xattr() -> impl Strategy<Value = SetXattr> {
    prop_oneof![4 => Just(SetXattr::Any), 1 => Just(SetXattr::Create), 1 => Just(SetXattr::Replace)]
}

/// Operations that change something or look at it, alone.
pub fn simple() -> impl Strategy<Value = Op> {
    let seek = prop_oneof![Just(Seek::Data), Just(Seek::Hole)];
    prop_oneof![
        3 => pick().prop_map(Op::Stat),
        12 => (pick(), free(), new()).prop_map(|(d, n, new)| Op::Make(d, n, new)),
        2 => (pick(), new()).prop_map(|(d, new)| Op::MakeUnnamed(d, New { kind: Kind::File, target: None, ..new })),
        5 => (pick(), pick(), free()).prop_map(|(p, d, n)| Op::Link(p, d, n)),
        8 => (pick(), taken()).prop_map(|(d, n)| Op::Unlink(d, n)),
        4 => (pick(), taken()).prop_map(|(d, n)| Op::Rmdir(d, n)),
        12 => (pick(), taken(), pick(), prop_oneof![free(), taken()], rename()).prop_map(|(d, n, e, m, how)| Op::Rename(d, n, e, m, how)),
        14 => (pick(), offset(), len(), any::<u8>()).prop_map(|(p, o, l, f)| Op::Write(p, o, l, f)),
        4 => (pick(), offset(), len()).prop_map(|(p, o, l)| Op::Read(p, o, l)),
        5 => (pick(), offset(), len(), allocate()).prop_map(|(p, o, l, how)| Op::Allocate(p, o, l, how)),
        1 => (pick(), offset(), pick(), offset(), len()).prop_map(|(p, o, q, r, l)| Op::Copy(p, o, q, r, l)),
        2 => (pick(), offset(), seek).prop_map(|(p, o, what)| Op::Seek(p, o, what)),
        6 => (pick(), set_attrs()).prop_map(|(p, set)| Op::SetAttrs(p, set)),
        4 => (pick(), 0u8..4, 0u16..300, set_xattr()).prop_map(|(p, n, l, how)| Op::SetXattr(p, n, l, how)),
        2 => (pick(), 0u8..4).prop_map(|(p, n)| Op::RemoveXattr(p, n)),
        3 => any::<u16>().prop_map(Op::Open),
        3 => any::<u16>().prop_map(Op::Close),
        4 => any::<u16>().prop_map(Op::Shrink),
        3 => (pick(), prop_oneof![1u8..5, 1u8..120], any::<bool>()).prop_map(|(d, n, plus)| Op::List(d, n, plus)),
        8 => any::<u16>().prop_map(Op::More),
    ]
}

/// Any operation.
pub fn any_op() -> impl Strategy<Value = Op> {
    let during = prop_oneof![12 => simple(), 1 => Just(Op::Fork)];
    prop_oneof![
        70 => simple(),
        4 => Just(Op::Fork),
        1 => Just(Op::Discard),
        4 => prop::collection::vec(during, 0..6).prop_map(Op::Seal),
        2 => Just(Op::Anchor),
        3 => prop::option::weighted(0.4, any::<u8>()).prop_map(Op::Diff),
        2 => Just(Op::Sync),
        1 => Just(Op::Gc),
        1 => Just(Op::Tick),
        2 => Just(Op::Reopen),
    ]
}

/// A step of a sequence.
pub fn step() -> impl Strategy<Value = Step> {
    (any::<u8>(), any_op()).prop_map(|(session, op)| Step { session, op })
}
