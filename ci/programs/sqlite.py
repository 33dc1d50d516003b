#!/usr/bin/env python3
"""What ci/programs/sqlite does in the current directory. Prints what must be the same everywhere."""
import hashlib
import multiprocessing
import os
import signal
import sqlite3
import sys

MODES = ["delete", "truncate", "persist", "memory", "wal", "off"]
QUICK = "--quick" in sys.argv
ROWS = 200 if QUICK else 5000
WRITERS = 3
TRANSACTIONS = 8 if QUICK else 200


def connect(path, mode, **pragmas):
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    for pragma, value in pragmas.items():
        db.execute(f"pragma {pragma} = {value}").fetchall()
    (got,) = db.execute(f"pragma journal_mode = {mode}").fetchone()
    assert got == mode, f"asked for {mode}, got {got}"
    return db


def check(db):
    (verdict,) = db.execute("pragma integrity_check").fetchone()
    return verdict


def dump(db):
    return hashlib.sha256("\n".join(db.iterdump()).encode()).hexdigest()[:16]


def alone(mode, synchronous, locking, mmap):
    """One process does a bit of everything."""
    path = f"alone-{mode}-{synchronous}-{locking}-{mmap}.db"
    pragmas = {"synchronous": synchronous, "locking_mode": locking, "mmap_size": mmap, "page_size": 4096}
    db = connect(path, mode, **pragmas)
    db.execute("create table t (id integer primary key, size integer, bytes blob)")
    db.execute("create index by_size on t (size)")
    for batch in range(6):
        db.execute("begin")
        for n in range(batch * ROWS // 6, (batch + 1) * ROWS // 6):
            db.execute("insert into t values (?, ?, ?)", (n, n * 37 % 4001, bytes([n % 256]) * (n * 37 % 4001)))
        db.execute("commit")
    db.execute("update t set bytes = zeroblob(size / 2) where id % 3 = 0")
    db.execute("begin")
    db.execute("delete from t where id % 5 = 0")
    if mode != "off":  # without a journal there is no way back
        db.execute("savepoint inner")
        db.execute("update t set size = -1")
        db.execute("rollback to inner")
        db.execute("commit")
        db.execute("begin")
        db.execute("delete from t")
        db.execute("rollback")
    else:
        db.execute("commit")
    print(path, check(db), dump(db))
    db.execute("vacuum")
    copy = sqlite3.connect(f"copy-of-{path}")
    db.backup(copy)
    print(path, "copied", check(copy), dump(copy))
    copy.close()
    db.close()


def write_shared(path, mode, writer):
    db = connect(path, mode, synchronous="normal")
    for n in range(TRANSACTIONS):
        db.execute("begin immediate")
        db.execute("insert into t (writer, n, bytes) values (?, ?, ?)", (writer, n, bytes([n % 256]) * (n * 131 % 9000)))
        db.execute("update sum set total = total + ?", (n,))
        db.execute("commit")
    db.close()


def read_shared(path, mode):
    """At no moment do the rows and their sum disagree."""
    db = connect(path, mode)
    while True:
        db.execute("begin")
        (rows,) = db.execute("select coalesce(sum(n), 0) from t").fetchone()
        (total,) = db.execute("select total from sum").fetchone()
        (count,) = db.execute("select count(*) from t").fetchone()
        db.execute("commit")
        assert rows == total, f"{path}: a reader saw {rows} and {total}"
        if count == WRITERS * TRANSACTIONS:
            return


def together(mode):
    path = f"shared-{mode}.db"
    db = connect(path, mode)
    db.executescript("create table t (writer, n, bytes); create table sum (total); insert into sum values (0)")
    db.close()
    jobs = [multiprocessing.Process(target=write_shared, args=(path, mode, w)) for w in range(WRITERS)]
    jobs.append(multiprocessing.Process(target=read_shared, args=(path, mode)))
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert all(job.exitcode == 0 for job in jobs), f"{path}: {[job.exitcode for job in jobs]}"
    db = connect(path, mode)
    rows = db.execute("select writer, n, length(bytes) from t order by writer, n").fetchall()
    print(path, check(db), len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()[:16])
    db.close()


def die_in_a_transaction(path, mode):
    db = connect(path, mode, cache_size=10, cache_spill="on")  # so small that changes go to the file before the commit
    db.execute("begin immediate")
    db.execute("update t set bytes = zeroblob(2000)")
    os.kill(os.getpid(), signal.SIGKILL)


def killed(mode):
    path = f"killed-{mode}.db"
    db = connect(path, mode)
    db.execute("create table t (id integer primary key, bytes blob)")
    db.executemany("insert into t values (?, ?)", [(n, bytes([n % 256]) * 2000) for n in range(200)])
    before = dump(db)
    db.close()
    for _ in range(3):
        job = multiprocessing.Process(target=die_in_a_transaction, args=(path, mode))
        job.start()
        job.join()
        assert job.exitcode == -signal.SIGKILL
        if mode in ("delete", "truncate", "persist"):
            assert os.path.getsize(path + "-journal") > 0, "it died without a journal: this tests nothing"
        db = sqlite3.connect(path, isolation_level=None, timeout=60)
        assert dump(db) == before, f"{path}: a transaction that never ended is there"
        print(path, check(db))
        db.close()


def main():
    multiprocessing.set_start_method("fork")
    for mode in MODES:
        for synchronous in ["normal"] if QUICK else ["off", "normal", "full", "extra"]:
            for locking, mmap in [("normal", 1 << 28), ("exclusive", 0)] + [("normal", 0), ("exclusive", 1 << 28)] * (not QUICK):
                alone(mode, synchronous, locking, mmap)
    # Neither in memory nor without a journal does a database outlive its writer's death, or several writers' rollbacks.
    for mode in ["delete", "truncate", "persist", "wal"]:
        together(mode)
        killed(mode)


main()
