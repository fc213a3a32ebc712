#!/usr/bin/env bash
# Pollux against SPDK's nvmf_tgt, interleaved on the same two cores: RAM disk on both, target on one core, client on the other, 4 KiB
# random reads and writes; and a log-store volume on a RAM disk against the raw RAM disk. Prints markdown tables of median ratios.
#
#   SPDK_DIR=DIR scripts/compare.sh [spdk] [log]     DIR: a built SPDK tree (build/bin/nvmf_tgt, build/bin/spdk_nvme_perf)
#
# PAIRS (5), RUN_SECONDS (3), DEPTHS ("1 32 128"), RW ("randread randwrite"), CLIENTS ("perf-dissqfc perf pollux"), TARGET_CORE,
# CLIENT_CORE; SPDK_PERF names another spdk_nvme_perf (one that has --disable-sq-flow-control, say).
. "$(dirname "$(readlink -f "$0")")/lib.sh"
PAIRS=${PAIRS:-5} RUN_SECONDS=${RUN_SECONDS:-3} DEPTHS=${DEPTHS:-1 32 128} RW=${RW:-randread randwrite}
CLIENTS=${CLIENTS:-perf-dissqfc perf pollux}
PARTS=${*:-spdk log}
[ -x "$POLLUX" ] || die "no $POLLUX: run cargo build --release"
command -v python3 >/dev/null || die "python3 is missing"
[ "$TARGET_CORE" != "$CLIENT_CORE" ] || say "only one core: target and client share it, the ratios say little"
work_dir

NVMF_TGT=${SPDK_DIR:-}/build/bin/nvmf_tgt PERF=${SPDK_PERF:-${SPDK_DIR:-}/build/bin/spdk_nvme_perf}
if [ ! -x "$NVMF_TGT" ] || [ ! -x "$PERF" ]; then
  case " $PARTS " in *" spdk "*) say "SPDK_DIR names no SPDK build (build/bin/nvmf_tgt): the comparison with SPDK is left out" ;; esac
  PARTS=${PARTS//spdk/}
elif ! grep -aq disable-sq-flow-control "$PERF" && [[ $CLIENTS == *perf-dissqfc* ]]; then
  say "$PERF knows no --disable-sq-flow-control: left out (SPDK_PERF can name a newer one)"
  CLIENTS=${CLIENTS//perf-dissqfc/}
fi
huge=() # SPDK wants hugepages: 1 GiB for both of its programs; without them it runs, with slower memory
free_huge=$(awk '/^HugePages_Free/{print $2}' /proc/meminfo)
grep -q hugetlbfs /proc/mounts && [ "${free_huge:-0}" -ge 640 ] || { huge=(--no-huge); case " $PARTS " in *" spdk "*)
  say "fewer than 640 free hugepages of 2 MiB or no hugetlbfs mount: SPDK runs with --no-huge" ;; esac; }
mask() { printf '0x%x' $((1 << $1)); }

node_start
POLLUX_PID=$NODE_PID
must_rpc bdev_malloc_create '{"name":"Raw","block_size":4096,"num_blocks":131072}' >/dev/null
export_bdevs any Raw
POLLUX_PORT=$NODE_PORT
SPDK_PID= SPDK_PORT=
start_spdk() {
  local i listen
  "$NVMF_TGT" -m "$(mask "$TARGET_CORE")" -s 768 "${huge[@]}" --no-pci -r "$SOCKET_DIR/spdk.sock" >"$WORK_DIR/spdk.log" 2>&1 </dev/null &
  SPDK_PID=$!; track "$SPDK_PID"; SPDK_PORT=$(free_port)
  local RPC_SOCKET=$SOCKET_DIR/spdk.sock
  for ((i = 0; i < 200; i++)); do rpc spdk_get_version >/dev/null 2>&1 && break; kill -0 "$SPDK_PID" 2>/dev/null || break; sleep 0.1; done
  kill -0 "$SPDK_PID" 2>/dev/null || { tail -n 5 "$WORK_DIR/spdk.log"; die "nvmf_tgt did not start"; }
  must_rpc bdev_malloc_create '{"name":"Raw","block_size":4096,"num_blocks":131072}' >/dev/null
  must_rpc nvmf_create_transport '{"trtype":"TCP"}' >/dev/null
  must_rpc nvmf_create_subsystem "{\"nqn\":\"$NQN\",\"allow_any_host\":true,\"serial_number\":\"SPDK1\"}" >/dev/null
  must_rpc nvmf_subsystem_add_ns "{\"nqn\":\"$NQN\",\"namespace\":{\"bdev_name\":\"Raw\"}}" >/dev/null
  listen="{\"trtype\":\"TCP\",\"adrfam\":\"IPv4\",\"traddr\":\"127.0.0.1\",\"trsvcid\":\"$SPDK_PORT\"}"
  must_rpc nvmf_subsystem_add_listener "{\"nqn\":\"$NQN\",\"listen_address\":$listen}" >/dev/null
}
only() { # pid: that target runs, the other sleeps (both poll, and they share a core)
  local pid
  for pid in $POLLUX_PID $SPDK_PID; do [ "$pid" = "$1" ] && kill -CONT "$pid" || kill -STOP "$pid"; done
}
measure() { # client port nsid rw depth -> IOPS
  local client=$1 port=$2 nsid=$3 rw=$4 depth=$5 more=()
  case $client in
    pollux)
      "$POLLUX" bench --cores "$CLIENT_CORE" --url "nvme+tcp://127.0.0.1:$port/$NQN?nsid=$nsid" --rw "$rw" --bs 4096 --qd "$depth" \
        --conns 1 --time "$RUN_SECONDS" --json 2>"$WORK_DIR/client.log" |
        python3 -c 'import json,sys; t=sys.stdin.read(); print(json.loads(t[t.index("{"):])["iops"])' ;;
    perf*)
      [ "$client" = perf-dissqfc ] && more=(--disable-sq-flow-control)
      "$PERF" -c "$(mask "$CLIENT_CORE")" -s 512 "${huge[@]}" -q "$depth" -o 4096 -w "$rw" -t "$RUN_SECONDS" "${more[@]}" \
        -r "trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:$port subnqn:$NQN ns:$nsid" 2>"$WORK_DIR/client.log" | awk '/^Total/{print $3}' ;;
  esac
}
measured() { local iops; iops=$(measure "$@"); [ -n "$iops" ] || { tail -n 5 "$WORK_DIR/client.log" >&2; die "no figure from: $*"; }; echo "$iops"; }
table() { # first-name second-name < "client rw depth first second" lines
  python3 - "$1" "$2" "$3" <<'PY'
import statistics, sys
first, second, path = sys.argv[1:]
rows = {}
for line in open(path):
    client, rw, depth, a, b = line.split()
    rows.setdefault((client, rw, int(depth)), []).append((float(a), float(b)))
print(f"| client | 4 KiB | depth | {first}, IOPS | {second}, IOPS | ratio, median of {max(map(len, rows.values()))} pairs | min - max |")
print("|---|---|---|---|---|---|---|")
for (client, rw, depth), pairs in rows.items():
    ratios = [a / b for a, b in pairs]
    medians = [statistics.median(column) for column in zip(*pairs)]
    print(f"| {client} | {rw} | {depth} | {medians[0]:,.0f} | {medians[1]:,.0f} | {statistics.median(ratios):.2f} | {min(ratios):.2f} - {max(ratios):.2f} |")
PY
}

