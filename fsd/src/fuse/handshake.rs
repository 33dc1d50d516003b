//! The beginning of a mount: `fuser` mounts and answers INIT, by mount(2) or fusermount3; everything after that is ours.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use fuser::{Config, Filesystem, InitFlags, KernelConfig, Request};

/// The largest READ and WRITE, in bytes: what the kernel allows without raising fs.fuse.max_pages_limit.
pub(super) const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background (readahead, above all).
const BACKGROUND_MAX: u16 = 64;

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

/// A mounted file system whose requests nobody answers yet. Unmounts when it goes.
pub(super) type Mounted = fuser::Session<Handshake>;

/// Answers INIT, and nothing else.
#[derive(Debug)]
pub(super) struct Handshake {
    acl: bool,
    rings: bool,
    agreed_on_rings: Arc<AtomicBool>,
}

/// Mounts on `dir` and agrees with the kernel on how to talk, with access control lists if `acl`, and through rings if there are
/// `rings`; tells whether the kernel will use those. Errors: what mount(2), fusermount3 and the kernel say.
pub(super) fn mount(dir: &Path, config: &Config, acl: bool, rings: bool) -> io::Result<(Mounted, bool)> {
    let agreed = Arc::new(AtomicBool::new(false));
    let handshake = Handshake { acl, rings, agreed_on_rings: Arc::clone(&agreed) };
    Ok((fuser::Session::new(handshake, dir, config)?, agreed.load(Ordering::Relaxed)))
}

impl Filesystem for Handshake {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "not offered by this kernel");
            }
        }
        if self.acl {
            for flag in FOR_ACL {
                config.add_capabilities(flag).map_err(|_| {
                    io::Error::new(
                        io::ErrorKind::Unsupported,
                        "this kernel has no access control lists on FUSE",
                    )
                })?;
            }
        }
        if self.rings {
            let agreed = config.add_capabilities(InitFlags::FUSE_OVER_IO_URING).is_ok();
            self.agreed_on_rings.store(agreed, Ordering::Relaxed);
        }
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        let _ = config.set_max_readahead(REQUEST_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }
}
