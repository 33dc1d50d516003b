//! Sessions and snapshots as such: made, listed, shown, sealed.

use std::sync::Arc;

use cas::{SnapshotId, dir::Dir, store::Listed};
use nix::unistd::{getegid, geteuid};
use proto::v1::{self, list_item, seal_event, show_reply};

use super::{
    Answer, Host,
    convert::{Changes, session_info, snapshot_info},
    elsewhere::session_of_head,
    notes::Wanted,
    progress::Pace,
    request::{check_length, label},
    status::of_store,
    stream::Sink,
};
use crate::session::{Error, SealProgress, Session, Target};

impl Host {
    pub(super) fn create(&self, request: v1::CreateRequest) -> Answer<v1::CreateReply> {
        let v1::CreateRequest { from, name, mount_dir, notes } = request;
        let (mount_dir, notes) = (self.mount_dir(&mount_dir)?, self.notes(notes)?);
        let (session, elapsed_us) = self.timed(|| {
            let base = if from.is_empty() { None } else { Some(self.base_of(&from)?) };
            let owner = (geteuid().as_raw(), getegid().as_raw());
            let name = label(name)?;
            self.fetching(|| self.engine.create_noted(base, name.clone(), notes.clone(), owner))
        })?;
        if let Some(dir) = mount_dir {
            self.mount_or_discard(&session, &dir)?;
        }
        Ok(v1::CreateReply { session: Some(self.info(&session)), elapsed_us })
    }

    /// A snapshot, or what a session stands on.
    fn base_of(&self, text: &str) -> Answer<SnapshotId> {
        check_length(text)?;
        // A snapshot is what is meant where a session has the same name.
        Ok(match self.engine.snapshot(text) {
            Ok(snapshot) => {
                // It was taken off the list, and may be half gone.
                let store = self.engine.store();
                if store.has_remote() && !store.keeps(snapshot).map_err(of_store)? {
                    self.engine.adopt(snapshot)?;
                }
                snapshot
            }
            // Nobody here knows it; the remote store may.
            Err(Error::Store(cas::Error::UnknownSnapshot(id))) => {
                self.engine.adopt(id)?;
                id
            }
            Err(Error::Unknown(_)) => match self.head_elsewhere(text)? {
                Some(head) => {
                    self.look_at(&head, head.origin)?;
                    self.engine.adopt(head.origin)?;
                    head.origin
                }
                None => self.engine.session(text)?.meta.origin,
            },
            Err(error) => return Err(error.into()),
        })
    }

    pub(super) fn list(&self, request: v1::ListRequest, sink: &Sink<v1::ListItem>) -> Answer<()> {
        let wanted = Wanted::parse(request.labels)?;
        let (mounts, now) = (self.mounts.list(), self.engine.clock().now());
        let is_shown = |session: &Arc<Session>| wanted.fits(session) && self.may_have(session);
        for session in self.engine.sessions().into_iter().filter(is_shown) {
            let info = session_info(&session, Changes::of(&session), &mounts, now);
            let info = v1::SessionInfo { travel: self.travel_of(&session), ..info };
            sink.send(v1::ListItem { item: Some(list_item::Item::Session(info)) })?;
        }
        if !wanted.is_everything() {
            return Ok(());
        }
        let granted = self.access.is_limited().then(|| self.snapshots_granted());
        for listed in self.engine.store().list().map_err(of_store)?.into_iter().rev() {
            if granted.as_ref().is_some_and(|granted| !granted.contains(&listed.id)) {
                continue;
            }
            let info = snapshot_info(listed);
            sink.send(v1::ListItem { item: Some(list_item::Item::Snapshot(info)) })?;
        }
        Ok(())
    }

    pub(super) fn show(&self, request: v1::ShowRequest) -> Answer<v1::ShowReply> {
        if let Some(head) = self.head_elsewhere(&request.id)? {
            return Ok(v1::ShowReply { item: Some(show_reply::Item::Session(session_of_head(&head))) });
        }
        let item = match self.target(&request.id)? {
            Target::Session(session) => show_reply::Item::Session(self.info(&session)),
            Target::Snapshot(id) => show_reply::Item::Snapshot(snapshot_info(self.listed(id)?)),
        };
        Ok(v1::ShowReply { item: Some(item) })
    }

    /// What the catalogue knows of a snapshot; of one that it does not list, what the snapshot itself says.
    fn listed(&self, id: SnapshotId) -> Answer<Listed> {
        let store = &self.engine.store().fetching();
        if let Some(listed) = store.list().map_err(of_store)?.into_iter().find(|listed| listed.id == id) {
            return Ok(listed);
        }
        let dir = Dir::open(store, store.snapshot(id).map_err(of_store)?.dir).map_err(of_store)?;
        let totals = dir.totals();
        Ok(Listed {
            id,
            names: Vec::new(),
            created: Default::default(),
            files: totals.files,
            bytes: totals.bytes,
        })
    }

    pub(super) fn info(&self, session: &Session) -> v1::SessionInfo {
        let now = self.engine.clock().now();
        let info = session_info(session, Changes::of(session), &self.mounts.list(), now);
        v1::SessionInfo { travel: self.travel_of(session), ..info }
    }

    pub(super) fn seal(&self, request: v1::SealRequest, sink: &Sink<v1::SealEvent>) -> Answer<()> {
        let session = self.session(&request.session)?;
        let pace = Pace::new(&**self.engine.clock());
        let (sealed, elapsed_us) = self.timed(|| {
            Ok(self.engine.seal(&session, true, &mut |progress| {
                if pace.is_due() {
                    sink.offer(seal_progress(progress));
                }
            })?)
        })?;
        let listed = self.listed(sealed.snapshot)?;
        let done = v1::SealDone {
            snapshot: sealed.snapshot.to_string(),
            files: listed.files,
            bytes: listed.bytes,
            new_objects: sealed.written.new_objects,
            new_bytes: sealed.written.new_bytes,
            elapsed_us,
        };
        sink.send(v1::SealEvent { event: Some(seal_event::Event::Done(done)) })
    }
}

/// A seal goes by directories; how many bytes it will be is not known before the end.
fn seal_progress(progress: SealProgress) -> v1::SealEvent {
    let progress = v1::SealProgress {
        files_done: progress.dirs_done,
        files_total: progress.dirs,
        bytes_done: progress.bytes_done,
        bytes_total: 0,
    };
    v1::SealEvent { event: Some(seal_event::Event::Progress(progress)) }
}
