# What scripts share that judge a real daemon: its binaries, a daemon on a state of its own, mounted sessions, compared trees.
#
# A script sources this, defines `work`, and calls `judge "$@"`. `work` runs twice, in an empty directory of the same path:
# first on the native file system, then in a mounted session. What it prints on stdout and its exit code must be the same,
# and so must the trees that it leaves; what it says on stderr goes to a log. The tree is compared once more after a kill -9
# of the daemon, and once more in a session on the snapshot that is sealed then.
# The head of the script, up to its first line that is no comment, is what --help prints.
set -euo pipefail
export LC_ALL=C TZ=UTC
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/target/programs # what was fetched, for the next run
name=$(basename "$0")
quick= keep= daemon= work= here= acls= ignored=()

usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }
say() { echo "== $name: $*"; }
fail() { echo "FAIL $name: $*"; exit 1; }
# Skips a script on a host that lacks what no package brings. Exit code 77, as automake has it.
skip() { echo "skip $name: $*"; exit 77; }

options() { # takes the options that every script has, leaves the others in $rest
  rest=()
  while (($#)); do
    case $1 in
      --help | -h) usage; exit 0 ;;
      --quick) quick=1 ;;
      --keep) keep=1 ;;
      *) rest+=("$1") ;;
    esac
    shift
  done
}

# begin: the binaries, a directory of the script's own, and its end.
begin() {
  [[ -e /dev/fuse ]] || skip "there is no /dev/fuse here"
  if [[ -n ${AETHER_BIN:-} ]]; then
    bin=$(realpath "$AETHER_BIN")
  else
    (cd "$root" && cargo build --release --locked --quiet --bins)
    bin=$(cd "$root" && cargo metadata --format-version 1 --no-deps --locked |
      sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release
  fi
  work=$(mktemp -d "${TMPDIR:-/tmp}/aether-$name.XXXXXX")
  chmod 755 "$work"
  here=$work/here
  mkdir "$work/logs"
  acls=$("$bin/aetherctl" mount --help | grep -o -m 1 -e --acl || true)
  export AETHERFS_STATE=$work/state AETHERFS_SOCKET=$work/s
  trap end EXIT
  trap 'exit 130' INT TERM
}

end() {
  local code=$?
  trap - EXIT INT TERM
  cd /
  if ((code && code != 77)); then
    echo "-- the daemon's last lines:"
    tail -n 8 "$work/aetherfsd.log" 2>/dev/null || true
  fi >&2
  [[ -z $daemon ]] || { kill -KILL "$daemon" && wait "$daemon"; } 2>/dev/null || true
  local dir
  for dir in $(mounted); do detach "$dir"; done
  if [[ -n $keep ]]; then echo "kept: $work" >&2; else rm -rf --one-file-system "$work"; fi
  exit "$code"
}

mounted() { awk -v below="$work/" 'index($2, below) == 1 {print $2}' /proc/self/mounts; }
detach() { umount -l "$1" 2>/dev/null || fusermount3 -uz "$1" || true; }
ctl() { "$bin/aetherctl" "$@"; }

# mount_on SESSION DIR: with ACLs enforced, where this version can.
mount_on() { ctl mount "$1" "$2" ${acls:+--acl}; }

daemon_start() {
  "$bin/aetherfsd" --state "$AETHERFS_STATE" --socket "$AETHERFS_SOCKET" >>"$work/aetherfsd.log" 2>&1 &
  daemon=$!
  local try
  for try in $(seq 600); do
    ctl list >/dev/null 2>&1 && return
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.05
  done
  fail "the daemon does not answer"
}

daemon_kill() { # daemon_kill [SIGNAL]
  kill -"${1:-KILL}" "$daemon"
  wait "$daemon" 2>/dev/null || true
  daemon=
}

# timed NAME COMMAND...: sets $NAME to the seconds that it took; returns its exit code.
timed() {
  local from=$EPOCHREALTIME code=0
  "${@:2}" || code=$?
  printf -v "$1" '%s' "$(awk -v a="$EPOCHREALTIME" -v b="$from" 'BEGIN {printf "%.1f", a - b}')"
  return "$code"
}

# same TITLE TREE TREE: the trees are the same, but for names that fit a pattern of $ignored.
same() {
  "$root/ci/tree.py" --began "$began" "${ignored[@]/#/--ignore=}" "$2" "$3" || fail "$1: the trees differ"
}

# run_work TITLE: runs `work` in $here. Its stdout stays in $work/TITLE.out, with the exit code as last line.
run_work() {
  local code=0
  (cd "$here" && set -euo pipefail && work "$1") >"$work/$1.out" 2>"$work/logs/$1" || code=$?
  echo "exit code $code" >>"$work/$1.out"
}

# judge ARGUMENTS...: the whole of a script that defined `work`.
judge() {
  options "$@"
  ((${#rest[@]} == 0)) || { echo "$name: unknown argument '${rest[0]}'; see --help" >&2; exit 2; }
  begin
  if declare -F prepare >/dev/null; then prepare; fi
  began=$EPOCHSECONDS
  umask 022
  local native mounted session snapshot
  mkdir "$here"
  timed native run_work native
  mv "$here" "$work/native"
  if ! grep -qx 'exit code 0' "$work/native.out"; then
    tail -n 20 "$work/native.out" "$work/logs/native"
    fail "it does not run natively"
  fi

  daemon_start
  mkdir "$here"
  session=$(ctl create)
  mount_on "$session" "$here"
  timed mounted run_work mounted
  if ! diff -u "$work/native.out" "$work/mounted.out"; then
    tail -n 20 "$work/logs/mounted"
    fail "it says something else in the mount"
  fi
  same "in the mount" "$work/native" "$here"

  daemon_kill
  daemon_start
  mount_on "$session" "$here"
  same "after kill -9" "$work/native" "$here"
  snapshot=$(ctl seal "$session" 2>>"$work/logs/seal")
  mkdir "$work/sealed"
  mount_on "$(ctl create --from "$snapshot")" "$work/sealed"
  same "sealed" "$work/native" "$work/sealed"
  ctl fsck >/dev/null || fail "fsck finds damage"
  daemon_kill TERM
  [[ -z $(mounted) ]] || fail "still mounted after SIGTERM: $(mounted)"
  if declare -F finish >/dev/null; then finish; fi
  say "ok: native $native s, mounted $mounted s"
}
