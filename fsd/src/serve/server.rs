//! The server: the service with health and reflection beside it, on a runtime of its own.

use std::{io, os::unix::net::UnixListener, sync::Arc, time::Duration};

use futures::future::join_all;
use proto::v1::{aether_server::AetherServer, peer_server::PeerServer};
use tokio::{
    runtime::{Builder, Runtime},
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_stream::{
    StreamExt,
    wrappers::{TcpListenerStream, UnixListenerStream},
};
use tonic::{
    service::InterceptorLayer,
    transport::{self, server::Router},
};
use tonic_health::pb::health_server::{Health, HealthServer};

use super::{
    Service,
    bounds::{
        CONNECTION_AGE_MAX, CONNECTION_REQUESTS_MAX, CONNECTIONS_MAX, HEADER_BYTES_MAX, KEEPALIVE,
        MESSAGE_BYTES_MAX, THREADS_MAX,
    },
    certificate::{Certificate, Look},
    connections::counted,
    gate::Gate,
    socket::check_peer,
    tls::{TlsListener, secured, stranger},
};

/// Threads that only pass messages on; the work is done on others.
const WORKERS: usize = 2;
/// How often the certificate's files are looked at.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(10);
/// How long a stop waits for requests to end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// A running server.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    stop: watch::Sender<()>,
    serving: Vec<JoinHandle<Result<(), transport::Error>>>,
    terminate: Signal,
    interrupt: Signal,
}

impl Server {
    /// Answers on a socket, and on a port of the network if there is one. From here on SIGTERM, SIGINT and SIGHUP do not end the process, and with a port SIGHUP has
    /// the certificate's files looked at.
    pub fn start(socket: UnixListener, port: Option<TlsListener>, service: Service) -> io::Result<Server> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(THREADS_MAX)
            .thread_name("serve")
            .enable_all()
            .build()?;
        let (health, health_service) = tonic_health::server::health_reporter();
        runtime.block_on(health.set_serving::<AetherServer<Service>>());
        let entered = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // Whoever has all certificates of a host renewed sends it to daemons that have none, too: it ends nobody.
        let hangup = signal(SignalKind::hangup())?;
        let (stop, stopped) = watch::channel(());
        let mut serving = Vec::new();
        if let Some(TlsListener { listener, certificate }) = port {
            let strangers = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?)
                .map(|stream| stream.map(stranger));
            runtime.spawn(renew(Arc::clone(&certificate), hangup, stopped.clone()));
            // Whoever asks how this daemon is asks about it as well. There is one server for a service.
            let _ = service.host().certificate.set(Arc::clone(&certificate));
            let port = builder().max_connection_age(CONNECTION_AGE_MAX).layer(Gate(service.clone()));
            // Reflection is for who is here: what there is stands in the .proto files.
            let port = with_services(port, &service, health_service.clone());
            // One more than there are: somebody has to see that it is one too many.
            let incoming = secured(counted(strangers, CONNECTIONS_MAX), certificate, CONNECTIONS_MAX + 1);
            serving.push(runtime.spawn(port.serve_with_incoming_shutdown(incoming, end(stopped.clone()))));
        }
        let callers = UnixListenerStream::new(tokio::net::UnixListener::from_std(socket)?);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the descriptors were made by this build");
        let socket = builder().layer(InterceptorLayer::new(check_peer));
        let socket = with_services(socket, &service, health_service).add_service(reflection);
        let incoming = counted(callers, CONNECTIONS_MAX);
        serving.push(runtime.spawn(socket.serve_with_incoming_shutdown(incoming, end(stopped))));
        drop(entered);
        Ok(Server { runtime, stop, serving, terminate, interrupt })
    }

    /// Waits until somebody wants the daemon to end; returns the signal's name. Another signal after this one ends the
    /// process on the spot, for whoever cannot wait.
    pub fn wait_for_signal(&mut self) -> &'static str {
        let Server { runtime, terminate, interrupt, .. } = self;
        runtime.block_on(async {
            select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        })
    }

    /// Accepts nobody any more, and waits a moment for those who are being answered.
    pub fn stop(self) {
        let Server { runtime, stop, serving, mut terminate, mut interrupt } = self;
        runtime.spawn(async move {
            select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::warn!("a second signal: ending at once");
            std::process::exit(1);
        });
        // The other ends are gone if the server failed; then there is nothing to stop.
        let _ = stop.send(());
        match runtime.block_on(async { timeout(GRACE, join_all(serving)).await }) {
            Ok(ended) => ended.into_iter().for_each(|ended| match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the server failed"),
                Err(error) => tracing::warn!(%error, "the server failed"),
            }),
            Err(_) => tracing::warn!("requests that are under way are given up"),
        }
        // Threads that still work are not waited for: what they do survives the end of the process at any instant.
        runtime.shutdown_background();
    }
}

/// A server with the bounds that all have.
fn builder() -> transport::Server {
    transport::Server::builder()
        .max_concurrent_streams(Some(CONNECTION_REQUESTS_MAX))
        .http2_max_header_list_size(Some(HEADER_BYTES_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
}

/// What is served everywhere.
fn with_services<L: Clone>(
    mut server: transport::Server<L>,
    service: &Service,
    health: HealthServer<impl Health>,
) -> Router<L> {
    let peer = PeerServer::new(service.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let service = AetherServer::new(service.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    server.add_service(service).add_service(peer).add_service(health)
}

/// Comes when the server is to stop.
async fn end(mut stopped: watch::Receiver<()>) {
    // An error means that nobody is left to say stop, which says it as well.
    let _ = stopped.changed().await;
}

/// Looks at the certificate's files, every few seconds and when somebody says so.
async fn renew(certificate: Arc<Certificate>, mut hangup: Signal, mut stopped: watch::Receiver<()>) {
    loop {
        let is_asked = select! {
            _ = stopped.changed() => return,
            _ = hangup.recv() => true,
            () = sleep(CERTIFICATE_LOOK) => false,
        };
        let looking = Arc::clone(&certificate);
        // Files may be on a disk that takes its time.
        let Ok(look) = spawn_blocking(move || looking.look()).await else { return };
        let path = certificate.path().display();
        match look {
            Look::Renewed => tracing::info!(%path, "the certificate was renewed: new connections see it"),
            Look::Refused(error) => {
                tracing::warn!(%error, "the certificate's files hold what cannot be used: the old one stays in use");
            }
            Look::Same if is_asked => {
                tracing::info!(%path, "SIGHUP: the certificate's files are what they were")
            }
            Look::Same => {}
        }
    }
}
