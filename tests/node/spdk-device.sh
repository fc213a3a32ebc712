#!/usr/bin/env bash
# The device `spdk:` against live targets: a build with the feature `spdk` is refused clearly where SPDK is missing or too old, and
# moves verified data to a Pollux node over NVMe/TCP, to SPDK's nvmf_tgt over NVMe/TCP, and over vfio-user where that SPDK has it;
# it outlives a restart of its target, and is dead, with an error, when the target stays away.
#
# SPDK_DIR: a built SPDK tree. POLLUX_SPDK: a pollux that was built with the feature; without it one is built here.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
BIN=${SPDK_DIR:-}/build/bin
[ -x "$BIN/nvmf_tgt" ] || { skip "the device spdk: SPDK_DIR names no SPDK build (build/bin/nvmf_tgt)"; exit 0; }
export CARGO_TARGET_DIR=$TARGET_DIR LD_LIBRARY_PATH=$SPDK_DIR/build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
work_dir
cd "$ROOT" || exit 1

# --- a build that can not be ------------------------------------------------------------------------------------------
refused() { # reason environment...: the build ends with that reason and with what is needed
  local reason=$1 out; shift
  out=$(env -u SPDK_DIR -u PKG_CONFIG_PATH "$@" cargo check --lib --features spdk 2>&1) && { echo "it was built: $out"; return 1; }
  grep -qF -- "$reason" <<<"$out" && grep -q 'known to work: SPDK 26.05' <<<"$out" || { echo "$out"; return 1; }
}
old=$WORK_DIR/old; mkdir -p "$old/include/spdk" "$old/pc"
printf '#define SPDK_VERSION_MAJOR\t24\n#define SPDK_VERSION_MINOR\t1\n' >"$old/include/spdk/version.h"
for package in spdk_nvme spdk_env_dpdk spdk_sock_modules spdk_syslibs; do
  printf 'Name: %s\nDescription: old\nVersion: 1\nCflags: -I%s\nLibs: -L%s\n' $package "$old/include" "$old" >"$old/pc/$package.pc"
done
if [ -z "${POLLUX_SPDK:-}" ] || [ -n "${REFUSALS:-}" ]; then
  check "without SPDK the build says what is missing" refused 'pkg-config finds no SPDK' PKG_CONFIG_LIBDIR="$WORK_DIR/none"
  check "an SPDK that is too old is named" refused 'SPDK 24.01 was found, which is too old' PKG_CONFIG_LIBDIR="$old/pc"
else skip "refusals of the build: POLLUX_SPDK names a build (REFUSALS=1 runs them all the same)"; fi

# --- the build ----------------------------------------------------------------------------------------------------------
if [ -z "${POLLUX_SPDK:-}" ]; then
  cargo build --release --features spdk >"$WORK_DIR/build.log" 2>&1 || { tail -n 20 "$WORK_DIR/build.log"; fail "the build with the feature spdk"; suite_end; }
  cp "$TARGET_DIR/release/pollux" "$WORK_DIR/pollux-spdk" && POLLUX_SPDK=$WORK_DIR/pollux-spdk
  cargo build --release >"$WORK_DIR/build.log" 2>&1 || { fail "the default build"; suite_end; } # the other suites want that one
  pass "the build with the feature spdk"
fi
json() { python3 -c 'import json,sys; t=sys.stdin.read(); print(json.loads(t[t.index("{"):])[sys.argv[1]])' "$1"; }
bench() { # spec flags...: the JSON report
  timeout 90 "$POLLUX_SPDK" bench --cores "$CLIENT_CORE" --device "$1" --json "${@:2}" 2>"$WORK_DIR/bench.log" || { tail -n 4 "$WORK_DIR/bench.log"; return 1; }
}
verified() { # spec flags...: I/O happened, and what was read is what was written
  local out; out=$(bench "$@" --verify) || { echo "$out"; return 1; }
  [ "$(json verify_errors <<<"$out")" = 0 ] && python3 -c 'import sys; sys.exit(not float(sys.argv[1]) > 0)' "$(json iops <<<"$out")" || { echo "$out"; return 1; }
}
runs() { # what spec
  check "$1: verified random 4 KiB, depth 1" verified "$2" --rw randrw --bs 4096 --qd 1 --time 1
  check "$1: verified random 4 KiB, depth 32" verified "$2" --rw randrw --bs 4096 --qd 32 --time 2
  check "$1: verified random 4 KiB, depth 256, with flushes" verified "$2" --rw randrw --bs 4096 --qd 256 --flush 64 --time 2
  check "$1: verified 64 KiB" verified "$2" --rw rw --bs 65536 --qd 8 --time 1
  check "$1: verified 1 MiB" verified "$2" --rw randrw --bs 1048576 --qd 8 --time 1
}
live() { # what spec: the crate's own tests of a live namespace, where there is a toolchain for them
  [ -z "${SPDK_TESTS:-}" ] && [ -n "${NO_CARGO:-}" ] && { skip "$1: the crate's tests of a live namespace (NO_CARGO)"; return; }
  local run=(cargo test --release --features spdk --lib); [ -n "${SPDK_TESTS:-}" ] && run=("$SPDK_TESTS")
  if [ -n "${SPDK_TESTS:-}" ]; then check "$1: the crate's tests of a live namespace" crate_tests "$2" "${run[@]}" device::spdk
  else check "$1: the crate's tests of a live namespace" crate_tests "$2" "${run[@]}" device::spdk --; fi
}
crate_tests() { local out; out=$(POLLUX_TEST_SPDK=$1 timeout 900 "${@:2}" --ignored --test-threads=1 2>&1) && grep -q '2 passed' <<<"$out" || { echo "$out" | tail -n 20; return 1; }; }

