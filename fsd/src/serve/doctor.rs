//! Checks of the host and the state: what is wrong, or could be better, and what to do about it.

use std::{
    fs::{self, OpenOptions},
    path::Path,
};

use nix::unistd::geteuid;
use proto::v1::{self, DoctorCheck, DoctorStatus};

use super::{Answer, Host};
use crate::{
    fuse::{Transport, TransportChoice, may_use_io_uring},
    host::open_files_max,
};

/// With less than this free the disk is called nearly full.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Packs, segments and sockets of a busy host.
const OPEN_FILES_MIN: u64 = 4096;

impl Host {
    pub(super) fn doctor(&self, _: v1::DoctorRequest) -> Answer<v1::DoctorReply> {
        let mut checks = vec![fuse_device()];
        if !geteuid().is_root() {
            checks.extend([fusermount(), allow_other()]);
        }
        checks.extend([self.free_space(), self.log_reserve(), open_files(), self.io_uring()]);
        checks.extend(self.certificate());
        Ok(v1::DoctorReply { version: env!("CARGO_PKG_VERSION").to_owned(), checks })
    }

    fn free_space(&self) -> DoctorCheck {
        let dir = self.state_dir.display();
        match self.engine.disk().space() {
            Ok(space) => {
                let (free, total) = (mib(space.free_bytes), mib(space.total_bytes));
                let detail = format!("{free} MiB of {total} MiB are free for {dir}");
                let advice = "discard sessions, run `aetherctl gc`, or make room on the disk";
                match space.free_bytes < FREE_BYTES_MIN {
                    true => check("free space", DoctorStatus::Warn, detail, advice),
                    false => ok("free space", detail),
                }
            }
            Err(error) => {
                let detail = format!("{dir}: {error}");
                check("free space", DoctorStatus::Bad, detail, "look at the disk that holds the state")
            }
        }
    }

    /// For information: everything works without it.
    fn io_uring(&self) -> DoctorCheck {
        let mounts = self.mounts.list();
        let through = mounts.iter().filter(|mount| mount.transport == Transport::IoUring).count();
        let new = match (self.mounts.transport(), may_use_io_uring()) {
            (TransportChoice::DevFuse, _) => "new ones use /dev/fuse, as this daemon was told".to_owned(),
            (_, Ok(())) => "new ones use it".to_owned(),
            (_, Err(why)) => format!("new ones do not: {why}"),
        };
        ok("io_uring", format!("{through} of {} mounts use it; {new}", mounts.len()))
    }

    /// Of a daemon that listens on the network.
    fn certificate(&self) -> Option<DoctorCheck> {
        let certificate = self.certificate.get()?;
        Some(match certificate.refused() {
            Some(reason) => {
                let detail = format!("an older one is in use: {reason}");
                let advice = "put a certificate and its key there; they are read within seconds, and at once on SIGHUP";
                check("certificate", DoctorStatus::Warn, detail, advice)
            }
            None => ok("certificate", format!("{} is in use as it is", certificate.path().display())),
        })
    }

    fn log_reserve(&self) -> DoctorCheck {
        match self.engine.durability().log.is_low() {
            true => {
                let detail = "the disk is full: changes are refused, deleting and discarding still work";
                check(
                    "log",
                    DoctorStatus::Bad,
                    detail.to_owned(),
                    "make room on the disk that holds the state",
                )
            }
            false => ok("log", "room for changes is reserved".to_owned()),
        }
    }
}

fn fuse_device() -> DoctorCheck {
    let device = Path::new("/dev/fuse");
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => ok("fuse device", "the daemon opens /dev/fuse".to_owned()),
        Err(error) => {
            let advice = match device.exists() {
                true => "the daemon's user needs read and write access to it",
                false => "load the kernel module (modprobe fuse); a container needs --device /dev/fuse",
            };
            check("fuse device", DoctorStatus::Bad, format!("/dev/fuse: {error}"), advice)
        }
    }
}

fn fusermount() -> DoctorCheck {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|path| path.is_file()) {
        Some(path) => ok("fusermount3", path.display().to_string()),
        None => {
            let detail = "not in the daemon's PATH".to_owned();
            check("fusermount3", DoctorStatus::Bad, detail, "install the package fuse3")
        }
    }
}

fn allow_other() -> DoctorCheck {
    let text = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    match text.lines().any(|line| line.trim() == "user_allow_other") {
        true => ok("allow other", "/etc/fuse.conf has user_allow_other".to_owned()),
        false => {
            let detail = "/etc/fuse.conf lacks user_allow_other: --allow-other will be refused".to_owned();
            check("allow other", DoctorStatus::Warn, detail, "if you need it, let root add that line")
        }
    }
}

fn open_files() -> DoctorCheck {
    match open_files_max() {
        Ok(max) if max < OPEN_FILES_MIN => {
            let detail = format!("{max} files may be open");
            check("open files", DoctorStatus::Warn, detail, "raise the hard limit (ulimit -Hn, LimitNOFILE)")
        }
        Ok(max) => ok("open files", format!("{max} may be open")),
        Err(error) => check("open files", DoctorStatus::Warn, error.to_string(), "look at ulimit -n"),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn ok(name: &str, detail: String) -> DoctorCheck {
    check(name, DoctorStatus::Ok, detail, "")
}

fn check(name: &str, status: DoctorStatus, detail: String, advice: &str) -> DoctorCheck {
    DoctorCheck { name: name.to_owned(), status: status.into(), detail, advice: advice.to_owned() }
}
