//! A request of the kernel as a value. Strict: what does not have exactly the form of its opcode is an error, so nothing behind
//! this looks at lengths or zero bytes again. Pure.

use zerocopy::FromBytes;

use super::abi::{self, InHeader, opcode};

/// A request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub header: InHeader,
    pub operation: Operation<'a>,
}

/// What it asks for. Names and values are the kernel's, without their zero bytes.
#[derive(Debug)]
pub(super) enum Operation<'a> {
    Lookup {
        name: &'a [u8],
    },
    Forget {
        count: u64,
    },
    BatchForget {
        forgets: &'a [u8],
    },
    Getattr,
    Setattr(abi::SetattrIn),
    Readlink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    Mknod {
        mode: u32,
        umask: u32,
        rdev: u32,
        name: &'a [u8],
    },
    Mkdir {
        mode: u32,
        umask: u32,
        name: &'a [u8],
    },
    Unlink {
        name: &'a [u8],
    },
    Rmdir {
        name: &'a [u8],
    },
    Rename {
        name: &'a [u8],
        new_dir: u64,
        new_name: &'a [u8],
        flags: u32,
    },
    Link {
        ino: u64,
        name: &'a [u8],
    },
    Open {
        flags: u32,
    },
    Read {
        offset: u64,
        size: u32,
    },
    Write {
        offset: u64,
        data: &'a [u8],
        drops_set_ids: bool,
    },
    Statfs,
    Fsync,
    Setxattr {
        name: &'a [u8],
        value: &'a [u8],
        flags: u32,
        drops_set_gid: bool,
    },
    Getxattr {
        name: &'a [u8],
        size: u32,
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: &'a [u8],
    },
    Release,
    Flush,
    Opendir,
    Readdir {
        offset: u64,
        size: u32,
    },
    Readdirplus {
        offset: u64,
        size: u32,
    },
    Fsyncdir,
    Create {
        mode: u32,
        umask: u32,
        name: &'a [u8],
    },
    Tmpfile {
        mode: u32,
        umask: u32,
    },
    /// A signal reached who waits for the request of this number.
    Interrupt {
        unique: u64,
    },
    Destroy,
    Fallocate {
        offset: u64,
        len: u64,
        mode: u32,
    },
    Lseek {
        offset: u64,
        whence: u32,
    },
    CopyFileRange(abi::CopyFileRangeIn),
    Syncfs,
    /// One that this daemon does not know.
    Unknown,
}

impl<'a> Request<'a> {
    /// The request that `bytes`, one read of the device, are. With `setxattr_ext` SETXATTR has the longer form that INIT
    /// agreed on. The error, for what is not what its opcode says, is its header if that much is there: it can be answered.
    pub fn parse(bytes: &'a [u8], setxattr_ext: bool) -> Result<Request<'a>, Option<InHeader>> {
        let (header, body) = InHeader::read_from_prefix(bytes).map_err(|_| None)?;
        Request::of_parts(header, body, &[], setxattr_ext).map_err(Some)
    }

    /// The request with this header and these arguments. A ring hands over the `first` one apart from the `others`. Error: the
    /// header, for what is not what its opcode says.
    pub fn of_parts(
        header: InHeader,
        first: &'a [u8],
        others: &'a [u8],
        setxattr_ext: bool,
    ) -> Result<Request<'a>, InHeader> {
        let is_whole = header.len as usize == size_of::<InHeader>() + first.len() + others.len();
        let body = is_whole.then_some(Body { first, others });
        let body = body.and_then(|body| body.without_end(usize::from(header.ext_words) * 8));
        let operation = body.and_then(|body| Operation::parse(header.opcode, body, setxattr_ext));
        Ok(Request { header, operation: operation.ok_or(header)? })
    }
}

impl<'a> Operation<'a> {
    /// Whether it changes what others see.
    pub fn is_change(&self) -> bool {
        matches!(
            self,
            Operation::Setattr(_)
                | Operation::Symlink { .. }
                | Operation::Mknod { .. }
                | Operation::Mkdir { .. }
                | Operation::Unlink { .. }
                | Operation::Rmdir { .. }
                | Operation::Rename { .. }
                | Operation::Link { .. }
                | Operation::Write { .. }
                | Operation::Setxattr { .. }
                | Operation::Removexattr { .. }
                | Operation::Create { .. }
                | Operation::Tmpfile { .. }
                | Operation::Fallocate { .. }
                | Operation::CopyFileRange(_)
        )
    }

