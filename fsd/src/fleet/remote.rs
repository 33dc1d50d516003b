//! The remote store: object stores of clouds, and folders, through the `object_store` crate.
//!
//! Calls come from threads that may block. They run on a runtime of their own, so that no other work of the daemon stands behind a slow
//! network. The crate tries again by itself, with longer and longer pauses, within [`RETRY_SECS`].

use std::{
    ffi::OsString,
    fmt, io,
    ops::{ControlFlow, Range},
    time::Duration,
};

use cas::remote::{Dated, Failure, Remote};
use futures::{StreamExt, TryStreamExt};
use object_store::{
    ClientOptions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode,
    PutOptions, PutPayload, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path,
};
use tokio::runtime::Runtime;
use url::Url;

/// Calls that fail are tried again for so long; the last attempt may go beyond it.
const RETRY_SECS: u64 = 20;
/// Of one attempt to read, of 1 MiB as a rule: who reads a file waits no longer than this and [`RETRY_SECS`] for the store.
const READ_SECS: u64 = 20;
/// Of one attempt to write: 24 MiB, over 1 Mbit/s.
const WRITE_SECS: u64 = 240;
/// What is smaller is written as fast as it is read.
const LARGE_WRITE: usize = 1 << 20;
const CONNECT_SECS: u64 = 5;
/// What the store says of an error, to be shown in one.
const REASON_CHARS_MAX: usize = 300;

/// A place in an object store.
pub struct ObjectRemote {
    reads: Box<dyn ObjectStore>,
    /// The same, for who has more patience.
    writes: Box<dyn ObjectStore>,
    /// In front of all names.
    prefix: Path,
    /// Names are listed in order.
    is_sorted: bool,
    address: String,
    /// There until the end.
    runtime: Option<Runtime>,
}

