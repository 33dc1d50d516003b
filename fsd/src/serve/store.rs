//! The store's long work: import, gc, fsck, each told about as it goes.

use cas::{
    import::Progress,
    store::{FsckProgress, GcProgress},
};
use proto::v1::{self, ImportPhase, fsck_event, gc_event, import_event};
use tonic::Status;

use super::{
    Answer, Host,
    findings::findings,
    progress::Pace,
    request::{host_path, label},
    stream::Sink,
};
use crate::{host::disk_bytes, session::CheckProgress};

impl Host {
    pub(super) fn import(&self, request: v1::ImportRequest, sink: &Sink<v1::ImportEvent>) -> Answer<()> {
        let path = host_path(&request.path)?;
        let name = label(request.name)?;
        let _entered = self.bounds.imports.enter()?;
        if path.starts_with(&self.state_dir) || self.state_dir.starts_with(&path) {
            let message = format!("{} holds the daemon's own state, or is in it", path.display());
            return Err(Status::failed_precondition(message));
        }
        if let Some(mount) = self.mounts.around(&path) {
            let message = format!(
                "{} is in a mount of this daemon, which must not wait for itself; `aetherctl seal {}` gives its snapshot",
                path.display(),
                mount.session
            );
            return Err(Status::failed_precondition(message));
        }
        let watch = sink.watch();
        let pace = Pace::new(&**self.engine.clock());
        let tell = |progress| {
            if pace.is_due() {
                sink.offer(import_progress(progress));
            }
        };
        let (imported, elapsed_us) =
            self.timed(|| Ok(self.engine.import(&path, name.as_deref(), &tell, &watch.flag)?))?;
        let written = imported.written;
        let done = v1::ImportDone {
            snapshot: imported.id.to_string(),
            files: imported.files,
            bytes: imported.bytes,
            new_objects: written.new_objects,
            new_bytes: written.new_bytes,
            known_objects: written.known_objects,
            known_bytes: written.known_bytes,
            elapsed_us,
        };
        sink.send(v1::ImportEvent { event: Some(import_event::Event::Done(done)) })
    }

    pub(super) fn gc(&self, request: v1::GcRequest, sink: &Sink<v1::GcEvent>) -> Answer<()> {
        let dry_run = request.dry_run;
        let pace = Pace::new(&**self.engine.clock());
        let segments_dir = self.state_dir.join("segments");
        let (_, dead_segments) = self.engine.durability().pool.counts();
        let segment_bytes = disk_bytes(&segments_dir);
        let (report, elapsed_us) = self.timed(|| {
            Ok(self.engine.gc(dry_run, &mut |progress| {
                if pace.is_due() {
                    sink.offer(gc_progress(progress));
                }
            })?)
        })?;
        for problem in &report.problems {
            tracing::warn!(object = %problem.digest, path = problem.path, reason = problem.reason, "damage met by gc");
        }
        if report.refused {
            let problem = report.problems.first().map(|p| format!(", {} first", p.path)).unwrap_or_default();
            let message = format!(
                "nothing was freed, because what is in use is not known for certain: {} objects cannot be read{problem}; \
                 run `aetherctl fsck`",
                report.problems.len()
            );
            return Err(Status::data_loss(message));
        }
        let done = v1::GcDone {
            dry_run,
            kept_objects: report.live_objects,
            kept_bytes: report.live_bytes,
            freed_objects: report.dead_objects,
            freed_bytes: report.freed_bytes,
            freed_packs: report.packs_removed,
            freed_segments: dead_segments as u64,
            freed_segment_bytes: segment_bytes.saturating_sub(disk_bytes(&segments_dir)),
            elapsed_us,
        };
        sink.send(v1::GcEvent { event: Some(gc_event::Event::Done(done)) })
    }

    pub(super) fn fsck(&self, request: v1::FsckRequest, sink: &Sink<v1::FsckEvent>) -> Answer<()> {
        let pace = Pace::new(&**self.engine.clock());
        let (checked, elapsed_us) = self.timed(|| {
            Ok(self.engine.check(request.repair, &mut |progress| {
                if pace.is_due() {
                    sink.offer(fsck_progress(progress));
                }
            })?)
        })?;
        let told = findings(&checked, &self.state_dir);
        let report = &checked.store;
        let untold = report.damaged_objects.saturating_sub(report.damage.len() as u64);
        let done = v1::FsckDone {
            objects: report.objects,
            bytes: report.bytes + checked.bytes,
            findings: told.len() as u64 + untold,
            repaired: told.iter().filter(|finding| finding.repaired).count() as u64,
            index_rebuilt: report.repaired && report.index_errors > 0,
            elapsed_us,
        };
        for finding in told {
            sink.send(v1::FsckEvent { event: Some(fsck_event::Event::Finding(finding)) })?;
        }
        sink.send(v1::FsckEvent { event: Some(fsck_event::Event::Done(done)) })
    }
}

fn import_progress(progress: Progress) -> v1::ImportEvent {
    let progress = match progress {
        Progress::Scanning { files, bytes } => v1::ImportProgress {
            phase: ImportPhase::Scanning.into(),
            files_done: 0,
            files_total: files,
            bytes_done: 0,
            bytes_total: bytes,
        },
        Progress::Loading { files_done, files, bytes_done, bytes } => v1::ImportProgress {
            phase: ImportPhase::Loading.into(),
            files_done,
            files_total: files,
            bytes_done,
            bytes_total: bytes,
        },
    };
    v1::ImportEvent { event: Some(import_event::Event::Progress(progress)) }
}

fn gc_progress(progress: GcProgress) -> v1::GcEvent {
    let (phase, objects_done, objects_total) = match progress {
        GcProgress::Marking { objects } => ("marking", objects, 0),
        GcProgress::Rewriting { packs, of } => ("rewriting packs", packs, of),
    };
    let progress = v1::GcProgress { phase: phase.to_owned(), objects_done, objects_total };
    v1::GcEvent { event: Some(gc_event::Event::Progress(progress)) }
}

fn fsck_progress(progress: CheckProgress) -> v1::FsckEvent {
    let progress = match progress {
        CheckProgress::Segments { bytes, of } => v1::FsckProgress {
            phase: "verifying segments".to_owned(),
            bytes_done: bytes,
            bytes_total: of,
            ..Default::default()
        },
        CheckProgress::Store(FsckProgress::Packs { bytes, of }) => v1::FsckProgress {
            phase: "verifying packs".to_owned(),
            bytes_done: bytes,
            bytes_total: of,
            ..Default::default()
        },
        CheckProgress::Store(FsckProgress::Snapshots { done, of }) => v1::FsckProgress {
            phase: "walking snapshots".to_owned(),
            objects_done: done,
            objects_total: of,
            ..Default::default()
        },
    };
    v1::FsckEvent { event: Some(fsck_event::Event::Progress(progress)) }
}
