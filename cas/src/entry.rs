//! What a directory says of one name. Plain values; their bytes are dir.rs's business.

use crate::Digest;

/// The type of a file. The numbers are those of `d_type` in dirent.h and stand in dir objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A named pipe.
    Fifo = 1,
    /// A character device.
    CharDevice = 2,
    /// A directory.
    Dir = 4,
    /// A block device.
    BlockDevice = 6,
    /// A regular file.
    File = 8,
    /// A symbolic link.
    Symlink = 10,
    /// A unix socket.
    Socket = 12,
}

impl Kind {
    /// The kind with this `d_type`, if there is one.
    pub fn from_u8(value: u8) -> Option<Kind> {
        Some(match value {
            1 => Kind::Fifo,
            2 => Kind::CharDevice,
            4 => Kind::Dir,
            6 => Kind::BlockDevice,
            8 => Kind::File,
            10 => Kind::Symlink,
            12 => Kind::Socket,
            _ => return None,
        })
    }

    /// The kind that the `S_IFMT` bits of `mode` name.
    pub fn from_mode(mode: u32) -> Option<Kind> {
        Kind::from_u8(((mode & libc::S_IFMT) >> 12) as u8)
    }

    /// The `S_IFMT` bits of this kind.
    pub fn mode_bits(self) -> u32 {
        (self as u32) << 12
    }
}

/// A point in time: seconds since 1970 (negative before it) and nanoseconds below a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970-01-01 UTC.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl Time {
    /// Whether the nanoseconds are below a second.
    pub fn is_valid(&self) -> bool {
        self.nanos < 1_000_000_000
    }
}

/// Attributes that every kind has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attrs {
    /// Permission, set-id and sticky bits: `mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of the inode within the tree; for a directory 2 and one for each subdirectory.
    pub nlink: u32,
    /// Device number as `st_rdev` has it; 0 for all but devices.
    pub rdev: u64,
    /// Bytes of a file or of a symlink's target; 0 for the rest.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
}

/// Where a regular file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// No bytes at all.
    Empty,
    /// The whole file is this chunk.
    Chunk(Digest),
    /// The chunk list with this digest (see blob.rs).
    List(Digest),
}

/// What a name stands for, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// A regular file.
    File(Content),
    /// A directory: the digest of its dir object.
    Dir(Digest),
    /// A symlink: its target.
    Symlink(&'a [u8]),
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
    /// A character device; its number is in the attributes.
    CharDevice,
    /// A block device; its number is in the attributes.
    BlockDevice,
}

impl Node<'_> {
    /// The kind of this node.
    pub fn kind(&self) -> Kind {
        match self {
            Node::File(_) => Kind::File,
            Node::Dir(_) => Kind::Dir,
            Node::Symlink(_) => Kind::Symlink,
            Node::Fifo => Kind::Fifo,
            Node::Socket => Kind::Socket,
            Node::CharDevice => Kind::CharDevice,
            Node::BlockDevice => Kind::BlockDevice,
        }
    }
}

/// One name of a directory, borrowed from the object that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
    pub name: &'a [u8],
    /// The inode number, 2 or more and below 2^63.
    pub ino: u64,
    /// Its attributes.
    pub attrs: Attrs,
    /// Its kind and content.
    pub node: Node<'a>,
    /// The digest of its extended attributes (xattrs.rs), if it has any.
    pub xattrs: Option<Digest>,
}
