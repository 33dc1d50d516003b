//! Where the daemon is: at a socket of this host, or somewhere on the network, where it wants a token.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use token::TOKEN_BYTES_MAX;

use crate::failure::Failure;

const SOCKET_NAME: &str = "aetherfsd.sock";

/// Which daemon, and how to get in.
#[derive(clap::Args)]
pub(crate) struct PlaceArgs {
    /// The daemon's socket [env: AETHERFS_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A daemon on the network, https://HOST:PORT, instead of one on this host. It wants a token: AETHERFS_TOKEN, or --token-file [env: AETHERFS_SERVER]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "socket")]
    server: Option<String>,
    /// Whom to believe who that daemon is: certificates in PEM, instead of those that the system believes [env: AETHERFS_CA]
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The file that the token is in, - for stdin, instead of AETHERFS_TOKEN [env: AETHERFS_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Where the daemon is.
pub(crate) enum Place {
    /// On this host.
    Socket(PathBuf),
    /// On the network.
    Server(Server),
}

/// A daemon on the network.
pub(crate) struct Server {
    /// As it was given.
    pub(crate) address: String,
    /// Whom to believe; the system's choice otherwise.
    pub(crate) ca: Option<PathBuf>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Socket(path) => write!(f, "{}", path.display()),
            Place::Server(server) => f.write_str(&server.address),
        }
    }
}

impl PlaceArgs {
    /// What holds: an argument before the environment, the network before the socket.
    pub(crate) fn resolve(self) -> (Place, TokenSource) {
        let PlaceArgs { socket, server, ca, token_file } = self;
        let from_environment = || match socket {
            Some(_) => None,
            None => variable("AETHERFS_SERVER").map(|path| path.to_string_lossy().into_owned()),
        };
        let place = match server.or_else(from_environment) {
            Some(address) => Place::Server(Server { address, ca: ca.or_else(|| variable("AETHERFS_CA")) }),
            None => Place::Socket(socket_path(socket)),
        };
        (place, TokenSource { file: token_file })
    }
}

/// An empty variable is one that is not set.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Where the daemon listens, if nobody says otherwise. `given` is `--socket`.
fn socket_path(given: Option<PathBuf>) -> PathBuf {
    if let Some(path) = given.filter(|p| !p.as_os_str().is_empty()).or_else(|| variable("AETHERFS_SOCKET")) {
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

/// What would start a daemon that listens on `socket`.
pub(crate) fn start_hint(socket: &Path) -> String {
    // A daemon that is told its state alone listens inside it: the hint has to lead to the socket that is asked for.
    match (socket.file_name().is_some_and(|name| name == SOCKET_NAME), socket.parent()) {
        (true, Some(dir))
            if std::env::var_os("AETHERFS_STATE").is_some_and(|state| Path::new(&state) == dir) =>
        {
            format!("aetherfsd --state {} &", dir.display())
        }
        _ => format!("aetherfsd --state DIR --socket {} &", socket.display()),
    }
}

/// Where the token is. Never in an argument: those everybody on a host can see.
pub(crate) struct TokenSource {
    file: Option<PathBuf>,
}

impl TokenSource {
    /// The token, if somebody said where it is.
    pub(crate) fn read(&self) -> Result<Option<String>, Failure> {
        if let Some(file) = &self.file {
            return read_file(file).map(Some);
        }
        if let Some(token) = variable("AETHERFS_TOKEN") {
            let unreadable = |_| Failure::No("AETHERFS_TOKEN holds no token: it is not text".to_string());
            return token.into_os_string().into_string().map(Some).map_err(unreadable);
        }
        variable("AETHERFS_TOKEN_FILE").map(|file| read_file(&file)).transpose()
    }

    /// The token, from stdin if nobody said where it is.
    pub(crate) fn read_or_stdin(&self) -> Result<String, Failure> {
        match self.read()? {
            Some(token) => Ok(token),
            None => read_file(Path::new("-")),
        }
    }
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let read = || {
        let source: Box<dyn Read> =
            if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
        let mut text = String::new();
        // What is longer is no token, and told so by whoever looks into it.
        source.take(TOKEN_BYTES_MAX as u64 + 2).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|e: io::Error| Failure::No(format!("the token in {}: {e}", path.display())))
}
