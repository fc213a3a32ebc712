#!/usr/bin/env bash
# A node on two cores: verifying load over many connections on a RAM disk and on a volume at once, with objects coming and going
# beneath it, iSCSI sessions of two connections, through kill -9; then the same store on one core and on two again.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
[ "$TARGET_CORE" != "$CLIENT_CORE" ] || { skip "two cores: this process may run on one only"; exit 0; }
TWO=$TARGET_CORE,$CLIENT_CORE ONE=$TARGET_CORE
work_dir
preallocate "$WORK_DIR/disk" 768
TARGET_CORE=$TWO node_start
must_rpc bdev_malloc_create '{"name":"M0","block_size":512,"num_blocks":262144}' >/dev/null
store_volume "$WORK_DIR/disk" 4096 store volume 256
export_bdevs any M0 store/volume
url="nvme+tcp://127.0.0.1:$NODE_PORT/$NQN"
load() { # name nsid seconds flags...: a verifying run without an error of any kind
  local name=$1
  "$POLLUX" bench --cores "$CLIENT_CORE" --url "$url?nsid=$2" --rw randrw --rwmix 50 --conns 4 --qd 16 --time "$3" --verify --json "${@:4}" \
    >"$WORK_DIR/$name.json" 2>"$WORK_DIR/$name.err" &&
    grep -qE '"errors": ?0\b' "$WORK_DIR/$name.json" && grep -qE '"verify_errors": ?0\b' "$WORK_DIR/$name.json" ||
    { cat "$WORK_DIR/$name.json"; tail -n 5 "$WORK_DIR/$name.err"; return 1; }
}
both() { # seconds: load on the RAM disk and on the volume at the same time
  local ram; load ram 1 "$1" --bs 128k & ram=$!; track "$ram"
  load volume 2 "$1" --bs 4096 --verify-log "$WORK_DIR/verify.log"; local status=$?
  wait "$ram" && return "$status"
}
come_and_go() { # until the file appears: a RAM disk, a volume and their namespaces, made, used, resized and deleted
  local n=0
  until [ -e "$1" ]; do
    must_rpc bdev_malloc_create '{"name":"M9","block_size":4096,"num_blocks":4096}' &&
      must_rpc bdev_lvol_create '{"lvs_name":"store","lvol_name":"v9","size_in_mib":16,"thin_provision":true}' &&
      must_rpc nvmf_subsystem_add_ns "{\"nqn\":\"$NQN\",\"namespace\":{\"bdev_name\":\"M9\",\"nsid\":7}}" &&
      must_rpc nvmf_subsystem_add_ns "{\"nqn\":\"$NQN\",\"namespace\":{\"bdev_name\":\"store/v9\",\"nsid\":8}}" &&
      load m9 7 0.2 --bs 8192 && load v9 8 0.2 --bs 4096 || return 1
    must_rpc bdev_lvol_resize '{"name":"store/v9","size_in_mib":32}' && load v9 8 0.2 --bs 64k || return 1
    # One volume goes with its namespace, the other's namespace goes first.
    must_rpc bdev_lvol_delete '{"name":"store/v9"}' &&
      must_rpc nvmf_subsystem_remove_ns "{\"nqn\":\"$NQN\",\"nsid\":7}" && must_rpc bdev_malloc_delete '{"name":"M9"}' || return 1
    n=$((n + 1))
  done
  echo "$n rounds"; [ "$n" -gt 0 ]
}
under_load() {
  local main; both 6 & main=$!; track "$main"
  (sleep 4; touch "$WORK_DIR/enough") &
  come_and_go "$WORK_DIR/enough"; local status=$?
  wait "$main" && return "$status"
}
spread() { # both cores have served I/O queues
  local queues; queues=$(rpc nvmf_get_stats | grep '"io_qpairs"' | grep -cE ': [1-9]'); echo "$queues cores with I/O queues"; [ "$queues" = 2 ]
}
check "load on two cores" both 2
check "objects come and go beneath it" under_load
check "both cores served connections" spread
# Two connections a session, each accepted by whichever core the kernel chose: the second must reach the core of the first.
must_rpc bdev_malloc_create '{"name":"M1","block_size":512,"num_blocks":32768}' >/dev/null
iscsi_portals 1 1
iscsi_initiators 1 ANY
iscsi_target pairs 1:1 '"disable_chap":true' M1
pairs() {
  python3 - "${ISCSI_PORTS[0]}" "$IQN:pairs" <<'PY'
import socket, struct, sys
def receive(s, n):
    got = b""
    while len(got) < n:
        part = s.recv(n - len(got))
        if not part: sys.exit("the node closed a connection")
        got += part
    return got
def pdu(s):
    head = receive(s, 48)
    n = int.from_bytes(head[5:8], "big")
    return head, receive(s, n + -n % 4)
def login(isid, tsih, cid):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
    text = "\0".join(["InitiatorName=iqn.2026-01.io.pollux.host:pairs", "TargetName=" + sys.argv[2], "SessionType=Normal",
                      "MaxConnections=2", ""]).encode()
    head = struct.pack(">BBBBI6sHIHHII16x", 0x43, 0x87, 0, 0, len(text), isid, tsih, 7, cid, 0, 1, 0)
    s.sendall(head + text + bytes(-len(text) % 4))
    head, _ = pdu(s)
    if head[36:38] != b"\0\0": sys.exit(f"login status {head[36:38].hex()} for connection {cid}")
    return s, int.from_bytes(head[14:16], "big")
def ready(s, sn):
    s.sendall(struct.pack(">BBHI8sIIII16x", 0x01, 0x81, 0, 0, bytes(8), 100 + sn, 0, sn, 0))
    head, _ = pdu(s)
    return head[0] & 0x3F, head[3]
for n in range(24):
    isid = struct.pack(">BBHH", 0x80, 0, 0, n)
    one, tsih = login(isid, 0, 0)
    two, same = login(isid, tsih, 1)
    assert tsih == same != 0
    answers = [ready((one, two)[sn % 2], sn) for sn in range(1, 7)]
    if answers != [(0x21, 2)] + [(0x21, 0)] * 5: sys.exit(f"session {n}: {answers}")
    one.close(); two.close()
PY
}
check "the second connection of a session finds it, whichever core accepted it" pairs
both 30 >"$WORK_DIR/killed.log" 2>&1 & run=$!; track "$run"
sleep 2; node_kill; wait "$run" # its errors are the lost connections
for name in ram volume; do
  wrong=$(grep -oE '"verify_errors": ?[0-9]+' "$WORK_DIR/$name.json" | grep -oE '[0-9]+$')
  [ "${wrong:-0}" = 0 ] && pass "nothing wrong was read from the $name before kill -9" || fail "$wrong wrong reads from the $name: $(tail -n 3 "$WORK_DIR/$name.err")"
done
again() { load volume 2 2 --bs 4096 --verify-log "$WORK_DIR/verify.log"; }
TARGET_CORE=$TWO node_start
check "after kill -9: every acknowledged write is there" again
check "the node stops cleanly" node_stop
TARGET_CORE=$ONE node_start
check "on one core: every acknowledged write is there" again
node_kill
TARGET_CORE=$TWO node_start
check "after kill -9, on two cores again: every acknowledged write is there" again
check "the node stops cleanly again" node_stop
check "fsck finds the store sound" "$POLLUX" fsck "$WORK_DIR/disk"
suite_end
