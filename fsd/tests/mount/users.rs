//! What other users may do: permission bits, set-ID bits, sticky directories, the umask, access control lists. All of it is
//! judged by the kernel; what is tested is that sessions tell it the truth and keep what it decides.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use crate::daemon::Daemon;

const NOBODY: u32 = 65534;
const DAEMON: u32 = 1;

/// Runs a script as a user in a directory. True if that lets the user in and the script succeeds.
pub(crate) fn run_as(user: u32, dir: &Path, script: &str) -> bool {
    let mut command = Command::new("sh");
    let script = format!("cd \"$0\" 2>/dev/null\n{script}");
    command.args(["-ec", &script]).arg(dir).current_dir("/").uid(user).gid(user);
    command.status().expect("a shell").success()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("stat").permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn permission_bits_hold_for_everybody_but_root() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted_for_all("mnt", false);
    set_mode(&dir, 0o755);
    fs::write(dir.join("private"), b"secret").expect("write");
    set_mode(&dir.join("private"), 0o600);
    fs::write(dir.join("public"), b"known").expect("write");
    assert!(run_as(NOBODY, &dir, "cat public >/dev/null && test ! -w public"));
    assert!(!run_as(NOBODY, &dir, "cat private 2>/dev/null"));
    assert!(!run_as(NOBODY, &dir, "echo x 2>/dev/null >>public"));
    assert!(!run_as(NOBODY, &dir, "touch new 2>/dev/null"));
    set_mode(&dir, 0o777);
    assert!(run_as(
        NOBODY,
        &dir,
        "umask 027; echo x >new; mkdir made; test $(stat -c %a%u%g new) = 6406553465534"
    ));
    assert_eq!((mode(&dir.join("new")), mode(&dir.join("made"))), (0o640, 0o750));
    assert!(!run_as(DAEMON, &dir, "cat new 2>/dev/null"));
    assert!(!run_as(DAEMON, &dir, "chmod 666 new 2>/dev/null"));
    assert!(!run_as(DAEMON, &dir, "chown 1 new 2>/dev/null"));
}

#[test]
fn names_in_a_sticky_directory_are_their_owners() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted_for_all("mnt", false);
    set_mode(&dir, 0o1777);
    assert!(run_as(NOBODY, &dir, "echo mine >file; chmod 666 file; mkdir dir"));
    assert!(!run_as(DAEMON, &dir, "rm -f file 2>/dev/null"));
    assert!(!run_as(DAEMON, &dir, "mv file other 2>/dev/null"));
    assert!(!run_as(DAEMON, &dir, "rmdir dir 2>/dev/null"));
    assert!(run_as(DAEMON, &dir, "echo yours >>file"), "writing is another matter");
    assert!(run_as(NOBODY, &dir, "rm file; rmdir dir"));
}

#[test]
fn a_new_file_in_a_set_group_id_directory_has_its_group() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted_for_all("mnt", false);
    let shared = dir.join("shared");
    fs::create_dir(&shared).expect("mkdir");
    chown(&shared, None, Some(50)).expect("chown");
    set_mode(&shared, 0o2777);
    assert!(run_as(NOBODY, &shared, "touch file; mkdir dir"));
    let group = |name: &str| fs::metadata(shared.join(name)).expect("stat").gid();
    assert_eq!((group("file"), group("dir")), (50, 50));
    assert_eq!(mode(&shared.join("dir")) & 0o2000, 0o2000);
    // A file of a group that its maker is not in cannot be set-group-ID.
    assert!(run_as(NOBODY, &shared, "chmod 2755 file"));
    assert_eq!(mode(&shared.join("file")), 0o755);
}

#[test]
fn set_id_bits_and_capabilities_go_when_another_writes() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted_for_all("mnt", false);
    let file = dir.join("program");
    let arm = || {
        fs::write(&file, b"0123456789").expect("write");
        set_mode(&file, 0o6777);
    };
    let ways = ["echo more >>program", "truncate -s 3 program", ": >program", "fallocate -l 100 program"];
    for way in ways {
        arm();
        assert!(run_as(NOBODY, &dir, way), "{way}");
        assert_eq!(mode(&file), 0o777, "after {way}");
        assert_eq!(daemon.names(&session, "").expect("ls").len(), 1);
    }
    arm();
    fs::write(&file, b"root may").expect("write");
    assert_eq!(mode(&file), 0o6777);
    // Overwritten in place, too: the bytes are the session's own by now.
    assert!(run_as(NOBODY, &dir, "printf X | dd of=program conv=notrunc 2>/dev/null"));
    assert_eq!(mode(&file), 0o777);
    arm();
    chown(&file, Some(NOBODY), None).expect("chown");
    assert_eq!(mode(&file), 0o777, "a new owner did not set them");

    // cap_net_raw+ep, as struct vfs_cap_data of revision 2 has it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for user in [NOBODY, 0] {
        xattr::set(&file, "security.capability", &capability).expect("setxattr");
        assert!(run_as(user, &dir, "echo more >>program"));
        assert_eq!(xattr::get(&file, "security.capability").expect("getxattr"), None);
    }
}

