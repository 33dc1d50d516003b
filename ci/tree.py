#!/usr/bin/env python3
"""Compares two directory trees: tree.py [--began SECONDS] [--ignore GLOB]... A B

Names, kinds, modes, owners, contents, targets, device numbers, extended attributes (ACLs among them) and which names are
one file. Of modification times: with --began, one that lies before it was set by somebody and must be the same to the
nanosecond; a later one is the clock's and must be later on the other side too. Without --began all must be the same.
Names below the trees that fit a GLOB are left out, with what is in them. Prints up to 30 differences; exit 1 if there are any.
"""
import argparse
import fnmatch
import hashlib
import os
import stat
import sys

SHOWN_MAX = 30
LINE_MAX = 400


def content(path):
    state = hashlib.blake2b()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def xattrs(path):
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}


def facts(path, about, began, first):
    """What must be the same of one name. `first`: the first name of each file with several."""
    kind = stat.S_IFMT(about.st_mode)
    seen = {"kind": kind, "mode": oct(stat.S_IMODE(about.st_mode)), "owner": (about.st_uid, about.st_gid)}
    seen["xattrs"] = xattrs(path)
    determined = began is None or about.st_mtime_ns < began * 10**9
    seen["mtime"] = about.st_mtime_ns if determined else "by the clock"
    if kind == stat.S_IFREG:
        seen["size"] = about.st_size
        seen["content"] = content(path)
    elif kind == stat.S_IFLNK:
        seen["target"] = os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        seen["device"] = about.st_rdev
    if kind != stat.S_IFDIR:
        seen["links"] = about.st_nlink
        seen["same file as"] = first
    return seen


def listing(top, began, ignored):
    """Facts by name, all of them in bytes and relative to `top`."""
    found, firsts = {}, {}

    def visit(relative):
        path = os.path.join(top, relative) if relative else top
        about = os.lstat(path)
        first = firsts.setdefault(about.st_ino, relative)
        found[relative] = facts(path, about, began, first)
        if stat.S_ISDIR(about.st_mode):
            for name in sorted(os.listdir(path)):
                below = os.path.join(relative, name)
                if not any(fnmatch.fnmatchcase(os.fsdecode(below), pattern) for pattern in ignored):
                    visit(below)

    visit(b"")
    # The directory itself was made by whoever called, not by what is judged.
    found[b""].pop("mtime")
    return found


def differences(a, b):
    for name in sorted(a.keys() | b.keys()):
        shown = os.fsdecode(name) or "."
        if name not in b:
            yield f"{shown}: only in the first"
        elif name not in a:
            yield f"{shown}: only in the second"
        else:
            for what in a[name].keys() | b[name].keys():
                left, right = a[name].get(what), b[name].get(what)
                if left != right:
                    yield f"{shown}: {what} is {left} and {right}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--began", type=int)
    parser.add_argument("--ignore", action="append", default=[])
    parser.add_argument("trees", nargs=2, type=os.fsencode)
    args = parser.parse_args()
    a, b = (listing(tree, args.began, args.ignore) for tree in args.trees)
    found = list(differences(a, b))
    for line in found[:SHOWN_MAX]:
        line = line if len(line) <= LINE_MAX else f"{line[:LINE_MAX // 2]} ... {line[-LINE_MAX // 2:]}"
        print(line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    if len(found) > SHOWN_MAX:
        print(f"... and {len(found) - SHOWN_MAX} more")
    # Two empty trees agree on everything and say nothing.
    if len(a) < 2:
        print("there is nothing in the trees")
    sys.exit(bool(found) or len(a) < 2)


if __name__ == "__main__":
    main()
