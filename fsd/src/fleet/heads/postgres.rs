//! Heads in PostgreSQL, or in what speaks its protocol: a row a record, and the primary key decides who wins.
//!
//! Calls come from threads that may block; they run on a runtime of their own, like those of the remote store.

use std::{fmt, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime as Timers};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Runtime;
use tokio_postgres::{Config, Row, config::Host, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Appended, Head, HeadError, HeadStore, HostId, KEPT, Page, Place};
use crate::session::SessionId;

mod migrations {
    refinery::embed_migrations!("src/fleet/heads/migrations");
}

/// Connections of a host: as many as records that it appends at a time.
const CONNECTIONS: usize = 4;
/// For a connection, and for the answer to a statement.
const PATIENCE: Duration = Duration::from_secs(10);
/// For both, and the schema.
const WHOLE: Duration = Duration::from_secs(30);
/// Rows of an answer.
const PAGE_MAX: usize = 1 << 20;
/// The schema, made by two hosts at the same time, fails for one of them.
const MIGRATIONS_MAX: u32 = 5;

const APPEND: &str = "\
INSERT INTO aether_heads (session, seq, nonce, record) SELECT $1::bytea, $2::bigint, $3::bytea, $4::bytea \
WHERE ($2 = 1 OR EXISTS (SELECT 1 FROM aether_heads WHERE session = $1 AND seq = $2 - 1)) \
AND NOT EXISTS (SELECT 1 FROM aether_heads WHERE session = $1 AND seq >= $2) \
ON CONFLICT (session, seq) DO NOTHING";
const FORGET: &str = "DELETE FROM aether_heads WHERE session = $1 AND seq <= $2";
const NEWEST: &str = "SELECT record FROM aether_heads WHERE session = $1 ORDER BY seq DESC LIMIT 1";
const NONCE: &str = "SELECT nonce FROM aether_heads WHERE session = $1 AND seq = $2";
const SESSIONS: &str =
    "SELECT DISTINCT session FROM aether_heads WHERE session > $1 ORDER BY session LIMIT $2";
const PAGE: &str = "\
SELECT DISTINCT ON (session) session, record FROM aether_heads WHERE session > $1 \
ORDER BY session, seq DESC LIMIT $2";
const BEAT: &str = "INSERT INTO aether_beats (host, beat) VALUES ($1, $2) \
ON CONFLICT (host) DO UPDATE SET beat = EXCLUDED.beat";
const NAME: &str = "INSERT INTO aether_place (one, name) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
const NAMED: &str = "SELECT name FROM aether_place WHERE one = 1";
const LAST_BEAT: &str = "SELECT beat FROM aether_beats WHERE host = $1";

/// See the module.
pub struct PostgresHeads {
    pool: Pool,
    /// For messages: without the password.
    place: String,
    /// The schema is there.
    is_migrated: Mutex<bool>,
    /// There until the end.
    runtime: Option<Runtime>,
}

impl PostgresHeads {
    /// The database at an address (`postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require`). Nobody is asked yet. Error: why the address is
    /// none, which says nothing of a password.
    pub fn open(address: &str) -> Result<PostgresHeads, String> {
        let mut config = address.parse::<Config>().map_err(|error| error.to_string())?;
        let is_odd = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        if config.get_hosts().iter().any(is_odd) {
            return Err("a host has an @ in its name; one in a password is written %40".to_owned());
        }
        config.connect_timeout(PATIENCE).tcp_user_timeout(PATIENCE).application_name("aetherfsd");
        let host = config.get_hosts().first().map(|host| format!("{host:?}")).unwrap_or_default();
        let place =
            format!("postgres ({host}, database {})", config.get_dbname().unwrap_or("of the user's name"));
        // Somebody in this process may have done so before: that one is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, tls(), recycling);
        let pool = Pool::builder(manager).max_size(CONNECTIONS).runtime(Timers::Tokio1);
        let pool =
            pool.wait_timeout(Some(PATIENCE)).create_timeout(Some(PATIENCE)).recycle_timeout(Some(PATIENCE));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("heads").enable_all().build();
        Ok(PostgresHeads {
            pool: pool.build().map_err(|error| error.to_string())?,
            place,
            is_migrated: Mutex::new(false),
            runtime: Some(runtime.map_err(|error| error.to_string())?),
        })
    }