for part in $PARTS; do
  results=$WORK_DIR/$part; : >"$results"
  case $part in
    spdk)
      start_spdk; clients=$CLIENTS
      say "Pollux against SPDK nvmf_tgt: $("$NVMF_TGT" --version 2>&1 | head -n 1); target on core $TARGET_CORE, client on core $CLIENT_CORE, $RUN_SECONDS s a run" ;;
    log)
      clients=${LOG_CLIENTS:-pollux}
      say "A log-store volume on a RAM disk against the raw RAM disk: target on core $TARGET_CORE, client on core $CLIENT_CORE, $RUN_SECONDS s a run"
      must_rpc bdev_malloc_create '{"name":"Base","block_size":4096,"num_blocks":393216}' >/dev/null
      must_rpc bdev_lvol_create_lvstore '{"bdev_name":"Base","lvs_name":"store"}' >/dev/null
      must_rpc bdev_lvol_create '{"lvs_name":"store","lvol_name":"volume","size_in_mib":512,"thin_provision":true}' >/dev/null
      must_rpc nvmf_subsystem_add_ns "{\"nqn\":\"$NQN\",\"namespace\":{\"nsid\":2,\"bdev_name\":\"store/volume\"}}" >/dev/null
      # every block is written once: a block that never was would be answered without a look at the device
      "$POLLUX" bench --cores "$CLIENT_CORE" --url "nvme+tcp://127.0.0.1:$POLLUX_PORT/$NQN?nsid=2" --rw write --bs 131072 --qd 8 --count 4096 \
        >"$WORK_DIR/client.log" 2>&1 || { tail -n 5 "$WORK_DIR/client.log"; die "the volume could not be filled"; } ;;
    *) die "what is '$part'? (spdk, log)" ;;
  esac
  runs=0 total=$(($(wc -w <<<"$clients") * $(wc -w <<<"$RW") * $(wc -w <<<"$DEPTHS") * PAIRS * 2))
  for ((pair = 0; pair < PAIRS; pair++)); do
    for client in $clients; do for rw in $RW; do for depth in $DEPTHS; do
      for turn in $((pair % 2)) $((1 - pair % 2)); do # who goes first changes with every pair
        [ -t 2 ] && printf '\r%s: run %s of %s ' "$part" $((++runs)) "$total" >&2
        if [ "$part" = log ]; then figure[turn]=$(measured "$client" "$POLLUX_PORT" $((2 - turn)) "$rw" "$depth") || exit 1
        elif [ "$turn" = 0 ]; then only "$POLLUX_PID"; figure[0]=$(measured "$client" "$POLLUX_PORT" 1 "$rw" "$depth") || exit 1
        else only "$SPDK_PID"; figure[1]=$(measured "$client" "$SPDK_PORT" 1 "$rw" "$depth") || exit 1; fi
      done
      echo "$client $rw $depth ${figure[0]} ${figure[1]}" >>"$results"
    done; done; done
  done
  [ -t 2 ] && printf '\r%40s\r' '' >&2
  if [ "$part" = spdk ]; then
    table Pollux SPDK "$results"
    kill -CONT "$SPDK_PID" "$POLLUX_PID"; end_process "$SPDK_PID"; SPDK_PID=
  else table "log store" "raw RAM disk" "$results"; fi
  say ""
done
