//! A redb database on a [`Disk`], which comes back after an I/O error.
//!
//! redb refuses every call, reads too, once its backend has failed. A full disk must not end the store's life, so the
//! database is closed and opened again: its file is whole at every instant.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::{RwLock, RwLockReadGuard};
use redb::{ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction};

use crate::{
    Error, Result,
    disk::{Disk, DiskFile, Open},
};

/// An open database file.
#[derive(Debug)]
pub(crate) struct Database {
    disk: Arc<dyn Disk>,
    path: &'static str,
    cache_bytes: usize,
    /// None after a failure that reopening did not cure.
    redb: RwLock<Option<redb::Database>>,
}

impl Database {
    /// Opens the database at `path`, checking every page of it: redb may panic on damage that it meets later.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &'static str, cache_bytes: usize) -> Result<Database> {
        let database = Database { disk, path, cache_bytes, redb: RwLock::new(None) };
        let redb = database.load(path, Open::Write)?;
        *database.redb.write() = Some(redb);
        Ok(database)
    }

    /// Makes a database that holds what `fill` puts there, or the old file stays: written beside it, then renamed.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        path: &'static str,
        cache_bytes: usize,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<Database> {
        let database = Database { disk, path, cache_bytes, redb: RwLock::new(None) };
        let disk = &database.disk;
        let new = format!("{path}.new");
        match disk.remove(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(disk.display(&new))(e)),
            Ok(()) | Err(_) => {}
        }
        let redb = database.load(&new, Open::Create)?;
        commit(&redb, fill).map_err(|e| database.error(e))?;
        disk.rename(&new, path).map_err(Error::io(database.display()))?;
        let (dir, _) = path.rsplit_once('/').unwrap_or_default();
        disk.sync_dir(dir).map_err(Error::io(disk.display(dir)))?;
        *database.redb.write() = Some(redb);
        Ok(database)
    }

    /// Runs `f` over the committed state.
    pub(crate) fn read<T>(&self, f: impl Fn(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T> {
        let attempt = || -> Result<T, redb::Error> {
            let redb = self.redb().ok_or(redb::Error::PreviousIo)?;
            unpanicked(|| f(&redb.begin_read()?))
        };
        match attempt() {
            Err(redb::Error::PreviousIo | redb::Error::DatabaseClosed) => {
                self.reopen()?;
                attempt().map_err(|e| self.error(e))
            }
            other => other.map_err(|e| self.error(e)),
        }
    }

    /// Runs `f` in a transaction and commits it durably, or changes nothing.
    pub(crate) fn write<T>(&self, f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T> {
        if self.redb().is_none_or(|db| db.begin_read().is_err()) {
            self.reopen()?;
        }
        let redb = self.redb().ok_or_else(|| self.error(redb::Error::PreviousIo))?;
        let result = unpanicked(|| commit(&redb, f));
        drop(redb);
        result.map_err(|e| {
            if let Err(error) = self.reopen() {
                tracing::warn!(%error, "the database does not open again after an error");
            }
            self.error(e)
        })
    }

    /// The path as an error shows it.
    pub(crate) fn display(&self) -> PathBuf {
        self.disk.display(self.path)
    }

    /// `source` as an error of this database.
    pub(crate) fn error(&self, source: impl Into<redb::Error>) -> Error {
        Error::Database { path: self.display(), source: Box::new(source.into()) }
    }

    /// Closes and opens again. Tables of old transactions answer `DatabaseClosed` from here on.
    pub(crate) fn reopen(&self) -> Result<()> {
        let mut slot = self.redb.write();
        *slot = None;
        *slot = Some(self.load(self.path, Open::Write)?);
        Ok(())
    }

    fn redb(&self) -> Option<parking_lot::MappedRwLockReadGuard<'_, redb::Database>> {
        RwLockReadGuard::try_map(self.redb.read(), Option::as_ref).ok()
    }

    fn load(&self, path: &str, how: Open) -> Result<redb::Database> {
        let shown = self.disk.display(path);
        let file = self.disk.open(path, how).map_err(Error::io(shown.clone()))?;
        let empty = file.len().map_err(Error::io(shown.clone()))? == 0;
        if how == Open::Write && empty {
            return Err(Error::Foreign { path: shown, reason: "an empty file" });
        }
        let mut builder = redb::Builder::new();
        builder.set_cache_size(self.cache_bytes).set_check_integrity_on_open(how == Open::Write);
        unpanicked(|| Ok(builder.create_with_backend(Backend(file))?)).map_err(|e| self.error(e))
    }
}

/// Runs a call of redb. Every page is checked when a file is opened, but pages that rot after that are met by asserts.
pub(crate) fn unpanicked<T>(f: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("redb panicked".to_owned())))
}

/// Whether `error`, met while opening a database, says that what the file holds is beyond use. A refusal of the disk says
/// nothing about the file: see [`is_refused`].
pub(crate) fn is_broken(error: &Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    let rotten = |e: &io::Error| matches!(e.kind(), InvalidData | UnexpectedEof | NotFound);
    match error {
        Error::Foreign { .. } => true,
        Error::Io { source, .. } => rotten(source),
        Error::Database { source, .. } => match &**source {
            redb::Error::Io(e) => rotten(e),
            redb::Error::DatabaseAlreadyOpen
            | redb::Error::LockProtocolMismatch
            | redb::Error::Backend(_)
            | redb::Error::Unsupported
            | redb::Error::DatabaseClosed
            | redb::Error::PreviousIo => false,
            _ => true,
        },
        _ => false,
    }
}

/// Whether `error` is the disk's EIO: a sector that cannot be read, or a passing trouble.
pub(crate) fn is_refused(error: &Error) -> bool {
    let refused = |e: &io::Error| e.raw_os_error() == Some(libc::EIO);
    match error {
        Error::Io { source, .. } => refused(source),
        Error::Database { source, .. } => matches!(&**source, redb::Error::Io(e) if refused(e)),
        _ => false,
    }
}

fn commit<T>(
    redb: &redb::Database,
    f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let mut transaction = redb.begin_write()?;
    // With one phase redb falls back to the transaction before if the last one's pages are damaged, and what that one
    // acknowledged would silently be gone. With two, damage is an error, and an error has a remedy.
    transaction.set_two_phase_commit(true);
    let value = f(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// Our disk as redb sees it.
#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let n = self.0.read_at(out, offset)?;
        if n == out.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(data, offset)
    }
}
