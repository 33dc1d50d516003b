//! The certificate that this host shows on the network, and its key: two files, read again when they change.
//!
//! What cannot be used is not: what was read before stays in use until there is something better, and whoever asks is told. A connection keeps
//! what it began with.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use cas::Digest;
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::tls::ListenError;

/// Bytes of a certificate's or a key's file.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// What is spoken behind the handshake.
const HTTP2: &[u8] = b"h2";

/// A certificate and its key, in files.
#[derive(Debug)]
pub(super) struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    used: Mutex<Used>,
}

/// What of them is in use.
#[derive(Debug)]
struct Used {
    config: Arc<ServerConfig>,
    /// What the files held when they were looked at last, whether it was of use or not; `None` if they could not be read.
    seen: Option<Digest>,
    /// Why what is in them now is not in use.
    refused: Option<String>,
}

/// What a look at the files found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// What was there the last time.
    Same,
    /// Something new, which is in use from now on.
    Renewed,
    /// What cannot be used.
    Refused(String),
}

impl Certificate {
    /// Reads both. Errors: `Unreadable`, `Identity`.
    pub(super) fn open(cert: &Path, key: &Path) -> Result<Certificate, ListenError> {
        // Whoever installs it first does; all here install the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pair = Pair::read(cert, key)?;
        let (config, seen) = (pair.config(cert, key)?, Some(pair.digest()));
        let used = Mutex::new(Used { config, seen, refused: None });
        Ok(Certificate { cert: cert.to_owned(), key: key.to_owned(), used })
    }

    /// For the next handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.used.lock().config)
    }

    /// Why what is in the files is not in use, if it is not.
    pub(super) fn refused(&self) -> Option<String> {
        self.used.lock().refused.clone()
    }

    /// The certificate's file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.cert
    }

    /// Looks whether there is something else in the files, and uses it if that can be.
    pub(super) fn look(&self) -> Look {
        let read = Pair::read(&self.cert, &self.key);
        let seen = read.as_ref().ok().map(Pair::digest);
        let mut used = self.used.lock();
        if seen == used.seen && (seen.is_some() || used.refused.is_some()) {
            return Look::Same;
        }
        used.seen = seen;
        match read.and_then(|pair| pair.config(&self.cert, &self.key)) {
            Ok(config) => {
                (used.config, used.refused) = (config, None);
                Look::Renewed
            }
            Err(error) => {
                let reason = error.to_string();
                used.refused = Some(reason.clone());
                Look::Refused(reason)
            }
        }
    }
}

/// The bytes of both files.
struct Pair {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    fn read(cert: &Path, key: &Path) -> Result<Pair, ListenError> {
        Ok(Pair { cert: read("--tls-cert", cert)?, key: read("--tls-key", key)? })
    }

    fn digest(&self) -> Digest {
        Digest::of(&[Digest::of(&self.cert).0, Digest::of(&self.key).0].concat())
    }

    /// Error: `Identity` for what is no certificate with its key.
    fn config(&self, cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, ListenError> {
        let wrong = |reason: String| ListenError::Identity { cert: cert.into(), key: key.into(), reason };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|error| wrong(error.to_string()))?;
        let own = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| wrong(error.to_string()))?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, own);
        let mut config = config.map_err(|error| wrong(error.to_string()))?;
        config.alpn_protocols.push(HTTP2.to_vec());
        Ok(Arc::new(config))
    }
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, ListenError> {
    let failed = |source| ListenError::Unreadable { option, path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > PEM_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "that is no PEM file")));
    }
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a certificate and its key, and another pair beside.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Files {
            let files = Files(tempfile::tempdir().unwrap());
            for (cert, key) in [("cert", "key"), ("cert2", "key2")] {
                let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
                fs::write(files.path(cert), made.cert.pem()).unwrap();
                fs::write(files.path(key), made.signing_key.serialize_pem()).unwrap();
            }
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn put(&self, from: &str, to: &str) {
            fs::copy(self.path(from), self.path(to)).unwrap();
        }
    }

    #[test]
    fn a_renewed_pair_is_used_and_a_broken_one_is_not() {
        let files = Files::new();
        files.put("cert", "first");
        let certificate = Certificate::open(&files.path("cert"), &files.path("key")).unwrap();
        let first = certificate.config();
        assert_eq!((certificate.look(), certificate.refused()), (Look::Same, None));
        // In the middle of a renewal.
        files.put("cert2", "cert");
        assert!(matches!(certificate.look(), Look::Refused(why) if why.contains("both have to be PEM")));
        assert_eq!(certificate.look(), Look::Same, "it is said once");
        assert!(certificate.refused().is_some() && Arc::ptr_eq(&first, &certificate.config()));
        files.put("key2", "key");
        assert_eq!((certificate.look(), certificate.refused()), (Look::Renewed, None));
        let second = certificate.config();
        assert!(!Arc::ptr_eq(&first, &second));
        for broken in ["no PEM", ""] {
            fs::write(files.path("key"), broken).unwrap();
            assert!(matches!(certificate.look(), Look::Refused(_)), "{broken:?}");
        }
        fs::remove_file(files.path("key")).unwrap();
        assert!(matches!(certificate.look(), Look::Refused(why) if why.contains("--tls-key")));
        assert_eq!(certificate.look(), Look::Same);
        assert!(Arc::ptr_eq(&second, &certificate.config()));
        // What was in use is whole again.
        files.put("key2", "key");
        assert_eq!((certificate.look(), certificate.refused()), (Look::Renewed, None));
    }
}
