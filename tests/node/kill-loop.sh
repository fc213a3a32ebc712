#!/usr/bin/env bash
# kill -9 under verifying load, KILL_LOOPS times in a row (default 5), on a store in a file: after each the node comes back with its
# configuration, and every write that was acknowledged before is there, whole. The bench keeps what it wrote in its own log.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
work_dir
loops=${KILL_LOOPS:-5}
preallocate "$WORK_DIR/disk" 1024
node_start
store_volume "$WORK_DIR/disk" 4096 store volume 384
export_bdevs any store/volume
url="nvme+tcp://127.0.0.1:$NODE_PORT/$NQN"
load() { # seconds: JSON of one verifying run to $WORK_DIR/bench.json; errors of the connection are expected, wrong data is not
  "$POLLUX" bench --cores "$CLIENT_CORE" --url "$url" --rw randrw --rwmix 30 --bs 4096 --qd 16 --conns 2 --time "$1" \
    --verify --verify-log "$WORK_DIR/verify.log" --json >"$WORK_DIR/bench.json" 2>"$WORK_DIR/bench.err"
}
field() { python3 - "$WORK_DIR/bench.json" "$1" <<'PY'
import json, sys
text = open(sys.argv[1]).read()
print(json.loads(text[text.index("{"):])[sys.argv[2]])
PY
}
verified() { # a run on a node that nobody kills: no error of any kind
  load "$1" || { tail -n 5 "$WORK_DIR/bench.err"; return 1; }
  [ "$(field verify_errors)" = 0 ] && [ "$(field errors)" = 0 ] || { cat "$WORK_DIR/bench.json" "$WORK_DIR/bench.err"; return 1; }
}
check "first verified run" verified 2
for ((n = 1; n <= loops; n++)); do
  load 30 & bench=$!; track "$bench"
  sleep "$((RANDOM % 2 + 1)).$((RANDOM % 10))"
  node_kill
  for ((i = 0; i < 150; i++)); do kill -0 "$bench" 2>/dev/null || break; sleep 0.1; done
  end_process "$bench"
  [ -s "$WORK_DIR/bench.json" ] && errors=$(field verify_errors) || errors=0
  [ "$errors" = 0 ] && pass "kill $n: nothing wrong was read before it" || fail "kill $n: $errors wrong reads before it: $(tail -n 3 "$WORK_DIR/bench.err")"
  start=$(date +%s%N); node_start; ms=$((($(date +%s%N) - start) / 1000000))
  check "kill $n: configuration is back ($ms ms)" grep -q "$NQN" <(rpc nvmf_get_subsystems)
  check "kill $n: every acknowledged write is there" verified 2
done
node_kill
check "fsck finds the store sound after the last kill" "$POLLUX" fsck "$WORK_DIR/disk"
suite_end
