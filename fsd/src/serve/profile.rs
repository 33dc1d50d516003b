//! What of a session was read: told, and fetched for another one.

use std::ops::Range;

use cas::Kind;
use proto::{FETCH_ENTRIES_MAX, profile::check_ranges, v1};
use tonic::Status;

use super::{Answer, Host, request::InnerPath, status::of_store, stream::Sink};
use crate::session::{ENTRY_PATH_BYTES_MAX, ProfileEntry};

/// Entries of a message: with the longest paths, a quarter of what a message may have.
const MESSAGE_ENTRIES: usize = 256;
const _: () = assert!(ENTRY_PATH_BYTES_MAX == proto::PATH_BYTES_MAX);

impl Host {
    pub(super) fn profile(&self, request: v1::ProfileRequest, sink: &Sink<v1::ProfileEvent>) -> Answer<()> {
        let session = self.session(&request.session)?;
        let store = self.engine.store();
        if !store.has_remote() {
            return Err(of_store(cas::Error::NoRemote));
        }
        let _room = self.bounds.profiles.enter()?;
        let profile = session.profile(&store.fetching())?;
        let mut done = v1::ProfileDone { gone: profile.gone(), full: profile.is_full, ..Default::default() };
        let mut entries = profile.entries().map(entry).inspect(|entry| match entry.ranges.is_empty() {
            true => done.dirs += 1,
            false => done.files += 1,
        });
        loop {
            let entries: Vec<_> = entries.by_ref().take(MESSAGE_ENTRIES).collect();
            if entries.is_empty() {
                break;
            }
            let entries = v1::profile_event::Event::Entries(v1::ProfileEntries { entries });
            sink.send(v1::ProfileEvent { event: Some(entries) })?;
        }
        drop(entries);
        sink.send(v1::ProfileEvent { event: Some(v1::profile_event::Event::Done(done)) })
    }
}

fn entry(ProfileEntry { path, ranges }: ProfileEntry) -> v1::ProfileEntry {
    let range = |(start, end): (u64, Option<u64>)| v1::ByteRange { start, end: end.unwrap_or(0) };
    v1::ProfileEntry { path, ranges: ranges.into_iter().map(range).collect() }
}

/// An entry of a profile that somebody sent.
pub(super) struct Wanted {
    pub(super) path: InnerPath,
    /// Empty for a directory.
    ranges: Vec<v1::ByteRange>,
}

impl Wanted {
    /// Checks what was sent. Error: INVALID_ARGUMENT.
    pub(super) fn all(entries: Vec<v1::ProfileEntry>) -> Answer<Vec<Wanted>> {
        if entries.len() > FETCH_ENTRIES_MAX {
            let message = format!("{} entries at a time are more than {FETCH_ENTRIES_MAX}", entries.len());
            return Err(Status::invalid_argument(message));
        }
        entries.into_iter().map(Wanted::parse).collect()
    }

    fn parse(v1::ProfileEntry { path, ranges }: v1::ProfileEntry) -> Answer<Wanted> {
        let path = InnerPath::parse(&path)?;
        if !ranges.is_empty() {
            check_ranges(&ranges)
                .map_err(|reason| Status::invalid_argument(format!("{}: {reason}", path.of("profile"))))?;
        }
        Ok(Wanted { path, ranges })
    }

    /// The kind that it has to be.
    pub(super) fn kind(&self) -> Kind {
        if self.ranges.is_empty() { Kind::Dir } else { Kind::File }
    }

    /// What of a file of this size it names.
    pub(super) fn ranges(&self, size: u64) -> impl Iterator<Item = Range<u64>> {
        let end = move |end| if end == 0 { size } else { size.min(end) };
        let range = move |range: &v1::ByteRange| range.start..end(range.end);
        self.ranges.iter().map(range).filter(|range| range.start < range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ranges: &[(u64, u64)]) -> Answer<Wanted> {
        let ranges = ranges.iter().map(|&(start, end)| v1::ByteRange { start, end }).collect();
        Wanted::parse(v1::ProfileEntry { path: b"a".to_vec(), ranges })
    }

    #[test]
    fn ranges_are_cut_at_the_size_that_the_file_has_here() {
        let wanted = wanted(&[(0, 10), (20, 30), (40, 0)]).unwrap();
        let of = |size| wanted.ranges(size).collect::<Vec<_>>();
        assert_eq!(of(100), [0..10, 20..30, 40..100]);
        assert_eq!(of(25), [0..10, 20..25]);
        assert_eq!(of(0), []);
    }

    #[test]
    fn what_no_profile_has_is_refused() {
        for ranges in
            [&[(5, 5)][..], &[(0, 0), (5, 6)], &[(5, 9), (9, 10)], &[(0, u64::MAX)], &[(u64::MAX, 0)]]
        {
            assert_eq!(wanted(ranges).err().map(|status| status.code()), Some(tonic::Code::InvalidArgument));
        }
        let many = vec![v1::ProfileEntry::default(); FETCH_ENTRIES_MAX + 1];
        assert!(Wanted::all(many).is_err());
    }
}
