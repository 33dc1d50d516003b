//! The beginning of a mount: INIT, which `fuser` answers. Everything after that is ours.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use fuser::{Config, Filesystem, InitFlags, KernelConfig, Notifier, Request, SessionACL};

use super::{
    connection::Connection,
    mountpoint::{Flags, put, take_off_source},
};

/// The largest READ and WRITE, in bytes: what the kernel allows without raising fs.fuse.max_pages_limit.
pub(super) const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background (readahead, above all).
const BACKGROUND_MAX: u16 = 64;
/// Where some of them may wait for a remote store: the kernel holds all others back while so many do.
const BACKGROUND_MAX_REMOTE: u16 = 4096;

/// With passthrough: backing files are on a file system that is on no other one, or on one of such (an overlay). 2 is the kernel's
/// FILESYSTEM_MAX_STACK_DEPTH.
const STACK_DEPTH_MAX: u32 = 2;

/// Each only makes a mount faster. Not ATOMIC_O_TRUNC: with zero-message open an open(O_TRUNC) would silently not truncate.
const WANTED: [InitFlags; 10] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_MAX_PAGES,
    // The kernel asks for a file's capabilities once, not before every write: the engine takes them away.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

/// For access control lists: the kernel checks them, leaves the umask to us (a default list overrides it), and says whether
/// who sets a list may keep the set-group-ID bit.
const FOR_ACL: [InitFlags; 3] =
    [InitFlags::FUSE_POSIX_ACL, InitFlags::FUSE_DONT_MASK, InitFlags::FUSE_SETXATTR_EXT];

/// A mounted file system whose requests nobody answers yet. When it goes, it is taken off its directory, if it is on top there.
pub(super) struct Mounted {
    /// None only while it goes.
    session: Option<fuser::Session<Handshake>>,
    pub connection: Connection,
}

/// What is agreed on with the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    /// Access control lists.
    pub acl: bool,
    /// Requests through rings.
    pub rings: bool,
    /// Files that the kernel reads by itself.
    pub passthrough: bool,
    /// Requests that may wait for a remote store.
    pub may_fetch: bool,
}

/// Answers INIT, and nothing else.
#[derive(Debug)]
struct Handshake {
    wishes: Wishes,
    agreed_on_rings: Arc<AtomicBool>,
}

/// Mounts on `dir` what the table of mounts will call `source`, and agrees with the kernel on how to talk; tells whether it will use
/// rings. Errors: what mount(2), fusermount3 and the kernel say.
pub(super) fn mount(dir: &Path, source: &str, flags: Flags, wishes: Wishes) -> io::Result<(Mounted, bool)> {
    let agreed = Arc::new(AtomicBool::new(false));
    let handshake = Handshake { wishes, agreed_on_rings: Arc::clone(&agreed) };
    let device = put(dir, source, flags).inspect_err(|_| take_off_source(source, None))?;
    let connection = Connection::of(dir, source);
    let session = fuser::Session::from_fd(handshake, device, SessionACL::All, Config::default())
        .inspect_err(|_| take_off_source(source, connection.device()))?;
    Ok((Mounted { session: Some(session), connection }, agreed.load(Ordering::Relaxed)))
}

impl Mounted {
    /// The kernel's end of it.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.session().as_fd()
    }

    /// The way to tell the kernel something that it has not asked for.
    pub fn notifier(&self) -> Notifier {
        self.session().notifier()
    }

    fn session(&self) -> &fuser::Session<Handshake> {
        self.session.as_ref().expect("it is there until it goes")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // First its descriptor: to read the table of mounts takes one.
        self.session = None;
        // By its source, not by its directory: what is there may be another mount by now.
        take_off_source(self.connection.source(), self.connection.device());
    }
}

impl Filesystem for Handshake {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "not offered by this kernel");
            }
        }
        if self.wishes.acl {
            for flag in FOR_ACL {
                config.add_capabilities(flag).map_err(|_| {
                    io::Error::new(
                        io::ErrorKind::Unsupported,
                        "this kernel has no access control lists on FUSE",
                    )
                })?;
            }
        }
        if self.wishes.passthrough {
            let passed = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).map_err(drop);
            passed
                .and_then(|()| config.set_max_stack_depth(STACK_DEPTH_MAX).map(drop).map_err(drop))
                .map_err(|()| {
                    io::Error::new(
                        io::ErrorKind::Unsupported,
                        "this kernel has no passthrough on FUSE (Linux 6.9 and later do)",
                    )
                })?;
        }
        if self.wishes.rings {
            let agreed = config.add_capabilities(InitFlags::FUSE_OVER_IO_URING).is_ok();
            self.agreed_on_rings.store(agreed, Ordering::Relaxed);
        }
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        let _ = config.set_max_readahead(REQUEST_BYTES_MAX);
        let background = if self.wishes.may_fetch { BACKGROUND_MAX_REMOTE } else { BACKGROUND_MAX };
        let _ = config.set_max_background(background);
        Ok(())
    }
}
