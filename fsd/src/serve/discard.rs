//! Discarding: ends sessions, and takes snapshots off the list. Each of a request is tried.

use std::sync::Arc;

use proto::{DISCARD_COUNT_MAX, v1};
use tonic::{Code, Status};

use super::{Answer, Host};
use crate::session::{Error, Session, Target};

impl Host {
    pub(super) fn discard(&self, request: v1::DiscardRequest) -> Answer<v1::DiscardReply> {
        let v1::DiscardRequest { ids, force } = request;
        if ids.is_empty() || ids.len() > DISCARD_COUNT_MAX {
            let message = format!("{} IDs: a request discards 1 to {DISCARD_COUNT_MAX}", ids.len());
            return Err(Status::invalid_argument(message));
        }
        let results = ids.into_iter().map(|id| self.discard_one(id, force)).collect();
        Ok(v1::DiscardReply { results })
    }

    fn discard_one(&self, id: String, force: bool) -> v1::DiscardResult {
        if let Some(ended) = self.discard_elsewhere(&id) {
            return result(id.clone(), id, ended);
        }
        let target = self.session_first(&id);
        let whole_id = match &target {
            Ok(Target::Session(session)) => session.id().to_string(),
            Ok(Target::Snapshot(snapshot)) => snapshot.to_string(),
            Err(_) => String::new(),
        };
        let discarded = target.and_then(|target| match target {
            Target::Session(session) => self.discard_session(&session, force),
            Target::Snapshot(snapshot) => {
                self.check_unlimited(&id)?;
                Ok(self.engine.forget_snapshot(snapshot)?)
            }
        });
        result(id, whole_id, discarded)
    }

    fn discard_session(&self, session: &Arc<Session>, force: bool) -> Answer<()> {
        let _mounting = self.mounting.lock();
        if !self.mounts_of(session).is_empty() {
            if !force {
                return Err(Error::Mounted(session.id()).into());
            }
            self.mounts.unmount_session(session.id())?;
        }
        self.end(session)
    }
}

fn result(id: String, session: String, discarded: Answer<()>) -> v1::DiscardResult {
    let (code, message) = match discarded {
        Ok(()) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    };
    v1::DiscardResult { id, session, code: code.into(), message }
}
