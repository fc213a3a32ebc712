#!/usr/bin/env bash
# A node whose reactor polls one end of a veth pair through DPDK (net_af_packet), in a network namespace, and hosts with the kernel's
# TCP in another one: verifying NVMe/TCP load and iSCSI programs, MTU 1500 and 9000, frames of 64 KiB as one machine's interfaces
# hand them to each other, and a cable that loses, repeats, reorders and damages frames. POLLUX names a build with the feature `dpdk`.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
[ "$(id -u)" = 0 ] || { skip "namespaces: not root"; exit 0; }
command -v ip >/dev/null || { skip "namespaces: no ip command (Debian: iproute2)"; exit 0; }
work_dir
ID=$(($$ % 100000)); NODE_NS=pn$ID HOST_NS=ph$ID
NODE_IF=pn$ID HOST_IF=ph$ID NEAR_NODE=qn$ID NEAR_HOST=qh$ID
NODE_IP=10.78.0.2 HOST_IP=10.78.0.1 NODE_IP6=fd00:78::2 HOST_IP6=fd00:78::1
unmake() { ip netns del "$NODE_NS"; ip netns del "$HOST_NS"; ip link del "$NEAR_NODE"; ip link del "$NEAR_HOST"; } 2>/dev/null
trap 'status=$?; trap - EXIT INT TERM; for pid in "${STARTED[@]}"; do end_process "$pid"; done; unmake; rm -rf "$WORK_DIR" "$SOCKET_DIR"; exit $status' EXIT
ip netns add "$NODE_NS" 2>"$WORK_DIR/ns" && ip netns add "$HOST_NS" 2>"$WORK_DIR/ns" || { skip "namespaces: $(cat "$WORK_DIR/ns")"; exit 0; }
in_node() { ip netns exec "$NODE_NS" "$@"; }
in_host() { ip netns exec "$HOST_NS" "$@"; }
quiet_v6() { "$@" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 2>/dev/null; return 0; }
quiet_v6 in_node; quiet_v6 in_host

up() { # mtu: what the host's end and the node's need, however they are joined
  ip -n "$HOST_NS" addr add $HOST_IP/24 dev "$HOST_IF"; ip -n "$HOST_NS" -6 addr add $HOST_IP6/64 dev "$HOST_IF" nodad 2>/dev/null
  ip -n "$HOST_NS" link set "$HOST_IF" mtu "$1" up && ip -n "$NODE_NS" link set "$NODE_IF" mtu "$1" up; ip -n "$HOST_NS" link set lo up
}
direct() { # mtu: the node's end and the host's are one pair
  ip link add "$NODE_IF" netns "$NODE_NS" type veth peer name "$HOST_IF" netns "$HOST_NS" && up "$1"
}
apart() { # mtu: two pairs, to be joined by a cable
  ip link add "$NODE_IF" netns "$NODE_NS" type veth peer name "$NEAR_NODE" && ip link add "$HOST_IF" netns "$HOST_NS" type veth peer name "$NEAR_HOST" &&
    ip link set "$NEAR_NODE" mtu "$1" up && ip link set "$NEAR_HOST" mtu "$1" up && up "$1" && in_host python3 "$ROOT/tests/node/wire.py" plain "$HOST_IF"
}
part() { ip -n "$NODE_NS" link del "$NODE_IF"; ip -n "$HOST_NS" link del "$HOST_IF" 2>/dev/null; return 0; }
CABLE=
cable() { # chances...: joins the pairs with a cable that is this bad
  python3 "$ROOT/tests/node/wire.py" "$NEAR_NODE" "$NEAR_HOST" "$@" >"$WORK_DIR/cable" 2>&1 &
  CABLE=$!; track "$CABLE"; sleep 0.3
}
uncable() { kill -TERM "$CABLE" 2>/dev/null; wait "$CABLE" 2>/dev/null; DID=$(cat "$WORK_DIR/cable"); } # into DID: what the cable did

