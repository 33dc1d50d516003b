//! The server: the service with health and reflection beside it, on a runtime of its own.

use std::{io, os::unix::net::UnixListener, time::Duration};

use proto::v1::aether_server::AetherServer;
use tokio::{
    runtime::{Builder, Runtime},
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tonic::{service::InterceptorLayer, transport};

use super::{
    Service,
    bounds::{
        CONNECTION_REQUESTS_MAX, CONNECTIONS_MAX, HEADER_BYTES_MAX, KEEPALIVE, MESSAGE_BYTES_MAX, THREADS_MAX,
    },
    connections::accept,
    socket::check_peer,
};

/// Threads that only pass messages on; the work is done on others.
const WORKERS: usize = 2;
/// How long a stop waits for requests to end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// A running server.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), transport::Error>>,
    terminate: Signal,
    interrupt: Signal,
}

impl Server {
    /// Answers on `listener`. From here on SIGTERM and SIGINT do not end the process.
    pub fn start(listener: UnixListener, service: Service) -> io::Result<Server> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(THREADS_MAX)
            .thread_name("serve")
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let incoming = accept(tokio::net::UnixListener::from_std(listener)?, CONNECTIONS_MAX);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = runtime.spawn(async move {
            let service = AetherServer::new(service)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            let (health, health_service) = tonic_health::server::health_reporter();
            health.set_serving::<AetherServer<Service>>().await;
            let reflection = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .build_v1()
                .expect("the descriptors were made by this build");
            transport::Server::builder()
                .max_concurrent_streams(Some(CONNECTION_REQUESTS_MAX))
                .http2_max_header_list_size(Some(HEADER_BYTES_MAX))
                .http2_keepalive_interval(Some(KEEPALIVE.0))
                .http2_keepalive_timeout(Some(KEEPALIVE.1))
                .layer(InterceptorLayer::new(check_peer))
                .add_service(service)
                .add_service(health_service)
                .add_service(reflection)
                .serve_with_incoming_shutdown(incoming, async {
                    // An error means that nobody is left to say stop, which says it as well.
                    let _ = stopped.await;
                })
                .await
        });
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
        // The other end is gone if the server failed; then there is nothing to stop.
        let _ = stop.send(());
        match runtime.block_on(async { timeout(GRACE, serving).await }) {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the server failed"),
            Ok(Err(error)) => tracing::warn!(%error, "the server failed"),
            Err(_) => tracing::warn!("requests that are under way are given up"),
        }
        // Threads that still work are not waited for: what they do survives the end of the process at any instant.
        runtime.shutdown_background();
    }
}
