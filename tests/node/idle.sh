#!/usr/bin/env bash
# An idle node leaves its core alone: less than 3% of a core over 4 s, with an export and with a host connected to it and silent.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
work_dir
node_start
must_rpc bdev_malloc_create '{"name":"M0","block_size":4096,"num_blocks":16384}' >/dev/null
export_bdevs any M0
url="nvme+tcp://127.0.0.1:$NODE_PORT/$NQN"
ticks() { awk '{print $14 + $15}' "/proc/$NODE_PID/stat"; } # user and system time of all its threads
idle() { # the share of one core, in hundredths of a percent
  local before after hz; hz=$(getconf CLK_TCK); before=$(ticks); sleep 4; after=$(ticks)
  echo "$(((after - before) * 10000 / (4 * hz)))"
}
quiet() { local share; share=$(idle); echo "$((share / 100)).$(printf '%02d' $((share % 100)))% of a core"; [ "$share" -lt 300 ]; }
check "idle with an export" quiet
check "a run of the load generator" "$POLLUX" bench --cores "$CLIENT_CORE" --url "$url" --rw randrw --bs 4096 --qd 8 --time 1 --verify
check "idle after a run" quiet
# One request a second keeps a connection open that says almost nothing. Each must end the node's sleep: a node that slept on
# would answer at its next timer, up to 250 ms later.
slow_host() { "$POLLUX" bench --cores "$CLIENT_CORE" --url "$url" --rw randread --bs 4096 --qd 1 --rate 1 --time 8 --json >"$WORK_DIR/slow.log" 2>&1 & slow=$!; track "$slow"; }
woken() {
  wait "$slow" && python3 -c 'import json, sys
us = json.load(open(sys.argv[1]))["lat_us"]["p50"]
print(f"median {us:.0f} us")
sys.exit(us > 50000)' "$WORK_DIR/slow.log"
}
slow_host
sleep 1
check "idle with a host connected" quiet
check "the slow host was served from sleep" woken
check "the node stops cleanly" node_stop

# The other engine must sleep and wake as well; the node finds its exports in its journal.
printf '[tcp]\nengine = "uring"\n' >"$WORK_DIR/uring.toml"
node_start --config "$WORK_DIR/uring.toml"
check "io_uring net engine: idle with an export" quiet
slow_host
sleep 1
check "io_uring net engine: idle with a host connected" quiet
check "io_uring net engine: the slow host was served from sleep" woken
check "io_uring net engine: the node stops cleanly" node_stop
suite_end
