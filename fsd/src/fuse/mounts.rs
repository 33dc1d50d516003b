//! The mounts of this daemon: made, listed, taken away, and those of a dead one cleaned up.
//!
//! One mount a session, because forks share inode numbers and each needs a device number of its own. A mount that goes away
//! by other hands (`umount`, `fusermount3 -u`) is noticed by its thread, which takes it off the table.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::{errno::Errno, unistd::geteuid};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{
    ahead::{Follower, Readers},
    backing_file::BackingFiles,
    device::Device,
    dispatch::Dispatch,
    handshake::{self, Wishes},
    mountinfo,
    mountpoint::{DEVICE, take_off},
    notices::Notices,
    options::{FileIo, MountOptions},
    parking::Parking,
    passthrough::Passthrough,
    requests::Requests,
    ring::{Attached, Rings},
    transport::{LazyRings, NoRings, Transport, TransportChoice},
};
use crate::session::{Session, SessionId};

/// Threads that serve one mount: two, so that a slow request does not hold up the next, and not more, because each costs an
/// idle mount its buffers. All read one file descriptor: with one each a request waits longer for a thread to wake up
/// (measured: a warm `grep -r` of a kernel tree at 1.29 x native instead of 1.33 x).
const THREADS: usize = 2;
/// What a mount reads ahead, in KiB. The kernel's 128 would cut sequential reads into eight messages a MiB.
const READ_AHEAD_KIB: &str = "1024";
/// How long the end of the daemon waits for busy mounts to let go.
const GOODBYE: Duration = Duration::from_secs(3);

/// A mount as it is.
#[derive(Clone, Debug)]
pub struct MountInfo {
    /// The session.
    pub session: SessionId,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// Whether changes are refused.
    pub read_only: bool,
    /// Whether other users are let in.
    pub allow_other: bool,
    /// Whether access control lists are checked.
    pub acl: bool,
    /// Whether extended attributes are neither shown nor taken.
    pub no_xattrs: bool,
    /// Who reads files.
    pub io: FileIo,
    /// What carries its requests.
    pub transport: Transport,
    /// Why that is not io_uring, if nobody asked for something else.
    pub transport_note: Option<Arc<str>>,
    /// Inodes that the kernel may name.
    pub known_inodes: usize,
}

