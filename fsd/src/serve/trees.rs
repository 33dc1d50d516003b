//! Directories and files of sessions and snapshots, read by path without any mount.

use std::sync::Arc;

use cas::Kind;
use proto::{READ_FRAME_BYTES_MAX, v1};
use tonic::Status;

use super::{
    Answer, Host,
    convert::{dir_entry, kind_words},
    request::InnerPath,
    status::about,
    stream::Sink,
};
use crate::session::{Accesses, Found, Session, State, Target};

impl Host {
    pub(super) fn list_dir(&self, request: v1::ListDirRequest, sink: &Sink<v1::DirEntry>) -> Answer<()> {
        let v1::ListDirRequest { id, path } = request;
        let path = InnerPath::parse(&path)?;
        let reading = self.reading(&id)?;
        let found = reading.walk(self, &id, &path)?;
        if found.kind != Kind::Dir {
            return sink.send(dir_entry(last_name(&path), &found)?);
        }
        let dir = reading.state.open_dir(&self.engine.store().fetching(), &found)?;
        reading.tell(|accesses| accesses.add_dir(dir.ino));
        for (name, found) in reading.state.entries(&dir)? {
            sink.send(dir_entry(name.as_bytes(), &found)?)?;
        }
        Ok(())
    }

    pub(super) fn stat(&self, request: v1::StatRequest) -> Answer<v1::DirEntry> {
        let path = InnerPath::parse(&request.path)?;
        let found = self.reading(&request.id)?.walk(self, &request.id, &path)?;
        dir_entry(last_name(&path), &found)
    }

    pub(super) fn read_file(
        &self,
        request: v1::ReadFileRequest,
        sink: &Sink<v1::ReadFileFrame>,
    ) -> Answer<()> {
        let v1::ReadFileRequest { id, path, offset, length } = request;
        let path = InnerPath::parse(&path)?;
        let reading = self.reading(&id)?;
        let found = reading.walk(self, &id, &path)?;
        if found.kind != Kind::File {
            let message = format!("{}: is {}, not a regular file", path.of(&id), kind_words(found.kind));
            return Err(Status::failed_precondition(message));
        }
        let end = match length {
            0 => found.attrs.size,
            _ => offset.saturating_add(length).min(found.attrs.size),
        };
        let mut at = offset;
        while at < end {
            let mut data = vec![0; READ_FRAME_BYTES_MAX.min((end - at) as usize)];
            let read = reading
                .state
                .read(&self.engine.store().fetching(), &found, at, &mut data)
                .map_err(about(&path.of(&id)))?;
            data.truncate(read);
            reading.tell(|accesses| accesses.add_file(found.ino, at..at + read as u64));
            at += read as u64;
            sink.send(v1::ReadFileFrame { data })?;
        }
        Ok(())
    }

    /// A session or a snapshot, to be read.
    fn reading(&self, id: &str) -> Answer<Reading> {
        Ok(match self.target(id)? {
            Target::Session(session) => Reading { state: session.peek(), session: Some(session) },
            Target::Snapshot(id) => {
                Reading { state: State::of_snapshot(&self.engine.store().fetching(), id)?, session: None }
            }
        })
    }
}

/// A tree that is read. Of a session that is taken down, as if it were done in a mount.
struct Reading {
    state: State,
    session: Option<Arc<Session>>,
}

impl Reading {
    fn walk(&self, host: &Host, id: &str, path: &InnerPath) -> Answer<Found> {
        let past = |dir| self.tell(|accesses| accesses.add_dir(dir));
        self.state.walk_past(&host.engine.store().fetching(), &path.names, past).map_err(about(&path.of(id)))
    }

    fn tell(&self, access: impl FnOnce(&Accesses)) {
        if let Some(accesses) = self.session.as_ref().and_then(|session| session.accesses()) {
            access(accesses);
        }
    }
}

/// The root has none.
fn last_name(path: &InnerPath) -> &[u8] {
    path.names.last().map_or(b"", |name| name.as_bytes())
}
