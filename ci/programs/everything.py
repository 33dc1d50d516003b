#!/usr/bin/env python3
"""Makes a directory with all that a tree may hold: everything.py DIR [--acl]. Always the same, times included. Access
control lists only with --acl."""
import os
import subprocess
import sys

OLD, NEW = (-86400 * 365 * 10 * 10**9 + 1), 1_700_000_000_123_456_789


def write(name, data, at=0):
    with open(name, "wb") as file:
        file.seek(at)
        file.write(data)


def main():
    os.umask(0o022)
    os.mkdir(sys.argv[1])
    os.chdir(sys.argv[1])
    write("plain", b"plain\n")
    write("empty", b"")
    write("binary", bytes(range(256)) * 5000)
    # A hole before, between and behind.
    write("holes", b"x" * 65536, at=1 << 20)
    with open("holes", "r+b") as file:
        file.seek(8 << 20)
        file.write(b"y" * 4096)
        file.truncate(24 << 20)
    with open("only-a-hole", "wb") as file:
        file.truncate(32 << 20)
    os.mkdir("linked")
    for n in range(50):
        os.link("plain", f"linked/{n}")
    os.symlink("plain", "to-plain")
    os.symlink("../" * 300 + "nowhere", "long-link")
    os.symlink(".", "round")
    write("n" * 255, b"a long name")
    deep = "/".join(["d" * 200] * 12)
    os.makedirs(deep)
    write(f"{deep}/deep", b"deep")
    for name in [b"new\nline", b"tab\t", b" blank ", b"-rf", b"\xff\xfe not utf-8", "é".encode(), "e\u0301".encode(),
                 b"*?[a]", b"back\\slash", b"'quote\"", b"con", b"trailing."]:
        write(name, name)
    for mode in ([] if os.geteuid() else [0o000]) + [0o400, 0o444, 0o640, 0o755, 0o777, 0o4755, 0o2755, 0o1644]:
        write(f"mode-{mode:04o}", b"")
        os.chmod(f"mode-{mode:04o}", mode)
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    os.mkdir("set-group")
    os.chmod("set-group", 0o2755)
    os.mkfifo("fifo", 0o640)
    os.mkdir("wide")
    for n in range(1500):
        write(f"wide/{n:x}", b"%d" % n)
    for name in ["plain", "wide"]:
        os.setxattr(name, "user.short", b"value")
        os.setxattr(name, "user.empty", b"")
        os.setxattr(name, "user.binary", bytes(range(256)) * 8)
    if "--acl" in sys.argv:
        subprocess.run(["setfacl", "-m", "u:12:rw,g:34:r", "plain"], check=True)
        subprocess.run(["setfacl", "-m", "u:56:rwx,d:u:56:rwx,d:g:78:r", "wide"], check=True)
    if os.geteuid() == 0:
        os.mknod("device", 0o60600 | 0o640, os.makedev(7, 4000))
        os.mknod("character", 0o20600, os.makedev(1, 3))
        os.chown("empty", 12345, 54321)
        os.lchown("to-plain", 1, 2)
        os.setxattr("binary", "trusted.secret", b"\x00\x01")
        # As setcap writes it: cap_net_raw, permitted and effective.
        os.setxattr("mode-0755", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    # Times last, from below: each name made changes its directory's.
    for place, dirs, files in os.walk(b".", topdown=False):
        for number, name in enumerate(sorted(dirs + files)):
            when = OLD if number % 4 == 0 else NEW + number * 1_000_000_007
            os.utime(os.path.join(place, name), ns=(when, when), follow_symlinks=False)


main()
