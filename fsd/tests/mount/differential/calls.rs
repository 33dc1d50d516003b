//! Random system calls. What is called depends on chance alone, so that the same chance does the same in two directories.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, copy_file_range, fallocate, renameat2},
    sys::{
        stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat},
        time::TimeSpec,
    },
    unistd::geteuid,
};

use crate::{listing::SET_BY_HAND, random::Random};

const HANDLES_MAX: usize = 4;
const LEN_MAX: u64 = 20_000;
const OFFSET_MAX: u64 = 200_000;

/// A directory that is worked in, and the files that are held open there.
pub(super) struct World {
    root: PathBuf,
    pub(super) handles: Vec<File>,
}

/// What a call says, or its errno.
type Answer = Result<String, i32>;
type Call = fn(&mut World, &mut Random) -> io::Result<String>;

/// The calls to pick from; those that matter more are in it more than once.
pub(super) struct Calls(Vec<(&'static str, Call)>);

const CALLS: &[(&str, Call)] = &[
    ("create", create),
    ("create", create),
    ("mkdir", mkdir),
    ("mkdir", mkdir),
    ("write", write),
    ("write", write),
    ("write", write),
    ("append", append),
    ("append", append),
    ("replace", replace),
    ("truncate", truncate),
    ("read", read),
    ("stat", stat),
    ("list", list),
    ("rename", rename),
    ("rename", rename),
    ("rename", rename),
    ("rename noreplace", rename_no_replace),
    ("exchange", exchange),
    ("link", link),
    ("link", link),
    ("symlink", make_symlink),
    ("mknod", make_node),
    ("unlink", unlink),
    ("unlink", unlink),
    ("rmdir", rmdir),
    ("chmod", chmod),
    ("chown", chown),
    ("utimens", utimens),
    ("utimens", utimens),
    ("setxattr", set_xattr),
    ("removexattr", remove_xattr),
    ("fallocate", allocate),
    ("punch", punch),
    ("zero", zero),
    ("copy_file_range", copy_range),
    ("open", open_handle),
    ("open", open_handle),
    ("write to handle", write_handle),
    ("write to handle", write_handle),
    ("read from handle", read_handle),
    ("truncate handle", truncate_handle),
    ("close", close_handle),
];

impl World {
    pub(super) fn new(root: PathBuf) -> World {
        World { root, handles: Vec::new() }
    }

    /// A random path, one to three names deep, most often one. The names are few, so that they meet.
    fn path(&self, random: &mut Random) -> PathBuf {
        let long = [b'l'; 255];
        let too_long = [b'l'; 256];
        let names: [&[u8]; 8] = [b"a", b"b", b"c", b"d", b"e", b"\xff\n", &long, &too_long];
        let mut path = self.root.clone();
        for _ in 0..*random.pick(&[1, 1, 1, 1, 2, 2, 2, 3]) {
            let which = random.below(40);
            path.push(OsStr::from_bytes(names[if which < 36 { which / 7 } else { which - 32 } as usize]));
        }
        path
    }

    fn handle(&self, random: &mut Random) -> io::Result<&File> {
        let which = random.below(HANDLES_MAX as u64) as usize;
        self.handles.get(which).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Calls {
    /// Those that the file system of this directory knows: the others could not be compared.
    pub(super) fn for_directory(dir: &Path) -> Calls {
        let probe = tempfile::tempfile_in(dir).expect("a file there");
        let zeroes = fallocate(&probe, FallocateFlags::FALLOC_FL_ZERO_RANGE, 0, 1).is_ok();
        Calls(CALLS.iter().copied().filter(|(name, _)| zeroes || *name != "zero").collect())
    }

    /// Makes one; returns its name, and what it said.
    pub(super) fn one(&self, world: &mut World, random: &mut Random) -> (String, Answer) {
        let (name, call) = *random.pick(&self.0);
        // The first path that most calls draw, for whoever reads a failure.
        let first = world.path(&mut Random::clone(random));
        let path =
            first.strip_prefix(&world.root).expect("below its root").to_string_lossy().replace("lllll", "");
        let answer = call(world, random).map_err(|error| error.raw_os_error().unwrap_or(0));
        (format!("{name} {path:?}"), answer)
    }
}

fn done(_: ()) -> String {
    String::new()
}

fn options(path: &Path) -> io::Result<OpenOptions> {
    // Behind a device or a fifo is not this file system; writing to a fifo changes its times elsewhere, but not with FUSE.
    let kind = fs::metadata(path).map(|meta| meta.file_type());
    if kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device() || kind.is_fifo()) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut options = File::options();
    options.read(true).write(true);
    Ok(options)
}

fn create(world: &mut World, random: &mut Random) -> io::Result<String> {
    let path = world.path(random);
    let mode = *random.pick(&[0o644, 0o600, 0o777, 0o4755]);
    options(&path)?.create_new(true).mode(mode).open(path).map(drop).map(done)
}

fn mkdir(world: &mut World, random: &mut Random) -> io::Result<String> {
    fs::create_dir(world.path(random)).map(done)
}

fn write(world: &mut World, random: &mut Random) -> io::Result<String> {
    let path = world.path(random);
    let (offset, len) = (random.below(OFFSET_MAX), 1 + random.below(LEN_MAX));
    let data = random.bytes(len as usize);
    options(&path)?.create(true).open(path)?.write_at(&data, offset).map(|len| len.to_string())
}

fn append(world: &mut World, random: &mut Random) -> io::Result<String> {
    let path = world.path(random);
    let len = 1 + random.below(500);
    let data = random.bytes(len as usize);
    let file = options(&path)?.append(true).create(true).open(path)?;
    io::Write::write(&mut &file, &data).map(|len| len.to_string())
}

fn replace(world: &mut World, random: &mut Random) -> io::Result<String> {
    let path = world.path(random);
    let len = 1 + random.below(3000);
    let data = random.bytes(len as usize);
    let file = options(&path)?.truncate(true).open(path)?;
    io::Write::write(&mut &file, &data).map(|len| len.to_string())
}

fn truncate(world: &mut World, random: &mut Random) -> io::Result<String> {
    let path = world.path(random);
    options(&path)?.open(path)?.set_len(random.below(OFFSET_MAX)).map(done)
}

fn read(world: &mut World, random: &mut Random) -> io::Result<String> {
    let path = world.path(random);
    let file = options(&path)?.open(path)?;
    if !file.metadata()?.is_file() {
        return Ok("not a regular file".into());
    }
    read_from(&file, random)
}

fn read_from(file: &File, random: &mut Random) -> io::Result<String> {
    let mut data = vec![0; random.below(3 * LEN_MAX) as usize];
    let len = file.read_at(&mut data, random.below(OFFSET_MAX))?;
    Ok(format!("{len} bytes {:x}", xxhash_rust::xxh3::xxh3_64(&data[..len])))
}

fn stat(world: &mut World, random: &mut Random) -> io::Result<String> {
    let meta = fs::metadata(world.path(random))?;
    let size = if meta.is_dir() { 0 } else { meta.size() };
    Ok(format!("{:o} {}:{} {size}", meta.mode(), meta.uid(), meta.gid()))
}

fn list(world: &mut World, random: &mut Random) -> io::Result<String> {
    let names = fs::read_dir(world.path(random))?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(format!("{names:?}"))
}

fn rename(world: &mut World, random: &mut Random) -> io::Result<String> {
    fs::rename(world.path(random), world.path(random)).map(done)
}

fn rename_with(world: &mut World, random: &mut Random, flags: RenameFlags) -> io::Result<String> {
    let (from, to) = (world.path(random), world.path(random));
    Ok(renameat2(AT_FDCWD, &from, AT_FDCWD, &to, flags).map(done)?)
}

fn rename_no_replace(world: &mut World, random: &mut Random) -> io::Result<String> {
    rename_with(world, random, RenameFlags::RENAME_NOREPLACE)
}

fn exchange(world: &mut World, random: &mut Random) -> io::Result<String> {
    rename_with(world, random, RenameFlags::RENAME_EXCHANGE)
}

fn link(world: &mut World, random: &mut Random) -> io::Result<String> {
    fs::hard_link(world.path(random), world.path(random)).map(done)
}

fn make_symlink(world: &mut World, random: &mut Random) -> io::Result<String> {
    // Downwards only: beside the two roots there are other things.
    let target = *random.pick(&["a", "b", "c/d", "nowhere", ".", "a/b/c"]);
    symlink(target, world.path(random)).map(done)
}

fn make_node(world: &mut World, random: &mut Random) -> io::Result<String> {
    let kinds = [SFlag::S_IFIFO, SFlag::S_IFSOCK, SFlag::S_IFCHR, SFlag::S_IFBLK];
    let kinds = if geteuid().is_root() { &kinds[..] } else { &kinds[..2] };
    let (path, kind) = (world.path(random), *random.pick(kinds));
    Ok(mknod(&path, kind, Mode::from_bits_truncate(0o640), makedev(1, random.below(300))).map(done)?)
}

fn unlink(world: &mut World, random: &mut Random) -> io::Result<String> {
    fs::remove_file(world.path(random)).map(done)
}

fn rmdir(world: &mut World, random: &mut Random) -> io::Result<String> {
    fs::remove_dir(world.path(random)).map(done)
}

fn chmod(world: &mut World, random: &mut Random) -> io::Result<String> {
    let modes =
        if geteuid().is_root() { &[0o600, 0o2777, 0o4711, 0o0, 0o6755][..] } else { &[0o700, 0o777, 0o744] };
    let mode = *random.pick(modes);
    fs::set_permissions(world.path(random), Permissions::from_mode(mode)).map(done)
}

fn chown(world: &mut World, random: &mut Random) -> io::Result<String> {
    let ids = [None, Some(0), Some(1000), Some(4_000_000_000)];
    let (path, uid, gid) = (world.path(random), *random.pick(&ids), *random.pick(&ids));
    lchown(path, uid, gid).map(done)
}

fn utimens(world: &mut World, random: &mut Random) -> io::Result<String> {
    let path = world.path(random);
    let secs = random.below(SET_BY_HAND as u64 + 100_000_000) as i64 - 100_000_000;
    let time = TimeSpec::new(secs, random.below(1_000_000_000) as i64);
    Ok(utimensat(AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink).map(done)?)
}

fn set_xattr(world: &mut World, random: &mut Random) -> io::Result<String> {
    let path = world.path(random);
    let len = random.below(60);
    xattr::set(
        path,
        *random.pick(&["user.a", "user.b", "trusted.c", "nonsense"]),
        &random.bytes(len as usize),
    )
    .map(done)
}

fn remove_xattr(world: &mut World, random: &mut Random) -> io::Result<String> {
    let path = world.path(random);
    xattr::remove(path, *random.pick(&["user.a", "user.b", "trusted.c"])).map(done)
}

fn allocate(world: &mut World, random: &mut Random) -> io::Result<String> {
    let flags = *random.pick(&[FallocateFlags::empty(), FallocateFlags::FALLOC_FL_KEEP_SIZE]);
    allocate_with(world, random, flags)
}

fn punch(world: &mut World, random: &mut Random) -> io::Result<String> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    allocate_with(world, random, flags)
}

fn zero(world: &mut World, random: &mut Random) -> io::Result<String> {
    let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE;
    let flags = *random.pick(&[zero, zero | FallocateFlags::FALLOC_FL_KEEP_SIZE]);
    allocate_with(world, random, flags)
}

fn allocate_with(world: &mut World, random: &mut Random, flags: FallocateFlags) -> io::Result<String> {
    let path = world.path(random);
    let (offset, len) = (random.below(OFFSET_MAX) as i64, random.below(LEN_MAX) as i64);
    let file = options(&path)?.open(path)?;
    Ok(fallocate(&file, flags, offset, len).map(done)?)
}

fn copy_range(world: &mut World, random: &mut Random) -> io::Result<String> {
    let (from, to) = (world.path(random), world.path(random));
    let (mut at, mut to_at) = (random.below(OFFSET_MAX / 2) as i64, random.below(OFFSET_MAX) as i64);
    let len = random.below(2 * LEN_MAX) as usize;
    let (from, to) = (options(&from)?.open(from)?, options(&to)?.create(true).open(to)?);
    Ok(copy_file_range(&from, Some(&mut at), &to, Some(&mut to_at), len)?.to_string())
}

fn open_handle(world: &mut World, random: &mut Random) -> io::Result<String> {
    let path = world.path(random);
    let file = options(&path)?.create(true).open(path)?;
    if world.handles.len() < HANDLES_MAX {
        world.handles.push(file);
    }
    Ok(world.handles.len().to_string())
}

fn write_handle(world: &mut World, random: &mut Random) -> io::Result<String> {
    let file = world.handle(random)?;
    let len = 1 + random.below(LEN_MAX);
    file.write_at(&random.bytes(len as usize), random.below(OFFSET_MAX)).map(|len| len.to_string())
}

fn read_handle(world: &mut World, random: &mut Random) -> io::Result<String> {
    let mut file = world.handle(random)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok("not a regular file".into());
    }
    let part = read_from(file, random)?;
    let mut whole = Vec::new();
    io::Seek::rewind(&mut file)?;
    file.read_to_end(&mut whole)?;
    let hash = xxhash_rust::xxh3::xxh3_64(&whole);
    Ok(format!("{part}; links {} size {} {hash:x}", meta.nlink(), meta.size()))
}

fn truncate_handle(world: &mut World, random: &mut Random) -> io::Result<String> {
    world.handle(random)?.set_len(random.below(OFFSET_MAX)).map(done)
}

fn close_handle(world: &mut World, random: &mut Random) -> io::Result<String> {
    let which = random.below(HANDLES_MAX as u64) as usize;
    if which < world.handles.len() {
        world.handles.remove(which);
    }
    Ok(world.handles.len().to_string())
}
