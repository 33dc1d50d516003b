//! `aetherctl doctor`: what is wrong here, seen from this side of the socket and from the daemon's.

use std::fs::OpenOptions;
use std::path::Path;

use proto::v1::{DoctorCheck, DoctorReply, DoctorRequest, DoctorStatus};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::place::Place;
use crate::quote::quoted;
use crate::text::{rendered, table};
use crate::{dead_mounts, json};

/// Check the host, the daemon and its state, and clean up after a dead daemon
///
/// Mounts that a dead daemon left behind are taken away. Exits with 1 if a check is bad.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aetherctl doctor\n  aetherctl --json doctor | jq '.checks[] | select(.status != \"ok\")'"
)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &mut Context) -> Result<(), Failure> {
    let mut checks = Vec::new();
    // This host has nothing to do with a daemon elsewhere.
    if matches!(context.place, Place::Socket(_)) {
        checks.extend([fuse_device(), fusermount()]);
        checks.extend(dead_mounts::clean().iter().map(dead_mount));
    }
    let mut daemon_version = String::new();
    match ask(context).await {
        Ok(reply) => {
            let detail = format!("aetherfsd {} on {}", reply.version, context.place);
            checks.push(check("daemon", DoctorStatus::Ok, detail, ""));
            checks.push(versions(&reply.version));
            checks.extend(reply.checks);
            daemon_version = reply.version;
        }
        Err(failure) => {
            let detail = failure.message().unwrap_or("no answer").to_string();
            checks.push(check("daemon", DoctorStatus::Bad, detail, "start aetherfsd, or look at its log"));
        }
    }
    print(context, &checks, &daemon_version)?;
    let bad = checks.iter().any(|check| check.status() == DoctorStatus::Bad);
    if bad { Err(Failure::Reported(1)) } else { Ok(()) }
}

async fn ask(context: &Context) -> Result<DoctorReply, Failure> {
    Ok(context.connect().await?.doctor(DoctorRequest {}).await?.into_inner())
}

fn fuse_device() -> DoctorCheck {
    let device = Path::new("/dev/fuse");
    match OpenOptions::new().read(true).write(true).open(device).map(drop) {
        Ok(()) => check("fuse device", DoctorStatus::Ok, "/dev/fuse opens".to_string(), ""),
        Err(e) if device.exists() => {
            let advice = "the daemon's user needs read and write access to it";
            check("fuse device", DoctorStatus::Warn, format!("/dev/fuse: {e}"), advice)
        }
        Err(e) => {
            let advice = "load the kernel module (modprobe fuse); a container needs --device /dev/fuse";
            check("fuse device", DoctorStatus::Bad, format!("/dev/fuse: {e}"), advice)
        }
    }
}

fn fusermount() -> DoctorCheck {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|path| path.is_file())
    });
    match found {
        Some(path) => check("fusermount3", DoctorStatus::Ok, path.display().to_string(), ""),
        // Root mounts by itself.
        None if nix::unistd::geteuid().is_root() => {
            check("fusermount3", DoctorStatus::Ok, "not installed, and root does not need it".to_string(), "")
        }
        None => {
            check("fusermount3", DoctorStatus::Bad, "not in PATH".to_string(), "install the package fuse3")
        }
    }
}

fn dead_mount(mount: &dead_mounts::DeadMount) -> DoctorCheck {
    let dir = quoted(&mount.dir);
    match &mount.cleaned {
        Ok(()) => {
            let detail = format!("{dir} was left by a daemon that is gone; it is unmounted now");
            check("dead mount", DoctorStatus::Warn, detail, "mount the session again")
        }
        Err(reason) => {
            let detail = format!("{dir} was left by a daemon that is gone: {reason}");
            check("dead mount", DoctorStatus::Bad, detail, &format!("umount -l {dir}"))
        }
    }
}

fn versions(daemon: &str) -> DoctorCheck {
    let own = env!("CARGO_PKG_VERSION");
    if daemon == own {
        return check("version", DoctorStatus::Ok, format!("both are {own}"), "");
    }
    let detail = format!("aetherctl is {own}, aetherfsd is {daemon}");
    check("version", DoctorStatus::Warn, detail, "install one version of both")
}

fn check(name: &str, status: DoctorStatus, detail: String, advice: &str) -> DoctorCheck {
    DoctorCheck { name: name.to_string(), status: status.into(), detail, advice: advice.to_string() }
}

fn print(context: &mut Context, checks: &[DoctorCheck], daemon_version: &str) -> Result<(), Failure> {
    if context.json {
        let list = checks.iter().map(|check| {
            json!({
                "name": check.name,
                "status": status_name(check.status()),
                "detail": check.detail,
                "advice": json::optional(&check.advice),
            })
        });
        return context.document(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "daemon_version": json::optional(daemon_version),
            "checks": list.collect::<Vec<_>>(),
        }));
    }
    let mut rows = table(&[]);
    for check in checks {
        let mut text = check.detail.clone();
        if !check.advice.is_empty() {
            text.push_str(&format!("\n-> {}", check.advice));
        }
        rows.add_row(vec![status_name(check.status()), check.name.as_str(), text.as_str()]);
    }
    context.line(&rendered(rows))
}

fn status_name(status: DoctorStatus) -> &'static str {
    match status {
        DoctorStatus::Unspecified => "unknown",
        DoctorStatus::Ok => "ok",
        DoctorStatus::Warn => "warn",
        DoctorStatus::Bad => "bad",
    }
}