configure() { # mtu
  printf '[net.dpdk]\nport = "net_af_packet0,iface=%s"\naddress = ["%s/24", "%s/64"]\nmtu = %s\n' "$NODE_IF" $NODE_IP $NODE_IP6 "$1" >"$WORK_DIR/node.toml"
}
start() { # mtu: the node in its namespace; exports come from its journal after the first start
  local binary=$POLLUX
  configure "$1"
  printf '#!/bin/sh\nexec ip netns exec %s %s "$@"\n' "$NODE_NS" "$binary" >"$WORK_DIR/pollux"; chmod +x "$WORK_DIR/pollux"
  POLLUX=$WORK_DIR/pollux; node_start --config "$WORK_DIR/node.toml"; POLLUX=$binary
}
listen() { # address of which family
  must_rpc nvmf_subsystem_add_listener "{\"nqn\":\"$NQN\",\"listen_address\":{\"trtype\":\"TCP\",\"adrfam\":\"$2\",\"traddr\":\"$1\",\"trsvcid\":\"4420\"}}" >/dev/null
}
objects() { # a RAM disk and how it is reached: made anew, because it is empty after a restart anyway
  must_rpc bdev_malloc_create '{"name":"M0","block_size":4096,"num_blocks":65536}' >/dev/null
  must_rpc nvmf_create_transport '{"trtype":"TCP"}' >/dev/null
  must_rpc nvmf_create_subsystem "{\"nqn\":\"$NQN\",\"allow_any_host\":true,\"serial_number\":\"POLLUX1\"}" >/dev/null
  must_rpc nvmf_subsystem_add_ns "{\"nqn\":\"$NQN\",\"namespace\":{\"bdev_name\":\"M0\"}}" >/dev/null
  listen $NODE_IP IPv4; listen $NODE_IP6 IPv6
  must_rpc iscsi_create_portal_group "{\"tag\":1,\"portals\":[{\"host\":\"$NODE_IP\",\"port\":\"3260\"}]}" >/dev/null
  must_rpc iscsi_create_initiator_group '{"tag":1,"initiators":["ANY"],"netmasks":["ANY"]}' >/dev/null
  must_rpc bdev_malloc_create '{"name":"M1","block_size":4096,"num_blocks":16384}' >/dev/null
  iscsi_target disk 1:1 '"disable_chap":true' M1
}
load() { # seconds address flags...: a verifying run from the host, without an error of any kind
  in_host "$POLLUX" bench --cores "$CLIENT_CORE" --url "nvme+tcp://$2:4420/$NQN" --rw randrw --rwmix 50 --time "$1" --verify --json "${@:3}" \
    >"$WORK_DIR/load.json" 2>"$WORK_DIR/load.err" &&
    python3 - "$WORK_DIR/load.json" <<'PY' || { tail -n 5 "$WORK_DIR/load.err"; return 1; }
import json, sys
text = open(sys.argv[1]).read(); j = json.loads(text[text.index("{"):])
print(f"{j['iops']:.0f} IOPS, errors {j['errors']}, verify errors {j['verify_errors']}")
sys.exit(1 if j["errors"] or j["verify_errors"] or not j["iops"] else 0)
PY
}
small() { load "$1" "${2:-$NODE_IP}" --bs 4096 --conns 64 --qd 4 "${@:3}"; }
large() { load "$1" $NODE_IP --bs 128k --conns 64 --qd 1; }
iscsi() { # lists, asks and reads
  in_host timeout 20 iscsi-inq "iscsi://$NODE_IP/$IQN:disk/0" | grep -q POLLUX &&
    in_host timeout 20 iscsi-perf -r -b 8 -m 16 -t 2 "iscsi://$NODE_IP/$IQN:disk/0" | tail -n 1
}
lossy() { # name chances...: small and large I/O over a cable this bad; the cable must have done what was asked of it
  local name=$1 chance; shift
  cable "$@"
  check "$name: 4 KiB, 64 connections" small 3
  check "$name: 128 KiB, 64 connections" large 3
  uncable
  for chance; do
    case $chance in
      lose=*) [[ $DID =~ lost=[1-9] ]] ;; repeat=*) [[ $DID =~ repeated=[1-9] ]] ;;
      reorder=*) [[ $DID =~ reordered=[1-9] ]] ;; damage=*) [[ $DID =~ damaged=[1-9] ]] ;;
    esac && pass "$name: the cable did its worst: $DID" || fail "$name: the cable did not do $chance: $DID"
  done
}

direct 1500; start 1500; objects
check "MTU 1500: 4 KiB, 64 connections" small 3
check "MTU 1500: 128 KiB, 64 connections" large 3
check "IPv6: 4 KiB, 64 connections" small 2 "[$NODE_IP6]"
if command -v iscsi-inq >/dev/null && command -v iscsi-perf >/dev/null; then check "iSCSI: iscsi-inq and iscsi-perf" iscsi
else skip "iSCSI: no iscsi-inq (Debian: libiscsi-bin)"; fi
taken() { [ "$(rpc nvmf_subsystem_add_listener "{\"nqn\":\"$NQN\",\"listen_address\":{\"trtype\":\"TCP\",\"adrfam\":\"IPv4\",\"traddr\":\"$NODE_IP\",\"trsvcid\":\"3260\"}}" 2>&1 | grep -ci "error\|in use")" -gt 0 ]; }
check "a portal's address is not given twice" taken
check "the node stops cleanly" node_stop
configure 9000
too_small() { ! in_node timeout 20 "$POLLUX" serve --config "$WORK_DIR/node.toml" --cores "$TARGET_CORE" --rpc-socket "$RPC_SOCKET" --state-dir "$WORK_DIR/state" 2>&1 | tee "$WORK_DIR/small" | grep -q ready; grep "carries 1500: set it first" "$WORK_DIR/small"; }
check "an interface that is too small is refused, with what to do" too_small
part

direct 9000; start 9000
check "MTU 9000: 4 KiB, 64 connections" small 3
check "MTU 9000: 128 KiB, 64 connections" large 3
check "the node stops cleanly with MTU 9000" node_stop
part

if [ "$TARGET_CORE" != "$CLIENT_CORE" ]; then
  spread() { local queues; queues=$(rpc nvmf_get_stats | grep '"io_qpairs"' | grep -cE ': [1-9]'); echo "$queues cores with I/O queues"; [ "$queues" = 2 ]; }
  direct 1500; TARGET_CORE=$TARGET_CORE,$CLIENT_CORE start 1500
  check "two cores, a queue pair each: 4 KiB, 64 connections" small 2
  check "flows were spread over both" spread
  check "the node on two cores stops cleanly" node_stop
  part
else skip "two cores: this process may run on one only"; fi

apart 1500; start 1500
lossy "loss 0.1%" lose=0.1
lossy "loss 1%, repeats, reordering" lose=1 repeat=1 reorder=2
lossy "loss 5%" lose=5
lossy "damage" damage=1
cable
check "a good cable: iSCSI" iscsi
uncable
check "the node stops cleanly after that" node_stop
suite_end
