//! What a host has to remember of sessions that travel, a file each in `fleet/` of the state: what it knows to be the head, the record of which
//! it does not know yet whether it is, and where the changes of a session went that another host has taken. docs/format.md is normative.
//!
//! A file is replaced as a whole, and is on the disk before anybody else hears of what it says.

use std::{fmt, sync::Arc};

use cas::disk::{Disk, put_whole, read_whole};
use parking_lot::Mutex;

use super::heads::{Head, HostId};
use crate::session::{
    Error, Result, SessionId,
    codec::{Put, Take, opened, sealed},
};

const DIR: &str = "fleet";
const HOST: &str = "fleet/host";
const NEW: &str = "fleet/new";
const MAGIC: u32 = u32::from_le_bytes(*b"AFfl");
const VERSION: u8 = 1;
/// More than two records take.
const FILE_BYTES_MAX: u64 = 4096;

/// What is remembered of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The last record of this host's that is known to have become the head.
    pub head: Option<Head>,
    /// A record of which that is not known. It is asked for until it is.
    pub pending: Option<Head>,
    /// Another host has the session.
    pub taken: Option<Taken>,
    /// It was discarded here, and the others have to hear of it.
    pub is_discarded: bool,
    /// It is no session of its own, but shows what is published of this one.
    pub follows: Option<SessionId>,
}

/// What became of what was here, of a session that another host has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All of it had been published.
    Published,
    /// It is in this fork.
    Forked(SessionId),
}

/// Stands for no fork: no session has this ID.
const NO_FORK: [u8; 10] = [0; 10];

impl Taken {
    /// The fork, if there is one.
    pub fn fork(self) -> Option<SessionId> {
        match self {
            Taken::Published => None,
            Taken::Forked(fork) => Some(fork),
        }
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Taken::Published => f.write_str("all that was here had been published"),
            Taken::Forked(fork) => write!(f, "what was here and not published is in {fork}"),
        }
    }
}

impl Entry {
    /// Nothing has to be remembered.
    pub fn is_empty(&self) -> bool {
        *self == Entry::default()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.u32(MAGIC);
        out.u8(VERSION);
        for head in [&self.head, &self.pending] {
            out.bytes(&head.as_ref().map(Head::encode).unwrap_or_default());
        }
        let fork = self.taken.map(|taken| taken.fork().map_or(NO_FORK, |fork| fork.0));
        out.bytes(fork.as_ref().map_or(&[], |fork| fork));
        out.u8(self.is_discarded.into());
        out.bytes(self.follows.as_ref().map_or(&[], |followed| &followed.0));
        sealed(out)
    }

    fn decode(session: SessionId, bytes: &[u8]) -> Option<Entry> {
        let mut from = Take(opened(bytes)?);
        if from.u32()? != MAGIC || from.u8()? != VERSION {
            return None;
        }
        let mut head = || match from.bytes()? {
            [] => Some(None),
            bytes => Head::decode(session, bytes).ok().map(Some),
        };
        let (head, pending) = (head()?, head()?);
        let taken = match from.bytes()? {
            [] => None,
            bytes if bytes == NO_FORK => Some(Taken::Published),
            bytes => Some(Taken::Forked(SessionId(bytes.try_into().ok()?))),
        };
        let is_discarded = match from.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let follows = match from.bytes()? {
            [] => None,
            bytes => Some(SessionId(bytes.try_into().ok()?)),
        };
        from.is_empty().then_some(Entry { head, pending, taken, is_discarded, follows })
    }
}

/// The files.
#[derive(Debug)]
pub struct Ledger {
    disk: Arc<dyn Disk>,
    /// One new file at a time.
    writing: Mutex<()>,
}

impl Ledger {
    /// The files of a state. Gives who this host is as well, which `fresh` decides at the first start. Errors: the disk's, `Damaged`.
    pub fn open(disk: Arc<dyn Disk>, fresh: impl FnOnce() -> HostId) -> Result<(Ledger, HostId)> {
        let made = disk.create_dir(DIR).and_then(|()| disk.sync_dir(""));
        made.map_err(Error::io(disk.display(DIR)))?;
        let ledger = Ledger { disk, writing: Mutex::new(()) };
        let host = match ledger.read(HOST)? {
            Some(bytes) => ledger.host(&bytes)?,
            None => {
                let host = fresh();
                ledger.write(HOST, &sealed(host.0.to_vec()))?;
                host
            }
        };
        Ok((ledger, host))
    }

