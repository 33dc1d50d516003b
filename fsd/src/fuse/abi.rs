//! The kernel's side of the protocol: opcodes, structs, flags, in the machine's byte order.
//!
//! Source of all of it: `include/uapi/linux/fuse.h`, protocol 7.42. The names are the header's without their prefixes. Fields
//! that nothing here reads are `_`-named gaps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a request asks for (`enum fuse_opcode`).
pub(super) mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
}

/// Which fields of a `SetattrIn` count (`FATTR_*`).
pub(super) mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// In `ReadIn::flags` of a WRITE: the writer may not keep set-ID bits (`FUSE_WRITE_KILL_SUIDGID`).
pub(super) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// In `SetxattrExtIn::setxattr_flags`: the caller may not keep the set-group-ID bit (`FUSE_SETXATTR_ACL_KILL_SGID`).
pub(super) const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// In `OpenOut::open_flags`: what the kernel has of the file's bytes stays good (`FOPEN_KEEP_CACHE`).
pub(super) const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// There, too: the kernel reads the backing file that is named (`FOPEN_PASSTHROUGH`).
pub(super) const FOPEN_PASSTHROUGH: u32 = 1 << 7;

/// What a command to the device through a ring asks for (`enum fuse_uring_cmd`).
pub(super) mod ring_command {
    /// Here is memory for requests of a queue.
    pub const REGISTER: u32 = 1;
    /// Here is a reply, and its memory is free for the next request.
    pub const COMMIT_AND_FETCH: u32 = 2;
}

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident $bytes:literal { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(super) struct $name { $(pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    )*};
}

wire! {
    /// In front of every request.
    InHeader 40 {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, ext_words: u16, _padding: u16,
    }
    /// In front of every reply; `error` is 0 or a negative errno.
    OutHeader 16 { len: u32, error: i32, unique: u64 }
    /// Attributes of an inode.
    Attr 88 {
        ino: u64, size: u64, blocks: u64, atime: i64, mtime: i64, ctime: i64, atime_nanos: u32, mtime_nanos: u32,
        ctime_nanos: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, block_bytes: u32, flags: u32,
    }
    /// A name and what it stands for; times in seconds and nanoseconds.
    EntryOut 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nanos: u32,
        attr_valid_nanos: u32, attr: Attr,
    }
    /// Answers GETATTR and SETATTR.
    AttrOut 104 { valid: u64, valid_nanos: u32, _dummy: u32, attr: Attr }
    ForgetIn 8 { count: u64 }
    BatchForgetIn 8 { count: u32, _dummy: u32 }
    ForgetOne 16 { nodeid: u64, count: u64 }
    GetattrIn 16 { _flags: u32, _dummy: u32, _fh: u64 }
    SetattrIn 88 {
        valid: u32, _padding: u32, _fh: u64, size: u64, _lock_owner: u64, atime: i64, mtime: i64, _ctime: i64,
        atime_nanos: u32, mtime_nanos: u32, _ctime_nanos: u32, mode: u32, _unused4: u32, uid: u32, gid: u32,
        _unused5: u32,
    }
    MknodIn 16 { mode: u32, rdev: u32, umask: u32, _padding: u32 }
    MkdirIn 8 { mode: u32, umask: u32 }
    RenameIn 8 { new_dir: u64 }
    Rename2In 16 { new_dir: u64, flags: u32, _padding: u32 }
    LinkIn 8 { ino: u64 }
    /// Of CREATE and TMPFILE.
    CreateIn 16 { _flags: u32, mode: u32, umask: u32, _open_flags: u32 }
    OpenIn 8 { flags: u32, _open_flags: u32 }
    OpenOut 16 { fh: u64, open_flags: u32, backing_id: i32 }
    /// Of READ, READDIR, READDIRPLUS and WRITE.
    ReadIn 40 {
        _fh: u64, offset: u64, size: u32, flags: u32, _lock_owner: u64, _open_flags: u32, _padding: u32,
    }
    /// Answers WRITE and COPY_FILE_RANGE.
    WriteOut 8 { size: u32, _padding: u32 }
    FsyncIn 16 { _fh: u64, _flags: u32, _padding: u32 }
    ReleaseIn 24 { _fh: u64, _flags: u32, _release_flags: u32, _lock_owner: u64 }
    FlushIn 24 { _fh: u64, _unused: u32, _padding: u32, _lock_owner: u64 }
    /// Without `FUSE_SETXATTR_EXT`.
    SetxattrIn 8 { size: u32, flags: u32 }
    /// With it.
    SetxattrExtIn 16 { size: u32, flags: u32, setxattr_flags: u32, _padding: u32 }
    /// Of GETXATTR and LISTXATTR, and what answers them when `size` is 0.
    GetxattrIn 8 { size: u32, _padding: u32 }
    FallocateIn 32 { _fh: u64, offset: u64, len: u64, mode: u32, _padding: u32 }
    LseekIn 24 { _fh: u64, offset: u64, whence: u32, _padding: u32 }
    LseekOut 8 { offset: u64 }
    CopyFileRangeIn 56 {
        _fh_in: u64, offset_in: u64, ino_out: u64, _fh_out: u64, offset_out: u64, len: u64, flags: u64,
    }
    StatfsOut 80 {
        blocks: u64, free: u64, available: u64, files: u64, files_free: u64, block_bytes: u32, name_bytes: u32,
        fragment_bytes: u32, _padding: u32, _spare: [u32; 6],
    }
    /// A request that comes through a ring (`struct fuse_uring_req_header`): its [`InHeader`], in place of which the reply's
    /// [`OutHeader`] goes back; the first of its arguments, if that has a fixed size; and what is about the exchange itself.
    /// The other arguments are the payload.
    RingHeader 288 { in_out: [u64; 16], fixed: [u64; 16], exchange: RingExchange }
    /// `struct fuse_uring_ent_in_out`.
    RingExchange 32 { _flags: u64, commit_id: u64, payload_bytes: u32, _padding: u32, _reserved: u64 }
    /// What a command of [`ring_command`] says behind the submission's own fields (`struct fuse_uring_cmd_req`).
    RingCommand 24 { _flags: u64, commit_id: u64, queue: u16, _padding: [u16; 3] }
    /// In front of a name in a listing, which is padded to 8 bytes.
    Dirent 24 { ino: u64, next: u64, name_bytes: u32, kind: u32 }
}
