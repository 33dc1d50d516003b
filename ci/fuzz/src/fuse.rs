//! FUSE requests: messages as the kernel would send them, and such as it never would, are parsed and carried out on a session
//! with a simulated disk. Each is answered by a well-formed reply, and never by EIO: nothing here is damaged. What they leave
//! can be sealed, and is there again after a start.

use cas::sim::SimDisk;
use fsd::fuse::fuzzing::Device;

use super::world::Base;

const REQUESTS_MAX: usize = 64;
/// struct fuse_in_header.
const HEADER_BYTES: usize = 40;
/// struct fuse_out_header.
const REPLY_HEADER_BYTES: usize = 16;
/// Numbers of inodes that the base has, of the root, of none, and of the first that a session makes.
const INODES: [u64; 16] =
    [1, 5, 6, 7, 8, 9, 10, 11, 12, 0, 13, 1 << 62, (1 << 62) + 1, (1 << 62) + 2, (1 << 62) + 3, u64::MAX];
const FIRST_ID: u64 = 1;

/// Requests: opcode (u8), which inode (4 bits) and whether as root (1 bit) (u8), length (u16), what follows the header. Opcode
/// 255 is for a message that is not given a header: all of it stands there.
pub fn run(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let disk = SimDisk::new(0);
    let base = Base::shared();
    let engine = base.open(&disk, FIRST_ID).expect("an empty disk");
    let session = engine.create(Some(base.snapshot), None, (0, 0)).expect("the base is there");
    let mut device = Device::new(session.clone(), first & 1 != 0);
    for (i, message) in messages(data).take(REQUESTS_MAX).enumerate() {
        device.part(&message);
        let reply = device.send(&message);
        match message.len() < HEADER_BYTES {
            true => assert!(reply.is_none(), "half a header was answered"),
            false => check(&message, reply.unwrap_or_else(|| panic!("request {i} was not answered"))),
        }
    }
    let live = session.peek();
    engine.seal(&session, false, &mut |_| {}).expect("a disk that does not fail");
    drop(device);
    let (id, changed) = (session.id(), live.inodes.len());
    drop((session, engine, live));
    let engine = base.open(&disk.kill(), FIRST_ID).expect("what this program wrote, it reads");
    assert!(engine.sessions().iter().any(|session| session.id() == id), "lost with {changed} inodes");
}

/// The messages of an input, with headers.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut unique = 0;
    std::iter::from_fn(move || {
        let ([opcode, who, low, high], rest) = bytes.split_first_chunk()?;
        let (body, rest) = rest.split_at_checked(u16::from_le_bytes([*low, *high]).into())?;
        bytes = rest;
        unique += 1;
        Some(if *opcode == 255 { body.to_vec() } else { message((*opcode).into(), *who, unique, body) })
    })
}

/// One message with its header.
pub fn message(opcode: u32, who: u8, unique: u64, body: &[u8]) -> Vec<u8> {
    let user: u32 = if who & 16 != 0 { 0 } else { 1000 };
    let mut message = ((HEADER_BYTES + body.len()) as u32).to_le_bytes().to_vec();
    message.extend(opcode.to_le_bytes());
    message.extend(unique.to_le_bytes());
    message.extend(INODES[usize::from(who & 15)].to_le_bytes());
    message.extend([user.to_le_bytes(), user.to_le_bytes(), 7u32.to_le_bytes(), [0; 4]].concat());
    message.extend(body);
    message
}

fn check(message: &[u8], reply: &[u8]) {
    if reply.is_empty() {
        return;
    }
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let error = u32_at(reply, 4) as i32;
    assert_eq!(u32_at(reply, 0) as usize, reply.len());
    assert_eq!(reply[8..16], message[8..16], "the answer to another request");
    assert!((-133..=0).contains(&error), "error {error}");
    assert!(error == 0 || reply.len() == REPLY_HEADER_BYTES, "an error with {} bytes", reply.len());
    assert_ne!(error, -5, "EIO for opcode {}: {:02x?}", u32_at(message, 4), &message[HEADER_BYTES..]);
}

