#!/usr/bin/env bash
# One node in a network namespace, reached over a veth pair: by its own stack on DPDK's net_af_packet, and by the kernel's TCP, in
# interleaved pairs of runs; `pollux bench` with the kernel's TCP at the other end. Prints the median of the ratios.
#
#   PAIRS=3 RUN_SECONDS=2 MTU=1500 RUNS="randread:4k:1 randread:4k:32 randread:128k:16" scripts/compare-dpdk.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
PAIRS=${PAIRS:-3} RUN_SECONDS=${RUN_SECONDS:-2} MTU=${MTU:-1500}
RUNS=${RUNS:-randread:4k:1 randread:4k:32 randread:4k:128 randwrite:4k:32 randread:128k:16 randwrite:128k:16}
[ "$(id -u)" = 0 ] || die "namespaces need root"
work_dir
ID=$(($$ % 100000)); NS=pn$ID NODE_IF=pn$ID HOST_IF=ph$ID
trap 'status=$?; trap - EXIT INT TERM; for pid in "${STARTED[@]}"; do end_process "$pid"; done; ip netns del $NS; ip link del $HOST_IF 2>/dev/null; rm -rf "$WORK_DIR" "$SOCKET_DIR"; exit $status' EXIT
ip netns add $NS && ip link add $HOST_IF type veth peer name $NODE_IF netns $NS || die "no namespace"
ip addr add 10.78.0.1/24 dev $HOST_IF && ip link set $HOST_IF mtu "$MTU" up && ip -n $NS link set $NODE_IF mtu "$MTU" up && ip -n $NS link set lo up
printf '[net.dpdk]\nport = "net_af_packet0,iface=%s"\naddress = "10.78.0.2/24"\nmtu = %s\n' $NODE_IF "$MTU" >"$WORK_DIR/dpdk.toml"
printf '[node]\npoll = "always"\n' >"$WORK_DIR/kernel.toml"
binary=$POLLUX
printf '#!/bin/sh\nexec ip netns exec %s %s "$@"\n' $NS "$binary" >"$WORK_DIR/pollux"; chmod +x "$WORK_DIR/pollux"

serve() { # dpdk|kernel address: a node with a RAM disk, empty otherwise
  rm -rf "$WORK_DIR/state"
  if [ "$1" = kernel ]; then ip -n $NS addr add "$2/24" dev $NODE_IF; else ip -n $NS addr flush dev $NODE_IF scope global; fi
  ip neigh flush dev $HOST_IF
  POLLUX=$WORK_DIR/pollux; node_start --config "$WORK_DIR/$1.toml"; POLLUX=$binary
  must_rpc bdev_malloc_create '{"name":"M0","block_size":4096,"num_blocks":131072}' >/dev/null
  must_rpc nvmf_create_transport '{"trtype":"TCP"}' >/dev/null
  must_rpc nvmf_create_subsystem "{\"nqn\":\"$NQN\",\"allow_any_host\":true,\"serial_number\":\"POLLUX1\"}" >/dev/null
  must_rpc nvmf_subsystem_add_ns "{\"nqn\":\"$NQN\",\"namespace\":{\"bdev_name\":\"M0\"}}" >/dev/null
  must_rpc nvmf_subsystem_add_listener "{\"nqn\":\"$NQN\",\"listen_address\":{\"trtype\":\"TCP\",\"adrfam\":\"IPv4\",\"traddr\":\"$2\",\"trsvcid\":\"4420\"}}" >/dev/null
}
iops() { # address pattern bytes depth
  "$POLLUX" bench --cores "$CLIENT_CORE" --url "nvme+tcp://$1:4420/$NQN" --rw "$2" --bs "$3" --qd "$4" --time "$RUN_SECONDS" --json 2>/dev/null |
    python3 -c 'import json, sys; t = sys.stdin.read(); print(round(json.loads(t[t.index("{"):])["iops"]))'
}
say "MTU $MTU, node on core $TARGET_CORE, client on core $CLIENT_CORE, $RUN_SECONDS s a run, $PAIRS pairs"
for ((pair = 0; pair < PAIRS; pair++)); do
  for net in dpdk kernel; do
    address=10.78.0.2; [ $net = dpdk ] || address=10.78.0.3
    serve $net $address
    for run in $RUNS; do IFS=: read -r pattern bytes depth <<<"$run"; echo "$run $net $(iops $address "$pattern" "$bytes" "$depth")" >>"$WORK_DIR/results"; done
    node_stop || die "the node did not stop"
  done
done
python3 - "$WORK_DIR/results" <<'PY'
import statistics, sys
runs = {}
for line in open(sys.argv[1]):
    run, net, iops = line.split(); runs.setdefault(run, {}).setdefault(net, []).append(int(iops))
for run, nets in runs.items():
    ratios = [a / b for a, b in zip(nets["dpdk"], nets["kernel"])]
    mid = {net: statistics.median(v) for net, v in nets.items()}
    print(f"{run:20} dpdk {mid['dpdk']:>8.0f} IOPS, kernel {mid['kernel']:>8.0f}, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
PY
