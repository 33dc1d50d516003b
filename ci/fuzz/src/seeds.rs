//! Inputs to begin with: everything here is what this version of the program writes, so that a fuzzer starts from what
//! decoders accept.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use cas::{
    Attrs, Digest, Kind, Time,
    disk::{Disk, Open},
    remote::{Remote, lease::Naming, name::RemoteName, sim::SimRemote},
    sim::SimDisk,
};
use fsd::{
    fleet::heads::{Head, HostId},
    session::{Name, New, ROOT, Rename, SessionId, SetAttrs, SetXattr},
};
use prost::Message;
use proto::v1::*;

use super::world::{Base, open_store, put_tree};

/// The inputs of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "objects" => objects(),
        "pack" => packs(),
        "remote" => published(),
        "peer" => peers(),
        "log" => logs(),
        "fuse" => super::fuse::seeds(),
        "grpc" => requests(),
        "text" => texts(),
        _ => Vec::new(),
    }
}

/// Every object of the base, its decoder's letter in front, and a wide directory.
fn objects() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        base_objects().iter().map(|(kind, bytes)| [&letter(*kind)[..], bytes].concat()).collect();
    let wide = wide_objects();
    if let Some((_, index)) = wide.iter().find(|(kind, _)| *kind == 3) {
        for (_, page) in wide.iter().filter(|(kind, _)| *kind == 4) {
            seeds.push([b"p", &(index.len() as u16).to_le_bytes()[..], index, page].concat());
            seeds.push([b"d", &page[..]].concat());
        }
        seeds.push([b"d", &index[..]].concat());
    }
    seeds
}

/// The letter of objects.rs for a kind of object; chunks have no decoder.
fn letter(kind: u8) -> [u8; 1] {
    match kind {
        2 => *b"l",
        3 | 4 => *b"d",
        5 => *b"x",
        6 => *b"s",
        _ => *b"-",
    }
}

fn packs() -> Vec<Vec<u8>> {
    let frame = |(kind, bytes): &(u8, Vec<u8>), flags: u8| {
        [&[*kind, flags][..], &(bytes.len() as u16).to_le_bytes(), bytes].concat()
    };
    let small: Vec<_> = base_objects().into_iter().filter(|(_, bytes)| bytes.len() < 2000).collect();
    let mut seeds = Vec::new();
    for flags in [0, 1, 2, 4, 8, 10] {
        let frames: Vec<u8> = small.iter().flat_map(|object| frame(object, flags)).collect();
        seeds.push([b"s", &frames[..]].concat());
    }
    // A chunk of three blocks: with sums in front of it, with a wrong one, and in a pack without.
    let large = (1, (0..40_000_u32).map(|n| (n % 251) as u8).collect());
    seeds.extend([0, 2, 4].map(|flags| [b"s", &frame(&large, flags)[..]].concat()));
    let framed: Vec<u8> = small.iter().flat_map(|object| frame(object, 0)).collect();
    let sealed: Vec<_> = super::pack::objects(&framed).collect();
    seeds.push([b"r", &super::pack::sealed_pack(0, sealed.iter())[..]].concat());
    seeds
}

/// A store that the base was published to. Which of two packs gets its name first is up to threads: it is tried until it is the one with files.
fn publish() -> (Base, SimRemote) {
    loop {
        let (base, remote) = (Base::create(), SimRemote::default());
        let naming = Naming { host: RemoteName([1; 16]), fresh: Box::new(|| RemoteName([2; 16])) };
        base.store.attach(Arc::new(remote.clone()), naming, 64 << 20).expect("a disk with room");
        let names = AtomicU64::new(1);
        let name = || RemoteName(u128::from(names.fetch_add(1, Ordering::Relaxed)).to_be_bytes());
        base.store
            .publish(base.snapshot, &[], &name, &|_| {}, &|| false)
            .expect("a store that does not fail");
        let packs = remote.list("packs/").expect("a store that does not fail");
        let first = remote.read_whole(&packs[0], u64::MAX).expect("it is listed");
        if cas::fuzzing::pack(&first).1.iter().all(|(is_meta, ..)| !is_meta) {
            return (base, remote);
        }
    }
}

