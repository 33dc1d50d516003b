# Servers that tests of several hosts need, on addresses of this machine. Sourced behind lib.sh, after `begin`; each has a function that
# starts it on an address, and is stopped by `servers_stop`. $in is what a command is run in, if not here.
moto_version=5.2.5
store= # the process of the S3
cluster=() # those behind it
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
  store_ready "http://$1:$port" moto
}

# store_ready URL LOG: sets the environment, makes the bucket. The oldest of S3's signatures does.
store_ready() {
  export AWS_ENDPOINT_URL=$1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
  "${in[@]}" python3 - <<'P' || fail "there is no store: $(tail -n 5 "$work/logs/$2")"
import base64, email.utils, hmac, os, sys, time, urllib.request
url, key, secret = (os.environ["AWS_" + name] for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
for attempt in range(200):
    date = email.utils.formatdate(usegmt=True)
    mac = hmac.digest(secret.encode(), f"PUT\n\n\n{date}\n/aether".encode(), "sha1")
    headers = {"Date": date, "Authorization": f"AWS {key}:{base64.b64encode(mac).decode()}"}
    try:
        urllib.request.urlopen(urllib.request.Request(url + "/aether", method="PUT", headers=headers), timeout=5)
        break
    except OSError as error:
        reason = error
        time.sleep(0.1)
else:
    sys.exit(f"the store does not answer: {reason}")
P
}

# ceph_start ADDRESS: the same by Ceph's gateway (Debian's, 16.2) on one monitor and one OSD, which keeps all in memory. There is no manager:
# it would collect statistics that nobody reads.
ceph_start() {
  "$root/tools/install-deps" ceph
  local dir=$work/ceph id port monitor
  mkdir -p "$dir/mon" "$dir/osd"
  id=$(</proc/sys/kernel/random/uuid)
  monitor=[v2:$1:$(free_port "$1")]
  port=$(free_port "$1")
  # Without authentication nothing can be encrypted, which the gateway would insist on (ms mon client mode). The monitor would pause a second
  # between the many changes that make the pools, and end itself where 5 % of the disk are left.
  cat >"$dir/conf" <<C
[global]
fsid = $id
mon host = $monitor
public addr = $1
cluster addr = $1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
run dir = $dir
crash dir = $dir
admin socket =
log file = $work/logs/ceph-\$name
mon cluster log file = $work/logs/ceph
mon data = $dir/mon
mon data avail crit = 1
mon allow pool size one = true
paxos propose interval = 0.01
osd data = $dir/osd
osd objectstore = memstore
memstore device bytes = 8589934592
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
rgw frontends = beast endpoint=$1:$port
C
  local run=("${in[@]}" env "CEPH_CONF=$dir/conf") log=$work/logs/ceph-start
  {
    # By its configuration a monitor does not find itself on an address of lo.
    "${run[@]}" monmaptool --create --fsid "$id" --addv a "$monitor" "$dir/monmap" &&
      "${run[@]}" ceph-mon -i a --mkfs --monmap "$dir/monmap"
  } >>"$log" 2>&1 || fail "no monitor: $(tail -n 5 "$log")"
  "${run[@]}" ceph-mon -i a -f >>"$log" 2>&1 &
  cluster+=($!)
  {
    "${run[@]}" timeout 30 ceph osd new "$id" 0 && "${run[@]}" ceph-osd -i 0 --mkfs --osd-uuid "$id"
  } >>"$log" 2>&1 || fail "no OSD: $(tail -n 5 "$log")"
  "${run[@]}" ceph-osd -i 0 -f >>"$log" 2>&1 &
  cluster+=($!)
  "${run[@]}" timeout 30 radosgw-admin user create --uid aether --display-name aether --access-key test --secret-key test >>"$log" 2>&1 ||
    fail "no user of the gateway: $(tail -n 5 "$log")"
  "${run[@]}" radosgw -n client.rgw -f >>"$log" 2>&1 &
  store=$!
  store_ready "http://$1:$port" ceph-start
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
  local process
  for process in "${cluster[@]}"; do stop "$process"; done
  [[ -z $database ]] || database_server stop immediate 2>/dev/null || true
}
