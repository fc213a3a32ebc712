#!/usr/bin/env bash
# The public SPDK client (PyPI spdk) drives the life of a volume on a log store and of a raw RAM disk, over NVMe/TCP and over iSCSI,
# through kill -9.
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

# --- iSCSI ---------------------------------------------------------------------------------------------------------------
TARGET=iqn.2016-06.io.spdk:disk1 INITIATOR=iqn.2026-01.io.pollux.host:spdk
USER=someone SECRET=twelve-or-more-1 TARGET_USER=node TARGET_SECRET=twelve-or-more-2
PORT1=$(free_port); PORT2=$(free_port); while [ "$PORT2" = "$PORT1" ]; do PORT2=$(free_port); done
iscsi() { # lun user%secret@ flags...: a run over iSCSI of a second, or as the flags say
  "$POLLUX" bench --cores "$CLIENT_CORE" --url "iscsi://$2127.0.0.1:$PORT1/$TARGET/$1" --rw randrw --bs 4096 --qd 8 --json "${@:3}"; }
check "options" client iscsi_set_options -q 64 -i -n 4 -o 9
check "the options are set" has '"nop_timeout": 9' iscsi_get_options
check "portal group" client iscsi_create_portal_group 1 "127.0.0.1:$PORT1"
check "a portal group that waits" client iscsi_create_portal_group -w 2 "127.0.0.1:$PORT2"
check "nobody listens for it" fails bash -c "exec 3<>/dev/tcp/127.0.0.1/$PORT2"
check "it is started" client iscsi_start_portal_group 2
check "now somebody listens" bash -c "exec 3<>/dev/tcp/127.0.0.1/$PORT2"
check "a portal that NVMe/TCP uses is refused" refuses 'used by NVMe/TCP' iscsi_create_portal_group 3 "127.0.0.1:$NODE_PORT"
check "an address that iSCSI uses is refused to NVMe/TCP" refuses 'used by iSCSI' \
  nvmf_subsystem_add_listener $NQN -t tcp -a 127.0.0.1 -s "$PORT1"
check "portal groups" has "\"port\": \"$PORT1\"" iscsi_get_portal_groups
check "initiator group" client iscsi_create_initiator_group 2 ANY 127.0.0.0/8
check "initiators are added" client iscsi_initiator_group_add_initiators 2 -n $INITIATOR -m 10.0.0.0/8
check "initiator groups" has 10.0.0.0/8 iscsi_get_initiator_groups
check "initiators are removed" client iscsi_initiator_group_remove_initiators 2 -n $INITIATOR -m 10.0.0.0/8
check "target node" client iscsi_create_target_node disk1 d "lvs/vol:0 N0:3" 1:2 64 -d
check "the target node as a whole" has "\"name\": \"$TARGET\"" iscsi_get_target_nodes
check "the same name again is refused" refuses 'already exists' iscsi_create_target_node disk1 d M0:0 1:2 64 -d
check "one more LUN" client iscsi_target_node_add_lun -i 1 $TARGET M0
check "SCSI devices" has "$TARGET" scsi_get_devices
check "a verified iSCSI run on the volume" iscsi 0 "" --time 1 --verify
check "and on the RAM disk" iscsi 1 "" --time 1 --verify
check "histograms are off" refuses 'not enabled' iscsi_get_histogram $TARGET
check "latencies are counted" client iscsi_enable_histogram --histogram $TARGET
linked() { # what a session looks like while it is there; it is gone long before its time when it is asked to log out
  local run start=$SECONDS; iscsi 0 "" --time 60 & run=$!; track "$run"; sleep 2
  has '"login_phase": "full_feature_phase"' iscsi_get_connections && has '"running": [1-9]' iscsi_get_stats || return 1
  client iscsi_target_node_request_logout $TARGET -t 2 && kill -0 "$run" || { echo "asked through the wrong portals"; return 1; }
  client iscsi_target_node_request_logout $TARGET -t 1 || return 1
  wait "$run"; [ $((SECONDS - start)) -lt 30 ] || { echo "it stayed $((SECONDS - start)) s"; return 1; }
}
check "connections, and a request to log out" linked
check "the latencies" has '"granularity": 7' iscsi_get_histogram $TARGET
check "maps are added" client iscsi_target_node_add_pg_ig_maps $TARGET 2:2
check "a redirection" client iscsi_target_node_set_redirect $TARGET 2 -a 127.0.0.1 -p "$PORT1"
check "auth group" client iscsi_create_auth_group 1 -c "user:$USER secret:$SECRET muser:$TARGET_USER msecret:$TARGET_SECRET"
check "a short secret is refused" refuses '12 to 128' iscsi_auth_group_add_secret 1 -u other -s short
check "one more secret" client iscsi_auth_group_add_secret 1 -u other -s another-secret-3
check "root sees the secrets" has "$SECRET" iscsi_get_auth_groups
check "the target node wants CHAP" client iscsi_target_node_set_auth $TARGET -g 1 -r
check "who does not prove itself is refused" fails iscsi 0 "" --time 1
check "who proves itself is not" iscsi 0 "$USER%$SECRET@" --time 1 --verify
check "discovery wants CHAP" client iscsi_set_discovery_auth -g 1 -r
check "so does a portal group" client iscsi_portal_group_set_auth 1 -g 1 -r
client save_config >"$WORK_DIR/before.json"
node_kill; node_start
client save_config >"$WORK_DIR/after.json"
check "after kill -9: the same configuration, iSCSI and all" cmp "$WORK_DIR/before.json" "$WORK_DIR/after.json"
check "after kill -9: CHAP is still wanted" fails iscsi 0 "" --time 1
check "after kill -9: a verified iSCSI run" iscsi 0 "$USER%$SECRET@" --time 1 --verify
check "the redirection is taken back" client iscsi_target_node_set_redirect $TARGET 2
check "maps are removed" client iscsi_target_node_remove_pg_ig_maps $TARGET 2:2
check "a secret is removed" client iscsi_auth_group_remove_secret 1 -u other
check "CHAP is no longer wanted" client iscsi_target_node_set_auth $TARGET -d
check "nor for discovery" client iscsi_set_discovery_auth -d
check "the auth group is deleted" client iscsi_delete_auth_group 1
check "a RAM disk that goes takes its LUN along" client bdev_null_delete N0
check "the LUN is gone" hasnt '"bdev_name": "N0"' iscsi_get_target_nodes
check "the target node is deleted" client iscsi_delete_target_node $TARGET
check "nobody finds it" fails iscsi 0 "" --time 1
check "the initiator group is deleted" client iscsi_delete_initiator_group 2
for tag in 1 2; do check "portal group $tag is deleted" client iscsi_delete_portal_group $tag; done
check "nobody listens any more" fails bash -c "exec 3<>/dev/tcp/127.0.0.1/$PORT1"
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
check "delete the aio bdev" client bdev_aio_delete A0
check "delete the uring bdev" client bdev_uring_delete U0
node_kill; node_start
check "after kill -9: nothing came back" hasnt '"name"' bdev_get_bdevs
check "the node stops cleanly" node_stop
suite_end
