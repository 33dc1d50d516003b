#!/usr/bin/env python3
"""The workloads of ci/kill: kill.py work|check sqlite|git|fsx DIR LEDGER SEED.

`work` works in DIR, which is in the mount, until a call fails because the daemon is dead, and writes down in LEDGER, which is
not, what had returned by then. `check` looks whether all of that is there, after a restart. What was under way when the daemon
died may have happened or not.
"""
import contextlib
import errno
import json
import mmap
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys

# What calls on a mount whose daemon is dead answer.
# ECANCELED: the request was on its way into a ring whose thread was gone (fuse_uring_send_in_task of fs/fuse/dev_uring.c).
DEAD = {errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED}
PAGE = 4096


class Ledger:
    """Lines that were acknowledged, appended one by one."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory) / "acknowledged"

    def add(self, line):
        with open(self.path, "a") as file:
            file.write(f"{line}\n")

    def lines(self):
        return self.path.read_text().split() if self.path.exists() else []


# SQLite: rows 1, 2, 3 ..., each a transaction, each with bytes that follow from its number.


def payload(n):
    return bytes([n % 251]) * (n * 7919 % 6000)


def sqlite_work(directory, ledger, chance):
    mode = chance.choice(["delete", "truncate", "persist", "wal"])
    try:
        db = sqlite3.connect(f"{directory}/db", isolation_level=None, timeout=5)
        db.execute(f"pragma journal_mode = {mode}").fetchall()
        # The process that dies is not this one and the machine goes on: what was written counts, synced or not.
        db.execute(f"pragma synchronous = {chance.choice(['off', 'normal', 'full'])}")
        db.execute(f"pragma wal_autocheckpoint = {chance.choice([5, 50, 1000])}")
        db.execute("create table if not exists t (n integer primary key, bytes blob)")
        (n,) = db.execute("select coalesce(max(n), 0) from t").fetchone()
        while True:
            n += 1
            db.execute("begin immediate")
            db.execute("insert into t values (?, ?)", (n, payload(n)))
            if n % 10 == 0:
                db.execute("update t set bytes = bytes where n > ?", (n - 200,))
            db.execute("commit")
            ledger.add(n)
    except sqlite3.Error as error:
        print(mode, error)


def sqlite_check(directory, ledger):
    acknowledged = int((ledger.lines() or ["0"])[-1])
    db = sqlite3.connect(f"{directory}/db", isolation_level=None, timeout=5)
    (verdict,) = db.execute("pragma integrity_check").fetchone()
    assert verdict == "ok", verdict
    tables = db.execute("select count(*) from sqlite_master").fetchone()
    rows = db.execute("select n, bytes from t order by n").fetchall() if tables != (0,) else []
    assert [n for n, _ in rows] == list(range(1, len(rows) + 1)), "rows are missing in between"
    assert acknowledged <= len(rows) <= acknowledged + 1, f"{acknowledged} rows were committed and {len(rows)} are there"
    assert all(bytes == payload(n) for n, bytes in rows), "a row has other bytes"
    # What was under way and happened is there from now on.
    if len(rows) > acknowledged:
        ledger.add(len(rows))
    return f"{len(rows)} rows"


# git: commits, each acknowledged by its ID.


SECONDS_MAX = 60  # that a git command may take


def git(directory, *arguments, check=True):
    environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C"}
    identity = ["-c", "user.name=ci", "-c", "user.email=ci@example.org", "-c", "gc.autoDetach=false"]
    command = ["git", *identity, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    done = subprocess.Popen(command, cwd=directory, env=environment, start_new_session=True, **pipes)
    try:
        out, err = done.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(done.pid, signal.SIGKILL)
        done.communicate()
        # On a dead mount `git gc` was seen to complain without end. On one that lives the same is a failure. A name that nobody
        # has asked for: what the kernel remembers it tells without asking, on a dead mount, too.
        with contextlib.suppress(FileNotFoundError):
            os.stat(f"{directory}/asked-by-{done.pid}")
        raise
    if check and done.returncode:
        raise ChildProcessError(f"{arguments}: {out}{err}")
    return out.strip()


def git_work(directory, ledger, chance):
    try:
        if not os.path.exists(f"{directory}/.git/HEAD"):
            git(directory, "init", "-q")
        while True:
            for _ in range(chance.randrange(1, 8)):
                path = pathlib.Path(directory, f"d{chance.randrange(6)}", f"f{chance.randrange(20)}")
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(chance.randbytes(chance.randrange(20_000)))
            git(directory, "add", "-A")
            git(directory, "commit", "-q", "--allow-empty", "-m", "work")
            ledger.add(git(directory, "rev-parse", "HEAD"))
            if chance.randrange(12) == 0:
                git(directory, "gc", "-q", "--prune=now")
    except (OSError, ChildProcessError) as error:
        print(error)


def git_check(directory, ledger):
    acknowledged = ledger.lines()
    # git leaves the locks of a process that died to a person.
    for lock in pathlib.Path(directory, ".git").rglob("*.lock"):
        lock.unlink()
    if not acknowledged and not os.path.exists(f"{directory}/.git/HEAD"):
        return "no commits yet"
    git(directory, "fsck", "--full", "--strict")
    history = git(directory, "rev-list", "HEAD", check=bool(acknowledged)).split()
    missing = [commit for commit in acknowledged if commit not in set(history)]
    assert not missing, f"{len(missing)} of {len(acknowledged)} commits are gone, {missing[-1]} among them"
    if acknowledged:
        assert history.index(acknowledged[-1]) <= 1, "more than one commit was never acknowledged"
        git(directory, "reset", "-q", "--hard")
        git(directory, "clean", "-qfd")
        assert git(directory, "status", "--porcelain") == "", "not clean after a reset"
    return f"{len(acknowledged)} commits"


# fsx: random calls on a few files, whose expected bytes are kept outside.

FILES = 4
SIZE_MAX = 3 << 20


class Fsx:
    def __init__(self, directory, ledger, chance):
        self.directory, self.home, self.chance = directory, ledger.path.parent, chance
        self.content = [self.expected(n).read_bytes() if self.expected(n).exists() else b"" for n in range(FILES)]
        self.calls = 0

    def expected(self, n):
        return self.home / f"expected{n}"

    def path(self, n):
        return f"{self.directory}/file{n}"

    def save(self, flight):
        """What all files hold, and how the call that failed would have changed one: (file, new bytes, how)."""
        for n, content in enumerate(self.content):
            self.expected(n).write_bytes(content)
        n, new, how = flight
        (self.home / "new").write_bytes(new)
        (self.home / "flight").write_text(json.dumps({"file": n, "how": how, "calls": self.calls}))

    def step(self):
        """One call; yields (file, what it would hold afterwards, how it may be cut) and then makes the call."""
        n, c = self.chance.randrange(FILES), self.chance
        old = self.content[n]
        offset = c.randrange(SIZE_MAX // 2)
        if c.randrange(3):
            offset = min(offset, len(old))
        data = c.randbytes(c.choice([c.randrange(1, 100), c.randrange(1, 20_000), c.randrange(1, SIZE_MAX // 3)]))
        end = offset + len(data)
        patched = old[:offset].ljust(offset, b"\0") + data + old[end:]
        kind = c.choice(["write", "write", "write", "append", "truncate", "punch", "zero", "map", "replace", "copy"])
        with os.fdopen(os.open(self.path(n), os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0) as file:
            fd = file.fileno()
            if kind == "write":
                yield n, patched, "prefix"
                self.whole(os.pwrite(fd, data, offset), data)
            elif kind == "append":
                data = data[: SIZE_MAX - len(old)]
                yield n, old + data, "prefix"
                os.lseek(fd, 0, os.SEEK_END)
                self.whole(os.write(fd, data), data)
            elif kind == "truncate":
                yield n, old[:offset].ljust(offset, b"\0"), "whole"
                os.ftruncate(fd, offset)
            elif kind in ("punch", "zero") and old:
                end = min(end, len(old))
                offset = min(offset, end - 1)
                yield n, old[:offset] + b"\0" * (end - offset) + old[end:], "whole"
                self.fallocate(fd, 0x3 if kind == "punch" else 0x11, offset, end - offset)
            elif kind == "map" and len(old) > PAGE:
                at = offset % (len(old) - PAGE)
                data = data[: len(old) - at]
                yield n, old[:at] + data + old[at + len(data) :], "pages"
                self.store(fd, len(old), at, data)
            elif kind == "replace":
                with open(f"{self.directory}/temporary", "wb", buffering=0) as new:
                    self.whole(new.write(data), data)
                yield n, data, "whole"
                os.rename(f"{self.directory}/temporary", self.path(n))
            elif kind == "copy" and old:
                source = self.content[(n + 1) % FILES]
                data = source[: len(data)]
                yield n, old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :] if data else old, "prefix"
                done = 0
                with open(self.path((n + 1) % FILES), "ab+", buffering=0) as from_file:
                    while done < len(data):
                        done += os.copy_file_range(from_file.fileno(), fd, len(data) - done, done, offset + done)

    @staticmethod
    def store(fd, length, at, data):
        """Through a shared map, and synced. In a process of its own: a page that the dead mount cannot give is a SIGBUS."""
        child = os.fork()
        if child == 0:
            try:
                with mmap.mmap(fd, length) as view:
                    view[at : at + len(data)] = data
                    view.flush()
                os._exit(0)
            except OSError:
                os._exit(1)
        if os.waitpid(child, 0)[1] != 0:
            raise OSError(errno.ENOTCONN, "the map was cut off")

    @staticmethod
    def whole(written, data):
        # A short count is what the call did when it was cut off; the rest is under way.
        if written != len(data):
            raise OSError(errno.ENOTCONN, "cut off")

    @staticmethod
    def fallocate(fd, mode, offset, length):
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.fallocate64(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
            raise OSError(ctypes.get_errno(), "fallocate")


def fsx_work(directory, ledger, chance):
    fsx = Fsx(directory, ledger, chance)
    flight = 0, fsx.content[0], "whole"
    try:
        while True:
            flight = 0, fsx.content[0], "whole"
            for flight in fsx.step():
                pass
            n, new, _ = flight
            fsx.content[n] = new
            fsx.calls += 1
    except OSError as error:
        if error.errno not in DEAD:
            raise
        print(error)
    fsx.save(flight)


def cuts(old, new, how):
    """All that a file may hold when the call from `old` to `new` was under way."""
    yield old
    yield new
    if how == "prefix":
        # The kernel sends a write in parts that end at pages, one after the other.
        first = next((i for i in range(0, len(new), PAGE) if old[i : i + PAGE] != new[i : i + PAGE]), len(new))
        for cut in range(first, len(new), PAGE):
            yield new[:cut] + old[cut:]


def fsx_check(directory, ledger):
    home = ledger.path.parent
    flight = json.loads((home / "flight").read_text())
    for n in range(FILES):
        path = pathlib.Path(directory, f"file{n}")
        old = (home / f"expected{n}").read_bytes()
        found = path.read_bytes() if path.exists() else b""
        if n != flight["file"]:
            assert found == old, f"file {n}, at which nothing was under way, {differs(found, old)}"
            continue
        new, how = (home / "new").read_bytes(), flight["how"]
        if how == "pages":
            assert len(found) == len(old), f"file {n} has {len(found)} bytes instead of {len(old)}"
            starts = range(0, len(old), PAGE)
            good = all(found[i : i + PAGE] in (old[i : i + PAGE], new[i : i + PAGE]) for i in starts)
        else:
            good = any(found == candidate for candidate in cuts(old, new, how))
        assert good, f"file {n} under a {how} call: {differs(found, old)} (old); {differs(found, new)} (new)"
        (home / f"expected{n}").write_bytes(found)
    return f"{flight['calls']} calls"


def differs(found, want):
    at = next((i for i, (a, b) in enumerate(zip(found, want)) if a != b), min(len(found), len(want)))
    return f"has {len(found)} bytes of {len(want)} and differs from byte {at} on"


def main():
    verb, workload, directory, ledger, seed = sys.argv[1:]
    if verb == "work":
        globals()[f"{workload}_work"](directory, Ledger(ledger), random.Random(f"{workload} {seed}"))
    else:
        print(globals()[f"{workload}_check"](directory, Ledger(ledger)))


main()
