#!/usr/bin/env bash
# The public SPDK client (PyPI spdk) drives the life of a volume on a log store and of a raw RAM disk, through kill -9.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
VENV=$TARGET_DIR/spdk-client
if [ ! -x "$VENV/bin/spdk-rpc" ]; then
  reason=$( { python3 -m venv "$VENV" && "$VENV/bin/pip" install -q --disable-pip-version-check spdk==26.9; } 2>&1 | tail -n 1)
  [ -x "$VENV/bin/spdk-rpc" ] || { skip "spdk-rpc: the PyPI package spdk 26.9 cannot be installed here: $reason"; exit 0; }
fi
work_dir
client() { "$VENV/bin/spdk-rpc" -s "$RPC_SOCKET" "$@"; }
has() { local out; out=$(client "${@:2}" 2>&1) || { echo "$out"; return 1; }; grep -qE -- "$1" <<<"$out" || { echo "no $1 in: $out"; return 1; }; }
hasnt() { local out; out=$(client "${@:2}" 2>&1) || { echo "$out"; return 1; }; ! grep -qE -- "$1" <<<"$out" || { echo "$1 still in: $out"; return 1; }; }
refuses() { local out; out=$(client "${@:2}" 2>&1) && { echo "accepted: $out"; return 1; }; grep -qiE -- "$1" <<<"$out" || { echo "no $1 in: $out"; return 1; }; }
HOST=nqn.2014-08.org.nvmexpress:uuid:5a0a2e3c-1b2d-4c3e-8f4a-000000000001
bench() { # a verified run against the export as any host
  "$POLLUX" bench --cores "$CLIENT_CORE" --url "nvme+tcp://127.0.0.1:$NODE_PORT/$NQN" --rw randrw --bs 4096 --qd 8 --time 1 --verify --json; }
uses() { # host-nqn nsid: a short run as that host on that namespace
  "$POLLUX" bench --cores "$CLIENT_CORE" --url "nvme+tcp://127.0.0.1:$NODE_PORT/$NQN?nsid=$2" --hostnqn "$1" \
    --rw randrw --bs 4096 --qd 4 --time 1 --json; }
fails() { ! "$@"; }

preallocate "$WORK_DIR/disk" 512; truncate -s 64M "$WORK_DIR/aio"
node_start
check "version" has '"version"' spdk_get_version
check "at least 40 methods" test "$(client rpc_get_methods | grep -c '"')" -ge 40
check "reactors" has '"lcore"' framework_get_reactors
check "malloc bdev" has M0 bdev_malloc_create -b M0 64 512
check "null bdev" has N0 bdev_null_create N0 64 4096
check "aio bdev" has A0 bdev_aio_create "$WORK_DIR/aio" A0 4096
check "uring bdev" has U0 bdev_uring_create "$WORK_DIR/disk" U0 4096
check "an existing name is refused" refuses 'exists' bdev_malloc_create -b M0 64 512
check "an unknown bdev is refused" refuses 'No such device' bdev_get_bdevs -b nosuch
check "lvstore" has '[0-9a-f-]{36}' bdev_lvol_create_lvstore U0 lvs
check "lvstores" has '"lvs"' bdev_lvol_get_lvstores
check "volume" has '[0-9a-f-]{36}' bdev_lvol_create -l lvs vol 128 -t
check "volume by its alias" has 'lvs/vol' bdev_get_bdevs -b lvs/vol
check "resize" client bdev_lvol_resize lvs/vol 192
check "the new size" has '"num_blocks": 49152' bdev_get_bdevs -b lvs/vol
check "transport" client nvmf_create_transport -t TCP
check "transports" has '"TCP"' nvmf_get_transports
check "an unknown transport is refused" refuses '.' nvmf_create_transport -t RDMA
check "subsystem" client nvmf_create_subsystem $NQN -s POLLUX1 -m 8
check "namespace of the volume" client nvmf_subsystem_add_ns $NQN lvs/vol
check "namespace of the RAM disk" client nvmf_subsystem_add_ns $NQN M0
check "host" client nvmf_subsystem_add_host $NQN $HOST
NODE_PORT=$(free_port)
check "listener" client nvmf_subsystem_add_listener $NQN -t tcp -a 127.0.0.1 -s "$NODE_PORT"
check "the subsystem as a whole" has "$HOST" nvmf_get_subsystems
check "a host that is not on the list is refused" fails bench
check "any host, once allowed" client nvmf_subsystem_allow_any_host --allow-any-host $NQN
check "a verified run" bench
check "its statistics" has '"num_read_ops": [1-9]' bdev_get_iostat --names lvs/vol
check "a namespace that no host sees" client nvmf_subsystem_add_ns $NQN A0 -n 7 -i
check "the host does not see it" fails uses $HOST 7
check "it is shown to the host" client nvmf_ns_add_host $NQN 7 $HOST
check "which then uses it" uses $HOST 7
check "no other host does" fails uses $HOST-2 7
node_kill; node_start
check "after kill -9: subsystem, host and listener" has "\"trsvcid\": \"$NODE_PORT\"" nvmf_get_subsystems
check "after kill -9: volume with its size" has '"num_blocks": 49152' bdev_get_bdevs -b lvs/vol
for name in M0 N0 A0 U0; do check "after kill -9: $name" has "\"$name\"" bdev_get_bdevs -b $name; done
check "after kill -9: a verified run" bench
check "after kill -9: the host sees its namespace" uses $HOST 7
check "after kill -9: no other host does" fails uses $HOST-2 7
check "it is hidden again" client nvmf_ns_remove_host $NQN 7 $HOST
check "from the host too" fails uses $HOST 7
check "remove the hidden namespace" client nvmf_subsystem_remove_ns $NQN 7
held() { # a write that the error bdev holds keeps its host waiting until it is let go
  client bdev_malloc_create -b M1 16 4096 && client bdev_error_create M1 && client nvmf_subsystem_add_ns $NQN EE_M1 -n 8 || return 1
  client bdev_error_inject_error EE_M1 write pending -n 1 || return 1
  local run start=$SECONDS; uses $HOST 8 & run=$!; track "$run"
  sleep 3; kill -0 "$run" || { echo "the run ended while a write was held"; return 1; }
  client bdev_error_resume_pending EE_M1 && wait "$run" && [ $((SECONDS - start)) -lt 10 ] || return 1
  client bdev_malloc_delete M1
}
check "a held write completes when it is let go" held
check "remove the host" client nvmf_subsystem_remove_host $NQN $HOST
check "the host is gone" hasnt "$HOST" nvmf_get_subsystems
check "remove the namespaces" client nvmf_subsystem_remove_ns $NQN 1
check "remove the other namespace" client nvmf_subsystem_remove_ns $NQN 2
check "remove the listener" client nvmf_subsystem_remove_listener $NQN -t tcp -a 127.0.0.1 -s "$NODE_PORT"
check "delete the subsystem" client nvmf_delete_subsystem $NQN
check "the subsystem is gone" hasnt "$NQN" nvmf_get_subsystems
check "delete the volume" client bdev_lvol_delete lvs/vol
check "the volume is gone" refuses 'No such device' bdev_get_bdevs -b lvs/vol
check "delete the lvstore" client bdev_lvol_delete_lvstore -l lvs
check "delete the malloc bdev" client bdev_malloc_delete M0
check "delete the null bdev" client bdev_null_delete N0
check "delete the aio bdev" client bdev_aio_delete A0
check "delete the uring bdev" client bdev_uring_delete U0
node_kill; node_start
check "after kill -9: nothing came back" hasnt '"name"' bdev_get_bdevs
check "the node stops cleanly" node_stop
suite_end