/// Why a remote store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an address.
    #[error(
        "{0:?} is no address of a remote store; those are s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, file:///DIR"
    )]
    Address(String),
    /// The settings do not do.
    #[error("{address}: {reason}")]
    Settings {
        /// The address.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The system has no threads for it.
    #[error("no runtime for the remote store: {0}")]
    Runtime(#[from] io::Error),
}

impl ObjectRemote {
    /// The store at an address. Credentials and settings are taken from `environment`, by the names that each cloud's tools have for
    /// them. Nobody is asked yet.
    pub fn open(
        address: &str,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<ObjectRemote, OpenError> {
        let malformed = || OpenError::Address(address.to_owned());
        let url = Url::parse(address).map_err(|_| malformed())?;
        let (scheme, prefix) = ObjectStoreScheme::parse(&url).map_err(|_| malformed())?;
        let settings = Settings { address, environment: texts(environment) };
        // Somebody in this process may have done so before: that one is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (reads, writes) = (settings.store(&scheme, READ_SECS)?, settings.store(&scheme, WRITE_SECS)?);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).thread_name("remote").enable_all().build()?;
        let address = address.trim_end_matches('/').to_owned();
        let is_sorted = !matches!(scheme, ObjectStoreScheme::Local);
        Ok(ObjectRemote { reads, writes, prefix, is_sorted, address, runtime: Some(runtime) })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it goes when this does")
    }

    fn path(&self, name: &str) -> Path {
        Path::from_iter(self.prefix.parts().chain(Path::from(name).parts()))
    }

    /// The name of what is there.
    fn name(&self, path: &Path) -> String {
        let own = self.prefix.parts().count();
        path.parts().skip(own).map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/")
    }

    fn failure(&self, name: &str, error: &object_store::Error) -> Failure {
        let object = self.display(name);
        match error {
            object_store::Error::NotFound { .. } => Failure::NotFound(object),
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Failure::Refused { object, reason: reason(error) }
            }
            // It tried again and again.
            object_store::Error::Generic { .. } | object_store::Error::JoinError { .. } => {
                Failure::Unreachable { object, reason: reason(error) }
            }
            _ => Failure::Failed { object, reason: reason(error) },
        }
    }

    fn run<T>(&self, name: &str, call: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
        self.runtime().block_on(call).map_err(|error| self.failure(name, &error))
    }

    fn put(&self, name: &str, bytes: Vec<u8>, mode: PutMode) -> object_store::Result<()> {
        let options = PutOptions { mode, ..PutOptions::default() };
        let path = self.path(name);
        let patient = if bytes.len() < LARGE_WRITE { &self.reads } else { &self.writes };
        let put = patient.put_opts(&path, PutPayload::from(bytes), options);
        self.runtime().block_on(put).map(drop)
    }
}

impl Remote for ObjectRemote {
    fn read(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, Failure> {
        let wanted = range.end - range.start;
        let bytes = self.run(name, self.reads.get_range(&self.path(name), range))?;
        if bytes.len() as u64 != wanted {
            let reason = format!("{} bytes came where {wanted} were asked for", bytes.len());
            return Err(Failure::Failed { object: self.display(name), reason });
        }
        Ok(bytes.into())
    }

    fn read_whole(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, Failure> {
        let path = self.path(name);
        let found = self.run(name, self.reads.get_opts(&path, GetOptions::default()))?;
        if found.meta.size > bytes_max {
            let reason = format!("{} bytes are more than it can have", found.meta.size);
            return Err(Failure::Failed { object: self.display(name), reason });
        }
        Ok(self.run(name, found.bytes())?.into())
    }

    fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        self.put(name, bytes, PutMode::Overwrite).map_err(|error| self.failure(name, &error))
    }

    fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool, Failure> {
        match self.put(name, bytes, PutMode::Create) {
            Ok(()) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            Err(error) => Err(self.failure(name, &error)),
        }
    }

    fn dated(&self, prefix: &str) -> Result<Vec<Dated>, Failure> {
        let below = self.path(prefix);
        let found = self.run(prefix, self.reads.list(Some(&below)).try_collect::<Vec<_>>())?;
        let dated = |object: &ObjectMeta| Dated {
            name: self.name(&object.location),
            bytes: object.size,
            written_secs: object.last_modified.timestamp(),
        };
        let mut found: Vec<Dated> = found.iter().map(dated).collect();
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn first(&self, prefix: &str) -> Result<Option<String>, Failure> {
        // Folders are listed in any order.
        if !self.is_sorted {
            return Ok(self.list(prefix)?.into_iter().next());
        }
        let below = self.path(prefix);
        let first = self.run(prefix, self.reads.list(Some(&below)).take(1).try_collect::<Vec<_>>())?;
        Ok(first.first().map(|object| self.name(&object.location)))
    }

    fn walk(
        &self,
        prefix: &str,
        after: &str,
        show: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let (below, after) = (self.path(prefix), self.path(after));
        let mut objects = self.reads.list_with_offset(Some(&below), &after);
        self.run(prefix, async {
            while let Some(object) = objects.try_next().await? {
                if show(&self.name(&object.location)).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn is_sorted(&self) -> bool {
        self.is_sorted
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        match self.run(name, self.reads.delete(&self.path(name))) {
            Err(Failure::NotFound(_)) => Ok(()),
            removed => removed,
        }
    }

    fn display(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

impl fmt::Debug for ObjectRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Drop for ObjectRemote {
    fn drop(&mut self) {
        // Nothing is under way: calls block. This may be a thread of another runtime, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Where settings come from.
struct Settings<'a> {
    address: &'a str,
    environment: Vec<(String, String)>,
}

impl Settings<'_> {
    fn store(
        &self,
        scheme: &ObjectStoreScheme,
        attempt_secs: u64,
    ) -> Result<Box<dyn ObjectStore>, OpenError> {
        let client = ClientOptions::new()
            .with_timeout(Duration::from_secs(attempt_secs))
            .with_connect_timeout(Duration::from_secs(CONNECT_SECS))
            .with_allow_http(true);
        let retry = RetryConfig { retry_timeout: Duration::from_secs(RETRY_SECS), ..RetryConfig::default() };
        let failed = |error| OpenError::Settings { address: self.address.to_owned(), reason: reason(&error) };
        macro_rules! cloud {
            ($builder:ty, $prefix:literal) => {{
                let builder =
                    <$builder>::new().with_url(self.address).with_client_options(client).with_retry(retry);
                let own = self.environment.iter().filter(|(name, _)| name.starts_with($prefix));
                // Those that the crate does not know are for other programs.
                let known =
                    own.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
                let builder = known.fold(builder, |builder, (key, value)| builder.with_config(key, value));
                Box::new(builder.build().map_err(failed)?)
            }};
        }
        Ok(match scheme {
            // Without it a write may be gone after power loss that was said to be there.
            ObjectStoreScheme::Local => Box::new(LocalFileSystem::new().with_fsync(true)),
            ObjectStoreScheme::AmazonS3 => cloud!(AmazonS3Builder, "AWS_"),
            ObjectStoreScheme::GoogleCloudStorage => cloud!(GoogleCloudStorageBuilder, "GOOGLE_"),
            ObjectStoreScheme::MicrosoftAzure => cloud!(MicrosoftAzureBuilder, "AZURE_"),
            _ => return Err(OpenError::Address(self.address.to_owned())),
        })
    }
}

/// Those variables that are text.
fn texts(environment: impl Iterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    environment.filter_map(text).collect()
}

/// What happened, in a line that fits into one.
fn reason(error: &object_store::Error) -> String {
    let text = error.to_string();
    let mut reason: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS_MAX) {
        reason.truncate(end);
    }
    reason
}

#[cfg(test)]
mod tests {
    use cas::remote::contract;

    use super::*;

    fn open(address: &str) -> Result<ObjectRemote, OpenError> {
        ObjectRemote::open(address, std::env::vars_os())
    }

    #[test]
    fn a_folder_is_a_remote_store() {
        let dir = tempfile::tempdir().unwrap();
        let remote = open(&format!("file://{}/not/there yet", dir.path().display())).unwrap();
        contract::check(&remote);
        assert!(dir.path().join("not/there yet/a/y").exists());
        assert!(remote.display("packs/x").ends_with("/not/there yet/packs/x"));
    }

    /// By `ci/remote`, which starts one.
    #[test]
    #[ignore = "AETHERFS_TEST_REMOTE names an empty place in a store"]
    fn the_store_of_the_environment_is_a_remote_store() {
        contract::check(&open(&std::env::var("AETHERFS_TEST_REMOTE").unwrap()).unwrap());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for address in ["", "/srv/store", "s3:", "ftp://host/dir", "http://host/dir", "memory:///"] {
            let error = open(address).unwrap_err().to_string();
            assert!(error.contains("s3://BUCKET/PREFIX"), "{address}: {error}");
        }
    }

    #[test]
    fn variables_are_taken_from_their_cloud_alone() {
        let variable = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let others =
            [variable("REGION", "nowhere"), variable("BUCKET", "other"), variable("GOOGLE_BUCKET", "third")];
        let own =
            [variable("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), variable("AWS_SKIP_SIGNATURE", "true")];
        let remote = ObjectRemote::open("s3://bucket/prefix", others.into_iter().chain(own)).unwrap();
        let store = format!("{:?}", remote.reads);
        assert!(store.contains("127.0.0.1:1") && store.contains("us-east-1"), "{store}");
        assert!(
            !store.contains("nowhere") && !store.contains("other") && !store.contains("third"),
            "{store}"
        );
    }
}