    /// Carries out a call, with a connection to a database that has the schema.
    fn run<T>(
        &self,
        call: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, HeadError> {
        let runtime = self.runtime.as_ref().expect("it goes when this does");
        let unknown = |reason: String| HeadError::Unknown(format!("{}: {reason}", self.place));
        runtime.block_on(async {
            let work = async {
                let mut connection = self.pool.get().await.map_err(|error| unknown(error.to_string()))?;
                self.migrate(&mut connection).await?;
                let answer = tokio::time::timeout(PATIENCE, call(&connection)).await;
                if answer.is_err() {
                    // Nobody may be at its other end any more.
                    drop(Object::take(connection));
                }
                answer
                    .map(|answer| answer.map_err(|error| self.failed(&error)))
                    .unwrap_or_else(|_| Err(unknown(format!("no answer within {} s", PATIENCE.as_secs()))))
            };
            let whole = tokio::time::timeout(WHOLE, work).await;
            whole.unwrap_or_else(|_| Err(unknown(format!("no answer within {} s", WHOLE.as_secs()))))
        })
    }

    async fn migrate(&self, connection: &mut Object) -> Result<(), HeadError> {
        if *self.is_migrated.lock() {
            return Ok(());
        }
        let mut last = String::new();
        for _ in 0..MIGRATIONS_MAX {
            let migrated = migrations::migrations::runner().run_async(&mut ***connection).await;
            match migrated {
                Ok(_) => {
                    *self.is_migrated.lock() = true;
                    return Ok(());
                }
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(HeadError::Unknown(format!("{}: its schema cannot be made: {last}", self.place)))
    }

    fn failed(&self, error: &tokio_postgres::Error) -> HeadError {
        // The message alone says `db error`.
        let reason =
            error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
        let text = format!("{}: {reason}", self.place);
        match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => HeadError::Refused(text),
            _ => HeadError::Unknown(text),
        }
    }

    fn decode(&self, session: SessionId, record: &[u8]) -> Result<Head, HeadError> {
        let malformed = |reason| HeadError::Malformed { session, place: self.place.clone(), reason };
        Head::decode(session, record).map_err(malformed)
    }
}

/// Trusts whom this host trusts: on one that trusts nobody only addresses without TLS are of use.
fn tls() -> MakeRustlsConnect {
    match MakeRustlsConnect::with_native_certs() {
        Ok((tls, _refused)) => tls,
        Err(errors) => {
            tracing::debug!(?errors, "this host has no certificates");
            let nobody = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
            MakeRustlsConnect::new(nobody.with_no_client_auth())
        }
    }
}

impl HeadStore for PostgresHeads {
    fn place(&self) -> Result<Place, HeadError> {
        let mut fresh = [0; 16];
        getrandom::fill(&mut fresh).map_err(|error| HeadError::Unknown(error.to_string()))?;
        let row = self.run(async |connection| {
            connection.execute(NAME, &[&&fresh[..]]).await?;
            connection.query_one(NAMED, &[]).await
        })?;
        let name = row.get::<_, &[u8]>(0).try_into();
        let malformed = || HeadError::Unknown(format!("{}: its name is none", self.place));
        Ok(Place::Database(name.map_err(|_| malformed())?))
    }

    fn newest(&self, session: SessionId) -> Result<Option<Head>, HeadError> {
        let row = self.run(async |connection| connection.query_opt(NEWEST, &[&&session.0[..]]).await)?;
        row.map(|row| self.decode(session, row.get(0))).transpose()
    }

    fn append(&self, head: &Head) -> Result<Appended, HeadError> {
        let (session, seq) = (&head.session.0[..], head.seq as i64);
        let is_mine = self.run(async |connection| {
            let record = head.encode();
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&session, &seq, &&head.nonce[..], &record];
            if connection.execute(APPEND, &values).await? == 1 {
                if let Err(error) = connection.execute(FORGET, &[&session, &(seq - KEPT as i64)]).await {
                    tracing::debug!(%error, "old records of a head stay");
                }
                return Ok(true);
            }
            // It may have been there: the answer was lost the last time.
            let nonce = connection.query_opt(NONCE, &[&session, &seq]).await?;
            Ok(nonce.is_some_and(|row| row.get::<_, &[u8]>(0) == head.nonce))
        })?;
        if is_mine { Ok(Appended::Won) } else { Ok(Appended::Lost(self.newest(head.session)?)) }
    }

    fn sessions(&self, after: Option<SessionId>, max: usize) -> Result<Vec<SessionId>, HeadError> {
        let after = after.map(|id| id.0.to_vec()).unwrap_or_default();
        let rows = self.run(async |connection| {
            connection.query(SESSIONS, &[&after, &(max.min(PAGE_MAX) as i64)]).await
        })?;
        Ok(rows.iter().filter_map(|row| row.get::<_, &[u8]>(0).try_into().ok().map(SessionId)).collect())
    }

    fn page(&self, after: Option<SessionId>, max: usize) -> Result<Page, HeadError> {
        let after = after.map(|id| id.0.to_vec()).unwrap_or_default();
        let rows = self
            .run(async |connection| connection.query(PAGE, &[&after, &(max.min(PAGE_MAX) as i64)]).await)?;
        let id = |row: &Row| row.get::<_, &[u8]>(0).try_into().ok().map(SessionId);
        let head = |row: &Row| id(row).map(|session| (session, self.decode(session, row.get(1))));
        Ok(rows.iter().filter_map(head).collect())
    }

    fn beat(&self, host: HostId, beat: u64) -> Result<(), HeadError> {
        self.run(async |connection| connection.execute(BEAT, &[&&host.0[..], &(beat as i64)]).await).map(drop)
    }

    fn last_beat(&self, host: HostId) -> Result<Option<u64>, HeadError> {
        let row = self.run(async |connection| connection.query_opt(LAST_BEAT, &[&&host.0[..]]).await)?;
        Ok(row.map(|row| row.get::<_, i64>(0) as u64))
    }
}

impl fmt::Debug for PostgresHeads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl Drop for PostgresHeads {
    fn drop(&mut self) {
        // Nothing is under way: calls block. This may be a thread of another runtime, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::heads::contract;

    /// By `ci/heads`, which starts one, and kills it meanwhile.
    #[test]
    #[ignore = "AETHERFS_TEST_POSTGRES names an empty database"]
    fn the_database_of_the_environment_keeps_the_contract() {
        let heads = PostgresHeads::open(&std::env::var("AETHERFS_TEST_POSTGRES").unwrap()).unwrap();
        contract::check(&heads);
        contract::check_many(&heads);
    }

    #[test]
    fn what_is_no_address_is_refused_without_saying_it() {
        for address in ["postgres://user:secret@host:port/db", "postgres://user:se@secret@host/db"] {
            let error = PostgresHeads::open(address).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_database_that_is_not_there_is_named() {
        let heads = PostgresHeads::open("postgres://user:secret@127.0.0.1:1/db").unwrap();
        let error = heads.newest(SessionId([1; 10])).unwrap_err().to_string();
        assert!(error.contains("127.0.0.1") && !error.contains("secret"), "{error}");
    }
}
