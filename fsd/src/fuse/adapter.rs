//! The kernel's requests: each handler converts, calls the engine, replies.

use std::{cell::RefCell, ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path, sync::Arc, time::SystemTime};

use cas::Kind;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::{
    attr::{TTL, attr, file_type, time},
    errno::{errno, report},
    requests::{Op, Requests},
};
use crate::session::{
    Allocate, Error, Found, NAME_BYTES_MAX, Name, New, Rename, Result, Seek, Session, SetAttrs, SetTime,
    SetXattr,
};

/// The largest READ and WRITE: what the kernel allows without raising fs.fuse.max_pages_limit.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background (readahead, above all).
const BACKGROUND_MAX: u16 = 64;
/// Offsets of listings below this are `.` and `..`; the engine's cookies of real entries are moved up by it.
const DOT_ENTRIES: u64 = 2;

/// One mount of one session.
#[derive(Debug)]
pub(super) struct Adapter {
    session: Arc<Session>,
    requests: Arc<Requests>,
}

thread_local! {
    /// What a READ is put together in. One for each thread that serves a mount, as large as its largest READ so far.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Adapter {
    pub(super) fn new(session: Arc<Session>, requests: Arc<Requests>) -> Adapter {
        Adapter { session, requests }
    }

    fn entry(&self, reply: ReplyEntry, op: &'static str, ino: INodeNo, made: Result<Found>) {
        match made {
            Ok(found) => reply.entry(&TTL, &attr(&self.session, &found), Generation(0)),
            Err(error) => reply.error(report(op, ino.0, &error)),
        }
    }

    fn make(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, rdev: u32) -> Result<Found> {
        let kind = Kind::from_mode(mode).ok_or(Error::Invalid("not a kind of file"))?;
        let new = New { kind, mode, uid: req.uid(), gid: req.gid(), rdev: rdev.into(), target: None };
        self.session.make(parent.0, &parse(name)?, new)
    }
}

fn parse(name: &OsStr) -> Result<Name> {
    Name::parse(name.as_bytes())
}

/// Whether an attribute's name is in one of Linux's namespaces. The kernel leaves that to file systems, see xattr(7).
fn is_in_namespace(name: &OsStr) -> bool {
    ["user.", "trusted.", "security.", "system."]
        .iter()
        .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}

fn empty(reply: ReplyEmpty, op: &'static str, ino: INodeNo, done: Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(report(op, ino.0, &error)),
    }
}

