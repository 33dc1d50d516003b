//! What stays in the remote store: pins, garbage collection there, and why something was kept.

use std::{sync::atomic::Ordering, time::Duration};

use cas::{
    SnapshotId,
    remote::gc::{DELAY, LEASE, LEASE_RENEWED, Progress, Sum},
};
use proto::v1::{self, gc_remote_event::Event};
use tonic::Status;

use super::{Answer, Host, progress::Pace, request::check_length, stream::Sink};
use crate::{
    fleet::{Collecting, FleetError, heads::HostId},
    session::{Error, Session, SessionId, Target},
};

/// A host that is there has said so since then, even if it was late once.
const LEASE_MIN: Duration = LEASE_RENEWED.saturating_mul(2);

impl Host {
    pub(super) fn pin(&self, request: v1::PinRequest) -> Answer<v1::PinReply> {
        check_length(&request.id)?;
        let fleet = self.fleet()?;
        let id = self.published(&request.id)?;
        match fleet.pin(id) {
            Err(FleetError::Engine(Error::Store(cas::Error::UnknownSnapshot(_)))) => {
                Err(Status::not_found(format!(
                    "{id} is not in the remote store; `aetherctl publish {id}`, on a host that has it, brings it there and pins it"
                )))
            }
            pinned => {
                pinned?;
                Ok(v1::PinReply { snapshot: id.to_string() })
            }
        }
    }

    pub(super) fn unpin(&self, request: v1::UnpinRequest) -> Answer<v1::UnpinReply> {
        check_length(&request.id)?;
        let fleet = self.fleet()?;
        let id = self.published(&request.id)?;
        match fleet.unpin(id)? {
            true => Ok(v1::UnpinReply { snapshot: id.to_string() }),
            false => Err(Status::failed_precondition(format!(
                "{id} is not pinned; `aetherctl gc --why {id}` says what else keeps it"
            ))),
        }
    }

    pub(super) fn gc_remote(
        &self,
        request: v1::GcRemoteRequest,
        sink: &Sink<v1::GcRemoteEvent>,
    ) -> Answer<()> {
        let dry_run = request.dry_run;
        let delay = request.delay_ms.map_or(DELAY, Duration::from_millis);
        let lease = request.hosts_gone_after_ms.map_or(LEASE, Duration::from_millis);
        check_lease(lease)?;
        let fleet = self.fleet()?;
        let pace = Pace::new(&**self.engine.clock());
        let progress = |progress: Progress| {
            if pace.is_due() {
                sink.offer(event(Event::Progress(told(progress))));
            }
        };
        let gone = sink.watch();
        let is_cancelled = || gone.flag.load(Ordering::Relaxed);
        let asked = Collecting { dry_run, delay, lease, progress: &progress, is_cancelled: &is_cancelled };
        let (report, elapsed_us) = self.timed(|| Ok(fleet.gc(&asked)?))?;
        for host in report.gone_hosts {
            sink.send(event(Event::GoneHost(HostId(host.0).to_string())))?;
        }
        for id in report.missing {
            sink.send(event(Event::MissingSnapshot(id.to_string())))?;
        }
        sink.send(event(Event::Done(v1::GcRemoteDone {
            dry_run,
            needed: objects(report.needed),
            young: objects(report.young),
            condemned: objects(report.condemned),
            waiting: objects(report.waiting),
            removed: objects(report.removed),
            delay_ms: millis(delay),
            hosts_gone_after_ms: millis(lease),
            elapsed_us,
        })))
    }

    pub(super) fn gc_why(&self, request: v1::GcWhyRequest, sink: &Sink<v1::GcWhyLine>) -> Answer<()> {
        check_length(&request.id)?;
        let fleet = self.fleet()?;
        let wanted = self.name_there(&request.id)?;
        let lines = fleet.why(&wanted)?;
        if lines.is_empty() {
            return Err(Status::not_found(format!(
                "the remote store has nothing called {wanted}, and nobody there says that he needs it"
            )));
        }
        lines.into_iter().try_for_each(|text| sink.send(v1::GcWhyLine { text }))
    }

    /// What a snapshot, a session of this host or the whole ID of another's stands for in the remote store. Whether a snapshot is there is not looked at.
    fn published(&self, text: &str) -> Answer<SnapshotId> {
        match self.engine.session(text) {
            Ok(session) => return self.published_of(&session),
            Err(Error::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(head) = self.head_elsewhere(text)? {
            return Ok(head.root);
        }
        match self.engine.snapshot(text) {
            // Nobody here knows it; the remote store may.
            Err(Error::Store(cas::Error::UnknownSnapshot(id))) => Ok(id),
            found => Ok(found?),
        }
    }

    fn published_of(&self, session: &Session) -> Answer<SnapshotId> {
        let standing = self.fleet()?.standing(session);
        let published = standing.and_then(|standing| match standing.follows {
            Some(_) => Some(session.peek().base),
            None => standing.head.map(|head| head.root),
        });
        published.ok_or_else(|| {
            let id = session.id();
            Status::failed_precondition(format!(
                "{id} was never published: nothing of it is in the remote store; `aetherctl publish {id}` first"
            ))
        })
    }

    /// What the remote store calls what a person means, who may have its name from a message: with the way to it.
    fn name_there(&self, text: &str) -> Answer<String> {
        let name = text.rsplit('/').next().unwrap_or(text);
        match self.engine.resolve(name) {
            Ok(Target::Session(session)) => Ok(session.id().to_string()),
            Ok(Target::Snapshot(id)) | Err(Error::Store(cas::Error::UnknownSnapshot(id))) => {
                Ok(id.to_string())
            }
            Err(Error::Unknown(_)) => Ok(match name.parse::<SessionId>() {
                Ok(id) => id.to_string(),
                // A host goes there by what is behind this.
                Err(()) => name.strip_prefix("host_").unwrap_or(name).to_owned(),
            }),
            Err(error) => Err(error.into()),
        }
    }
}

/// Error: INVALID_ARGUMENT if a host that is there might count as gone.
fn check_lease(lease: Duration) -> Answer<()> {
    if lease >= LEASE_MIN {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "a host says every {} h that it is there, so it can be gone after {} h at the earliest, not after {} s: give --hosts-gone-after more",
        hours(LEASE_RENEWED),
        hours(LEASE_MIN),
        lease.as_secs()
    )))
}

fn hours(duration: Duration) -> u64 {
    duration.as_secs() / 3600
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn objects(sum: Sum) -> Option<v1::RemoteObjects> {
    Some(v1::RemoteObjects { objects: sum.objects, bytes: sum.bytes })
}

fn event(event: Event) -> v1::GcRemoteEvent {
    v1::GcRemoteEvent { event: Some(event) }
}

fn told(progress: Progress) -> v1::GcProgress {
    let (phase, objects_done, objects_total) = match progress {
        Progress::Looking(objects) => ("looking", objects, 0),
        Progress::Condemning(done, of) => ("condemning", done, of),
        Progress::Removing(done, of) => ("removing", done, of),
    };
    v1::GcProgress { phase: phase.to_owned(), objects_done, objects_total }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_there_is_not_gone() {
        assert!(check_lease(LEASE).is_ok() && check_lease(LEASE_MIN).is_ok());
        let refused = check_lease(LEASE_MIN - Duration::from_secs(1)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("24 h"), "{refused:?}");
    }
}