# --- a Pollux node ------------------------------------------------------------------------------------------------------
preallocate "$WORK_DIR/disk" 512
node_start
must_rpc bdev_malloc_create '{"name":"M0","block_size":512,"num_blocks":262144}' >/dev/null
store_volume "$WORK_DIR/disk" 4096 store volume 256
export_bdevs any M0 store/volume
where() { echo "spdk:trtype:TCP traddr:127.0.0.1 trsvcid:$1 subnqn:$NQN nsid:$2"; }
runs "Pollux, RAM disk" "$(where "$NODE_PORT" 1)"
runs "Pollux, log store" "$(where "$NODE_PORT" 2)"
live "Pollux, RAM disk" "$(where "$NODE_PORT" 1)"
live "Pollux, log store" "$(where "$NODE_PORT" 2)"
says() { local out status; out=$("${@:3}" 2>&1); status=$?; [ $status -eq "$1" ] && grep -qE -- "$2" <<<"$out" || { echo "status $status: $out"; return 1; }; }
check "a default build names the feature" says 2 'features spdk|feature' "$POLLUX" bench --device "$(where "$NODE_PORT" 1)" --time 1
check "a target that is not there is an error" says 2 'SPDK: attaching to the controller' "$POLLUX_SPDK" bench --device "$(where "$(free_port)" 1)" --time 1

# --- a target that comes back, and one that does not ---------------------------------------------------------------------
away() { # spec: reads while the node is killed and started again; what was written before is there
  local out
  bench "$1" --rw randread --bs 4096 --qd 16 --time 6 >"$WORK_DIR/away.json" & local reader=$!
  sleep 2; node_kill; sleep 0.5; node_start
  wait "$reader" || { cat "$WORK_DIR/away.json"; return 1; }
  [ "$(json errors <"$WORK_DIR/away.json")" = 0 ] || { cat "$WORK_DIR/away.json"; return 1; }
}
check "reads outlive the death and return of the node" away "$(where "$NODE_PORT" 2)"
check "and the device works on" verified "$(where "$NODE_PORT" 2)" --rw randrw --bs 4096 --qd 32 --time 1
gone() { # spec: the node stays away: errors, in bounded time, and no hang
  bench "$1" --rw randread --bs 4096 --qd 16 --time 60 >"$WORK_DIR/gone.json" & local reader=$! start=$SECONDS
  sleep 1; node_kill
  wait "$reader" && { cat "$WORK_DIR/gone.json"; return 1; }
  [ $((SECONDS - start)) -lt 50 ] && grep -qiE 'dead|gone' "$WORK_DIR/gone.json" "$WORK_DIR/bench.log" || { cat "$WORK_DIR/gone.json" "$WORK_DIR/bench.log"; return 1; }
}
check "a node that stays away makes the device dead" gone "$(where "$NODE_PORT" 2)"

# --- SPDK's nvmf_tgt ----------------------------------------------------------------------------------------------------
RPC_SOCKET=$SOCKET_DIR/spdk.sock
"$BIN/nvmf_tgt" -m "$(printf '0x%x' $((1 << TARGET_CORE)))" -s 1024 --no-huge --no-pci -r "$RPC_SOCKET" >"$WORK_DIR/spdk.log" 2>&1 </dev/null &
SPDK_PID=$!; track "$SPDK_PID"
for ((i = 0; i < 200; i++)); do rpc spdk_get_version >/dev/null 2>&1 && break; kill -0 "$SPDK_PID" 2>/dev/null || break; sleep 0.1; done
kill -0 "$SPDK_PID" 2>/dev/null || { tail -n 5 "$WORK_DIR/spdk.log"; fail "nvmf_tgt starts"; suite_end; }
must_rpc bdev_malloc_create '{"name":"Tcp","block_size":512,"num_blocks":131072}' >/dev/null
export_bdevs any Tcp
runs "nvmf_tgt over TCP" "$(where "$NODE_PORT" 1)"
live "nvmf_tgt over TCP" "$(where "$NODE_PORT" 1)"
if rpc nvmf_create_transport '{"trtype":"VFIOUSER"}' >/dev/null 2>&1; then
  VFU=$SOCKET_DIR/vfu; mkdir -p "$VFU"
  must_rpc bdev_malloc_create '{"name":"Vfu","block_size":4096,"num_blocks":16384}' >/dev/null
  must_rpc nvmf_create_subsystem "{\"nqn\":\"$NQN-vfu\",\"allow_any_host\":true,\"serial_number\":\"VFU1\"}" >/dev/null
  must_rpc nvmf_subsystem_add_ns "{\"nqn\":\"$NQN-vfu\",\"namespace\":{\"bdev_name\":\"Vfu\"}}" >/dev/null
  must_rpc nvmf_subsystem_add_listener "{\"nqn\":\"$NQN-vfu\",\"listen_address\":{\"trtype\":\"VFIOUSER\",\"traddr\":\"$VFU\",\"trsvcid\":\"0\"}}" >/dev/null
  runs "nvmf_tgt over vfio-user" "spdk:trtype:VFIOUSER traddr:$VFU"
  live "nvmf_tgt over vfio-user" "spdk:trtype:VFIOUSER traddr:$VFU"
else skip "vfio-user: this SPDK was built without it"; fi
suite_end