    fn parse(code: u32, mut body: Body<'a>, setxattr_ext: bool) -> Option<Operation<'a>> {
        let b = &mut body;
        let operation = match code {
            opcode::LOOKUP => Operation::Lookup { name: b.string()? },
            opcode::FORGET => Operation::Forget { count: b.fixed::<abi::ForgetIn>()?.count },
            opcode::BATCH_FORGET => {
                let count = b.fixed::<abi::BatchForgetIn>()?.count;
                let forgets = b.bytes((count as usize).checked_mul(size_of::<abi::ForgetOne>())?)?;
                Operation::BatchForget { forgets }
            }
            opcode::GETATTR => b.fixed::<abi::GetattrIn>().map(|_| Operation::Getattr)?,
            opcode::SETATTR => Operation::Setattr(b.fixed()?),
            opcode::READLINK => Operation::Readlink,
            opcode::SYMLINK => Operation::Symlink { name: b.string()?, target: b.string()? },
            opcode::MKNOD => {
                let abi::MknodIn { mode, rdev, umask, .. } = b.fixed()?;
                Operation::Mknod { mode, umask, rdev, name: b.string()? }
            }
            opcode::MKDIR => {
                let abi::MkdirIn { mode, umask } = b.fixed()?;
                Operation::Mkdir { mode, umask, name: b.string()? }
            }
            opcode::UNLINK => Operation::Unlink { name: b.string()? },
            opcode::RMDIR => Operation::Rmdir { name: b.string()? },
            opcode::RENAME => {
                let new_dir = b.fixed::<abi::RenameIn>()?.new_dir;
                Operation::Rename { name: b.string()?, new_dir, new_name: b.string()?, flags: 0 }
            }
            opcode::RENAME2 => {
                let abi::Rename2In { new_dir, flags, .. } = b.fixed()?;
                Operation::Rename { name: b.string()?, new_dir, new_name: b.string()?, flags }
            }
            opcode::LINK => Operation::Link { ino: b.fixed::<abi::LinkIn>()?.ino, name: b.string()? },
            opcode::OPEN => Operation::Open { flags: b.fixed::<abi::OpenIn>()?.flags },
            opcode::READ => b.read(|offset, size| Operation::Read { offset, size })?,
            opcode::WRITE => {
                let write: abi::ReadIn = b.fixed()?;
                let data = b.bytes(write.size as usize)?;
                let drops_set_ids = write.flags & abi::WRITE_KILL_SUIDGID != 0;
                Operation::Write { offset: write.offset, data, drops_set_ids }
            }
            opcode::STATFS => Operation::Statfs,
            opcode::FSYNC => b.fixed::<abi::FsyncIn>().map(|_| Operation::Fsync)?,
            opcode::SETXATTR => {
                let set = if setxattr_ext {
                    b.fixed()?
                } else {
                    let abi::SetxattrIn { size, flags } = b.fixed()?;
                    abi::SetxattrExtIn { size, flags, ..Default::default() }
                };
                let drops_set_gid = set.setxattr_flags & abi::SETXATTR_ACL_KILL_SGID != 0;
                let (name, value) = (b.string()?, b.bytes(set.size as usize)?);
                Operation::Setxattr { name, value, flags: set.flags, drops_set_gid }
            }
            opcode::GETXATTR => {
                let size = b.fixed::<abi::GetxattrIn>()?.size;
                Operation::Getxattr { name: b.string()?, size }
            }
            opcode::LISTXATTR => Operation::Listxattr { size: b.fixed::<abi::GetxattrIn>()?.size },
            opcode::REMOVEXATTR => Operation::Removexattr { name: b.string()? },
            opcode::RELEASE => b.fixed::<abi::ReleaseIn>().map(|_| Operation::Release)?,
            opcode::FLUSH => b.fixed::<abi::FlushIn>().map(|_| Operation::Flush)?,
            opcode::OPENDIR => b.fixed::<abi::OpenIn>().map(|_| Operation::Opendir)?,
            opcode::READDIR => b.read(|offset, size| Operation::Readdir { offset, size })?,
            opcode::READDIRPLUS => b.read(|offset, size| Operation::Readdirplus { offset, size })?,
            opcode::FSYNCDIR => b.fixed::<abi::FsyncIn>().map(|_| Operation::Fsyncdir)?,
            opcode::CREATE => {
                let abi::CreateIn { mode, umask, .. } = b.fixed()?;
                Operation::Create { mode, umask, name: b.string()? }
            }
            opcode::TMPFILE => {
                let abi::CreateIn { mode, umask, .. } = b.fixed()?;
                // The name that its dentry happens to have; it means nothing.
                b.string()?;
                Operation::Tmpfile { mode, umask }
            }
            opcode::INTERRUPT => Operation::Interrupt { unique: b.fixed()? },
            opcode::DESTROY => Operation::Destroy,
            opcode::FALLOCATE => {
                let abi::FallocateIn { offset, len, mode, .. } = b.fixed()?;
                Operation::Fallocate { offset, len, mode }
            }
            opcode::LSEEK => {
                let abi::LseekIn { offset, whence, .. } = b.fixed()?;
                Operation::Lseek { offset, whence }
            }
            opcode::COPY_FILE_RANGE => Operation::CopyFileRange(b.fixed()?),
            opcode::SYNCFS => b.fixed::<u64>().map(|_| Operation::Syncfs)?,
            _ => return Some(Operation::Unknown),
        };
        body.is_empty().then_some(operation)
    }
}

/// What is left of a request's arguments. None of them is in both parts.
struct Body<'a> {
    first: &'a [u8],
    others: &'a [u8],
}

