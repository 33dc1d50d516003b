//! Finds the daemon's socket and connects to it.

use std::io;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use proto::v1::aether_client::AetherClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::failure::Failure;

/// The largest message that is accepted: the interface promises 4 MiB, with room for its envelope.
const MESSAGE_BYTES_MAX: usize = 5 << 20;

const SOCKET_NAME: &str = "aetherfsd.sock";

pub(crate) type Client = AetherClient<Channel>;

/// Where the daemon listens, if nobody says otherwise. `given` is `--socket` or `AETHERFS_SOCKET`.
pub(crate) fn socket_path(given: Option<PathBuf>) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = given.filter(|p| !p.as_os_str().is_empty()) {
        return path;
    }
    if let Some(state) = variable("AETHERFS_STATE") {
        return state.join(SOCKET_NAME);
    }
    if nix::unistd::geteuid().is_root() {
        return Path::new("/run/aetherfs").join(SOCKET_NAME);
    }
    let runtime_dir = variable("XDG_RUNTIME_DIR")
        .unwrap_or_else(|| variable("HOME").unwrap_or_else(|| PathBuf::from("/")).join(".local/state"));
    runtime_dir.join("aetherfs").join(SOCKET_NAME)
}

/// Connects to the daemon on `socket`.
pub(crate) async fn connect(socket: &Path) -> Result<Client, Failure> {
    let stream =
        UnixStream::connect(socket).await.map_err(|e| Failure::Broken(unreachable_daemon(socket, &e)))?;
    // The one connection is all there is: a command does not outlive its daemon.
    let mut stream = Some(stream);
    let connector = service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::other("the connection was lost"));
        async move { stream.map(TokioIo::new) }
    });
    // The host part is required by HTTP/2 and means nothing on a socket.
    let channel =
        Endpoint::from_static("http://aetherfsd").connect_with_connector(connector).await.map_err(|e| {
            Failure::Broken(format!("what listens on {} does not speak gRPC: {e}", socket.display()))
        })?;
    Ok(AetherClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
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
    // A daemon that is told its state alone listens inside it: the hint has to lead to the socket that is asked for.
    let hint = match (socket.file_name().is_some_and(|name| name == SOCKET_NAME), socket.parent()) {
        (true, Some(dir))
            if std::env::var_os("AETHERFS_STATE").is_some_and(|state| Path::new(&state) == dir) =>
        {
            format!("aetherfsd --state {} &", dir.display())
        }
        _ => format!("aetherfsd --state DIR --socket {} &", socket.display()),
    };
    format!("no daemon answers on {}: {reason}. Start one: {hint}", socket.display())
}