/// A list as the kernel has it: version 2, then tag, permissions and ID of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        bytes.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const ANY: u32 = u32::MAX;
/// Owner rwx, the user `daemon` r-x, group ---, mask r-x, others ---.
const FOR_DAEMON: [(u16, u16, u32); 5] =
    [(1, 7, ANY), (2, 5, DAEMON), (4, 0, ANY), (0x10, 5, ANY), (0x20, 0, ANY)];

#[test]
fn access_control_lists_decide_where_they_are_asked_for() {
    let Some(daemon) = Daemon::start() else { return };
    let (session, dir) = daemon.mounted_for_all("mnt", true);
    set_mode(&dir, 0o777);
    let file = dir.join("file");
    fs::write(&file, b"for one user").expect("write");
    xattr::set(&file, "system.posix_acl_access", &acl(&FOR_DAEMON)).expect("setxattr");
    assert_eq!(mode(&file), 0o750, "the group's bits are the mask");
    assert!(run_as(DAEMON, &dir, "cat file >/dev/null"));
    assert!(!run_as(NOBODY, &dir, "cat file 2>/dev/null"));
    set_mode(&file, 0o600);
    assert!(!run_as(DAEMON, &dir, "cat file 2>/dev/null"), "chmod takes it out of the mask");
    set_mode(&file, 0o640);
    assert!(run_as(DAEMON, &dir, "cat file >/dev/null"));

    // What is made in a directory with a default list has that list; the umask is not asked.
    xattr::set(&dir, "system.posix_acl_default", &acl(&FOR_DAEMON)).expect("setxattr");
    assert!(run_as(NOBODY, &dir, "umask 077; echo x >new; mkdir below; echo y >below/new"));
    for path in ["new", "below/new"] {
        assert!(run_as(DAEMON, &dir, &format!("cat {path} >/dev/null")));
        assert!(xattr::get(dir.join(path), "system.posix_acl_access").expect("getxattr").is_some());
        assert_eq!(mode(&dir.join(path)), 0o640);
    }
    assert!(xattr::get(dir.join("below"), "system.posix_acl_default").expect("getxattr").is_some());

    // A list that says no more than the bits is the bits; and lists go through a seal and into forks.
    xattr::set(&file, "system.posix_acl_access", &acl(&[(1, 7, ANY), (4, 5, ANY), (0x20, 4, ANY)]))
        .expect("set");
    assert_eq!(mode(&file), 0o754);
    assert_eq!(xattr::get(&file, "system.posix_acl_access").expect("getxattr"), None);
    daemon.seal(&session).expect("seal");
    let (_, fork) = daemon.forked(&session, "fork");
    assert!(xattr::get(fork.join("new"), "system.posix_acl_access").expect("getxattr").is_some());
}

#[test]
fn without_lists_the_umask_is_the_kernels() {
    let Some(daemon) = Daemon::start() else { return };
    let (_, dir) = daemon.mounted_for_all("mnt", false);
    set_mode(&dir, 0o777);
    assert!(run_as(NOBODY, &dir, "umask 077; : >file; mkdir dir; mkfifo fifo"));
    assert_eq!(
        (mode(&dir.join("file")), mode(&dir.join("dir")), mode(&dir.join("fifo"))),
        (0o600, 0o700, 0o600)
    );
    // With them it is ours, and does the same.
    let (_, dir) = daemon.mounted_for_all("acl", true);
    set_mode(&dir, 0o777);
    assert!(run_as(NOBODY, &dir, "umask 077; : >file; mkdir dir; mkfifo fifo"));
    assert_eq!(
        (mode(&dir.join("file")), mode(&dir.join("dir")), mode(&dir.join("fifo"))),
        (0o600, 0o700, 0o600)
    );
    File::open(dir.join("file")).expect("root may");
}
