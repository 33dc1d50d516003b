//! Mounts: made and taken away on request.

use std::{os::unix::ffi::OsStrExt, path::Path, sync::Arc};

use proto::v1::{self, unmount_request::Target};
use tonic::Status;

use super::{
    Answer, Host,
    bounds::MOUNTS_MAX,
    convert::{file_io_choice, mount_info, transport_choice},
    request::host_path,
    visits::Place,
};
use crate::{
    fuse::{MountError, MountInfo, MountOptions},
    session::Session,
};

impl Host {
    pub(super) fn mount(&self, request: v1::MountRequest) -> Answer<v1::MountReply> {
        let unknown = |what, number| {
            Status::invalid_argument(format!("{what} {number} is none that this daemon knows"))
        };
        let transport = v1::Transport::try_from(request.transport)
            .map_err(|_| unknown("transport", request.transport))?;
        let io = v1::FileIo::try_from(request.io).map_err(|_| unknown("io", request.io))?;
        let v1::MountRequest { session, dir, read_only, allow_other, acl, no_xattrs, take_over, .. } =
            request;
        let dir = host_path(&dir)?;
        let (transport, io) = (transport_choice(transport), file_io_choice(io));
        let options = MountOptions { read_only, allow_other, acl, no_xattrs, transport, io };
        // It may have to come from another host, for which nobody else is held up.
        let found = match self.place_of_session(session)? {
            Place::There(uri) => self.look_at_peer(&uri, read_only)?,
            Place::Here(session, _) if read_only => self.session_to_follow(&session)?,
            Place::Here(session, _) => self.session_to_mount(&session, take_over)?,
        };
        let _mounting = self.mounting.lock();
        // Looked up under the lock: nobody discards it in between.
        let session = self.session(&found.id().to_string())?;
        match &self.fleet {
            _ if read_only && self.seen_by(&session).is_some() => {}
            Some(fleet) if read_only => fleet.may_look_at(&session)?,
            _ if read_only => {}
            _ => self.check_open(&session)?,
        }
        let mounted =
            self.room_for_mounts(1).and_then(|()| Ok(self.mounts.mount(&session, &dir, options)?));
        if mounted.is_err() {
            self.discard_look(&session);
        }
        let mount = mounted?;
        Ok(v1::MountReply { session: session.id().to_string(), mount: Some(mount_info(&mount)) })
    }

    /// Mounts a session that was just made; without the mount nobody wants it.
    pub(super) fn mount_or_discard(&self, session: &Arc<Session>, dir: &Path) -> Answer<()> {
        let mounting = self.mounting.lock();
        let mount = || Ok(self.mounts.mount(session, dir, MountOptions::default())?);
        let mounted = self.room_for_mounts(1).and_then(|()| mount());
        drop(mounting);
        if mounted.is_err() {
            self.discard_all(std::slice::from_ref(session));
        }
        mounted.map(drop)
    }

    /// Whether so many more mounts may be made, for who holds `mounting`. Error: RESOURCE_EXHAUSTED.
    pub(super) fn room_for_mounts(&self, more: usize) -> Answer<()> {
        if self.mounts.list().len() + more > MOUNTS_MAX {
            let message = format!("a daemon has at most {MOUNTS_MAX} mounts; unmount some");
            return Err(Status::resource_exhausted(message));
        }
        Ok(())
    }

    pub(super) fn unmount(&self, request: v1::UnmountRequest) -> Answer<v1::UnmountReply> {
        match request.target {
            Some(Target::Dir(dir)) => self.unmount_dir(&host_path(&dir)?),
            Some(Target::Session(session)) => self.unmount_session(&session),
            None => Err(Status::invalid_argument("neither a directory nor a session to unmount")),
        }
    }

    fn unmount_dir(&self, dir: &Path) -> Answer<v1::UnmountReply> {
        let before = self.mounts.list();
        self.mounts.unmount_dir(dir)?;
        // The path may have led there through symlinks, so what went is told by what is left.
        let after = self.mounts.list();
        let gone = before.into_iter().find(|mount| !after.iter().any(|left| left.dir == mount.dir));
        if let Some(session) = gone.as_ref().and_then(|mount| self.engine.session_of(mount.session)) {
            let _mounting = self.mounting.lock();
            self.discard_look(&session);
        }
        let session = gone.as_ref().map(|mount| mount.session.to_string()).unwrap_or_default();
        Ok(v1::UnmountReply { session, dirs: vec![dir.as_os_str().as_bytes().to_vec()] })
    }

    fn unmount_session(&self, text: &str) -> Answer<v1::UnmountReply> {
        let session = self.session(text)?;
        let mounts = self.mounts_of(&session);
        if mounts.is_empty() {
            return Err(Status::failed_precondition(format!("{} is not mounted", session.id())));
        }
        self.mounts.unmount_session(session.id())?;
        let _mounting = self.mounting.lock();
        self.discard_look(&session);
        let dirs = mounts.iter().map(|mount| mount.dir.as_os_str().as_bytes().to_vec()).collect();
        Ok(v1::UnmountReply { session: session.id().to_string(), dirs })
    }

    /// The mount on a directory, and its session.
    pub(super) fn mount_on(&self, dir: &Path) -> Answer<(MountInfo, Arc<Session>)> {
        let found = self.mounts.list().into_iter().find(|mount| mount.dir == dir);
        let session = |mount: MountInfo| Some((self.engine.session_of(mount.session)?, mount));
        let (session, mount) =
            found.and_then(session).ok_or_else(|| MountError::NotMounted(dir.display().to_string()))?;
        Ok((mount, session))
    }

    pub(super) fn mounts_of(&self, session: &Session) -> Vec<MountInfo> {
        self.mounts.list().into_iter().filter(|mount| mount.session == session.id()).collect()
    }
}
