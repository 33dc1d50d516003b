//! The socket: made so that only its owner can reach it, and every caller asked who it is.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, socket},
        stat::{Mode, fchmod},
    },
    unistd::geteuid,
};
use tonic::{Request, Status, transport::server::UdsConnectInfo};

use super::access::Access;

/// Why the socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("another daemon answers on {}; stop it, or name another socket with --socket", .0.display())]
    Answered(PathBuf),
    /// It is something else.
    #[error("{} is there and is not a socket; name another one with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot listen on {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Listens on `path`, mode 0600. Makes its directory (0700) if that is not there, and replaces the socket of a daemon that
/// is gone.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => remove_stale(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    bind_private(path).map_err(|errno| failed(errno.into()))
}

/// On Linux the name gets the mode that the socket has when it is bound (unix_bind_bsd in net/unix/af_unix.c). A mode set
/// afterwards would leave a moment for others, and a umask is that of the whole process.
fn bind_private(path: &Path) -> nix::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    nix::sys::socket::listen(&socket, Backlog::MAXCONN)?;
    Ok(UnixListener::from(socket))
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Answered(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "replacing the socket of a daemon that is gone");
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Lets the daemon's own user and root in. The socket's mode says the same, unless somebody changes it.
pub(super) fn check_peer(mut request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    let own = geteuid().as_raw();
    match peer.map(|peer| peer.uid()) {
        Some(uid) if uid == own || uid == 0 => {
            request.extensions_mut().insert(Access::owner());
            Ok(request)
        }
        Some(uid) => {
            let message = format!("user {uid} may not use this daemon: it belongs to user {own}");
            Err(Status::permission_denied(message))
        }
        None => Err(Status::permission_denied("the system does not say who is calling")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_live_socket_is_left_alone_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/aetherfsd.sock");
        let listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(listen(&path), Err(SocketError::Answered(_))));
        drop(listener);
        listen(&path).unwrap();
        let file = dir.path().join("notes");
        fs::write(&file, "mine").unwrap();
        assert!(matches!(listen(&file), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }
}