/// Replies to a request for an extended attribute, or for the list of them: a size of 0 asks how much there is.
fn xattr(reply: ReplyXattr, size: u32, value: Result<Vec<u8>>) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(error) => reply.error(errno(&error)),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Not ATOMIC_O_TRUNC: with zero-message open an open(O_TRUNC) would silently not truncate.
        let wanted = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_MAX_PAGES,
        ];
        for flag in wanted {
            // An old kernel lacks some; each only makes it faster.
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "not offered by this kernel");
            }
        }
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        let _ = config.set_max_readahead(REQUEST_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.requests.count(Op::lookup);
        match parse(name).and_then(|name| self.session.lookup(parent.0, &name)) {
            // Inode 0 with a lifetime: the kernel remembers that there is nothing. An error it would not remember.
            Err(Error::NotFound) => reply.entry(&TTL, &NOTHING, Generation(0)),
            found => self.entry(reply, "lookup", parent, found),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.requests.count(Op::forget);
        self.session.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.requests.count(Op::getattr);
        match self.session.stat(ino.0) {
            Ok(found) => reply.attr(&TTL, &attr(&self.session, &found)),
            Err(error) => reply.error(report("getattr", ino.0, &error)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.requests.count(Op::setattr);
        let moment = |set: TimeOrNow| match set {
            TimeOrNow::SpecificTime(at) => SetTime::At(time(at)),
            TimeOrNow::Now => SetTime::Now,
        };
        let set = SetAttrs { mode, uid, gid, size, atime: atime.map(moment), mtime: mtime.map(moment) };
        match self.session.set_attrs(ino.0, set) {
            Ok(found) => reply.attr(&TTL, &attr(&self.session, &found)),
            Err(error) => reply.error(report("setattr", ino.0, &error)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.requests.count(Op::readlink);
        match self.session.stat(ino.0).and_then(|found| found.target()) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(report("readlink", ino.0, &error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.requests.count(Op::mknod);
        self.entry(reply, "mknod", parent, self.make(req, parent, name, mode, rdev));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        self.requests.count(Op::mkdir);
        let mode = mode & 0o7777 | libc::S_IFDIR;
        self.entry(reply, "mkdir", parent, self.make(req, parent, name, mode, 0));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.requests.count(Op::unlink);
        empty(reply, "unlink", parent, parse(name).and_then(|name| self.session.unlink(parent.0, &name)));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.requests.count(Op::rmdir);
        empty(reply, "rmdir", parent, parse(name).and_then(|name| self.session.rmdir(parent.0, &name)));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.requests.count(Op::symlink);
        let target = Some(target.as_os_str().as_bytes().to_vec());
        let new = New { kind: Kind::Symlink, mode: 0o777, uid: req.uid(), gid: req.gid(), rdev: 0, target };
        let made = parse(name).and_then(|name| self.session.make(parent.0, &name, new));
        // symlink(2) knows no E2BIG.
        match made {
            Err(Error::TooLarge(_)) => reply.error(Errno::ENAMETOOLONG),
            made => self.entry(reply, "symlink", parent, made),
        }
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.requests.count(Op::rename);
        let how = match flags {
            flags if flags.is_empty() => Rename::Replace,
            RenameFlags::RENAME_NOREPLACE => Rename::NoReplace,
            RenameFlags::RENAME_EXCHANGE => Rename::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let done = parse(name).and_then(|name| {
            let to = parse(newname)?;
            self.session.rename(parent.0, &name, newparent.0, &to, how)
        });
        empty(reply, "rename", parent, done);
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.requests.count(Op::link);
        let made = parse(newname).and_then(|name| self.session.link(ino.0, newparent.0, &name));
        self.entry(reply, "link", ino, made);
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.requests.count(Op::open);
        // Zero-message open: the kernel sends no OPEN and no RELEASE from here on, and keeps its cache.
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.requests.count(Op::opendir);
        reply.error(Errno::ENOSYS);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        self.requests.count(Op::flush);
        // Every WRITE was recorded before it was answered, so a close has nothing to add.
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.requests.count(Op::read);
        BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match self.session.read(ino.0, offset, &mut buffer[..size]) {
                Ok(len) => reply.data(&buffer[..len]),
                Err(error) => reply.error(report("read", ino.0, &error)),
            }
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.requests.count(Op::write);
        match self.session.write(ino.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(report("write", ino.0, &error)),
        }
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.requests.count(Op::fsync);
        empty(reply, "fsync", ino, self.session.sync());
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.requests.count(Op::fsyncdir);
        empty(reply, "fsyncdir", ino, self.session.sync());
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.requests.count(Op::readdir);
        let dots = match self.session.stat(ino.0) {
            Ok(found) => [(found.ino, "."), (found.parent, "..")],
            Err(error) => return reply.error(report("readdir", ino.0, &error)),
        };
        for (at, (ino, name)) in dots.into_iter().enumerate().skip(offset.min(DOT_ENTRIES) as usize) {
            if reply.add(INodeNo(ino), at as u64 + 1, FileType::Directory, name) {
                return reply.ok();
            }
        }
        let cookie = offset.saturating_sub(DOT_ENTRIES);
        let listed = self.session.list(ino.0, cookie, false, &mut |name, found, next| {
            let name = OsStr::from_bytes(name);
            !reply.add(INodeNo(found.ino), next + DOT_ENTRIES, file_type(found.kind), name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(report("readdir", ino.0, &error)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.requests.count(Op::readdirplus);
        let found = match self.session.stat(ino.0) {
            Ok(found) => found,
            Err(error) => return reply.error(report("readdirplus", ino.0, &error)),
        };
        let dots = [(found.ino, "."), (found.parent, "..")];
        for (at, (ino, name)) in dots.into_iter().enumerate().skip(offset.min(DOT_ENTRIES) as usize) {
            // The kernel takes no attributes from these two and counts no lookup for them.
            let attr = fuser::FileAttr { ino: INodeNo(ino), ..attr(&self.session, &found) };
            if reply.add(INodeNo(ino), at as u64 + 1, name, &TTL, &attr, Generation(0)) {
                return reply.ok();
            }
        }
        let cookie = offset.saturating_sub(DOT_ENTRIES);
        let listed = self.session.list(ino.0, cookie, true, &mut |name, found, next| {
            let attr = attr(&self.session, found);
            let name = OsStr::from_bytes(name);
            !reply.add(attr.ino, next + DOT_ENTRIES, name, &TTL, &attr, Generation(0))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(report("readdirplus", ino.0, &error)),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.requests.count(Op::statfs);
        match self.session.space() {
            Ok(space) => {
                let block = 4096;
                let (total, free) = (space.total_bytes / block, space.free_bytes / block);
                let inodes = crate::session::INODES_MAX;
                reply.statfs(
                    total,
                    free,
                    free,
                    inodes,
                    inodes,
                    block as u32,
                    NAME_BYTES_MAX as u32,
                    block as u32,
                );
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.requests.count(Op::setxattr);
        if !is_in_namespace(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let how = match flags {
            0 => SetXattr::Any,
            libc::XATTR_CREATE => SetXattr::Create,
            libc::XATTR_REPLACE => SetXattr::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        empty(reply, "setxattr", ino, self.session.set_xattr(ino.0, name.as_bytes(), value, how));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.requests.count(Op::getxattr);
        if !is_in_namespace(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let value = self.session.xattrs(ino.0);
        let value = value.and_then(|mut all| all.remove(name.as_bytes()).ok_or(Error::NoAttribute));
        xattr(reply, size, value);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.requests.count(Op::listxattr);
        let names = self.session.xattrs(ino.0).map(|all| {
            all.into_keys().fold(Vec::new(), |mut names, name| {
                names.extend_from_slice(&name);
                names.push(0);
                names
            })
        });
        xattr(reply, size, names);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.requests.count(Op::removexattr);
        if !is_in_namespace(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        empty(reply, "removexattr", ino, self.session.remove_xattr(ino.0, name.as_bytes()));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        self.requests.count(Op::create);
        match self.make(req, parent, name, mode & 0o7777 | libc::S_IFREG, 0) {
            Ok(found) => {
                let attr = attr(&self.session, &found);
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(report("create", parent.0, &error)),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.requests.count(Op::fallocate);
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        const ZERO_KEEP: i32 = ZERO | KEEP;
        let how = match mode {
            0 => Allocate::Extend,
            KEEP => Allocate::KeepSize,
            PUNCH => Allocate::Punch,
            ZERO => Allocate::Zero { extend: true },
            ZERO_KEEP => Allocate::Zero { extend: false },
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        empty(reply, "fallocate", ino, self.session.allocate(ino.0, offset, length, how));
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.requests.count(Op::lseek);
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match self.session.seek(ino.0, offset, what) {
            Ok(at) => reply.offset(at as i64),
            Err(error) => reply.error(report("lseek", ino.0, &error)),
        }
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.requests.count(Op::copy_file_range);
        match self.session.copy_range(ino_in.0, offset_in, ino_out.0, offset_out, len) {
            Ok(copied) => reply.written(copied as u32),
            Err(error) => reply.error(report("copy_file_range", ino_out.0, &error)),
        }
    }
}

/// The entry that stands for a name that does not exist.
const NOTHING: fuser::FileAttr = fuser::FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};
