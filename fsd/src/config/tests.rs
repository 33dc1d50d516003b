//! Precedence, defaults, and what is refused.

use super::*;

fn resolve(args: &[&str], variables: &[(&str, &str)], is_root: bool) -> Result<Config, ConfigError> {
    let variable = |name: &str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
    };
    let args = Args::try_parse_from([&["aetherfsd"], args].concat()).unwrap();
    Config::resolve(args, &Surroundings { variable: &variable, is_root })
}

fn config_file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("aetherfsd.toml");
    fs::write(&path, text).unwrap();
    (dir, path.to_str().unwrap().to_owned())
}

#[test]
fn the_command_line_is_consistent() {
    <Args as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn defaults_are_where_aetherctl_looks() {
    let root =
        resolve(&["--config", "/dev/null"], &[("HOME", "/root"), ("XDG_RUNTIME_DIR", "/run/user/0")], true);
    let root = root.unwrap();
    assert_eq!(
        (root.state, root.socket),
        ("/var/lib/aetherfs".into(), "/run/aetherfs/aetherfsd.sock".into())
    );
    assert_eq!((root.log_level.as_str(), root.log_format), ("info", LogFormat::Text));
    assert!(root.read_ahead);

    let none = "/no/such/dir";
    let user = [("HOME", "/home/u"), ("XDG_CONFIG_HOME", none), ("XDG_RUNTIME_DIR", "/run/user/7")];
    let config = resolve(&[], &user, false).unwrap();
    assert_eq!(config.state, Path::new("/home/u/.local/state/aetherfs"));
    assert_eq!(config.socket, Path::new("/run/user/7/aetherfs/aetherfsd.sock"));
    let config =
        resolve(&[], &[("HOME", "/home/u"), ("XDG_CONFIG_HOME", none), ("XDG_RUNTIME_DIR", "")], false);
    assert_eq!(config.unwrap().socket, Path::new("/home/u/.local/state/aetherfs/aetherfsd.sock"));
    let config = resolve(&[], &[("XDG_STATE_HOME", "/s"), ("XDG_CONFIG_HOME", none)], false).unwrap();
    assert_eq!(config.state, Path::new("/s/aetherfs"));
    assert!(matches!(resolve(&[], &[], false), Err(ConfigError::NoHome)));
}

#[test]
fn argument_before_environment_before_file() {
    let (_dir, path) =
        config_file("state = '/file'\nsocket = '/file.sock'\nlog_level = 'warn'\nlog_format = 'json'\n");
    let file = resolve(&["--config", &path], &[], true).unwrap();
    assert_eq!((file.state, file.socket), ("/file".into(), "/file.sock".into()));
    assert_eq!((file.log_level.as_str(), file.log_format), ("warn", LogFormat::Json));

    let variables = [("AETHERFS_STATE", "/env"), ("AETHERFS_SOCKET", "/env.sock"), ("AETHERFS_LOG", "debug")];
    let env = resolve(&["--config", &path], &variables, true).unwrap();
    assert_eq!((env.state, env.socket), ("/env".into(), "/env.sock".into()));
    assert_eq!(env.log_level, "debug");

    let args = ["--config", &path, "--state", "/arg", "--socket", "/arg.sock", "--log-level", "trace"];
    let arg = resolve(&args, &variables, true).unwrap();
    assert_eq!((arg.state, arg.socket), ("/arg".into(), "/arg.sock".into()));
    assert_eq!(arg.log_level, "trace");
}

#[test]
fn a_state_that_is_given_holds_the_socket() {
    let given = resolve(&["--config", "/dev/null", "--state", "/s"], &[], true).unwrap();
    assert_eq!(given.socket, Path::new("/s/aetherfsd.sock"));
    let told = resolve(&["--config", "/dev/null"], &[("AETHERFS_STATE", "/s")], true).unwrap();
    assert_eq!(told.socket, Path::new("/s/aetherfsd.sock"));
}

#[test]
fn mounts_are_a_session_and_a_directory() {
    let config = resolve(&["--config", "/dev/null", "--mount", "work:/mnt/a:b"], &[], true).unwrap();
    assert_eq!(config.mounts, [StartMount { session: "work".into(), dir: "/mnt/a:b".into() }]);
    for text in ["work", ":/mnt", "work:", ""] {
        assert!(matches!(resolve(&["--mount", text], &[], true), Err(ConfigError::Mount(_))), "{text}");
    }
}

#[test]
fn a_file_that_is_wrong_is_named_with_line_and_key() {
    let (_dir, path) = config_file("# mine\nstat = '/x'\n");
    let error = resolve(&["--config", &path], &[], true).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{path} line 2: ")) && error.contains("`stat`"), "{error}");
    let (_dir, path) = config_file("state = [");
    assert!(matches!(resolve(&["--config", &path], &[], true), Err(ConfigError::Malformed { .. })));
    let missing = resolve(&["--config", "/no/such/file"], &[], true).unwrap_err();
    assert!(matches!(missing, ConfigError::Unreadable { .. }));
}

#[test]
fn reading_ahead_can_be_switched_off() {
    let (_dir, path) = config_file("read_ahead = false\n");
    assert!(!resolve(&["--config", &path], &[], true).unwrap().read_ahead);
    assert!(!resolve(&["--config", "/dev/null", "--no-read-ahead"], &[], true).unwrap().read_ahead);
}

#[test]
fn a_reader_is_told_all_or_nothing() {
    let parse = |args: &[&str]| Args::try_parse_from([&["aetherfsd"], args].concat());
    let task = parse(&["--read-ahead-in", "/mnt", "--device", "0:5"]).unwrap().reader.task();
    assert_eq!(task.unwrap().mount, Path::new("/mnt"));
    assert!(parse(&["--read-ahead-in", "/mnt"]).is_err());
    assert!(parse(&["--device", "0:5"]).is_err());
    assert!(parse(&[]).unwrap().reader.task().is_none());
}

#[test]
fn places_of_heads_are_told_apart_and_their_passwords_are_not_told() {
    let place = |text: &str| resolve(&["--heads", text], &[], true);
    assert_eq!(resolve(&["--config", "/dev/null"], &[], true).unwrap().heads, HeadsPlace::Remote);
    assert_eq!(place("local").unwrap().heads, HeadsPlace::Local);
    let config = place("postgres://user:secret@host/db").unwrap();
    assert!(matches!(&config.heads, HeadsPlace::Postgres(_)) && !format!("{config:?}").contains("secret"));
    let error = place("mysql://user:secret@host/db").unwrap_err().to_string();
    assert!(error.contains("postgres://") && !error.contains("secret"), "{error}");
    let variables = [("AETHERFS_HEADS", "local")];
    assert_eq!(resolve(&["--config", "/dev/null"], &variables, true).unwrap().heads, HeadsPlace::Local);
}

#[test]
fn the_network_takes_all_three_or_none() {
    let plain = ["--config", "/dev/null"];
    assert_eq!(resolve(&plain, &[], true).unwrap().listen, None);
    let (_dir, path) = config_file("listen = 'file:1'\ntls_cert = '/file.pem'\ntls_key = '/file.key'\n");
    let listen = |address: &str, cert: &str, key: &str| {
        Some(Listen { address: address.into(), cert: cert.into(), key: key.into() })
    };
    let file = resolve(&["--config", &path], &[], true).unwrap();
    assert_eq!(file.listen, listen("file:1", "/file.pem", "/file.key"));
    let variables =
        [("AETHERFS_LISTEN", "env:2"), ("AETHERFS_TLS_CERT", "/env.pem"), ("AETHERFS_TLS_KEY", "")];
    let env = resolve(&["--config", &path], &variables, true).unwrap();
    assert_eq!(env.listen, listen("env:2", "/env.pem", "/file.key"));
    let args = ["--config", &path, "--listen", "arg:3", "--tls-cert", "/arg.pem", "--tls-key", "/arg.key"];
    assert_eq!(resolve(&args, &variables, true).unwrap().listen, listen("arg:3", "/arg.pem", "/arg.key"));
    let missing = [
        ("--listen", &["--tls-cert", "a", "--tls-key", "b"][..]),
        ("--tls-cert", &["--listen", "a:1", "--tls-key", "b"]),
        ("--tls-key", &["--listen", "a:1", "--tls-cert", "b"]),
        ("--tls-cert", &["--listen", "a:1"]),
    ];
    for (what, args) in missing {
        let error = resolve(&[&plain, args].concat(), &[], true).unwrap_err();
        assert!(matches!(error, ConfigError::Listen(named) if named == what), "{error}");
    }
}
