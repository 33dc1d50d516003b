//! Sessions that travel: found by their ID on whatever host they are, published, and handed from host to host.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use cas::{
    SnapshotId,
    remote::publish::{Progress, Published},
};
use proto::v1::{self, publish_event};

use tonic::Status;

use super::{
    Answer, Host, convert::time_ns, progress::Pace, request::host_path, status::of_store, stream::Sink,
};
use crate::{
    fleet::{Asked, Fleet, FleetError, Standing, Taken, heads::Head},
    fuse::MountOptions,
    session::{Error, Notes, Session, SessionId, Target},
};

impl Host {
    pub(super) fn fleet(&self) -> Answer<&Fleet> {
        self.fleet.as_deref().ok_or_else(|| of_store(cas::Error::NoRemote))
    }

    /// The session of a whole ID that is not on this host, if there are others that may have it. Of which sessions it is a fork is not known here, so
    /// a token with limits has to name it itself.
    fn not_here(&self, text: &str) -> Option<(&Fleet, SessionId)> {
        let (fleet, id) = (self.fleet.as_deref()?, text.parse().ok()?);
        (self.engine.session_of(id).is_none() && self.access.names(id)).then_some((fleet, id))
    }

    /// The head of a session that is not here. `None` if the text does not stand for one.
    pub(super) fn head_elsewhere(&self, text: &str) -> Answer<Option<Head>> {
        let Some((fleet, id)) = self.not_here(text) else { return Ok(None) };
        match fleet.head(id) {
            Err(FleetError::Unknown(_)) => Ok(None),
            head => Ok(Some(head?)),
        }
    }

    /// Has what a snapshot begins with brought here that a head names.
    pub(super) fn look_at(&self, head: &Head, id: SnapshotId) -> Answer<()> {
        self.fleet()?.discover(head, &[id])?;
        Ok(self.engine.look_at(id)?)
    }

    /// A session by what [`Host::session`] takes, or one of another host, which becomes this one's.
    pub(super) fn session_to_mount(&self, text: &str, take_over: bool) -> Answer<Arc<Session>> {
        let session = match self.not_here(text) {
            Some((fleet, id)) => match fleet.open_here(id, take_over) {
                Err(FleetError::Unknown(_)) => return self.session(text),
                opened => opened?,
            },
            None => self.session(text)?,
        };
        self.check_open(&session)?;
        Ok(session)
    }

    /// A session by what [`Host::session`] takes, to be looked at; of another host's what is published of it.
    pub(super) fn session_to_follow(&self, text: &str) -> Answer<Arc<Session>> {
        match self.not_here(text) {
            Some((fleet, id)) => match fleet.follow(id) {
                Err(FleetError::Unknown(_)) => self.session(text),
                followed => Ok(followed?),
            },
            None => self.session(text),
        }
    }

    /// Lets go of a session that is only a look at another host's, once it is not mounted. For who holds `mounting`.
    pub(super) fn discard_look(&self, session: &Session) {
        if let Some(visits) = self.visits.as_ref().filter(|visits| visits.seen_by(session).is_some()) {
            if self.mounts_of(session).is_empty()
                && let Err(error) = visits.discard(session)
            {
                tracing::warn!(session = %session.id(), %error, "a look at a peer's session stays");
            }
            return;
        }
        let Some(fleet) = &self.fleet else { return };
        let is_look = fleet.standing(session).is_some_and(|standing| standing.follows.is_some());
        if is_look
            && self.mounts_of(session).is_empty()
            && let Err(error) = fleet.discard(session)
        {
            tracing::warn!(session = %session.id(), %error, "a look at another host's session stays");
        }
    }

