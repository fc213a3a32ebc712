# shellcheck shell=bash
# What every script here shares: the place of the build, a temporary directory, the processes it started, one node and its RPC.
# Whatever was started through `track` is ended, by its own pid, when the script ends, however it ends.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
[[ $TARGET_DIR = /* ]] || TARGET_DIR=$PWD/$TARGET_DIR
POLLUX=${POLLUX:-$TARGET_DIR/release/pollux}

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

STARTED=()
track() { STARTED+=("$1"); }
end_process() { # pid: asks it to end, insists after 5 s; only ever a child of this script
  local pid=$1 i
  kill "$pid" 2>/dev/null || { wait "$pid" 2>/dev/null; return 0; }
  kill -CONT "$pid" 2>/dev/null # a stopped process would not see the signal
  for ((i = 0; i < 50; i++)); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  kill -KILL "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
  return 0
}
cleanup() {
  local status=$? pid
  trap - EXIT INT TERM
  for pid in "${STARTED[@]}"; do end_process "$pid"; done
  [ -n "${WORK_DIR:-}" ] && rm -rf "$WORK_DIR" "$SOCKET_DIR"
  exit "$status"
}
# WORK_DIR is on the file system of the build, because the node's files want O_DIRECT; RPC_SOCKET is somewhere short, because the
# path of a unix socket ends at 107 bytes.
work_dir() {
  mkdir -p "$TARGET_DIR"
  WORK_DIR=$(mktemp -d "$TARGET_DIR/run.XXXXXX") && SOCKET_DIR=$(mktemp -d "${TMPDIR:-/tmp}/pollux.XXXXXX") || die "no temporary directory"
  RPC_SOCKET=$SOCKET_DIR/rpc.sock
  trap cleanup EXIT; trap 'exit 130' INT; trap 'exit 143' TERM
}

free_port() { # a TCP port of 127.0.0.1 on which nothing listens
  local port i
  for ((i = 0; i < 100; i++)); do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return 0; }
  done
  return 1
}

# The first and second of the cores that this process may run on; the same one twice where there is only one.
CORES=()
mapfile -t CORES < <(awk '/^Cpus_allowed_list/{print $2}' /proc/self/status | tr ',' '\n' |
  awk -F- '{for (c = $1; c <= (NF > 1 ? $2 : $1); c++) print c}' | head -n 2)
TARGET_CORE=${TARGET_CORE:-${CORES[0]:-0}}
CLIENT_CORE=${CLIENT_CORE:-${CORES[1]:-$TARGET_CORE}}

# --- one node ---------------------------------------------------------------------------------------------------------
NODE_PID=
rpc() { "$POLLUX" rpc --rpc-socket "$RPC_SOCKET" "$@"; }
must_rpc() { local out; out=$(rpc "$@" 2>&1) || die "rpc $*: $out"; printf '%s\n' "$out"; }

node_start() { # extra flags of `pollux serve`; state in $WORK_DIR/state, console in $WORK_DIR/node.log
  local i
  "$POLLUX" serve --cores "$TARGET_CORE" --rpc-socket "$RPC_SOCKET" --state-dir "$WORK_DIR/state" "$@" \
    >>"$WORK_DIR/node.log" 2>&1 </dev/null &
  NODE_PID=$!; track "$NODE_PID"
  for ((i = 0; i < 200; i++)); do
    kill -0 "$NODE_PID" 2>/dev/null || break
    rpc spdk_get_version >/dev/null 2>&1 && return 0
    sleep 0.05
  done
  tail -n 10 "$WORK_DIR/node.log" >&2
  if kill -0 "$NODE_PID" 2>/dev/null; then die "the node did not answer within 10 s"; else die "the node ended at once"; fi
}
node_stop() { # as an operator would: SIGTERM; fails when the node did not end by itself with status 0
  local i status
  kill -TERM "$NODE_PID" 2>/dev/null || return 1
  for ((i = 0; i < 100; i++)); do kill -0 "$NODE_PID" 2>/dev/null || break; sleep 0.1; done
  kill -0 "$NODE_PID" 2>/dev/null && { kill -KILL "$NODE_PID"; wait "$NODE_PID" 2>/dev/null; return 1; }
  wait "$NODE_PID"; status=$?; NODE_PID=
  return "$status"
}
node_kill() { kill -KILL "$NODE_PID" 2>/dev/null; wait "$NODE_PID" 2>/dev/null; NODE_PID=; }

preallocate() { # file MiB: every block written once, so that a run measures the store and not the file system's allocation
  dd if=/dev/zero of="$1" bs=1M count="$2" oflag=direct status=none 2>/dev/null ||
    dd if=/dev/zero of="$1" bs=1M count="$2" conv=fsync status=none || die "cannot write $2 MiB to $1"
}

NQN=nqn.2026-01.io.pollux:volume1
NODE_PORT=
export_bdevs() { # host-nqn|any bdev...: transport, subsystem, namespaces, listener on a free port of 127.0.0.1
  local host=$1 bdev any=false; shift
  [ "$host" = any ] && any=true
  NODE_PORT=$(free_port) || die "no free port"
  must_rpc nvmf_create_transport '{"trtype":"TCP"}' >/dev/null
  must_rpc nvmf_create_subsystem "{\"nqn\":\"$NQN\",\"allow_any_host\":$any,\"serial_number\":\"POLLUX1\",\"max_namespaces\":8}" >/dev/null
  [ "$any" = true ] || must_rpc nvmf_subsystem_add_host "{\"nqn\":\"$NQN\",\"host\":\"$host\"}" >/dev/null
  for bdev; do must_rpc nvmf_subsystem_add_ns "{\"nqn\":\"$NQN\",\"namespace\":{\"bdev_name\":\"$bdev\"}}" >/dev/null; done
  must_rpc nvmf_subsystem_add_listener \
    "{\"nqn\":\"$NQN\",\"listen_address\":{\"trtype\":\"TCP\",\"adrfam\":\"IPv4\",\"traddr\":\"127.0.0.1\",\"trsvcid\":\"$NODE_PORT\"}}" >/dev/null
}
# The same over iSCSI: open to every initiator of this machine unless the suite says otherwise.
IQN=iqn.2026-01.io.pollux
ISCSI_PORTS=()
iscsi_portals() { # portal-group-tag count: that many free ports of 127.0.0.1, added to ISCSI_PORTS
  local tag=$1 count=$2 i port list=
  for ((i = 0; i < count; i++)); do
    port=$(free_port) || die "no free port"
    while [[ " ${ISCSI_PORTS[*]} " == *" $port "* ]]; do port=$(free_port) || die "no free port"; done
    ISCSI_PORTS+=("$port"); list+="${list:+,}{\"host\":\"127.0.0.1\",\"port\":\"$port\"}"
  done
  must_rpc iscsi_create_portal_group "{\"tag\":$tag,\"portals\":[$list]}" >/dev/null
}
iscsi_initiators() { # initiator-group-tag name...: from 127.0.0.0/8
  local tag=$1 names; shift
  names=$(printf ',"%s"' "$@")
  must_rpc iscsi_create_initiator_group "{\"tag\":$tag,\"initiators\":[${names:1}],\"netmasks\":[\"127.0.0.0/8\"]}" >/dev/null
}
iscsi_target() { # name portal-group:initiator-group json-of-authentication bdev...: LUNs count up from 0
  local name=$1 map=$2 auth=$3 bdev lun=0 luns=; shift 3
  for bdev; do luns+="${luns:+,}{\"bdev_name\":\"$bdev\",\"lun_id\":$lun}"; lun=$((lun + 1)); done
  must_rpc iscsi_create_target_node "{\"name\":\"$IQN:$name\",\"alias_name\":\"$name\",\"pg_ig_maps\":[{\"pg_tag\":${map%:*},\"ig_tag\":${map#*:}}],
    \"luns\":[$luns],\"queue_depth\":64,$auth}" >/dev/null
}
store_volume() { # file block-size store volume MiB: a log store on FILE and one thin volume in it, named STORE/VOLUME
  must_rpc bdev_uring_create "{\"filename\":\"$1\",\"name\":\"disk-$3\",\"block_size\":$2}" >/dev/null
  must_rpc bdev_lvol_create_lvstore "{\"bdev_name\":\"disk-$3\",\"lvs_name\":\"$3\"}" >/dev/null
  must_rpc bdev_lvol_create "{\"lvs_name\":\"$3\",\"lvol_name\":\"$4\",\"size_in_mib\":$5,\"thin_provision\":true}" >/dev/null
}

# --- what a suite of tests/node prints: one line a check, which scripts/test.sh counts ---------------------------------
FAILED=0
pass() { printf 'PASS %s\n' "$*"; }
fail() { printf 'FAIL %s\n' "$*"; FAILED=$((FAILED + 1)); }
skip() { printf 'SKIP %s\n' "$*"; }
check() { # name command...: one check, in this shell, silent but for its result; the last lines of its output where it failed
  local name=$1; shift
  if "$@" >"$WORK_DIR/check.out" 2>&1; then pass "$name"; else fail "$name: $(tail -n 3 "$WORK_DIR/check.out" | tr '\n' ' ')"; fi
}
suite_end() { [ "$FAILED" -eq 0 ]; exit; }
