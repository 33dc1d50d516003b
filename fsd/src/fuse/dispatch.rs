//! From a request to its reply: converts, calls the engine, replies. One for each mount, whatever carries its requests.

use std::{ops::Range, sync::Arc};

use cas::{Kind, disk::Patience, remote::fetch::Ticket};
use fuser::Notifier;
use nix::errno::Errno;

use super::{
    abi::{self, fattr},
    ahead::Follower,
    attr::{attr_out, entry, nothing},
    errno::report,
    notices::Notices,
    parking::Parked,
    passthrough::Passthrough,
    relisting::Relisting,
    reply::{Answer, Listing, Reply},
    request::{Operation, Request},
    requests::{Op, Requests},
};
use crate::session::{
    Allocate, Error, Found, NAME_BYTES_MAX, Name, New, Rename, Result, Seek, Session, SetAttrs, SetTime,
    SetXattr, Writer,
};

/// Offsets of listings below this are `.` and `..`; the engine's cookies of real entries are moved up by it.
const DOT_ENTRIES: u64 = 2;
/// The unit of statfs(2).
const STATFS_BLOCK_BYTES: u32 = 4096;

/// One mount of one session.
#[derive(Debug)]
pub(super) struct Dispatch {
    session: Arc<Session>,
    requests: Arc<Requests>,
    relisting: Relisting,
    notices: Option<(Notices, Notifier)>,
    follower: Option<Arc<Follower>>,
    passthrough: Option<Passthrough>,
    has_xattrs: bool,
    parked: Parked,
}

/// Whom a request is made for, and on what.
#[derive(Clone, Copy, Debug)]
struct Caller {
    ino: u64,
    uid: u32,
    gid: u32,
    pid: u32,
}

impl Caller {
    /// For requests that do not say whether the caller may keep set-ID bits.
    fn writer(self) -> Writer {
        if self.uid == 0 { Writer::Privileged } else { Writer::Ordinary }
    }
}

/// Why a request fails: what the engine says, or what has no meaning to it.
enum Failure {
    Engine(Error),
    Errno(Errno),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Engine(error)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Errno(errno)
    }
}

type Outcome = std::result::Result<Answer, Failure>;

impl Dispatch {
    /// Answers the requests of a mount of `session`.
    pub fn new(session: Arc<Session>, requests: Arc<Requests>) -> Dispatch {
        Dispatch {
            session,
            requests,
            relisting: Relisting::default(),
            notices: None,
            follower: None,
            passthrough: None,
            has_xattrs: true,
            parked: Parked::default(),
        }
    }

    /// Whether requests may have to wait for objects of a remote store.
    pub fn may_fetch(&self) -> bool {
        self.session.store().has_remote()
    }

    /// Its requests that wait for objects of the remote store.
    pub fn parked(&self) -> &Parked {
        &self.parked
    }

    /// The same, telling the kernel when it should list a directory anew.
    pub fn with_notices(self, notices: Notices, notifier: Notifier) -> Dispatch {
        Dispatch { notices: Some((notices, notifier)), ..self }
    }

    /// The same, with somebody who reads ahead of scans.
    pub fn with_follower(self, follower: Arc<Follower>) -> Dispatch {
        Dispatch { follower: Some(follower), ..self }
    }

    /// The same, with the kernel reading large files by itself.
    pub fn with_passthrough(self, passthrough: Passthrough) -> Dispatch {
        Dispatch { passthrough: Some(passthrough), ..self }
    }

    /// The same, as a file system without extended attributes.
    pub fn without_xattrs(self) -> Dispatch {
        Dispatch { has_xattrs: false, ..self }
    }

    /// Carries a request out and puts its reply together in `buffer`. Who does not wait is told `Later` of a read, and of an open,
    /// that has to.
    pub fn answer(&self, request: &Request<'_>, patience: Patience, buffer: &mut [u8]) -> Answer {
        if let (Patience::Now, Operation::Read { offset, size }) = (patience, &request.operation) {
            return self.read_now(request, *offset, *size, buffer);
        }
        let abi::InHeader { nodeid: ino, uid, gid, pid, .. } = request.header;
        let caller = Caller { ino, uid, gid, pid };
        let outcome = self.carry_out(caller, patience, &request.operation, &mut Reply::new(buffer));
        let outcome = match outcome {
            Ok(Answer::Later) => return Answer::Later,
            Err(Failure::Engine(error)) => match self.fetch(&error) {
                Some(ticket) => return Answer::Fetching(ticket),
                None => Err(Failure::Engine(error)),
            },
            outcome => outcome,
        };
        let name = self.count(&request.operation);
        match outcome {
            Ok(answer) => answer,
            Err(Failure::Errno(errno)) => Answer::Failed(errno),
            Err(Failure::Engine(error)) => Answer::Failed(report(name, caller.ino, &error)),
        }
    }