/// Why a mount could not be made or taken away.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no such directory.
    #[error("{}: no such directory; create it first", .0.display())]
    NotFound(PathBuf),
    /// The mount point is something else.
    #[error("{}: not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Something is mounted there, or programs still use the mount.
    #[error("{} is busy: {holder}", dir.display())]
    Busy {
        /// The directory.
        dir: PathBuf,
        /// Who is there, and what to do.
        holder: String,
    },
    /// A session has one mount at a time.
    #[error("{session} is mounted on {} already; unmount it there, or fork it", dir.display())]
    AlreadyMounted {
        /// The session.
        session: SessionId,
        /// Where it is.
        dir: PathBuf,
    },
    /// Nothing of this daemon is mounted there.
    #[error("{0} is not mounted by this daemon")]
    NotMounted(String),
    /// The daemon would have to go through its own mount to reach its state.
    #[error("{} holds the daemon's own state; mount somewhere else", .0.display())]
    InsideState(PathBuf),
    /// It was to be io_uring.
    #[error("cannot mount through io_uring: {0}; or mount with another transport")]
    NoRings(#[from] NoRings),
    /// It was to have access control lists, which are extended attributes, and none of these.
    #[error(
        "cannot mount with acl and no-xattrs: access control lists are extended attributes; leave one of them out"
    )]
    NoAttributes,
    /// It was to be passthrough.
    #[error("cannot mount with passthrough: {0}")]
    NoPassthrough(&'static str),
    /// The system does not let this user mount.
    #[error("cannot mount on {}: {advice}", dir.display())]
    Denied {
        /// The directory.
        dir: PathBuf,
        /// What to do.
        advice: String,
    },
    /// The system failed.
    #[error("{}: {source}", dir.display())]
    Failed {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// All mounts of a daemon.
#[derive(Debug)]
pub struct Mounts {
    this: Weak<Mounts>,
    state_dir: PathBuf,
    /// Tells this state's mounts from those of others.
    tag: String,
    requests: Arc<Requests>,
    /// For mounts that do not say.
    transport: TransportChoice,
    rings: LazyRings,
    /// A daemon without is slower, not wrong.
    notices: Option<Notices>,
    backing_files: Arc<BackingFiles>,
    readers: Option<Arc<Readers>>,
    parking: Parking,
    next: AtomicU64,
    /// By a number of the mount's own: a directory may be mounted on again before the thread of the last mount is through.
    table: Mutex<HashMap<u64, Mounted>>,
    left: Condvar,
    /// Held while a mount is made, so that two requests for one session or directory do not both succeed.
    making: Mutex<()>,
}

#[derive(Debug)]
struct Mounted {
    session: Arc<Session>,
    /// Where it was when somebody last looked: a directory above it may be renamed.
    dir: PathBuf,
    /// It is nowhere any more (`umount -l`), and goes when its last user does.
    detached: bool,
    options: MountOptions,
    transport: Transport,
    transport_note: Option<Arc<str>>,
    follower: Option<Arc<Follower>>,
}

/// A mount that is not served yet.
struct Made {
    mounted: handshake::Mounted,
    device: Arc<Device>,
    attached: Option<Attached>,
    follower: Option<Arc<Follower>>,
    /// Why rings were to serve it and do not.
    refused: Option<io::Error>,
}

impl Mounts {
    /// No mounts yet. `state_dir` is never mounted over; `transport` is for mounts that do not say; `readers` read ahead of scans.
    pub fn new(state_dir: &Path, transport: TransportChoice, readers: Option<Arc<Readers>>) -> Arc<Mounts> {
        let state_dir = state_dir.canonicalize().unwrap_or_else(|_| state_dir.to_owned());
        let tag = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(state_dir.as_os_str().as_bytes()));
        Arc::new_cyclic(|this| Mounts {
            this: this.clone(),
            backing_files: Arc::new(BackingFiles::new(state_dir.clone())),
            state_dir,
            tag,
            requests: Arc::default(),
            transport,
            rings: LazyRings::default(),
            notices: Notices::start().ok(),
            readers,
            parking: Parking::default(),
            next: AtomicU64::new(0),
            table: Mutex::default(),
            left: Condvar::new(),
            making: Mutex::new(()),
        })
    }

    /// Unmounts what a daemon that died on this state left mounted; returns the directories. Called at the start, with the
    /// state's lock held: every mount that carries this state's tag is then a dead one.
    pub fn clean_up(&self) -> Vec<PathBuf> {
        let is_ours =
            |e: &mountinfo::Entry| e.source.starts_with("aetherfs:") && e.source.ends_with(&self.tag);
        let (mut cleaned, mut left) = (Vec::new(), true);
        // One may be on top of another.
        while std::mem::take(&mut left) {
            for dir in mountinfo::on_top(is_ours).unwrap_or_default() {
                match take_off(&dir, true) {
                    Ok(()) => {
                        left = true;
                        cleaned.push(dir);
                    }
                    Err(error) => tracing::warn!(dir = %dir.display(), %error, "a dead mount stays"),
                }
            }
        }
        cleaned
    }

    /// Mounts a session. Errors: every [`MountError`] but `NotMounted`.
    pub fn mount(
        &self,
        session: &Arc<Session>,
        dir: &Path,
        options: MountOptions,
    ) -> Result<MountInfo, MountError> {
        options.check()?;
        let _making = self.making.lock();
        let dir = self.check(session, dir)?;
        let choice = options.transport.unwrap_or(self.transport);
        let rings = (choice != TransportChoice::DevFuse).then(|| self.rings.get()).transpose();
        let (rings, mut why_not) = match rings {
            Ok(rings) => (rings, None),
            Err(why) if choice == TransportChoice::IoUring => return Err(why.into()),
            Err(why) => (None, Some(why)),
        };
        let mut made = self.make(session, &dir, options, rings.as_deref())?;
        if let Some(error) = made.refused.take() {
            tracing::warn!(dir = %dir.display(), %error, "io_uring cannot serve a mount");
            // Once that was agreed on, the kernel may hold every request back until rings serve it. Who waits already hears that
            // the connection is gone.
            made.device.connection.abort();
            drop(made);
            self.rings.renew();
            if choice == TransportChoice::IoUring {
                return Err(NoRings::Refused(error).into());
            }
            why_not = Some(NoRings::Refused(error));
            made = self.make(session, &dir, options, None)?;
        }
        let Made { mounted: served, device, attached, follower, .. } = made;
        device.connection.read_ahead(READ_AHEAD_KIB);
        let transport = if attached.is_some() { Transport::IoUring } else { Transport::DevFuse };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mounted = Mounted {
            session: Arc::clone(session),
            dir: dir.clone(),
            detached: false,
            options,
            transport,
            transport_note: why_not.map(|why| why.to_string().into()),
            follower,
        };
        let info = mounted.info();
        self.table.lock().insert(id, mounted);
        let table = self.this.clone();
        let thread = std::thread::Builder::new().name("mount".into()).spawn(move || {
            serve(served, &device, attached);
            if let Some(table) = table.upgrade() {
                table.ended(id);
            }
        });
        if let Err(source) = thread {
            self.ended(id);
            return Err(MountError::Failed { dir, source });
        }
        Ok(info)
    }

    /// Mounts, and lets rings serve it if there are any.
    fn make(
        &self,
        session: &Arc<Session>,
        dir: &Path,
        options: MountOptions,
        rings: Option<&Rings>,
    ) -> Result<Made, MountError> {
        let passthrough = options.io == FileIo::Passthrough;
        let may_fetch = session.store().has_remote();
        let wishes = Wishes { acl: options.acl, rings: rings.is_some(), passthrough, may_fetch };
        let mounted = handshake::mount(dir, &self.source(session.id()), options.flags(), wishes);
        let (mounted, agreed) = mounted.map_err(|source| denied_or_failed(dir, options, source))?;
        let mut dispatch = Dispatch::new(Arc::clone(session), Arc::clone(&self.requests));
        // Of a read-only mount the kernel does not doubt access times.
        if let Some(notices) = self.notices.clone().filter(|_| !options.read_only) {
            dispatch = dispatch.with_notices(notices, mounted.notifier());
        }
        if options.no_xattrs {
            dispatch = dispatch.without_xattrs();
        }
        let failed = |source| MountError::Failed { dir: dir.to_owned(), source };
        if passthrough {
            let device = mounted.device().try_clone_to_owned().map_err(failed)?;
            let files = Arc::clone(&self.backing_files);
            let passthrough = Passthrough::new(Arc::clone(session), files, device).map_err(failed)?;
            dispatch = dispatch.with_passthrough(passthrough);
        }
        // With passthrough an open is a message, and large files need nobody who reads ahead.
        let readers = self.readers.clone().filter(|_| !passthrough);
        let follower = readers.zip(mounted.connection.device()).map(|(readers, device)| {
            Follower::new(readers, Arc::clone(session), dir.to_owned(), device.to_owned())
        });
        if let Some(follower) = &follower {
            dispatch = dispatch.with_follower(Arc::clone(follower));
        }
        let device = Device::of(&mounted, dispatch, options.acl, self.parking.clone()).map_err(failed)?;
        let attached = rings.map(|rings| match agreed {
            true => rings.attach(&device),
            false => Err(io::Error::other("it was not agreed on")),
        });
        let (attached, refused) = match attached {
            Some(Ok(attached)) => (Some(attached), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        Ok(Made { mounted, device, attached, follower, refused })
    }

    /// Everything that can be known to be wrong before the kernel is asked. Never resolves a path below a mount of ours.
    fn check(&self, session: &Session, dir: &Path) -> Result<PathBuf, MountError> {
        let failed = |source| MountError::Failed { dir: dir.to_owned(), source };
        if let Some(mounted) = self.look().values().find(|m| !m.detached && dir.starts_with(&m.dir)) {
            let holder = format!("{} is mounted on {}", mounted.session.id(), mounted.dir.display());
            return Err(MountError::Busy { dir: dir.to_owned(), holder });
        }
        if let Some(entry) = mountinfo::at(dir).map_err(failed)? {
            let holder = format!("{} ({}) is mounted there", entry.source, entry.kind);
            return Err(MountError::Busy { dir: dir.to_owned(), holder });
        }
        let resolved = dir.canonicalize().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => MountError::NotFound(dir.to_owned()),
            _ => failed(source),
        })?;
        if !fs::metadata(&resolved).map_err(failed)?.is_dir() {
            return Err(MountError::NotADirectory(resolved));
        }
        if self.state_dir.starts_with(&resolved) || resolved.starts_with(&self.state_dir) {
            return Err(MountError::InsideState(resolved));
        }
        if let Some(mounted) = self.look().values().find(|m| m.session.id() == session.id()) {
            if mounted.detached {
                return Err(mounted.lingers());
            }
            return Err(MountError::AlreadyMounted { session: session.id(), dir: mounted.dir.clone() });
        }
        Ok(resolved)
    }

    /// What the kernel's table of mounts says that a mount is of.
    fn source(&self, session: SessionId) -> String {
        format!("aetherfs:{session}:{}", self.tag)
    }

    /// The table, with every mount where the kernel's table has it now. Touches none of them.
    fn look(&self) -> MutexGuard<'_, HashMap<u64, Mounted>> {
        let mut table = self.table.lock();
        // Unreadable, it changes nothing: what is known is likely still true.
        let Ok(entries) = mountinfo::read() else { return table };
        for mounted in table.values_mut() {
            let source = self.source(mounted.session.id());
            let mut ours = entries.iter().filter(|entry| entry.source == source).map(|entry| &entry.dir);
            mounted.detached = match ours.clone().find(|dir| **dir == mounted.dir).or_else(|| ours.next()) {
                Some(dir) => {
                    mounted.dir.clone_from(dir);
                    false
                }
                None => true,
            };
        }
        table
    }

    /// The thread of a mount is through: the kernel forgot everything it knew.
    fn ended(&self, id: u64) {
        let session = self.table.lock().get(&id).map(|mounted| Arc::clone(&mounted.session));
        // One that goes on would find what is mounted there next.
        self.stop_readers(|one| one == id);
        // As long as it is on the table nobody mounts the session again, so what is forgotten is this mount's.
        if let Some(session) = session {
            session.forget_all();
        }
        if let Some(mounted) = self.table.lock().remove(&id) {
            tracing::info!(session = %mounted.session.id(), dir = %mounted.dir.display(), "unmounted");
        }
        self.left.notify_all();
    }

    /// Unmounts a directory. Errors: `NotMounted`, `Busy`.
    pub fn unmount_dir(&self, dir: &Path) -> Result<(), MountError> {
        let at = |dir: &Path| {
            let table = self.look();
            table.iter().find(|(_, m)| !m.detached && m.dir == dir).map(|(id, m)| (*id, m.dir.clone()))
        };
        // A path through symbolic links, or with dots: resolved only if it is not that of a mount itself.
        let found = at(dir).or_else(|| at(&dir.parent()?.canonicalize().ok()?.join(dir.file_name()?)));
        let (id, dir) = found.ok_or_else(|| MountError::NotMounted(dir.display().to_string()))?;
        self.take_away(id, &dir)
    }

    /// Unmounts a session; returns how many mounts that were. Error: `Busy`.
    pub fn unmount_session(&self, session: SessionId) -> Result<usize, MountError> {
        let table = self.look();
        let of_session = table.iter().filter(|(_, m)| m.session.id() == session);
        let mounts = of_session.map(|(id, m)| match m.detached {
            true => Err(m.lingers()),
            false => Ok((*id, m.dir.clone())),
        });
        let mounts = mounts.collect::<Result<Vec<_>, _>>()?;
        drop(table);
        mounts.iter().try_for_each(|(id, dir)| self.take_away(*id, dir))?;
        Ok(mounts.len())
    }

    fn take_away(&self, id: u64, dir: &Path) -> Result<(), MountError> {
        let followers = self.stop_readers(|one| one == id);
        let taken = take_off(dir, false).inspect_err(|_| followers.iter().for_each(|one| one.resume()));
        taken.map_err(|source| match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBUSY) => {
                let holder = "programs have files open in it, or work there; `fuser -vm` names them".into();
                MountError::Busy { dir: dir.to_owned(), holder }
            }
            _ => MountError::Failed { dir: dir.to_owned(), source },
        })?;
        self.wait_for(|table| !table.contains_key(&id));
        Ok(())
    }

    /// Unmounts everything; what is busy is detached, and goes when its last user does.
    pub fn unmount_all(&self) {
        self.stop_readers(|_| true);
        let dirs: Vec<_> = self.look().values().filter(|m| !m.detached).map(|m| m.dir.clone()).collect();
        for dir in dirs {
            if let Err(error) = take_off(&dir, false).or_else(|_| take_off(&dir, true)) {
                tracing::warn!(dir = %dir.display(), %error, "cannot unmount");
            }
        }
        self.wait_for(|table| table.values().all(|m| m.detached));
    }

    /// What reads ahead must not keep a mount busy.
    fn stop_readers(&self, is_wanted: impl Fn(u64) -> bool) -> Vec<Arc<Follower>> {
        let table = self.table.lock();
        let wanted = table.iter().filter(|(id, _)| is_wanted(**id));
        let followers: Vec<_> = wanted.filter_map(|(_, mounted)| mounted.follower.clone()).collect();
        drop(table);
        followers.iter().for_each(|follower| follower.stop());
        followers
    }

    fn wait_for(&self, done: impl Fn(&HashMap<u64, Mounted>) -> bool) {
        let mut table = self.table.lock();
        while !done(&table) {
            if self.left.wait_for(&mut table, GOODBYE).timed_out() {
                return;
            }
        }
    }

    /// All mounts, by directory.
    pub fn list(&self) -> Vec<MountInfo> {
        let mut list: Vec<_> = self.look().values().map(Mounted::info).collect();
        list.sort_by(|a, b| a.dir.cmp(&b.dir));
        list
    }

    /// The mount that `path` is in, if it is one of these. By name first; symbolic links are followed only after that, so the
    /// daemon at most looks names up in its own mount.
    pub fn around(&self, path: &Path) -> Option<MountInfo> {
        let mounts = self.list();
        let inside = |path: &Path| mounts.iter().find(|mount| path.starts_with(&mount.dir)).cloned();
        inside(path).or_else(|| inside(&path.canonicalize().ok()?))
    }

    /// What carries the requests of mounts that do not say.
    pub fn transport(&self) -> TransportChoice {
        self.transport
    }

    /// Bytes of copies that the kernel reads for mounts with passthrough. They have no names in the file system.
    pub fn backing_bytes(&self) -> u64 {
        self.backing_files.bytes()
    }

    /// Requests answered so far, by operation, over all mounts of this process.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.requests.by_name()
    }
}