impl<'a> Body<'a> {
    /// Where the next argument begins.
    fn rest(&mut self) -> &mut &'a [u8] {
        if self.first.is_empty() {
            self.first = std::mem::take(&mut self.others);
        }
        &mut self.first
    }

    fn fixed<T: FromBytes>(&mut self) -> Option<T> {
        let rest = self.rest();
        let (value, behind) = T::read_from_prefix(rest).ok()?;
        *rest = behind;
        Some(value)
    }

    /// Up to the next zero byte.
    fn string(&mut self) -> Option<&'a [u8]> {
        let end = self.rest().iter().position(|byte| *byte == 0)?;
        let with_zero = self.bytes(end + 1)?;
        Some(&with_zero[..end])
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let rest = self.rest();
        let (bytes, behind) = rest.split_at_checked(len)?;
        *rest = behind;
        Some(bytes)
    }

    /// All but the last bytes: extensions, which nothing here reads.
    fn without_end(mut self, len: usize) -> Option<Body<'a>> {
        let last = if self.others.is_empty() { &mut self.first } else { &mut self.others };
        *last = &last[..last.len().checked_sub(len)?];
        Some(self)
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.others.is_empty()
    }

    fn read(&mut self, operation: impl Fn(u64, u32) -> Operation<'a>) -> Option<Operation<'a>> {
        let abi::ReadIn { offset, size, .. } = self.fixed()?;
        Some(operation(offset, size))
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    fn bytes(code: u32, body: &[u8]) -> Vec<u8> {
        let len = (size_of::<InHeader>() + body.len()) as u32;
        let header = InHeader { len, opcode: code, unique: 7, nodeid: 1, ..InHeader::default() };
        [header.as_bytes(), body].concat()
    }

    fn parse(code: u32, body: &[u8]) -> Option<String> {
        let bytes = bytes(code, body);
        Request::parse(&bytes, false).ok().map(|request| format!("{:?}", request.operation))
    }

    #[test]
    fn a_name_ends_at_its_zero_byte_and_nothing_follows() {
        assert_eq!(parse(opcode::LOOKUP, b"ab\0").unwrap(), r#"Lookup { name: [97, 98] }"#);
        assert_eq!(parse(opcode::LOOKUP, b"ab"), None);
        assert_eq!(parse(opcode::LOOKUP, b"ab\0c"), None);
        assert_eq!(parse(opcode::LOOKUP, b""), None);
        assert_eq!(parse(opcode::SYMLINK, b"a\0b\0").unwrap(), "Symlink { name: [97], target: [98] }");
        assert_eq!(parse(opcode::SYMLINK, b"a\0"), None);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let write = abi::ReadIn { size: 3, offset: 9, flags: abi::WRITE_KILL_SUIDGID, ..Default::default() };
        let body = |data: &[u8]| [write.as_bytes(), data].concat();
        let written = parse(opcode::WRITE, &body(b"abc")).unwrap();
        assert_eq!(written, "Write { offset: 9, data: [97, 98, 99], drops_set_ids: true }");
        assert_eq!(parse(opcode::WRITE, &body(b"ab")), None);
        assert_eq!(parse(opcode::WRITE, &body(b"abcd")), None);
        let batch = abi::BatchForgetIn { count: u32::MAX, _dummy: 0 };
        assert_eq!(parse(opcode::BATCH_FORGET, batch.as_bytes()), None);
        let mut short = bytes(opcode::STATFS, b"");
        short[0] += 1;
        assert!(Request::parse(&short, false).is_err());
        assert!(Request::parse(&short[..39], false).unwrap_err().is_none());
    }

    #[test]
    fn wherever_arguments_are_parted_they_mean_the_same_or_nothing() {
        let setattr = abi::SetattrIn { valid: 1, mode: 0o600, ..Default::default() };
        let write = abi::ReadIn { size: 3, offset: 9, ..Default::default() };
        let rename = abi::RenameIn { new_dir: 5 };
        for (code, fixed_bytes, body) in [
            (opcode::LOOKUP, 0, b"ab\0".to_vec()),
            (opcode::SYMLINK, 0, b"a\0b\0".to_vec()),
            (opcode::GETATTR, 16, abi::GetattrIn::default().as_bytes().to_vec()),
            (opcode::SETATTR, 88, setattr.as_bytes().to_vec()),
            (opcode::WRITE, 40, [write.as_bytes(), b"abc"].concat()),
            (opcode::RENAME, 8, [rename.as_bytes(), b"a\0b\0"].concat()),
            (opcode::STATFS, 0, vec![]),
        ] {
            let bytes = bytes(code, &body);
            let whole = format!("{:?}", Request::parse(&bytes, false).unwrap().operation);
            let header = InHeader::read_from_prefix(&bytes).unwrap().0;
            let parted = |at: usize| {
                let (first, others) = body.split_at(at);
                Request::of_parts(header, first, others, false).map(|r| format!("{:?}", r.operation))
            };
            assert_eq!(parted(fixed_bytes).unwrap(), whole);
            (0..=body.len()).filter_map(|at| parted(at).ok()).for_each(|same| assert_eq!(same, whole));
            let short = Request::of_parts(header, &body[..body.len().saturating_sub(1)], b"", false);
            assert!(short.is_err() || body.is_empty());
        }
    }

    #[test]
    fn extensions_are_left_out() {
        let mut with = bytes(opcode::UNLINK, b"a\0groups..");
        with.truncate(with.len() - 2);
        let len = with.len() as u32;
        let header = InHeader { len, opcode: opcode::UNLINK, ext_words: 1, ..InHeader::default() };
        with[..40].copy_from_slice(header.as_bytes());
        assert_eq!(with.len(), 40 + 2 + 6);
        // 8 bytes of extensions are more than the 6 that follow the name.
        assert!(Request::parse(&with, false).is_err());
        with.extend_from_slice(b"xx");
        let header = InHeader { len: len + 2, ..header };
        with[..40].copy_from_slice(header.as_bytes());
        assert!(matches!(Request::parse(&with, false).unwrap().operation, Operation::Unlink { name: b"a" }));
    }

    #[test]
    fn an_attribute_has_two_forms() {
        let short = [abi::SetxattrIn { size: 1, flags: 2 }.as_bytes(), b"user.a\0v"].concat();
        assert!(parse(opcode::SETXATTR, &short).is_some());
        let long = abi::SetxattrExtIn { size: 1, flags: 0, setxattr_flags: 1, _padding: 0 };
        let long = bytes(opcode::SETXATTR, &[long.as_bytes(), b"user.a\0v"].concat());
        let request = Request::parse(&long, true).unwrap();
        assert!(matches!(request.operation, Operation::Setxattr { drops_set_gid: true, value: b"v", .. }));
    }
}