    pub(super) fn advance(&self, request: v1::AdvanceRequest) -> Answer<v1::AdvanceReply> {
        let dir = host_path(&request.dir)?;
        let (_, session) = self.mount_on(&dir)?;
        if let Some(uri) = self.seen_by(&session) {
            let (visited, is_behind) = self.seen_next(&uri, &session)?;
            if is_behind {
                self.show_instead(&dir, &session, &self.look_on(&visited)?)?;
            }
            let published = visited.root.to_string();
            return Ok(v1::AdvanceReply { session: uri.to_string(), published, advanced: is_behind });
        }
        let no_follower = || {
            let message = format!(
                "{} shows {}, which follows nothing: it is as it is now",
                dir.display(),
                session.id()
            );
            Status::failed_precondition(message)
        };
        let fleet = self.fleet.as_deref().ok_or_else(no_follower)?;
        let (followed, is_behind) = fleet.followed(&session)?.ok_or_else(no_follower)?;
        let mut shown = Arc::clone(&session);
        if is_behind {
            shown = fleet.follow(followed)?;
            self.show_instead(&dir, &session, &shown)?;
        }
        let published = shown.peek().base.to_string();
        Ok(v1::AdvanceReply { session: followed.to_string(), published, advanced: is_behind })
    }

    /// Mounts one look in the place of another, and lets go of the one that nobody sees then.
    fn show_instead(&self, dir: &Path, old: &Arc<Session>, new: &Arc<Session>) -> Answer<()> {
        let _mounting = self.mounting.lock();
        let replaced = self.replace_look(dir, old, new);
        [old, new].into_iter().for_each(|one| self.discard_look(one));
        replaced
    }

    /// Mounts one look in the place of another, as that was mounted. For who holds `mounting`.
    fn replace_look(&self, dir: &Path, old: &Arc<Session>, new: &Arc<Session>) -> Answer<()> {
        // The network was asked meanwhile.
        let (mount, session) = self.mount_on(dir)?;
        if session.id() != old.id() {
            let message = format!("{} shows something else by now; try again", dir.display());
            return Err(Status::aborted(message));
        }
        let options = MountOptions {
            read_only: true,
            allow_other: mount.allow_other,
            acl: mount.acl,
            no_xattrs: mount.no_xattrs,
            transport: Some(mount.transport.choice()),
            io: mount.io,
        };
        self.mounts.unmount_dir(dir)?;
        self.mounts.mount(new, dir, options)?;
        Ok(())
    }

    /// Whether a session of this host may be mounted.
    pub(super) fn check_open(&self, session: &Session) -> Answer<()> {
        match &self.fleet {
            _ if !session.is_closed() => Ok(()),
            Some(fleet) => Err(fleet.why_closed(session.id()).into()),
            None => Err(Error::Closed(session.id()).into()),
        }
    }

    /// Ends a session that is not here, if nobody else holds it. `None` if the text does not stand for one.
    pub(super) fn discard_elsewhere(&self, text: &str) -> Option<Answer<()>> {
        let (fleet, id) = self.not_here(text)?;
        match fleet.discard_elsewhere(id) {
            Err(FleetError::Unknown(_)) => None,
            ended => Some(ended.map_err(Into::into)),
        }
    }

    /// Forks of a session, which may be another host's.
    pub(super) fn forks_of(
        &self,
        text: &str,
        names: &[Option<String>],
        notes: &Notes,
    ) -> Answer<Vec<Arc<Session>>> {
        if let Some((fleet, id)) = self.not_here(text) {
            match fleet.fork(id, names, notes) {
                Err(FleetError::Unknown(_)) => {}
                forked => return Ok(forked?),
            }
        }
        Ok(self.engine.fork_noted(&*self.session(text)?, names, notes)?)
    }

    pub(super) fn publish(&self, request: v1::PublishRequest, sink: &Sink<v1::PublishEvent>) -> Answer<()> {
        let fleet = self.fleet()?;
        self.publishing(sink, |asked| match self.session_first(&request.id) {
            Ok(Target::Session(session)) => {
                let published = fleet.publish(&session, asked);
                let travel = self.travel_of(&session);
                Ok((published?.0, travel))
            }
            // Of those of the remote store as well: it may lack a part.
            _ => match self.target(&request.id)? {
                Target::Session(session) => Err(Error::Unknown(session.id().to_string()).into()),
                Target::Snapshot(id) => {
                    let near = self.engine.near(id)?;
                    let name = || self.engine.entropy().remote_name();
                    let store = self.engine.store();
                    let published = store.publish(id, &near, &name, asked.progress, asked.is_cancelled);
                    let published = published.map_err(of_store)?;
                    // No head names it. Until the pin does, gc is kept away by what `published` holds.
                    fleet.pin(id)?;
                    Ok((published, None))
                }
            },
        })
    }