/// Inputs to begin with: each request once, in an order in which most succeed.
pub fn seeds() -> Vec<Vec<u8>> {
    let u64s = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let u32s = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let name = |head: Vec<u8>, names: &[u8]| [&head[..], names].concat();
    let read = |offset: u64, size: u32| [u64s(&[0, offset]), u32s(&[size, 0]), u64s(&[0, 0])].concat();
    let set = |valid: u32, size: u64, mode: u32| {
        let tail = u32s(&[0, 0, 0, mode, 0, 2, 3, 0]);
        [u32s(&[valid, 0]), u64s(&[0, size, 0, 9, 9, 9]), tail].concat()
    };
    let put = |out: &mut Vec<u8>, opcode: u8, who: u8, body: &[u8]| {
        out.extend([opcode, who]);
        out.extend((body.len() as u16).to_le_bytes());
        out.extend(body);
    };
    let (root, file, made) = (16, 17, 16 + 11);
    let lookups: [&[u8]; 5] = [b"big\0", b"empty\0", b"symlink\0", b"sub\0", b"none\0"];
    let mut reads = vec![0];
    for looked_up in lookups {
        put(&mut reads, 1, root, looked_up);
    }
    for (opcode, who, body) in [
        (3, file, u64s(&[0, 0])),
        (5, 16 + 3, vec![]),
        (15, file, read(60_000, 9000)),
        (17, root, vec![]),
        (28, root, read(0, 4096)),
        (44, 16 + 4, read(0, 4096)),
        (22, file, name(u32s(&[0, 0]), b"user.a\0")),
        (23, file, u32s(&[100, 0])),
        (46, file, [u64s(&[0, 70_000]), u32s(&[3, 0])].concat()),
        (14, file, u32s(&[0, 0])),
        (27, root, u32s(&[0, 0])),
        (25, file, [u64s(&[0]), u32s(&[0, 0]), u64s(&[0])].concat()),
        (2, file, u64s(&[1])),
        (42, 0, [u32s(&[1, 0]), u64s(&[6, 1])].concat()),
        (36, 0, u64s(&[1])),
        (50, root, u64s(&[0])),
        (38, root, vec![]),
    ] {
        put(&mut reads, opcode, who, &body);
    }
    let mut writes = vec![1];
    for looked_up in lookups {
        put(&mut writes, 1, root, looked_up);
    }
    for (opcode, who, body) in [
        (35, root, name(u32s(&[0, 0o100644, 0o22, 0]), b"made\0")),
        (16, made, [read(10, 4), b"data".to_vec()].concat()),
        (16, file, [read(65_000, 4), b"data".to_vec()].concat()),
        (4, made, set(1 | 8 | 16 | 32 | 2048, 5, 0o600)),
        (43, made, [u64s(&[0, 1, 2]), u32s(&[3, 0])].concat()),
        (47, file, u64s(&[0, 0, 1 << 62, 0, 100, 5000, 0])),
        (21, made, name(u32s(&[1, 0, 0, 0]), b"user.b\0v")),
        (24, made, b"user.b\0".to_vec()),
        (9, root, name(u32s(&[0o755, 0]), b"dir\0")),
        (8, root, name(u32s(&[0o10644, 0, 0, 0]), b"fifo\0")),
        (6, root, b"link\0target\0".to_vec()),
        (13, root, name(u64s(&[1 << 62]), b"again\0")),
        (12, root, name(u64s(&[1]), b"made\0moved\0")),
        (45, root, name([u64s(&[8]), u32s(&[1, 0])].concat(), b"moved\0deep too\0")),
        (51, root, name(u32s(&[0, 0o100600, 0, 0]), b"#\0")),
        (10, root, b"again\0".to_vec()),
        (11, root, b"dir\0".to_vec()),
        (20, made, [u64s(&[0]), u32s(&[0, 0])].concat()),
        (30, root, [u64s(&[0]), u32s(&[0, 0])].concat()),
    ] {
        put(&mut writes, opcode, who, &body);
    }
    let mut raw = vec![0];
    put(&mut raw, 255, 0, &message(17, root, 9, b""));
    put(&mut raw, 255, 0, b"half a header");
    vec![reads, writes, raw]
}
