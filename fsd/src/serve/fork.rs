//! Forks: one or many, all or none, mounted if that is asked for.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{FORK_COUNT_MAX, v1};
use tonic::Status;

use super::{
    Answer, Host,
    convert::{Changes, session_info},
    request::label,
    visits::Place,
};
use crate::{
    fuse::{MountError, MountOptions},
    session::Session,
};

impl Host {
    pub(super) fn fork(&self, request: v1::ForkRequest) -> Answer<v1::ForkReply> {
        let v1::ForkRequest { session, count, name, mount_dir, notes } = request;
        let count = count.max(1);
        if count > FORK_COUNT_MAX {
            let message = format!("{count} forks: a request makes at most {FORK_COUNT_MAX}");
            return Err(Status::invalid_argument(message));
        }
        let (mount_dir, notes) = (self.mount_dir(&mount_dir)?, self.notes(notes)?);
        let names = fork_names(label(name)?, count);
        let place = self.place_of_session(session)?;
        let (forks, elapsed_us) = self.timed(|| match &place {
            Place::Here(session, _) => self.forks_of(session, &names, &notes),
            Place::There(uri) => self.forks_of_peer(uri, &names, &notes),
        })?;
        match mount_dir {
            Some(dir) if count == 1 => self.mount_or_discard(&forks[0], &dir)?,
            Some(dir) => self.mount_each(&forks, &dir)?,
            None => {}
        }
        let changes = Changes::default();
        let (mounts, now) = (self.mounts.list(), self.engine.clock().now());
        let sessions = forks.iter().map(|fork| session_info(fork, changes, &mounts, now)).collect();
        Ok(v1::ForkReply { sessions, elapsed_us })
    }

    /// Mounts each fork on a new directory in `dir` called by its ID, or none of them.
    fn mount_each(&self, forks: &[Arc<Session>], dir: &Path) -> Answer<()> {
        let mut made = Vec::new();
        let mut mount = |fork: &Arc<Session>| {
            let point = dir.join(fork.id().to_string());
            DirBuilder::new().mode(0o755).create(&point).map_err(cannot_create(&point))?;
            made.push(point.clone());
            self.mounts.mount(fork, &point, MountOptions::default()).map(drop)
        };
        let mounting = self.mounting.lock();
        let room = self.room_for_mounts(forks.len());
        let mounted = room.and_then(|()| Ok(forks.iter().try_for_each(&mut mount)?));
        drop(mounting);
        let Err(error) = mounted else { return Ok(()) };
        self.discard_all(forks);
        for point in made {
            // It was made empty a moment ago; if it is not, it is left to whoever filled it.
            let _ = std::fs::remove_dir(point);
        }
        Err(error)
    }

    /// Takes back sessions of a request that failed.
    pub(super) fn discard_all(&self, sessions: &[Arc<Session>]) {
        for session in sessions {
            if let Err(error) = self.mounts.unmount_session(session.id()) {
                tracing::warn!(%error, session = %session.id(), "a fork of a failed request stays mounted");
            } else if let Err(error) = self.engine.discard(session) {
                tracing::warn!(%error, session = %session.id(), "a session of a failed request stays");
            }
        }
    }
}

fn fork_names(name: Option<String>, count: u32) -> Vec<Option<String>> {
    match count {
        1 => vec![name],
        _ => (1..=count).map(|n| name.as_ref().map(|name| format!("{name}-{n}"))).collect(),
    }
}

fn cannot_create(point: &Path) -> impl FnOnce(io::Error) -> MountError {
    let dir: PathBuf = point.to_owned();
    move |source| match (source.kind(), dir.parent()) {
        (io::ErrorKind::NotFound, Some(parent)) => MountError::NotFound(parent.to_owned()),
        (io::ErrorKind::NotADirectory, Some(parent)) => MountError::NotADirectory(parent.to_owned()),
        _ => MountError::Failed { dir, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_forks_have_numbered_names() {
        assert_eq!(fork_names(Some("a".into()), 1), [Some("a".into())]);
        assert_eq!(fork_names(Some("a".into()), 2), [Some("a-1".into()), Some("a-2".into())]);
        assert_eq!(fork_names(None, 2), [None, None]);
    }
}