    /// All that is remembered, and who this host is, of a state that may never have had other hosts. Errors: the disk's, `Damaged`.
    pub fn peek(disk: &Arc<dyn Disk>) -> Result<Vec<(SessionId, Entry, HostId)>> {
        let ledger = Ledger { disk: Arc::clone(disk), writing: Mutex::new(()) };
        let Some(bytes) = ledger.read(HOST)? else { return Ok(Vec::new()) };
        let host = ledger.host(&bytes)?;
        Ok(ledger.entries()?.into_iter().map(|(id, entry)| (id, entry, host)).collect())
    }

    fn host(&self, bytes: &[u8]) -> Result<HostId> {
        let id = opened(bytes).and_then(|id| id.try_into().ok());
        Ok(HostId(id.ok_or_else(|| self.damaged(HOST))?))
    }

    /// All that is remembered. Errors: the disk's, `Damaged`.
    pub fn entries(&self) -> Result<Vec<(SessionId, Entry)>> {
        let names = self.disk.list(DIR).map_err(Error::io(self.disk.display(DIR)))?;
        let mut entries = Vec::new();
        for session in names.iter().filter_map(|name| name.parse::<SessionId>().ok()) {
            entries.extend(self.entry(session)?.map(|entry| (session, entry)));
        }
        Ok(entries)
    }

    /// What is remembered of a session. Errors: the disk's, `Damaged`.
    pub fn entry(&self, session: SessionId) -> Result<Option<Entry>> {
        let path = path(session);
        let Some(bytes) = self.read(&path)? else { return Ok(None) };
        Ok(Some(Entry::decode(session, &bytes).ok_or_else(|| self.damaged(&path))?))
    }

    /// Remembers this of a session, and nothing else. Durable when it returns.
    pub fn save(&self, session: SessionId, entry: &Entry) -> Result<()> {
        let path = path(session);
        if !entry.is_empty() {
            return self.write(&path, &entry.encode());
        }
        match self.disk.remove(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => {
                removed.and_then(|()| self.disk.sync_dir(DIR)).map_err(Error::io(self.disk.display(&path)))
            }
        }
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        read_whole(&*self.disk, path, FILE_BYTES_MAX).map_err(Error::io(self.disk.display(path)))
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let _one = self.writing.lock();
        put_whole(&*self.disk, DIR, NEW, path, bytes).map_err(Error::io(self.disk.display(path)))
    }

    fn damaged(&self, path: &str) -> Error {
        Error::Damaged {
            path: self.disk.display(path),
            position: 0,
            reason: "it is not what was written; restore it, or move it away: this host then knows nothing of what it says".into(),
        }
    }
}

fn path(session: SessionId) -> String {
    format!("{DIR}/{session}")
}

#[cfg(test)]
mod tests {
    use cas::sim::SimDisk;

    use super::*;
    use crate::fleet::heads::contract::head;

    const SESSION: SessionId = SessionId([1; 10]);

    fn entry() -> Entry {
        Entry {
            head: Some(head(1, 3, 5)),
            pending: Some(head(1, 4, 6)),
            taken: Some(Taken::Forked(SessionId([8; 10]))),
            is_discarded: true,
            follows: Some(SessionId([9; 10])),
        }
    }

    #[test]
    fn what_is_saved_survives_power_loss() {
        let disk = SimDisk::new(1);
        let (ledger, host) = Ledger::open(Arc::new(disk.clone()), || HostId([4; 16])).unwrap();
        ledger.save(SESSION, &entry()).unwrap();
        let part = Entry { pending: None, taken: Some(Taken::Published), ..entry() };
        ledger.save(SESSION, &part).unwrap();
        let after = disk.crash(&mut || 1);
        let (ledger, same) = Ledger::open(Arc::new(after.clone()), || HostId([5; 16])).unwrap();
        assert_eq!((host, ledger.entries().unwrap()), (same, vec![(SESSION, part)]));
        ledger.save(SESSION, &Entry::default()).unwrap();
        ledger.save(SESSION, &Entry::default()).unwrap();
        let (ledger, _) =
            Ledger::open(Arc::new(after.crash(&mut || 1)), || unreachable!("it has one")).unwrap();
        assert_eq!(ledger.entries().unwrap(), []);
    }

    #[test]
    fn damage_is_told() {
        let bytes = entry().encode();
        assert_eq!(Entry::decode(SESSION, &bytes), Some(entry()));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(Entry::decode(SESSION, &flipped), None, "at {at}");
            assert_eq!(Entry::decode(SESSION, &bytes[..at]), None);
        }
    }
}
