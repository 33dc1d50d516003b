//! What the daemon is told: by argument, else by environment, else by configuration file, else by default.
//!
//! Parsed once, here; everything behind it gets a [`Config`]. The default socket is where `aetherctl` looks for it.

mod peers;

use std::{
    ffi::OsString,
    fmt, fs, io,
    num::NonZero,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use clap::{Parser, ValueEnum};
use serde::Deserialize;

use crate::{
    fleet::{Patience, peers::PeerPlace},
    fuse::{Task, TransportChoice},
};

const SOCKET_NAME: &str = "aetherfsd.sock";
const AFTER_HELP: &str = "\
Each setting is the argument, else the environment variable, else the line of the configuration file, else the default. \
The file is TOML: `state`, `socket`, `listen`, `tls_cert`, `tls_key`, `mount` (a list), `transport`, `read_ahead`, `remote`, `peer` (a list), `peer_ca`, `peer_token_file`, `cache_size`, `heads`, `publish_every`, `dead_after`, `log_format`, `log_level`; without --config it is \
/etc/aetherfs/aetherfsd.toml for root and $XDG_CONFIG_HOME/aetherfs/aetherfsd.toml for anybody else, if it is there.

Signals: SIGTERM and SIGINT unmount everything and end the daemon. Whatever else ends it loses nothing acknowledged.

Exit codes: 0 stopped by a signal, or checked and nothing is wrong; 1 another daemon has the state or the socket; 2 anything else that keeps it from starting, or damage that is left.

Examples:
  aetherfsd
  aetherfsd --state ~/aether --mount work:/mnt/work
  aetherfsd --listen 0.0.0.0:7440 --tls-cert /etc/aetherfs/cert.pem --tls-key /etc/aetherfs/key.pem
  aetherfsd --remote s3://bucket/aether --peer https://near.example:7440 --peer-token-file /etc/aetherfs/near.token
  aetherfsd --state ~/aether --check
  aetherfsd --state ~/aether --check --repair
  aetherfsd --state ~/aether --check --accept-loss
  AETHERFS_STATE=~/aether aetherfsd --log-format json --log-level debug 2>>~/aether.log";

/// Serve the sessions of one state directory: mount them, fork them, answer aetherctl
#[derive(Debug, Default, Parser)]
#[command(name = "aetherfsd", version, after_help = AFTER_HELP)]
pub struct Args {
    /// The directory that holds everything [env: AETHERFS_STATE] [default: /var/lib/aetherfs for root,
    /// ~/.local/state/aetherfs for anybody else]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Where to listen [env: AETHERFS_SOCKET] [default: aetherfsd.sock in the state that is given, else in /run/aetherfs or
    /// $XDG_RUNTIME_DIR/aetherfs]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Listen on the network as well: with TLS, for callers that have a token (`aetherctl token create`) [env: AETHERFS_LISTEN]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// The certificate for that, in PEM, with those between it and its root behind it [env: AETHERFS_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, in PEM [env: AETHERFS_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Mount a session (an ID, a prefix of one, or a name) at the start; repeatable
    #[arg(long, value_name = "SESSION:DIR")]
    pub mount: Vec<String>,
    /// What carries the requests of mounts that do not say [env: AETHERFS_TRANSPORT] [default: auto]
    #[arg(long, value_name = "TRANSPORT")]
    pub transport: Option<TransportChoice>,
    /// Read nothing ahead of programs that scan a tree
    #[arg(long)]
    pub no_read_ahead: bool,
    /// The store that hosts share: s3://BUCKET/PREFIX, gs://..., az://..., file:///DIR. Credentials and settings are taken from the environment, by
    /// the names that each cloud's own tools have for them [env: AETHERFS_REMOTE]
    #[arg(long, value_name = "URL")]
    pub remote: Option<String>,
    /// Another daemon, which is asked before the remote store, or instead of one; repeatable, the nearest first. Behind it, if they are its own: ,ca=FILE whom to believe who it
    /// is, ,token=FILE a token that allows `read` there
    #[arg(long, value_name = "https://HOST:PORT")]
    pub peer: Vec<String>,
    /// Whom to believe who peers are: certificates in PEM, instead of those that the system believes [env: AETHERFS_PEER_CA]
    #[arg(long, value_name = "FILE")]
    pub peer_ca: Option<PathBuf>,
    /// The file of the token for peers that have none of their own [env: AETHERFS_PEER_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub peer_token_file: Option<PathBuf>,
    /// How much of the remote store and of peers is kept here: 500MiB, 16GiB [default: 16GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub cache_size: Option<u64>,
    /// Where it is kept who writes which session: `remote`, in the remote store; `local`, in the state: they stay on this host then; or
    /// postgres://USER:PASSWORD@HOST:PORT/DATABASE, in a database that all hosts reach (better in the environment or the file: arguments are seen by
    /// everybody on this host) [env: AETHERFS_HEADS] [default: remote]
    #[arg(long, value_name = "PLACE")]
    pub heads: Option<String>,
    /// Publish the sessions that were published once again and again, as long as there is something new: so many seconds after the last time
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub publish_every: Option<u32>,
    /// A host that gives no sign of life for so many seconds may be taken for dead by a mount with --take-over. The same on all hosts [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(i64::from(DEAD_SECS_MIN)..))]
    pub dead_after: Option<u32>,
    /// A configuration file instead of the default one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to log, on stderr [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What to log: error, warn, info, debug, trace, or one of them for each module [env: AETHERFS_LOG] [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Start although part of the log is damaged, without what that part held
    #[arg(long)]
    pub accept_loss: bool,
    /// Check the state instead of serving it, print what is damaged, and end. For a state whose daemon does not start; of one
    /// that runs ask `aetherctl fsck`
    #[arg(long)]
    pub check: bool,
    /// With --check: mend the index, move what is intact out of damaged packs, and set those aside as *.lost
    #[arg(long, requires = "check")]
    pub repair: bool,
    /// What a daemon starts its readers with
    #[command(flatten)]
    pub reader: ReaderArgs,
}

/// For a process that reads a mount ahead of a scan. Not for people.
#[derive(Debug, Default, clap::Args)]
pub struct ReaderArgs {
    /// The mount point.
    #[arg(long, hide = true, requires = "device")]
    pub read_ahead_in: Option<PathBuf>,
    /// Its device number.
    #[arg(long, hide = true, requires = "read_ahead_in")]
    pub device: Option<String>,
}

impl ReaderArgs {
    /// What it is to read, if that is what this process is for.
    pub fn task(self) -> Option<Task> {
        Some(Task { mount: self.read_ahead_in?, device: self.device? })
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// A session to mount at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartMount {
    /// An ID, a prefix of one, or a name.
    pub session: String,
    /// Absolute.
    pub dir: PathBuf,
}

/// A port of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `HOST:PORT`.
    pub address: String,
    /// The certificate's file.
    pub cert: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
}

/// Where heads are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum HeadsPlace {
    /// In the remote store.
    Remote,
    /// In the state.
    Local,
    /// In a database, at this address.
    Postgres(String),
}

