//! The network: a TCP port on which nothing but TLS is spoken. Handshakes are made here, each with the certificate that is in use at its beginning.
//!
//! A connection that has not shown a good token some seconds after it was accepted is closed, whatever it is at: the handshake, the greeting of HTTP/2,
//! requests without a token. So nobody who may do nothing here holds anything for long.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, StreamExt};

use super::{
    certificate::Certificate,
    connections::{Companion, Connection},
};
use crate::config::Listen;

/// How long a connection may go without a token.
const UNKNOWN_MAX: Duration = Duration::from_secs(10);

/// Why the port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A file of the certificate cannot be read.
    #[error("{option} {}: {source}", path.display())]
    Unreadable {
        /// Which of the two.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// They can be read, and are no certificate with its key.
    #[error("--tls-cert {} with --tls-key {}: {reason}; both have to be PEM, the certificate first in its file and the key its own", cert.display(), key.display())]
    Identity {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The port cannot be had.
    #[error("--listen {address}: {source}")]
    Address {
        /// As it was given.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A port that is listened on, and who this host says it is.
#[derive(Debug)]
pub struct TlsListener {
    pub(super) listener: TcpListener,
    pub(super) certificate: Arc<Certificate>,
}

impl TlsListener {
    /// Listens.
    pub fn open(listen: &Listen) -> Result<TlsListener, ListenError> {
        let Listen { address, cert, key } = listen;
        let certificate = Arc::new(Certificate::open(cert, key)?);
        let failed = |source| ListenError::Address { address: address.clone(), source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(TlsListener { listener, certificate })
    }

    /// Where: with the port that was chosen, if any would do.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Those who connect, behind their handshakes, of which at most `max` are under way. One that fails is nobody's business but the client's.
pub(super) fn secured<S>(
    incoming: impl Stream<Item = io::Result<S>>,
    certificate: Arc<Certificate>,
    max: usize,
) -> impl Stream<Item = io::Result<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = move |stream: io::Result<S>| {
        let acceptor = TlsAcceptor::from(certificate.config());
        async move {
            match acceptor.accept(stream?).await {
                Ok(stream) => Ok(Some(stream)),
                Err(error) => {
                    tracing::debug!(%error, "a handshake failed");
                    Ok(None)
                }
            }
        }
    };
    let done = futures::StreamExt::buffer_unordered(incoming.map(handshake), max);
    done.filter_map(Result::transpose)
}

/// Who is at the other end, shared by all requests of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller(Arc<AtomicBool>);

impl Caller {
    /// He has shown a good token.
    pub(super) fn recognise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection that ends unless somebody becomes known on it.
pub(super) type Stranger = Connection<TcpStream, Patience>;

/// How long nobody need be known, and who is.
#[derive(Debug)]
pub(super) struct Patience {
    caller: Caller,
    /// Until when; `None` once somebody is known.
    until: Option<Pin<Box<Sleep>>>,
}

/// One that was just accepted.
pub(super) fn stranger(stream: TcpStream) -> Stranger {
    // Answers are small and waited for. Without it they are only late.
    let _ = stream.set_nodelay(true);
    let companion = Patience { caller: Caller::default(), until: Some(Box::pin(sleep(UNKNOWN_MAX))) };
    Connection { stream, companion }
}

impl Companion<TcpStream> for Patience {
    type ConnectInfo = Caller;

    fn connect_info(&self, _stream: &TcpStream) -> Caller {
        self.caller.clone()
    }

    /// Error: `TimedOut`. Whoever waits on the connection is woken for it, whatever he waits for.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(until) = &mut self.until else { return Ok(()) };
        if self.caller.0.load(Ordering::Relaxed) {
            self.until = None;
            return Ok(());
        }
        match until.as_mut().poll(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, "nobody has shown a token")),
        }
    }
}
