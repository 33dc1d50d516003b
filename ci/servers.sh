# Servers that tests of several hosts need, on addresses of this machine. Sourced behind lib.sh, after `begin`; each has a function that
# starts it on an address, and is stopped by `servers_stop`. $in is what a command is run in, if not here.
moto_version=5.2.5
store= # the process of the S3
database= # the directory of the PostgreSQL
in=()

free_port() { # free_port ADDRESS
  "${in[@]}" python3 -c 'import socket, sys; s = socket.socket(); s.bind((sys.argv[1], 0)); print(s.getsockname()[1])' "$1"
}

# store_start ADDRESS: an S3 that keeps all in memory (moto, which is installed into target/moto): it is stopped and continued, not killed, when it is to be
# away. Sets what its clients need in the environment, and makes the bucket `aether`.
store_start() {
  local venv=$root/target/moto port
  if [[ ! -x $venv/bin/moto_server ]]; then
    rm -rf "$venv" && python3 -m venv "$venv"
    "$venv/bin/pip" --quiet --disable-pip-version-check install "moto[server]==$moto_version"
  fi
  port=$(free_port "$1")
  "${in[@]}" "$venv/bin/moto_server" -H "$1" -p "$port" >"$work/logs/moto" 2>&1 &
  store=$!
  export AWS_ENDPOINT_URL=http://$1:$port AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
  "${in[@]}" python3 - "$AWS_ENDPOINT_URL/aether" <<'P' || fail "there is no store: $(tail -n 5 "$work/logs/moto")"
import sys, time, urllib.request
for attempt in range(200):
    try:
        urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="PUT"), timeout=5)
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit("the store does not answer")
P
}

# PostgreSQL does not run as root.
database_user=nobody
as_database() {
  if ((EUID)); then "$@"; else setpriv --reuid "$database_user" --regid "$(id -g "$database_user")" --clear-groups "$@"; fi
}

database_server() { # database_server start|stop [MODE]
  (cd / && as_database "$postgres/pg_ctl" -D "$database/data" -s -w -t 60 -m "${2:-fast}" -l "$database/log" -o "$database_options" "$1" >/dev/null)
}

# database_start ADDRESS: a PostgreSQL (Debian's, 15). Sets $database_url.
database_start() {
  "$root/tools/install-deps" postgres
  postgres=/usr/lib/postgresql/15/bin
  local port
  port=$(free_port "$1")
  database=$work/db
  mkdir "$database"
  ((EUID)) || chown "$database_user" "$database"
  database_options="-p $port -c listen_addresses=$1 -c unix_socket_directories=$database -c fsync=off"
  (cd / && as_database "$postgres/initdb" -D "$database/data" -U aether -A trust >/dev/null) || fail "initdb"
  echo "host all all samenet trust" >>"$database/data/pg_hba.conf"
  "${in[@]}" bash -c "$(declare -f database_server as_database); database=$database postgres=$postgres database_user=$database_user database_options='$database_options'; database_server start" ||
    fail "there is no database: $(tail -n 5 "$database/log")"
  database_url=postgres://aether@$1:$port/postgres
}

stop() { # stop PROCESS [SIGNAL]
  [[ -z $1 ]] || { kill -"${2:-KILL}" "$1" && wait "$1"; } 2>/dev/null || true
}

servers_stop() {
  stop "$store"
  [[ -z $database ]] || database_server stop immediate 2>/dev/null || true
}