impl fmt::Debug for HeadsPlace {
    /// An address has a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadsPlace::Remote => "remote",
            HeadsPlace::Local => "local",
            HeadsPlace::Postgres(_) => "postgres",
        })
    }
}

/// What the daemon is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The state directory.
    pub state: PathBuf,
    /// The socket.
    pub socket: PathBuf,
    /// Where to listen on the network.
    pub listen: Option<Listen>,
    /// Mounted at the start.
    pub mounts: Vec<StartMount>,
    /// What carries the requests of mounts that do not say.
    pub transport: TransportChoice,
    /// Read ahead of programs that scan a tree.
    pub read_ahead: bool,
    /// The address of the remote store.
    pub remote: Option<String>,
    /// Other hosts, the nearest first.
    pub peers: Vec<PeerPlace>,
    /// Bytes of them and of the remote store that are kept here.
    pub cache_bytes: u64,
    /// Where heads are kept.
    pub heads: HeadsPlace,
    /// Between publishes that nobody asks for.
    pub publish_every: Option<Duration>,
    /// Other hosts.
    pub patience: Patience,
    /// How to log.
    pub log_format: LogFormat,
    /// What to log.
    pub log_level: String,
    /// Start although the log is damaged.
    pub accept_loss: bool,
    /// Check and end.
    pub check: bool,
    /// Mend what a check finds.
    pub repair: bool,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    state: Option<PathBuf>,
    socket: Option<PathBuf>,
    listen: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    #[serde(default)]
    mount: Vec<String>,
    transport: Option<TransportChoice>,
    read_ahead: Option<bool>,
    remote: Option<String>,
    #[serde(default)]
    peer: Vec<String>,
    peer_ca: Option<PathBuf>,
    peer_token_file: Option<PathBuf>,
    cache_size: Option<String>,
    heads: Option<String>,
    publish_every: Option<NonZero<u32>>,
    dead_after: Option<NonZero<u32>>,
    log_format: Option<LogFormat>,
    log_level: Option<String>,
}