/// An answer of a peer, lists of what hangs on some, URIs.
fn peers() -> Vec<Vec<u8>> {
    use super::peer::{CONTENT, wanted};
    let object = |nth, absent, len: usize, bytes: &[u8]| {
        read_reply::Part::Object(ObjectPart { nth, absent, len: len as u32, bytes: bytes.to_vec() })
    };
    let [(kind, digest), ..] = wanted();
    let name = Some(ObjectName { kind: kind as u32, digest: digest.0.to_vec() });
    let following = Following { objects: vec![FollowingObject { name, len: 22 }; 3] };
    let parts = [
        object(0, false, CONTENT.len(), &CONTENT[..10]),
        object(0, false, CONTENT.len(), &CONTENT[10..]),
        object(1, true, 0, b""),
        object(2, false, 0, b""),
        read_reply::Part::Following(following),
    ];
    let message = |part| {
        let bytes = ReadReply { part: Some(part) }.encode_to_vec();
        [&(bytes.len() as u16).to_le_bytes()[..], &bytes].concat()
    };
    let answer: Vec<u8> = parts.into_iter().flat_map(message).collect();
    let mut list = b"hAFhg\x01\0\0\0\x02\0\0\0".to_vec();
    for nth in [1_u8, 2] {
        list.extend([nth; 64]);
        list.extend(b"\x03\0abc");
    }
    let uris = [
        "uaether://build7.example:7420/ses_04hmasw9nf6yy093",
        "uaether:///work@snp_wm6qjzn9gkej7byaze8h45t16gfs10y3cevt7fjqk7vkx0k0x8bg/",
        "uaether://[::1]/ses_04hmasw9nf6yy093/a%20b/%FF%FE",
    ];
    let mut seeds = vec![[b"a", &answer[..]].concat(), list, b"hAFhg\x01\0\0\0\0\0\0\0".to_vec()];
    seeds.extend(uris.map(|uri| uri.as_bytes().to_vec()));
    seeds
}

