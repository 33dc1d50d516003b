//! Connects to the daemon, wherever it is.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::v1::aether_client::AetherClient;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{self, Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use tower::service_fn;

use crate::failure::Failure;
use crate::place::{Place, Server, TokenSource, start_hint};

/// The largest message that is accepted: the interface promises 4 MiB, with room for its envelope.
const MESSAGE_BYTES_MAX: usize = 5 << 20;
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How often a daemon on the network is asked whether it is still there while it is waited for, and how long it has to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
const PEM_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

pub(crate) type Client = AetherClient<InterceptedService<Channel, Credentials>>;

/// What is shown with every call, if anything.
#[derive(Clone)]
pub(crate) struct Credentials(Option<MetadataValue<Ascii>>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

/// Connects to the daemon.
pub(crate) async fn connect(place: &Place, token: &TokenSource) -> Result<Client, Failure> {
    let (channel, credentials) = match place {
        Place::Socket(socket) => (connect_socket(socket).await?, Credentials(None)),
        Place::Server(server) => {
            let credentials = credentials(token)?;
            (connect_server(server).await?, credentials)
        }
    };
    Ok(AetherClient::with_interceptor(channel, credentials).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

async fn connect_socket(socket: &Path) -> Result<Channel, Failure> {
    let stream =
        UnixStream::connect(socket).await.map_err(|e| Failure::Broken(unreachable_daemon(socket, &e)))?;
    // The one connection is all there is: a command does not outlive its daemon.
    let mut stream = Some(stream);
    let connector = service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::other("the connection was lost"));
        async move { stream.map(TokioIo::new) }
    });
    // The host part is required by HTTP/2 and means nothing on a socket.
    Endpoint::from_static("http://aetherfsd").connect_with_connector(connector).await.map_err(|e| {
        Failure::Broken(format!("what listens on {} does not speak gRPC: {e}", socket.display()))
    })
}

async fn connect_server(server: &Server) -> Result<Channel, Failure> {
    let Server { address, ca } = server;
    let malformed = || Failure::No(format!("the server {address:?} is not https://HOST:PORT"));
    let endpoint = Endpoint::from_shared(address.clone()).map_err(|_| malformed())?;
    // A token in clear text would be everybody's.
    if endpoint.uri().scheme_str() != Some("https") || !matches!(endpoint.uri().path(), "" | "/") {
        return Err(malformed());
    }
    let tls = match ca {
        Some(file) => ClientTlsConfig::new().ca_certificate(read_ca(file)?),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    let unreachable = |e: transport::Error| Failure::Broken(unreachable_server(address, &e));
    let endpoint = endpoint.tls_config(tls.timeout(CONNECT_MAX)).map_err(unreachable)?;
    let endpoint = endpoint.connect_timeout(CONNECT_MAX).http2_keep_alive_interval(KEEPALIVE);
    endpoint.keep_alive_timeout(KEEPALIVE).connect().await.map_err(unreachable)
}

fn credentials(token: &TokenSource) -> Result<Credentials, Failure> {
    let missing = || {
        Failure::No(
            "a daemon on the network wants a token: AETHERFS_TOKEN, or the file that it is in with --token-file; \
             `aetherctl token create` on the daemon's host makes one"
                .to_string(),
        )
    };
    let text = token.read()?.ok_or_else(missing)?;
    // Whatever is no token could be some other secret, and goes nowhere.
    token::inspect(&text).map_err(|e| Failure::No(e.to_string()))?;
    let mut header = MetadataValue::try_from(format!("Bearer {}", text.trim()))
        .map_err(|_| Failure::No(token::TokenError::Malformed.to_string()))?;
    header.set_sensitive(true);
    Ok(Credentials(Some(header)))
}

fn read_ca(file: &Path) -> Result<Certificate, Failure> {
    let unreadable = |reason: &str| Failure::No(format!("--ca {}: {reason}", file.display()));
    let pem = fs::read(file).map_err(|e| unreadable(&e.to_string()))?;
    if !String::from_utf8_lossy(&pem).contains(PEM_CERTIFICATE) {
        return Err(unreadable("there is no certificate in PEM in it"));
    }
    Ok(Certificate::from_pem(pem))
}

fn unreachable_server(address: &str, error: &transport::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let cause = cause.to_string();
    let advice = match cause.contains("certificate") {
        true => "; --ca names whom to believe, and the name in the address has to be in the certificate",
        false => "",
    };
    format!("no daemon to talk to at {address}: {cause}{advice}")
}

fn unreachable_daemon(socket: &Path, error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "there is no such socket".to_string(),
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_string(),
        io::ErrorKind::PermissionDenied => {
            return format!(
                "{}: permission denied; only the daemon's user and root may use it",
                socket.display()
            );
        }
        _ => error.to_string(),
    };
    format!("no daemon answers on {}: {reason}. Start one: {}", socket.display(), start_hint(socket))
}
