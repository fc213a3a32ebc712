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
# A rate of one request every second keeps a connection open that says almost nothing.
"$POLLUX" bench --cores "$CLIENT_CORE" --url "$url" --rw randread --bs 4096 --qd 1 --rate 1 --time 8 >"$WORK_DIR/slow.log" 2>&1 & slow=$!; track "$slow"
sleep 1
check "idle with a host connected" quiet
check "the slow host was served" wait "$slow"
check "the node stops cleanly" node_stop
suite_end