/// What a publish of the base leaves in the remote store, without the checksums, a head of each kind, and leases.
fn published() -> Vec<Vec<u8>> {
    const SUM: usize = 8;
    let (base, remote) = publish();
    let (mut seeds, mut leases) = (Vec::new(), Vec::new());
    for name in remote.list("").expect("a store that does not fail") {
        let bytes = remote.read_whole(&name, u64::MAX).expect("it is listed");
        let body = &bytes[..bytes.len() - SUM];
        match name.split_once('/').map(|(folder, _)| folder) {
            Some("packs") => {
                let (footer, frames) = cas::fuzzing::pack(&bytes);
                seeds.push([b"f", &footer[..footer.len() - SUM]].concat());
                seeds.extend(frames.into_iter().map(|(is_meta, raw, frame)| {
                    [if is_meta { b"m" } else { b"d" }, &raw.to_le_bytes()[..], &frame].concat()
                }));
            }
            Some("layers") => seeds.push([b"l", body].concat()),
            Some("snapshots") => seeds.push([b"s", body].concat()),
            Some("leases") => leases.push([b"e", body].concat()),
            _ => {}
        }
    }
    let head = |bits: u8| {
        let is = |bit: u8| bits & bit != 0;
        let head = Head {
            session: SessionId([1; 10]),
            seq: 3,
            epoch: 2,
            holder: is(2).then_some(HostId([2; 16])),
            root: base.snapshot,
            origin: base.snapshot,
            parent: is(4).then_some(SessionId([3; 10])),
            name: is(8).then(|| "label".to_owned()),
            created: Time { secs: 1, nanos: 2 },
            ended: is(1),
            nonce: [4; 16],
        };
        let bytes = head.encode();
        [b"h", &bytes[..bytes.len() - SUM]].concat()
    };
    seeds.extend([0, 1, 2, 6, 14, 15].map(head));
    seeds.extend(leases);
    // Of two snapshots and two layers, and of nothing.
    let several = [&b"eAFls\x01\0\0\0\x02\0\0\0\x02\0\0\0"[..], &[1; 32], &[2; 32], &[3; 16], &[4; 16]];
    seeds.extend([several.concat(), b"eAFls\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec()]);
    seeds
}

/// What a session's life leaves in the log: as the file, and as the bodies of its records.
fn logs() -> Vec<Vec<u8>> {
    let (disk, base) = (SimDisk::new(0), Base::create());
    live(&disk, &base);
    let mut seeds = Vec::new();
    let mut all = Vec::new();
    let mut names = disk.list("log").expect("the engine made it");
    names.sort();
    for name in names.iter().filter(|name| name.ends_with(".log")) {
        let file = disk.open(&format!("log/{name}"), Open::Read).expect("it is listed");
        let mut bytes = vec![0; file.len().expect("it is open") as usize];
        file.read_at(&mut bytes, 0).expect("it is open");
        let mut at = 48;
        while let Some(head) = bytes.get(at..at + 32) {
            let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if head.iter().all(|byte| *byte == 0) || len > 60_000 {
                break;
            }
            all.extend((len as u16).to_le_bytes());
            all.extend(&bytes[at + 32..at + 32 + len]);
            at += 32 + len;
        }
        bytes.truncate(at);
        seeds.push([b"r", &bytes[..]].concat());
    }
    // One seed of everything, and shorter ones that end after each few records.
    let bodies: Vec<&[u8]> = super::log::bodies(&all).collect();
    for upto in [1, 2, 4, 8, 12, 16, 24, 32, bodies.len()] {
        let mut seed = vec![b'b'];
        for body in &bodies[..upto.min(bodies.len())] {
            seed.extend((body.len() as u16).to_le_bytes());
            seed.extend(*body);
        }
        seeds.push(seed);
    }
    seeds
}

/// One of every kind of change.
fn live(disk: &SimDisk, base: &Base) {
    let engine = base.open(disk, 1).expect("an empty disk");
    let name = |text: &str| Name::parse(text.as_bytes()).expect("a name");
    let new = |kind| New { kind, mode: 0o644, uid: 1, gid: 1, rdev: 0, umask: 0, target: None };
    let session = engine.create(Some(base.snapshot), Some("s".into()), (0, 0)).expect("the base is kept");
    let done = "a change that the base allows, on a disk with room";
    let file = session.make(ROOT, &name("f"), new(Kind::File)).expect(done);
    session.write(file.ino, 0, b"hello").expect(done);
    session.write(file.ino, 100, b"behind a hole").expect(done);
    session
        .set_attrs(file.ino, SetAttrs { size: Some(50), mode: Some(0o600), ..Default::default() })
        .expect(done);
    session.set_xattr(file.ino, b"user.k", b"v", SetXattr::Any).expect(done);
    let dir = session.make(ROOT, &name("d"), new(Kind::Dir)).expect(done);
    session.rename(ROOT, &name("f"), dir.ino, &name("g"), Rename::Replace).expect(done);
    session.link(file.ino, ROOT, &name("h")).expect(done);
    let link = New { target: Some(b"to".to_vec()), ..new(Kind::Symlink) };
    session.make(dir.ino, &name("l"), link).expect(done);
    let sub = session.lookup(ROOT, &name("sub")).expect(done);
    let small = session.lookup(sub.ino, &name("small")).expect(done);
    session.write(small.ino, 10, b"changed").expect(done);
    session.unlink(sub.ino, &name("linked too")).expect(done);
    session.rename(ROOT, &name("sub"), dir.ino, &name("sub"), Rename::Replace).expect(done);
    let forks = engine.fork(&session, &[Some("t".into())]).expect(done);
    forks[0].unlink(ROOT, &name("big")).expect(done);
    let big = session.lookup(ROOT, &name("big")).expect(done);
    session
        .allocate(fsd::session::Writer::Privileged, big.ino, 1000, 100_000, fsd::session::Allocate::Punch)
        .expect(done);
    engine.seal(&session, false, &mut |_| {}).expect(done);
    session.write(big.ino, 0, b"after the seal").expect(done);
    engine.discard(&forks[0]).expect(done);
    let (mut notes, now) = (fsd::session::Notes::default(), Time { secs: 1_800_000_000, nanos: 0 });
    notes.label("made/with", "something").expect(done);
    engine.fork_noted(&session, &[None], &notes).expect(done);
    session.annotate(|notes| notes.label("a", "1").and_then(|()| notes.expire(now, Some(60)))).expect(done);
    session.write_anchor().expect(done);
    engine.durability().sync().expect(done);
}

fn requests() -> Vec<Vec<u8>> {
    let text = |text: &str| text.to_owned();
    let nowhere = || b"/nonexistent/dir".to_vec();
    let labels = || vec![Label { key: text("team/a"), value: text("x") }];
    let notes = || Some(Notes { expires_after_s: 60, labels: labels() });
    let filter = LabelFilter { key: text("team/a"), value: Some(text("x")) };
    let all = [
        (
            0,
            CreateRequest { from: text("base"), name: text("new"), mount_dir: Vec::new(), notes: None }
                .encode_to_vec(),
        ),
        (
            0,
            CreateRequest { from: text(""), name: text(""), mount_dir: nowhere(), notes: notes() }
                .encode_to_vec(),
        ),
        (
            1,
            ForkRequest { session: text("s"), count: 3, name: text("f"), mount_dir: Vec::new(), notes: None }
                .encode_to_vec(),
        ),
        (
            1,
            ForkRequest {
                session: text("s"),
                count: 2,
                name: text("g"),
                mount_dir: nowhere(),
                notes: notes(),
            }
            .encode_to_vec(),
        ),
        (2, MountRequest { session: text("s"), dir: nowhere(), ..Default::default() }.encode_to_vec()),
        (3, UnmountRequest { target: Some(unmount_request::Target::Dir(nowhere())) }.encode_to_vec()),
        (3, UnmountRequest { target: Some(unmount_request::Target::Session(text("s"))) }.encode_to_vec()),
        (4, ImportRequest { path: nowhere(), name: text("i") }.encode_to_vec()),
        (5, Vec::new()),
        (6, ShowRequest { id: text("ses_00000000") }.encode_to_vec()),
        (7, SealRequest { session: text("s") }.encode_to_vec()),
        (8, DiscardRequest { ids: vec![text("t"), text("nobody")], force: true }.encode_to_vec()),
        (9, DiffRequest { a: text("s"), b: text("base"), patch: true, ..Default::default() }.encode_to_vec()),
        (9, DiffRequest { a: text("s"), b: text("t"), stat: true, ..Default::default() }.encode_to_vec()),
        (10, ListDirRequest { id: text("s"), path: b"sub/deep".to_vec() }.encode_to_vec()),
        (11, StatRequest { id: text("base"), path: b"big".to_vec() }.encode_to_vec()),
        (
            12,
            ReadFileRequest { id: text("s"), path: b"big".to_vec(), offset: 60_000, length: 70_000 }
                .encode_to_vec(),
        ),
        (13, GcRequest { dry_run: true }.encode_to_vec()),
        (14, FsckRequest { repair: true }.encode_to_vec()),
        (15, PublishRequest { id: text("s") }.encode_to_vec()),
        (16, FetchRequest { id: text("s"), paths: vec![b"sub".to_vec()], profile: vec![] }.encode_to_vec()),
        (18, AdvanceRequest { dir: nowhere() }.encode_to_vec()),
        (17, HandoffRequest { session: text("s"), force: false }.encode_to_vec()),
        (
            19,
            GcRemoteRequest { dry_run: true, delay_ms: Some(0), hosts_gone_after_ms: Some(86_400_000) }
                .encode_to_vec(),
        ),
        (20, GcWhyRequest { id: text("base") }.encode_to_vec()),
        (21, PinRequest { id: text("base") }.encode_to_vec()),
        (22, UnpinRequest { id: text("s") }.encode_to_vec()),
        (
            23,
            CreateTokenRequest { rights: vec![1, 3], sessions: vec![text("s")], lifetime_ms: 60_000 }
                .encode_to_vec(),
        ),
        (24, RevokeTokenRequest { id: text("tok_0123456789abcdef") }.encode_to_vec()),
        (25, Vec::new()),
        (26, ProfileRequest { session: text("s") }.encode_to_vec()),
        (16, FetchRequest { id: text("s"), profile: profiled(), ..Default::default() }.encode_to_vec()),
        (0, CreateRequest { notes: notes(), ..Default::default() }.encode_to_vec()),
        (27, ExpireRequest { session: text("s"), after_s: 3600 }.encode_to_vec()),
        (28, LabelRequest { session: text("s"), set: labels(), remove: vec![text("k")] }.encode_to_vec()),
        (5, ListRequest { labels: vec![filter] }.encode_to_vec()),
        (29, Vec::new()),
        (
            30,
            ReadRequest {
                objects: vec![ObjectName { kind: 1, digest: Digest::of(b"").0.to_vec() }; 2],
                following_max: 8,
            }
            .encode_to_vec(),
        ),
        (31, OpenRequest { session: text("s"), snapshot: String::new() }.encode_to_vec()),
    ];
    let framed = all.map(|(method, message)| [&[method, message.len() as u8, 0][..], &message].concat());
    let everything = framed.concat();
    framed.into_iter().chain([everything]).collect()
}

fn profiled() -> Vec<ProfileEntry> {
    let ranges = vec![ByteRange { start: 0, end: 262_144 }, ByteRange { start: 524_288, end: 0 }];
    vec![
        ProfileEntry { path: b"sub".to_vec(), ranges: vec![] },
        ProfileEntry { path: b"big".to_vec(), ranges },
    ]
}

fn texts() -> Vec<Vec<u8>> {
    let ids = format!("i{}", cas::SnapshotId(Digest::of(b"x")));
    [
        ids.as_str(),
        "ises_0123456789abcdef",
        "isnp_OoIlABCD",
        "p/a//./b/../c/",
        "pname",
        "cstate = \"/var/lib/aether\"\nsocket = \"/run/s\"\nmount = [\"work:/mnt\", \"a:b:c\"]\nlog_format = \"json\"\nlog_level = \"debug\"\n",
        "a--state\ndir\n--socket\ns\n--mount\nwork:/mnt\n--log-format\njson\n--log-level=debug\n--accept-loss\n!AETHERFS_STATE=x",
        "a--mount\n:\n!AETHERFS_LOG=info",
        "faetherfs profile 1\ndir .\ndir sub\nfile 0-262144,524288-786432,9437184- sub/a%20b%ff\nfile 0- big\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Kind and bytes of the objects of the base.
fn base_objects() -> Vec<(u8, Vec<u8>)> {
    objects_of(|store| {
        put_tree(store);
    })
}

/// A directory of three pages or more, as objects.
fn wide_objects() -> Vec<(u8, Vec<u8>)> {
    let entry = |n: u32| cas::dir::DirEntry {
        name: format!("{n}").into(),
        ino: u64::from(n) + 2,
        attrs: Attrs {
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            size: 0,
            mtime: Time::default(),
            ctime: Time::default(),
        },
        node: cas::dir::OwnedNode::Fifo,
        xattrs: None,
        totals: Default::default(),
    };
    // Few neighbours of each name that begins a page, so that the pages are short.
    let begins = |n: &u32| xxhash_rust::xxh3::xxh3_64(n.to_string().as_bytes()) & 511 == 0;
    let names = (0..4000u32).filter(|n| begins(n) || n % 400 == 0).take(14);
    let entries: Vec<_> = names.map(entry).collect();
    objects_of(|store| {
        let mut writer = store.writer().expect("a store that was just made");
        writer.put_dir(entries).expect("entries as they should be");
        writer.finish().expect("a disk that does not fail");
    })
}

/// Kind and bytes of what `fill` puts into an empty store, read out of its packs as docs/format.md describes them.
fn objects_of(fill: impl FnOnce(&cas::Store)) -> Vec<(u8, Vec<u8>)> {
    let disk = SimDisk::new(0);
    let store = open_store(&disk).expect("an empty disk takes a store");
    fill(&store);
    drop(store);
    let mut objects = Vec::new();
    let mut packs = disk.list("store/packs").expect("the store made it");
    packs.sort();
    for pack in packs {
        let file = disk.open(&format!("store/packs/{pack}"), Open::Read).expect("it is listed");
        let mut bytes = vec![0; file.len().expect("it is open") as usize];
        file.read_at(&mut bytes, 0).expect("it is open");
        let mut at = 64;
        while let Some(head) = bytes.get(at..at + 64) {
            let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
            let sums = match head[12] {
                0 => 0,
                shift => (len.div_ceil(1 << shift) * 8).next_multiple_of(64),
            };
            let payload = at + 64 + sums;
            objects.push((head[4], bytes[payload..payload + len].to_vec()));
            at = (payload + len).next_multiple_of(64);
        }
    }
    objects
}