impl Mounted {
    /// Why a detached mount cannot be taken away or made again.
    fn lingers(&self) -> MountError {
        let holder =
            "its mount was detached (umount -l) and goes when the last program that uses it does".into();
        MountError::Busy { dir: self.dir.clone(), holder }
    }

    fn info(&self) -> MountInfo {
        MountInfo {
            session: self.session.id(),
            dir: self.dir.clone(),
            read_only: self.options.read_only,
            allow_other: self.options.allow_other,
            acl: self.options.acl,
            no_xattrs: self.options.no_xattrs,
            io: self.options.io,
            transport: self.transport,
            transport_note: self.transport_note.clone(),
            known_inodes: self.session.known.len(),
        }
    }
}

/// Serves a mount until it is gone and nothing of it is under way any more.
fn serve(mounted: handshake::Mounted, device: &Arc<Device>, attached: Option<Attached>) {
    // Rings leave little to do here.
    let threads = if attached.is_some() { 1 } else { THREADS };
    if let Err(error) = device.serve(threads) {
        tracing::warn!(%error, "a mount ended");
    }
    // Only now: it must stay mounted for as long as somebody answers.
    drop(mounted);
    if let Some(attached) = attached {
        attached.wait();
    }
}

fn denied_or_failed(dir: &Path, options: MountOptions, source: io::Error) -> MountError {
    let dir = dir.to_owned();
    if !Path::new(DEVICE).exists() {
        let advice = "this system has no /dev/fuse; load the fuse module, or give it to the container".into();
        return MountError::Denied { dir, advice };
    }
    let opened = fs::File::options().read(true).write(true).open(DEVICE);
    if let Err(error) = opened
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        let advice = format!("/dev/fuse: {error}; its mode should be 0666, as udev makes it");
        return MountError::Denied { dir, advice };
    }
    let denied = matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound);
    if geteuid().is_root() || !denied && source.raw_os_error().is_some() {
        return MountError::Failed { dir, source };
    }
    let advice = match options.allow_other {
        true => format!("{source}; --allow-other needs `user_allow_other` in /etc/fuse.conf and fusermount3"),
        false => {
            format!("{source}; an ordinary user needs fusermount3 (package fuse3) and must own the directory")
        }
    };
    MountError::Denied { dir, advice }
}
