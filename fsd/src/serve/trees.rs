//! Directories and files of sessions and snapshots, read by path without any mount.

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
use crate::session::{Found, State};

impl Host {
    pub(super) fn list_dir(&self, request: v1::ListDirRequest, sink: &Sink<v1::DirEntry>) -> Answer<()> {
        let v1::ListDirRequest { id, path } = request;
        let path = InnerPath::parse(&path)?;
        let state = self.state(&id)?;
        let found = self.walk(&state, &id, &path)?;
        if found.kind != Kind::Dir {
            return sink.send(dir_entry(last_name(&path), &found)?);
        }
        let dir = state.open_dir(&self.engine.store().fetching(), &found)?;
        for (name, found) in state.entries(&dir)? {
            sink.send(dir_entry(name.as_bytes(), &found)?)?;
        }
        Ok(())
    }

    pub(super) fn stat(&self, request: v1::StatRequest) -> Answer<v1::DirEntry> {
        let path = InnerPath::parse(&request.path)?;
        let state = self.state(&request.id)?;
        let found = self.walk(&state, &request.id, &path)?;
        dir_entry(last_name(&path), &found)
    }

    pub(super) fn read_file(
        &self,
        request: v1::ReadFileRequest,
        sink: &Sink<v1::ReadFileFrame>,
    ) -> Answer<()> {
        let v1::ReadFileRequest { id, path, offset, length } = request;
        let path = InnerPath::parse(&path)?;
        let state = self.state(&id)?;
        let found = self.walk(&state, &id, &path)?;
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
            let read = state
                .read(&self.engine.store().fetching(), &found, at, &mut data)
                .map_err(about(&path.of(&id)))?;
            data.truncate(read);
            at += read as u64;
            sink.send(v1::ReadFileFrame { data })?;
        }
        Ok(())
    }

    fn walk(&self, state: &State, id: &str, path: &InnerPath) -> Answer<Found> {
        state.walk(&self.engine.store().fetching(), &path.names).map_err(about(&path.of(id)))
    }
}

/// The root has none.
fn last_name(path: &InnerPath) -> &[u8] {
    path.names.last().map_or(b"", |name| name.as_bytes())
}