/// What cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} line {line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong; names the key.
        reason: String,
    },
    /// A mount that is no mount.
    #[error("--mount {0:?} is not SESSION:DIR")]
    Mount(String),
    /// Part of what it takes to listen on the network.
    #[error("--listen, --tls-cert and --tls-key go together, and {0} is missing")]
    Listen(&'static str),
    /// A peer that is none.
    #[error(
        "--peer {text:?}: {reason}; write https://HOST:PORT, with ,ca=FILE and ,token=FILE behind it if those are its own"
    )]
    Peer {
        /// As it was given.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A path that cannot be made absolute.
    #[error("{}: {source}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A transport that there is not.
    #[error("AETHERFS_TRANSPORT={0:?} is none of: auto, dev-fuse, io-uring")]
    Transport(OsString),
    /// No place for heads. What was given may have a password in it.
    #[error("the place of heads is none of: remote, local, postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Heads,
    /// A size that is none.
    #[error("cache_size {text:?} {reason}")]
    CacheSize {
        /// As it was given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// A user without a home directory.
    #[error("neither --state nor HOME is set: name a state directory")]
    NoHome,
}

/// Whose daemon this is.
pub struct Surroundings<'a> {
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Whether this is root.
    pub is_root: bool,
}

impl Surroundings<'_> {
    /// An empty variable is one that is not set.
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn home(&self, below: &str) -> Option<PathBuf> {
        self.path("HOME").map(|home| home.join(below))
    }

    fn config_file(&self) -> Option<PathBuf> {
        let dir = match self.is_root {
            true => Some(PathBuf::from("/etc")),
            false => self.path("XDG_CONFIG_HOME").or_else(|| self.home(".config")),
        };
        dir.map(|dir| dir.join("aetherfs/aetherfsd.toml"))
    }

    fn state(&self) -> Option<PathBuf> {
        if self.is_root {
            return Some("/var/lib/aetherfs".into());
        }
        let dir = self.path("XDG_STATE_HOME").or_else(|| self.home(".local/state"));
        dir.map(|dir| dir.join("aetherfs"))
    }

    fn socket(&self) -> Option<PathBuf> {
        let dir = match self.is_root {
            true => Some(PathBuf::from("/run")),
            false => self.path("XDG_RUNTIME_DIR").or_else(|| self.home(".local/state")),
        };
        dir.map(|dir| dir.join("aetherfs").join(SOCKET_NAME))
    }
}

impl Config {
    /// Puts together what holds.
    pub fn resolve(args: Args, around: &Surroundings<'_>) -> Result<Config, ConfigError> {
        let file = read_file(args.config, around)?;
        // A state in the file does not move the socket: aetherctl does not read that file.
        let told_state = args.state.or_else(|| around.path("AETHERFS_STATE"));
        let state =
            told_state.clone().or(file.state).or_else(|| around.state()).ok_or(ConfigError::NoHome)?;
        let state = absolute(&state)?;
        let socket = args.socket.or_else(|| around.path("AETHERFS_SOCKET")).or(file.socket);
        let socket = match (socket, told_state) {
            (Some(socket), _) => socket,
            (None, Some(_)) => state.join(SOCKET_NAME),
            (None, None) => around.socket().unwrap_or_else(|| state.join(SOCKET_NAME)),
        };
        let address = (around.variable)("AETHERFS_LISTEN").filter(|address| !address.is_empty());
        let address =
            args.listen.or(address.map(|address| address.to_string_lossy().into_owned())).or(file.listen);
        let cert = args.tls_cert.or_else(|| around.path("AETHERFS_TLS_CERT")).or(file.tls_cert);
        let key = args.tls_key.or_else(|| around.path("AETHERFS_TLS_KEY")).or(file.tls_key);
        let mounts = if args.mount.is_empty() { file.mount } else { args.mount };
        let transport = (around.variable)("AETHERFS_TRANSPORT").filter(|name| !name.is_empty());
        let transport = transport.map(parse_transport).transpose()?;
        let remote = (around.variable)("AETHERFS_REMOTE").filter(|address| !address.is_empty());
        let remote =
            args.remote.or(remote.map(|address| address.to_string_lossy().into_owned())).or(file.remote);
        let peers = if args.peer.is_empty() { file.peer } else { args.peer };
        let shared = peers::Shared {
            ca: args.peer_ca.or_else(|| around.path("AETHERFS_PEER_CA")).or(file.peer_ca),
            token_file: args
                .peer_token_file
                .or_else(|| around.path("AETHERFS_PEER_TOKEN_FILE"))
                .or(file.peer_token_file),
        };
        let size = |text: String| parse_size(&text).map_err(|reason| ConfigError::CacheSize { text, reason });
        let cache_bytes = file.cache_size.map(size).transpose()?;
        let heads = (around.variable)("AETHERFS_HEADS").filter(|place| !place.is_empty());
        let heads = args.heads.or(heads.map(|place| place.to_string_lossy().into_owned())).or(file.heads);
        let publish_every = args.publish_every.or(file.publish_every.map(NonZero::get));
        let dead_after = args.dead_after.or(file.dead_after.map(NonZero::get));
        let dead_after = dead_after.map(|secs| secs.max(DEAD_SECS_MIN));
        let log_level = (around.variable)("AETHERFS_LOG").filter(|level| !level.is_empty());
        let log_level = args.log_level.or(log_level.map(|level| level.to_string_lossy().into_owned()));
        Ok(Config {
            state,
            socket: absolute(&socket)?,
            listen: parse_listen(address, cert, key)?,
            mounts: mounts.iter().map(|text| parse_mount(text)).collect::<Result<_, _>>()?,
            transport: args.transport.or(transport).or(file.transport).unwrap_or_default(),
            remote,
            peers: shared.parse_all(&peers)?,
            cache_bytes: args.cache_size.or(cache_bytes).unwrap_or(CACHE_BYTES),
            publish_every: publish_every.map(|secs| Duration::from_secs(secs.into())),
            heads: heads.map_or(Ok(HeadsPlace::Remote), |place| parse_heads(&place))?,
            patience: dead_after.map_or_else(Patience::default, Patience::of_secs),
            read_ahead: !args.no_read_ahead && file.read_ahead.unwrap_or(true),
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            log_level: log_level.or(file.log_level).unwrap_or_else(|| "info".to_owned()),
            accept_loss: args.accept_loss,
            check: args.check,
            repair: args.repair,
        })
    }
}

