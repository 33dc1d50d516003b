//! Mounts of AetherFS whose daemon is gone: every call on them fails with ENOTCONN until somebody takes them away.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::statvfs::statvfs;

/// What the mount table calls our mounts.
const FSTYPE: &[u8] = b"fuse.aetherfs";
/// What their sources begin with.
const SOURCE: &[u8] = b"aetherfs:";
/// A daemon that is alive but stuck keeps its mount: it may yet come to.
const PROBE_MAX: Duration = Duration::from_secs(2);

/// One such mount and what came of taking it away.
pub(crate) struct DeadMount {
    pub(crate) dir: Vec<u8>,
    pub(crate) cleaned: Result<(), String>,
}

/// Takes away every dead mount of this host that this user may take away.
pub(crate) fn clean() -> Vec<DeadMount> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let dirs = mount_dirs(&table).into_iter().filter(|dir| is_dead(dir));
    dirs.map(|dir| DeadMount { cleaned: unmount(&dir), dir }).collect()
}

/// The mount points of our type, topmost first.
fn mount_dirs(table: &[u8]) -> Vec<Vec<u8>> {
    let mut dirs: Vec<Vec<u8>> = table.split(|&b| b == b'\n').filter_map(mount_dir).collect();
    dirs.reverse();
    dirs
}

/// `36 35 98:0 /root /dir options [optional...] - fstype source super`, proc_pid_mountinfo(5).
fn mount_dir(line: &[u8]) -> Option<Vec<u8>> {
    let mut fields = line.split(|&b| b == b' ');
    let dir = fields.nth(4)?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (fstype, source) = (fields.next()?, fields.next()?);
    (fstype == FSTYPE && source.starts_with(SOURCE)).then(|| unescaped(dir))
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

fn is_dead(dir: &[u8]) -> bool {
    let (sender, receiver) = mpsc::channel();
    let path = Path::new(std::ffi::OsStr::from_bytes(dir)).to_path_buf();
    // The call may hang in the kernel: a thread of its own can be left behind.
    std::thread::spawn(move || sender.send(statvfs(&path).err()));
    receiver.recv_timeout(PROBE_MAX).is_ok_and(|error| error == Some(Errno::ENOTCONN))
}

fn unmount(dir: &[u8]) -> Result<(), String> {
    let path = Path::new(std::ffi::OsStr::from_bytes(dir));
    let Err(errno) = umount2(path, MntFlags::MNT_DETACH) else { return Ok(()) };
    let helper = Command::new("fusermount3").arg("-uz").arg("--").arg(path).output();
    match helper {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) | Err(_) => Err(errno.desc().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mount_table() {
        let table = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            40 22 0:35 / /mnt/a\\040b\\134c rw - fuse.aetherfs aetherfs:ses_x:1 rw,user_id=0\n\
            41 22 0:36 / /mnt/other rw shared:2 master:3 - fuse.sshfs host rw\n\
            43 22 0:38 / /mnt/foreign rw - fuse other rw\n\
            42 22 0:37 / /mnt/z rw shared:4 - fuse.aetherfs aetherfs:ses_y:1 rw\n";
        assert_eq!(mount_dirs(table), [b"/mnt/z".to_vec(), b"/mnt/a b\\c".to_vec()]);
        assert!(mount_dirs(b"garbage\n\n1 2 3").is_empty());
    }
}