    pub(super) fn handoff(&self, request: v1::HandoffRequest, sink: &Sink<v1::PublishEvent>) -> Answer<()> {
        let fleet = self.fleet()?;
        self.publishing(sink, |asked| {
            // One that this host holds may not be open here, if it died when it had taken it.
            let session = self.session_to_mount(&request.session, false)?;
            {
                let _mounting = self.mounting.lock();
                if !self.mounts_of(&session).is_empty() {
                    if !request.force {
                        return Err(Error::Mounted(session.id()).into());
                    }
                    self.mounts.unmount_session(session.id())?;
                }
                // From here on nobody mounts it.
                session.close();
            }
            let asked = Asked { keep: false, ..*asked };
            let (published, head) = fleet.hand_off(&session, &asked)?;
            Ok((published, Some(travel_of_head(&head))))
        })
    }

    /// Publishes with progress, and tells what came of it.
    fn publishing(
        &self,
        sink: &Sink<v1::PublishEvent>,
        work: impl FnOnce(&Asked<'_>) -> Answer<(Published, Option<v1::Travel>)>,
    ) -> Answer<()> {
        let pace = Pace::new(&**self.engine.clock());
        let progress = |progress: Progress| {
            if pace.is_due() {
                sink.offer(publish_progress(progress));
            }
        };
        let gone = sink.watch();
        let is_cancelled = || gone.flag.load(Ordering::Relaxed);
        let asked = Asked { keep: true, progress: &progress, is_cancelled: &is_cancelled };
        let ((published, travel), elapsed_us) = self.timed(|| work(&asked))?;
        let done = v1::PublishDone {
            snapshot: published.manifest.snapshot.to_string(),
            files: published.manifest.files,
            bytes: published.manifest.bytes,
            new_objects: published.objects,
            new_bytes: published.object_bytes,
            sent_packs: published.packs,
            sent_bytes: published.pack_bytes,
            elapsed_us,
            travel,
        };
        sink.send(v1::PublishEvent { event: Some(publish_event::Event::Done(done)) })
    }

    /// What others may see of a session that is here, if it travels.
    pub(super) fn travel_of(&self, session: &Session) -> Option<v1::Travel> {
        if let Some(uri) = self.seen_by(session) {
            let published = session.peek().base.to_string();
            return Some(v1::Travel { published, follows: uri.to_string(), ..v1::Travel::default() });
        }
        let standing = self.fleet.as_ref()?.standing(session)?;
        let Standing { head, is_held, is_ahead, is_unsettled, taken, follows } = standing;
        if let Some(followed) = follows {
            let published = session.peek().base.to_string();
            return Some(v1::Travel { published, follows: followed.to_string(), ..v1::Travel::default() });
        }
        Some(v1::Travel {
            held_here: is_held,
            unpublished: is_ahead,
            unsettled: is_unsettled,
            taken: taken.is_some(),
            taken_fork: taken.and_then(Taken::fork).map(|fork| fork.to_string()).unwrap_or_default(),
            ..head.as_ref().map(travel_of_head).unwrap_or_default()
        })
    }
}

/// A session of another host, as its head has it.
pub(super) fn session_of_head(head: &Head) -> v1::SessionInfo {
    v1::SessionInfo {
        id: head.session.to_string(),
        name: head.name.clone().unwrap_or_default(),
        base: head.origin.to_string(),
        parent: head.parent.map(|id| id.to_string()).unwrap_or_default(),
        created_ns: time_ns(head.created),
        travel: Some(travel_of_head(head)),
        ..v1::SessionInfo::default()
    }
}

fn travel_of_head(head: &Head) -> v1::Travel {
    v1::Travel {
        published: head.root.to_string(),
        seq: head.seq,
        epoch: head.epoch,
        holder: head.holder.map(|host| host.to_string()).unwrap_or_default(),
        ..v1::Travel::default()
    }
}

fn publish_progress(progress: Progress) -> v1::PublishEvent {
    let progress = v1::PublishProgress {
        files_done: progress.files,
        files_total: progress.files_total,
        sent_bytes: progress.sent_bytes,
    };
    v1::PublishEvent { event: Some(publish_event::Event::Progress(progress)) }
}