/// The file that is named must be there; the default one need not.
fn read_file(named: Option<PathBuf>, around: &Surroundings<'_>) -> Result<ConfigFile, ConfigError> {
    let must_exist = named.is_some();
    let Some(path) = named.or_else(|| around.config_file()) else { return Ok(ConfigFile::default()) };
    match fs::read_to_string(&path) {
        Ok(text) => parse_file(&path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => Ok(ConfigFile::default()),
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    }
}

fn parse_file(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count() + 1;
        let reason = error.message().replace('\n', " ");
        ConfigError::Malformed { path: path.to_owned(), line, reason }
    })
}

/// Whether the text is a configuration file. A door for the fuzz targets.
#[doc(hidden)]
pub fn check_file(text: &str) -> Result<(), ConfigError> {
    parse_file(Path::new("fuzzed.toml"), text).map(drop)
}

fn parse_transport(name: OsString) -> Result<TransportChoice, ConfigError> {
    let parsed = name.to_str().and_then(|text| TransportChoice::from_str(text, false).ok());
    parsed.ok_or(ConfigError::Transport(name))
}

/// All of it or nothing: a port without TLS is none.
fn parse_listen(
    address: Option<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<Listen>, ConfigError> {
    match (address, cert, key) {
        (None, None, None) => Ok(None),
        (Some(address), Some(cert), Some(key)) => {
            Ok(Some(Listen { address, cert: absolute(&cert)?, key: absolute(&key)? }))
        }
        (None, ..) => Err(ConfigError::Listen("--listen")),
        (_, None, _) => Err(ConfigError::Listen("--tls-cert")),
        (.., None) => Err(ConfigError::Listen("--tls-key")),
    }
}

/// With less a host that is alive could be taken for dead.
const DEAD_SECS_MIN: u32 = 3;

fn parse_heads(place: &str) -> Result<HeadsPlace, ConfigError> {
    match place {
        "remote" => Ok(HeadsPlace::Remote),
        "local" => Ok(HeadsPlace::Local),
        _ if place.starts_with("postgres://") || place.starts_with("postgresql://") => {
            Ok(HeadsPlace::Postgres(place.to_owned()))
        }
        _ => Err(ConfigError::Heads),
    }
}

/// Of what the cache of a remote store may take.
const CACHE_BYTES: u64 = 16 << 30;
/// With less it could not hold what one request needs.
const CACHE_BYTES_MIN: u64 = 64 << 20;

fn parse_size(text: &str) -> Result<u64, String> {
    let bytes =
        text.parse::<ByteSize>().map_err(|_| "is no size; write 500MiB or 16GiB".to_owned())?.as_u64();
    if bytes < CACHE_BYTES_MIN { Err("is too small; 64MiB is the least".to_owned()) } else { Ok(bytes) }
}

/// At the first colon: session names may have none here, directories may.
fn parse_mount(text: &str) -> Result<StartMount, ConfigError> {
    match text.split_once(':') {
        Some((session, dir)) if !session.is_empty() && !dir.is_empty() => {
            Ok(StartMount { session: session.to_owned(), dir: absolute(Path::new(dir))? })
        }
        _ => Err(ConfigError::Mount(text.to_owned())),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Path { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