    /// A read that is counted when it is carried out, by whomever.
    fn read_now(&self, request: &Request<'_>, offset: u64, size: u32, buffer: &mut [u8]) -> Answer {
        let ino = request.header.nodeid;
        let size = buffer.len().min(size as usize);
        let read = self.session.read_now(ino, offset, &mut buffer[..size]);
        match &read {
            Ok(None) => return Answer::Later,
            Err(error) if let Some(ticket) = self.fetch(error) => return Answer::Fetching(ticket),
            Ok(Some(_)) | Err(_) => {}
        }
        let name = self.count(&request.operation);
        if offset == 0 {
            self.reading(ino, request.header.pid);
        }
        match read {
            Ok(len) => {
                let len = len.unwrap_or_default();
                self.accessed(request.header.pid, ino, Some(offset..offset.saturating_add(len as u64)));
                Answer::Done(len)
            }
            Err(error) => Answer::Failed(report(name, ino, &error)),
        }
    }

    /// Has what is missing fetched, if that is all that is wrong.
    fn fetch(&self, error: &Error) -> Option<Ticket> {
        match *error {
            Error::Store(cas::Error::Absent { kind, digest }) => self.session.store().fetch(kind, digest),
            _ => None,
        }
    }

    /// One more of this operation; its name.
    fn count(&self, operation: &Operation<'_>) -> &'static str {
        let Some(op) = Op::of(operation) else { return "unknown" };
        self.requests.count(op);
        op.name()
    }

    fn carry_out(
        &self,
        caller: Caller,
        patience: Patience,
        operation: &Operation<'_>,
        reply: &mut Reply<'_>,
    ) -> Outcome {
        let (session, ino) = (&self.session, caller.ino);
        // Root may make a read-only mount writable (`mount -o remount,rw`); what is passed through must not change.
        if self.passthrough.is_some() && operation.is_change() {
            return Err(Errno::EROFS.into());
        }
        match *operation {
            Operation::Lookup { name } => self.lookup(caller, name, reply),
            Operation::Forget { count } => {
                session.forget(ino, count);
                Ok(Answer::None)
            }
            Operation::BatchForget { forgets } => self.forget_all_of(forgets),
            Operation::Getattr => Ok(self.attrs(reply, &session.stat(ino)?)),
            Operation::Setattr(set) => Ok(self.attrs(reply, &session.set_attrs(ino, set_attrs(&set)?)?)),
            Operation::Readlink => Ok(reply.bytes(&session.stat(ino)?.target()?)),
            Operation::Symlink { name, target } => self.symlink(caller, name, target, reply),
            Operation::Mknod { mode, umask, rdev, name } => {
                let made = self.make(caller, name, New { rdev: rdev.into(), ..new(caller, mode, umask)? });
                Ok(self.entry(reply, &made?))
            }
            Operation::Mkdir { mode, umask, name } => {
                let new = new(caller, mode & 0o7777 | libc::S_IFDIR, umask)?;
                Ok(self.entry(reply, &self.make(caller, name, new)?))
            }
            Operation::Create { mode, umask, name } => {
                let new = new(caller, mode & 0o7777 | libc::S_IFREG, umask)?;
                Ok(self.opened(reply, &self.make(caller, name, new)?))
            }
            Operation::Tmpfile { mode, umask } => {
                let new = new(caller, mode & 0o7777 | libc::S_IFREG, umask)?;
                Ok(self.opened(reply, &session.make_unnamed(ino, new)?))
            }
            Operation::Unlink { name } => {
                session.unlink(ino, &Name::parse(name)?)?;
                Ok(reply.done())
            }
            Operation::Rmdir { name } => {
                session.rmdir(ino, &Name::parse(name)?)?;
                Ok(reply.done())
            }
            Operation::Rename { name, new_dir, new_name, flags } => {
                let (name, new_name) = (Name::parse(name)?, Name::parse(new_name)?);
                session.rename(ino, &name, new_dir, &new_name, how_to_rename(flags)?)?;
                Ok(reply.done())
            }
            Operation::Link { ino: file, name } => {
                Ok(self.entry(reply, &session.link(file, ino, &Name::parse(name)?)?))
            }
            Operation::Open { flags } if let Some(passthrough) = &self.passthrough => match patience {
                _ if flags as i32 & libc::O_ACCMODE != libc::O_RDONLY => Err(Errno::EROFS.into()),
                Patience::Waits => Ok(reply.put(&passthrough.open(ino)?)),
                Patience::Now => {
                    Ok(passthrough.open_now(ino)?.map_or(Answer::Later, |open| reply.put(&open)))
                }
            },
            Operation::Release => {
                self.passthrough.iter().for_each(|passthrough| passthrough.release(ino));
                Ok(reply.done())
            }
            // Zero-message open: the kernel sends no OPEN and no RELEASE from here on, and keeps its cache. Nor a FLUSH:
            // every WRITE was recorded before it was answered, so a close has nothing to add. Interrupts come too late
            // for requests that are carried out at once; others there are only where something may have to be fetched.
            Operation::Interrupt { unique } if self.may_fetch() => {
                self.parked.interrupt(unique);
                Ok(Answer::None)
            }
            Operation::Open { .. } | Operation::Opendir | Operation::Flush | Operation::Interrupt { .. } => {
                Err(Errno::ENOSYS.into())
            }
            Operation::Read { offset, size } => {
                let read = reply.fill(size as usize, |buffer| session.read(ino, offset, buffer))?;
                if offset == 0 {
                    self.reading(ino, caller.pid);
                }
                self.accessed(caller.pid, ino, Some(offset..offset.saturating_add(size.into())));
                Ok(read)
            }
            Operation::Write { offset, data, drops_set_ids } => {
                let by = if drops_set_ids { Writer::Ordinary } else { Writer::Privileged };
                session.write_as(by, ino, offset, data)?;
                Ok(reply.put(&abi::WriteOut { size: data.len() as u32, ..Default::default() }))
            }
            Operation::Fsync | Operation::Fsyncdir | Operation::Syncfs => {
                session.sync()?;
                Ok(reply.done())
            }
            Operation::Readdir { offset, size } => {
                self.list(caller, offset, false, Listing::new(reply, size))
            }
            Operation::Readdirplus { offset, size } => {
                self.list(caller, offset, true, Listing::new(reply, size))
            }
            Operation::Statfs => self.statfs(reply),
            // The kernel does not ask again: it tells everybody that this is not supported.
            Operation::Setxattr { .. }
            | Operation::Getxattr { .. }
            | Operation::Listxattr { .. }
            | Operation::Removexattr { .. }
                if !self.has_xattrs =>
            {
                Err(Errno::ENOSYS.into())
            }
            Operation::Setxattr { name, value, flags, drops_set_gid } => {
                let (name, how) = (in_namespace(name)?, how_to_set(flags)?);
                let by = if drops_set_gid { Writer::Ordinary } else { Writer::Privileged };
                session.set_xattr_as(by, ino, name, value, how)?;
                Ok(reply.done())
            }
            Operation::Getxattr { name, size } => {
                let name = in_namespace(name)?;
                let value = session.xattrs(ino)?.remove(name).ok_or(Error::NoAttribute)?;
                sized(reply, size, &value)
            }
            Operation::Listxattr { size } => {
                let names: Vec<_> = session.xattrs(ino)?.into_keys().collect();
                let list: Vec<u8> = names.iter().flat_map(|name| name.iter().chain(&[0])).copied().collect();
                sized(reply, size, &list)
            }
            Operation::Removexattr { name } => {
                session.remove_xattr(ino, in_namespace(name)?)?;
                Ok(reply.done())
            }
            Operation::Fallocate { offset, len, mode } => {
                session.allocate(caller.writer(), ino, offset, len, how_to_allocate(mode)?)?;
                Ok(reply.done())
            }
            Operation::Lseek { offset, whence } => {
                let offset = session.seek(ino, offset, what_to_seek(whence)?)?;
                Ok(reply.put(&abi::LseekOut { offset }))
            }
            Operation::CopyFileRange(copy) => {
                let (from, to) = ((ino, copy.offset_in), (copy.ino_out, copy.offset_out));
                let copied = session.copy_range(caller.writer(), from, to, copy.len)?;
                self.accessed(caller.pid, ino, Some(copy.offset_in..copy.offset_in.saturating_add(copied)));
                Ok(reply.put(&abi::WriteOut { size: copied as u32, ..Default::default() }))
            }
            Operation::Destroy => Ok(reply.done()),
            Operation::Unknown => Err(Errno::ENOSYS.into()),
        }
    }

    fn entry(&self, reply: &mut Reply<'_>, found: &Found) -> Answer {
        reply.put(&entry(&self.session, found))
    }

    fn opened(&self, reply: &mut Reply<'_>, found: &Found) -> Answer {
        reply.put(&entry(&self.session, found));
        reply.put(&abi::OpenOut { open_flags: abi::FOPEN_KEEP_CACHE, ..Default::default() })
    }

    fn attrs(&self, reply: &mut Reply<'_>, found: &Found) -> Answer {
        reply.put(&attr_out(&self.session, found))
    }

    fn lookup(&self, caller: Caller, name: &[u8], reply: &mut Reply<'_>) -> Outcome {
        let found = match self.session.lookup(caller.ino, &Name::parse(name)?) {
            Err(Error::NotFound) => None,
            found => Some(found?),
        };
        self.accessed(caller.pid, caller.ino, None);
        Ok(match found {
            Some(found) => self.entry(reply, &found),
            None => reply.put(&nothing()),
        })
    }

    fn forget_all_of(&self, forgets: &[u8]) -> Outcome {
        use zerocopy::FromBytes;
        for forget in forgets.chunks_exact(size_of::<abi::ForgetOne>()) {
            if let Ok(abi::ForgetOne { nodeid, count }) = abi::ForgetOne::read_from_bytes(forget) {
                self.session.forget(nodeid, count);
            }
        }
        Ok(Answer::None)
    }

    fn make(&self, caller: Caller, name: &[u8], new: New) -> Result<Found> {
        self.session.make(caller.ino, &Name::parse(name)?, new)
    }

    fn symlink(&self, caller: Caller, name: &[u8], target: &[u8], reply: &mut Reply<'_>) -> Outcome {
        let new = New { target: Some(target.to_vec()), ..new(caller, libc::S_IFLNK | 0o777, 0)? };
        match self.make(caller, name, new) {
            // symlink(2) knows no E2BIG.
            Err(Error::TooLarge(_)) => Err(Errno::ENAMETOOLONG.into()),
            made => Ok(self.entry(reply, &made?)),
        }
    }

    /// READDIR, and with attributes READDIRPLUS. What the session cannot list any further for lack of room is asked for later.
    fn list(&self, caller: Caller, offset: u64, with_attrs: bool, mut listing: Listing<'_, '_>) -> Outcome {
        let ino = caller.ino;
        let found = self.session.stat(ino)?;
        let dots = [(found.ino, &b"."[..]), (found.parent, b"..")];
        for (at, (dot, name)) in dots.into_iter().enumerate().skip(offset.min(DOT_ENTRIES) as usize) {
            // The kernel takes no attributes from these two and counts no lookup for them: inode 0 says that there are none.
            let entry = with_attrs.then(abi::EntryOut::default);
            if !listing.add(entry.as_ref(), dot, at as u64 + 1, Kind::Dir, name) {
                return Ok(listing.done());
            }
        }
        let cookie = offset.saturating_sub(DOT_ENTRIES);
        let mut entries = 0;
        let listed = self.session.list(ino, cookie, with_attrs, &mut |name, found, next| {
            let entry = with_attrs.then(|| entry(&self.session, found));
            let added = listing.add(entry.as_ref(), found.ino, next + DOT_ENTRIES, found.kind, name);
            entries += u32::from(added);
            added
        });
        match listed {
            // The kernel knows those by now, and asks for the rest.
            Err(Error::Store(cas::Error::Absent { .. })) if entries > 0 => {}
            listed => listed?,
        }
        if self.watches_reads() {
            self.relisting.listed(ino, offset, entries);
        }
        self.accessed(caller.pid, ino, None);
        Ok(listing.done())
    }

    /// Whether anybody wants to know what is listed and read.
    fn watches_reads(&self) -> bool {
        self.notices.is_some() || self.follower.is_some()
    }

    /// The kernel begins to read a file, for this process.
    fn reading(&self, ino: u64, pid: u32) {
        if !self.watches_reads() {
            return;
        }
        let worn = self.session.known.parent(ino).filter(|dir| self.relisting.read(*dir));
        if let (Some((notices, notifier)), Some(dir)) = (&self.notices, worn) {
            notices.drop_listing(notifier, dir);
        }
        if let Some(follower) = &self.follower {
            follower.read(ino, pid, worn);
        }
    }

    /// A process has read something of a file, or has looked into a directory. What the reader ahead reads does not count: it tells of that itself.
    fn accessed(&self, pid: u32, ino: u64, range: Option<Range<u64>>) {
        let Some(accesses) = self.session.accesses() else { return };
        if self.follower.as_ref().is_some_and(|follower| follower.is_reader(pid)) {
            return;
        }
        match range {
            Some(range) => accesses.add_file(ino, range),
            None => accesses.add_dir(ino),
        }
    }

    fn statfs(&self, reply: &mut Reply<'_>) -> Outcome {
        let space = self.session.space()?;
        let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
        let inodes = crate::session::INODES_MAX;
        Ok(reply.put(&abi::StatfsOut {
            blocks: blocks(space.total_bytes),
            free: blocks(space.free_bytes),
            available: blocks(space.free_bytes),
            files: inodes,
            files_free: inodes,
            block_bytes: STATFS_BLOCK_BYTES,
            name_bytes: NAME_BYTES_MAX as u32,
            fragment_bytes: STATFS_BLOCK_BYTES,
            ..Default::default()
        }))
    }
}

fn new(caller: Caller, mode: u32, umask: u32) -> Result<New> {
    let kind = Kind::from_mode(mode).ok_or(Error::Invalid("not a kind of file"))?;
    Ok(New { kind, mode, umask, uid: caller.uid, gid: caller.gid, rdev: 0, target: None })
}

fn set_attrs(set: &abi::SetattrIn) -> std::result::Result<SetAttrs, Errno> {
    let when = |flag: u32| set.valid & flag != 0;
    let moment = |given: u32, now: u32, secs: i64, nanos: u32| match (when(given), when(now)) {
        (false, _) => Ok(None),
        (true, true) => Ok(Some(SetTime::Now)),
        (true, false) => {
            let time = cas::Time { secs, nanos };
            if time.is_valid() { Ok(Some(SetTime::At(time))) } else { Err(Errno::EINVAL) }
        }
    };
    Ok(SetAttrs {
        mode: when(fattr::MODE).then_some(set.mode),
        uid: when(fattr::UID).then_some(set.uid),
        gid: when(fattr::GID).then_some(set.gid),
        size: when(fattr::SIZE).then_some(set.size),
        atime: moment(fattr::ATIME, fattr::ATIME_NOW, set.atime, set.atime_nanos)?,
        mtime: moment(fattr::MTIME, fattr::MTIME_NOW, set.mtime, set.mtime_nanos)?,
        by: if when(fattr::KILL_SUIDGID) { Writer::Ordinary } else { Writer::Privileged },
    })
}

fn how_to_rename(flags: u32) -> std::result::Result<Rename, Errno> {
    match flags {
        0 => Ok(Rename::Replace),
        libc::RENAME_NOREPLACE => Ok(Rename::NoReplace),
        libc::RENAME_EXCHANGE => Ok(Rename::Exchange),
        _ => Err(Errno::EINVAL),
    }
}

fn how_to_set(flags: u32) -> std::result::Result<SetXattr, Errno> {
    match flags as i32 {
        0 => Ok(SetXattr::Any),
        libc::XATTR_CREATE => Ok(SetXattr::Create),
        libc::XATTR_REPLACE => Ok(SetXattr::Replace),
        _ => Err(Errno::EINVAL),
    }
}

fn how_to_allocate(mode: u32) -> std::result::Result<Allocate, Errno> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode as i32 {
        0 => Ok(Allocate::Extend),
        KEEP => Ok(Allocate::KeepSize),
        PUNCH => Ok(Allocate::Punch),
        ZERO => Ok(Allocate::Zero { extend: true }),
        ZERO_KEEP => Ok(Allocate::Zero { extend: false }),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

fn what_to_seek(whence: u32) -> std::result::Result<Seek, Errno> {
    match whence as i32 {
        libc::SEEK_DATA => Ok(Seek::Data),
        libc::SEEK_HOLE => Ok(Seek::Hole),
        _ => Err(Errno::EINVAL),
    }
}

/// The name of an attribute, if it is in one of Linux's namespaces. The kernel leaves that to file systems, see xattr(7).
fn in_namespace(name: &[u8]) -> std::result::Result<&[u8], Errno> {
    let known = ["user.", "trusted.", "security.", "system."];
    let is_known = known.iter().any(|prefix| name.starts_with(prefix.as_bytes()));
    if is_known { Ok(name) } else { Err(Errno::EOPNOTSUPP) }
}

/// An extended attribute, or the list of them: a size of 0 asks how much there is.
fn sized(reply: &mut Reply<'_>, size: u32, value: &[u8]) -> Outcome {
    match size as usize {
        0 => Ok(reply.put(&abi::GetxattrIn { size: value.len() as u32, ..Default::default() })),
        room if value.len() <= room => Ok(reply.bytes(value)),
        _ => Err(Errno::ERANGE.into()),
    }
}
