//! Putting a file system on a directory and taking it off again: mount(2) and umount2(2) as root, fusermount3 as anybody else.
//!
//! Not `fuser`'s: its end of a mount unmounts by path, and whatever is on that path by then goes.
#![expect(unsafe_code, reason = "nix hands a received descriptor over as a number")]

use std::{
    fs::{self, File},
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
    unistd::{geteuid, getgid, getuid},
};

use super::mountinfo::{self, KIND};

/// The kernel's end of every mount.
pub(super) const DEVICE: &str = "/dev/fuse";

/// How the kernel is to treat a mount.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags {
    /// It refuses changes.
    pub read_only: bool,
    /// It lets other users in.
    pub allow_other: bool,
    /// It checks permissions.
    pub default_permissions: bool,
}

impl Flags {
    /// What the kernel is told in words, each behind a comma.
    fn options(self) -> String {
        let named = [(self.allow_other, ",allow_other"), (self.default_permissions, ",default_permissions")];
        named.into_iter().filter_map(|(is_wanted, name)| is_wanted.then_some(name)).collect()
    }
}

/// Mounts on `dir` what the table of mounts will call `source`; gives the kernel's end, where INIT waits. Errors: what mount(2)
/// says, or in its own words fusermount3, if that is there and mount(2) is not for us. A mount may be there all the same.
pub(super) fn put(dir: &Path, source: &str, flags: Flags) -> io::Result<OwnedFd> {
    match put_as_root(dir, source, flags) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => match put_as_user(dir, source, flags) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Err(error),
            other => other,
        },
        other => other,
    }
}

fn put_as_root(dir: &Path, source: &str, flags: Flags) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open(DEVICE)?;
    let mode = fs::metadata(dir)?.mode();
    let (number, user, group) = (device.as_raw_fd(), getuid(), getgid());
    let named = flags.options();
    let data = format!("fd={number},rootmode={mode:o},user_id={user},group_id={group}{named}");
    let mut kernels = MsFlags::empty();
    kernels.set(MsFlags::MS_RDONLY, flags.read_only);
    // As fusermount3 does it: a user's files must not become root's programs, or disks.
    kernels.set(MsFlags::MS_NOSUID | MsFlags::MS_NODEV, !geteuid().is_root());
    mount(Some(source), dir, Some(KIND), kernels, Some(data.as_str()))?;
    Ok(device.into())
}

/// fusermount3 sends the device through a socket: see its manual, and `_FUSE_COMMFD` in libfuse's `util/fusermount.c`.
fn put_as_user(dir: &Path, source: &str, flags: Flags) -> io::Result<OwnedFd> {
    let (ours, its) = UnixStream::pair()?;
    let subtype = KIND.trim_start_matches("fuse.");
    let read_only = if flags.read_only { ",ro" } else { "" };
    let options = format!("fsname={source},subtype={subtype}{}{read_only}", flags.options());
    let mut helper = Command::new("fusermount3");
    helper.arg("-o").arg(options).arg("--").arg(dir);
    // Its standard input, so that no other program that is started now gets it.
    helper.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(its)).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = helper.spawn()?;
    // With it goes our copy of the helper's end: without a helper there is nothing to wait for.
    drop(helper);
    let received = receive(&ours);
    let output = child.wait_with_output()?;
    let said = || io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    received?.filter(|_| output.status.success()).ok_or_else(said)
}

/// The descriptor in the next message, if there is one.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let number = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(numbers) => numbers.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number, and nothing else here closes it.
    Ok(number.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Takes off what is mounted on `dir`; with `detach` out of the tree of names only, where it goes when its last user does.
/// Errors: EBUSY, EINVAL if nothing is, or what fusermount3 says.
pub(super) fn take_off(dir: &Path, detach: bool) -> io::Result<()> {
    let flags = if detach { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(dir, flags | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => {
            let how = if detach { "-uz" } else { "-u" };
            let output = Command::new("fusermount3").arg(how).arg("--").arg(dir).output()?;
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            match output.status.success() {
                true => Ok(()),
                false if said.to_lowercase().contains("busy") => Err(Errno::EBUSY.into()),
                false => Err(io::Error::other(said)),
            }
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Takes what is mounted from `source` out of the tree of names, wherever it is by now, with this device number if that is known.
/// What somebody has mounted on top of it stays, and so does it then. That nobody answers there is no hindrance.
pub(super) fn take_off_source(source: &str, device: Option<&str>) {
    match mountinfo::on_top(|entry| entry.is(source, device)) {
        Ok(dirs) => dirs.iter().for_each(|dir| {
            if let Err(error) = take_off(dir, false).or_else(|_| take_off(dir, true)) {
                tracing::warn!(dir = %dir.display(), %error, "a mount that nobody serves stays");
            }
        }),
        Err(error) => tracing::warn!(source, %error, "a mount that nobody serves may stay"),
    }
}
