//! Heads of a host alone: a redb database, which one process at a time opens.

use std::{fmt, ops::Bound, path::Path};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Appended, Head, HeadError, HeadStore, HostId, Page, Place};
use crate::session::SessionId;

/// Session to the bytes of its head.
const HEADS: TableDefinition<'_, &[u8; 10], &[u8]> = TableDefinition::new("heads");
/// Host to its last sign of life.
const BEATS: TableDefinition<'_, &[u8; 16], u64> = TableDefinition::new("beats");

/// See the module.
pub struct LocalHeads {
    database: Database,
    place: String,
}

impl LocalHeads {
    /// Opens the database, or makes an empty one. Error: what redb says, a file of something else among it.
    pub fn open(path: &Path) -> Result<LocalHeads, HeadError> {
        let place = path.display().to_string();
        let failed = |error: redb::Error| HeadError::Unknown(format!("{place}: {error}"));
        let database = Database::create(path).map_err(|error| failed(error.into()))?;
        let made = || -> Result<(), redb::Error> {
            let write = database.begin_write()?;
            write.open_table(HEADS)?;
            write.open_table(BEATS)?;
            Ok(write.commit()?)
        };
        made().map_err(failed)?;
        Ok(LocalHeads { database, place })
    }

    fn decode(&self, session: SessionId, bytes: &[u8]) -> Result<Head, HeadError> {
        let malformed = |reason| HeadError::Malformed { session, place: self.place.clone(), reason };
        Head::decode(session, bytes).map_err(malformed)
    }

    fn failed(&self, error: impl Into<redb::Error>) -> HeadError {
        HeadError::Unknown(format!("{}: {}", self.place, error.into()))
    }
}

impl HeadStore for LocalHeads {
    fn place(&self) -> Result<Place, HeadError> {
        Ok(Place::Host)
    }

    fn is_alone(&self) -> bool {
        true
    }

    fn newest(&self, session: SessionId) -> Result<Option<Head>, HeadError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.database.begin_read()?.open_table(HEADS)?;
            Ok(table.get(&session.0)?.map(|bytes| bytes.value().to_vec()))
        };
        let bytes = read().map_err(|error| self.failed(error))?;
        bytes.map(|bytes| self.decode(session, &bytes)).transpose()
    }

    fn append(&self, head: &Head) -> Result<Appended, HeadError> {
        let write = self.database.begin_write().map_err(|error| self.failed(error))?;
        {
            let mut table = write.open_table(HEADS).map_err(|error| self.failed(error))?;
            let there = table.get(&head.session.0).map_err(|error| self.failed(error))?;
            let newest = there.map(|bytes| self.decode(head.session, bytes.value())).transpose()?;
            match &newest {
                Some(newest) if newest.seq == head.seq && newest.nonce == head.nonce => {
                    return Ok(Appended::Won);
                }
                newest if newest.as_ref().map_or(0, |newest| newest.seq) + 1 != head.seq => {
                    return Ok(Appended::Lost(newest.clone()));
                }
                _ => {}
            }
            table.insert(&head.session.0, &*head.encode()).map_err(|error| self.failed(error))?;
        }
        write.commit().map_err(|error| self.failed(error))?;
        Ok(Appended::Won)
    }

    fn sessions(&self, after: Option<SessionId>, max: usize) -> Result<Vec<SessionId>, HeadError> {
        let read = || -> Result<Vec<SessionId>, redb::Error> {
            let table = self.database.begin_read()?.open_table(HEADS)?;
            let mut sessions = Vec::new();
            for row in table.range::<&[u8; 10]>(behind(&after))?.take(max) {
                sessions.push(SessionId(*row?.0.value()));
            }
            Ok(sessions)
        };
        read().map_err(|error| self.failed(error))
    }

    fn page(&self, after: Option<SessionId>, max: usize) -> Result<Page, HeadError> {
        let read = || -> Result<Page, redb::Error> {
            let table = self.database.begin_read()?.open_table(HEADS)?;
            let mut page = Page::new();
            for row in table.range::<&[u8; 10]>(behind(&after))?.take(max) {
                let (session, bytes) = row?;
                let session = SessionId(*session.value());
                page.push((session, self.decode(session, bytes.value())));
            }
            Ok(page)
        };
        read().map_err(|error| self.failed(error))
    }

    fn beat(&self, host: HostId, beat: u64) -> Result<(), HeadError> {
        let write = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            write.open_table(BEATS)?.insert(&host.0, beat)?;
            Ok(write.commit()?)
        };
        write().map_err(|error| self.failed(error))
    }

    fn last_beat(&self, host: HostId) -> Result<Option<u64>, HeadError> {
        let read = || -> Result<Option<u64>, redb::Error> {
            let table = self.database.begin_read()?.open_table(BEATS)?;
            Ok(table.get(&host.0)?.map(|beat| beat.value()))
        };
        read().map_err(|error| self.failed(error))
    }
}

fn behind(after: &Option<SessionId>) -> (Bound<&[u8; 10]>, Bound<&[u8; 10]>) {
    let start = after.as_ref().map_or(Bound::Unbounded, |session| Bound::Excluded(&session.0));
    (start, Bound::Unbounded)
}

impl fmt::Debug for LocalHeads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::heads::contract;

    #[test]
    fn a_file_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| LocalHeads::open(&dir.path().join(name)).unwrap();
        contract::check(&open("one"));
        let newest = open("one").newest(SessionId([1; 10])).unwrap();
        assert_eq!(newest, Some(contract::head(1, 99, 99)), "it stays");
        contract::check_many(&open("many"));
    }

    #[test]
    fn another_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads");
        std::fs::write(&path, "something else, and long enough to be a database").unwrap();
        assert!(LocalHeads::open(&path).unwrap_err().to_string().contains("heads"));
    }
}
