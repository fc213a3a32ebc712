#!/usr/bin/env bash
# Pollux against SPDK's nvmf_tgt, interleaved on the same two cores: RAM disk on both, target on one core, client on the other, 4 KiB
# random reads and writes; a log-store volume on a RAM disk against the raw RAM disk; and over iSCSI against SPDK's iscsi_tgt and tgt.
# Prints markdown tables of median ratios.
#
#   SPDK_DIR=DIR scripts/compare.sh [spdk] [log] [iscsi] [driver]     DIR: a built SPDK tree (build/bin/nvmf_tgt, iscsi_tgt, spdk_nvme_perf)
#
# `driver` is the device `spdk:` against spdk_nvme_perf, both on SPDK's nvmf_tgt; POLLUX_SPDK names a pollux with the feature spdk.
# PAIRS (5), RUN_SECONDS (3), DEPTHS ("1 32 128"), RW ("randread randwrite"), CLIENTS ("perf-dissqfc perf pollux"), TARGET_CORE,
# CLIENT_CORE; SPDK_PERF names another spdk_nvme_perf (one that has --disable-sq-flow-control, say). The client over iSCSI is libiscsi's
# iscsi-perf, ISCSI_RUNS ("4096:1 4096:32 131072:16", bytes:depth) random reads, peers ISCSI_PEERS ("spdk tgt").
. "$(dirname "$(readlink -f "$0")")/lib.sh"
PAIRS=${PAIRS:-5} RUN_SECONDS=${RUN_SECONDS:-3} DEPTHS=${DEPTHS:-1 32 128} RW=${RW:-randread randwrite}
CLIENTS=${CLIENTS:-perf-dissqfc perf pollux}
PARTS=${*:-spdk log iscsi}
ISCSI_RUNS=${ISCSI_RUNS:-4096:1 4096:32 131072:16} ISCSI_PEERS=${ISCSI_PEERS:-spdk tgt}
[ -x "$POLLUX" ] || die "no $POLLUX: run cargo build --release"
command -v python3 >/dev/null || die "python3 is missing"
[ "$TARGET_CORE" != "$CLIENT_CORE" ] || say "only one core: target and client share it, the ratios say little"
work_dir

NVMF_TGT=${SPDK_DIR:-}/build/bin/nvmf_tgt PERF=${SPDK_PERF:-${SPDK_DIR:-}/build/bin/spdk_nvme_perf}
if [ ! -x "$NVMF_TGT" ] || [ ! -x "$PERF" ]; then
  case " $PARTS " in *" spdk "* | *" driver "*) say "SPDK_DIR names no SPDK build (build/bin/nvmf_tgt): the comparison with SPDK is left out" ;; esac
  PARTS=${PARTS//spdk/} PARTS=${PARTS//driver/}
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
SPDK_PID= SPDK_PORT= ISCSI_SPDK_PID= TGT_PID=
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
only() { # pid: that target runs, the others sleep (most poll, and they share a core)
  local pid
  for pid in $POLLUX_PID $SPDK_PID $ISCSI_SPDK_PID $TGT_PID; do [ "$pid" = "$1" ] && kill -CONT "$pid" || kill -STOP "$pid"; done
}

# --- iSCSI: the same RAM disk on each, one target, LUN 0 (tgt: LUN 1, its LUN 0 is its controller) -------------------------
ISCSI_URLS=()
iscsi_export() { # by the RPC of the target at RPC_SOCKET, ours or SPDK's; the URL is added to ISCSI_URLS
  ISCSI_PORTS=()
  must_rpc bdev_malloc_create '{"name":"Disk","block_size":4096,"num_blocks":131072}' >/dev/null
  iscsi_portals 1 1; iscsi_initiators 1 ANY; iscsi_target perf 1:1 '"disable_chap":true' Disk
  ISCSI_URLS+=("iscsi://127.0.0.1:${ISCSI_PORTS[0]}/$IQN:perf/0")
}
start_iscsi_spdk() {
  local i RPC_SOCKET=$SOCKET_DIR/iscsi.sock
  "$SPDK_DIR/build/bin/iscsi_tgt" -m "$(mask "$TARGET_CORE")" -s 1024 "${huge[@]}" --no-pci -r "$RPC_SOCKET" >"$WORK_DIR/iscsi-spdk.log" 2>&1 </dev/null &
  ISCSI_SPDK_PID=$!; track "$ISCSI_SPDK_PID"
  for ((i = 0; i < 300; i++)); do rpc spdk_get_version >/dev/null 2>&1 && break; kill -0 "$ISCSI_SPDK_PID" 2>/dev/null || break; sleep 0.1; done
  kill -0 "$ISCSI_SPDK_PID" 2>/dev/null || { tail -n 5 "$WORK_DIR/iscsi-spdk.log"; die "SPDK's iscsi_tgt did not start"; }
  iscsi_export
}
start_tgt() { # its store is a file of a memory file system
  local port id=$((1000 + RANDOM % 20000)) i; port=$(free_port)
  TGT_FILE=$(mktemp /dev/shm/pollux-tgt.XXXXXX) && truncate -s 512M "$TGT_FILE" && dd if=/dev/zero of="$TGT_FILE" bs=1M count=512 conv=notrunc status=none
  taskset -c "$TARGET_CORE" tgtd -f -C "$id" --iscsi portal=127.0.0.1:"$port" >"$WORK_DIR/tgt.log" 2>&1 </dev/null &
  TGT_PID=$!; track "$TGT_PID"
  tgt() { tgtadm -C "$id" --lld iscsi "$@"; }
  for ((i = 0; i < 100; i++)); do tgt --op show --mode sys >/dev/null 2>&1 && break; sleep 0.1; done
  tgt --op new --mode target --tid 1 -T "$IQN:tgt" && tgt --op new --mode logicalunit --tid 1 --lun 1 -b "$TGT_FILE" --blocksize 4096 &&
    tgt --op bind --mode target --tid 1 -I ALL || { tail -n 5 "$WORK_DIR/tgt.log"; die "tgt did not start"; }
  rm -f "$TGT_FILE" # it stays while tgt has it open
  ISCSI_URLS+=("iscsi://127.0.0.1:$port/$IQN:tgt/1")
}
iscsi_measure() { # url bytes depth -> IOPS
  taskset -c "$CLIENT_CORE" timeout $((RUN_SECONDS + 15)) iscsi-perf -r -b $(($2 / 4096)) -m "$3" -t "$RUN_SECONDS" "$1" 2>&1 |
    tr '\r' '\n' | tee "$WORK_DIR/client.log" | sed -n 's/.*iops average \([0-9]*\).*/\1/p' | tail -n 1
}
iscsi_part() { # prints one table per peer
  local peer pid url run bytes depth turn pair a b results names=() pids=() urls=()
  RPC_SOCKET=$SOCKET_DIR/rpc.sock iscsi_export
  urls=("${ISCSI_URLS[0]}")
  for peer in $ISCSI_PEERS; do
    case $peer in
      spdk) [ -x "${SPDK_DIR:-}/build/bin/iscsi_tgt" ] || { say "SPDK_DIR names no SPDK build (build/bin/iscsi_tgt): left out"; continue; }
        start_iscsi_spdk; names+=("SPDK iscsi_tgt"); pids+=("$ISCSI_SPDK_PID") ;;
      tgt) command -v tgtd >/dev/null || { say "tgtd is missing (Debian's tgt): left out"; continue; }
        start_tgt; names+=("tgt"); pids+=("$TGT_PID") ;;
      *) die "what is the peer '$peer'? (spdk, tgt)" ;;
    esac
  done
  urls=("${ISCSI_URLS[@]}")
  for ((peer = 0; peer < ${#names[@]}; peer++)); do
    results=$WORK_DIR/iscsi-$peer; : >"$results"
    for ((pair = 0; pair < PAIRS; pair++)); do for run in $ISCSI_RUNS; do
      bytes=${run%:*} depth=${run#*:}
      for turn in $((pair % 2)) $((1 - pair % 2)); do # who goes first changes with every pair
        if [ "$turn" = 0 ]; then pid=$POLLUX_PID url=${urls[0]}; else pid=${pids[peer]} url=${urls[peer + 1]}; fi
        only "$pid"
        figure[turn]=$(iscsi_measure "$url" "$bytes" "$depth")
        [ -n "${figure[turn]}" ] || { tail -n 5 "$WORK_DIR/client.log" >&2; die "no figure from $url"; }
      done
      echo "iscsi-perf read-of-$bytes $depth ${figure[0]} ${figure[1]}" >>"$results"
    done; done
    table Pollux "${names[peer]}" "$results"
    say ""
  done
  for pid in $POLLUX_PID $ISCSI_SPDK_PID $TGT_PID; do kill -CONT "$pid"; done
  for pid in $ISCSI_SPDK_PID $TGT_PID; do end_process "$pid"; done
  ISCSI_SPDK_PID= TGT_PID=
}
measure() { # client port nsid rw depth -> IOPS
  local client=$1 port=$2 nsid=$3 rw=$4 depth=$5 more=()
  case $client in
    pollux)
      "$POLLUX" bench --cores "$CLIENT_CORE" --url "nvme+tcp://127.0.0.1:$port/$NQN?nsid=$nsid" --rw "$rw" --bs 4096 --qd "$depth" \
        --conns 1 --time "$RUN_SECONDS" --json 2>"$WORK_DIR/client.log" |
        python3 -c 'import json,sys; t=sys.stdin.read(); print(json.loads(t[t.index("{"):])["iops"])' ;;
    device)
      "$POLLUX_SPDK" bench --cores "$CLIENT_CORE" --device "spdk:trtype:TCP traddr:127.0.0.1 trsvcid:$port subnqn:$NQN nsid:$nsid" \
        --rw "$rw" --bs 4096 --qd "$depth" --time "$RUN_SECONDS" --json 2>"$WORK_DIR/client.log" |
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
print(f"| client | what | depth | {first}, IOPS | {second}, IOPS | ratio, median of {max(map(len, rows.values()))} pairs | min - max |")
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
    iscsi)
      command -v iscsi-perf >/dev/null || { say "iscsi-perf is missing (Debian's libiscsi-bin): the comparison over iSCSI is left out"; continue; }
      say "Over iSCSI, random reads of a RAM disk by iscsi-perf: target on core $TARGET_CORE, client on core $CLIENT_CORE, $RUN_SECONDS s a run"
      iscsi_part; continue ;;
    driver)
      [ -x "${POLLUX_SPDK:-}" ] || { say "POLLUX_SPDK names no pollux with the feature spdk: the comparison of drivers is left out"; continue; }
      start_spdk; only "$SPDK_PID"; clients=driver
      say "The device spdk: against spdk_nvme_perf on SPDK nvmf_tgt: target on core $TARGET_CORE, client on core $CLIENT_CORE, $RUN_SECONDS s a run" ;;
    *) die "what is '$part'? (spdk, log, iscsi, driver)" ;;
  esac
  runs=0 total=$(($(wc -w <<<"$clients") * $(wc -w <<<"$RW") * $(wc -w <<<"$DEPTHS") * PAIRS * 2))
  for ((pair = 0; pair < PAIRS; pair++)); do
    for client in $clients; do for rw in $RW; do for depth in $DEPTHS; do
      for turn in $((pair % 2)) $((1 - pair % 2)); do # who goes first changes with every pair
        [ -t 2 ] && printf '\r%s: run %s of %s ' "$part" $((++runs)) "$total" >&2
        if [ "$part" = log ]; then figure[turn]=$(measured "$client" "$POLLUX_PORT" $((2 - turn)) "$rw" "$depth") || exit 1
        elif [ "$part" = driver ]; then
          program=device; [ "$turn" = 0 ] || program=perf
          figure[turn]=$(measured $program "$SPDK_PORT" 1 "$rw" "$depth") || exit 1
        elif [ "$turn" = 0 ]; then only "$POLLUX_PID"; figure[0]=$(measured "$client" "$POLLUX_PORT" 1 "$rw" "$depth") || exit 1
        else only "$SPDK_PID"; figure[1]=$(measured "$client" "$SPDK_PORT" 1 "$rw" "$depth") || exit 1; fi
      done
      echo "$client $rw $depth ${figure[0]} ${figure[1]}" >>"$results"
    done; done; done
  done
  [ -t 2 ] && printf '\r%40s\r' '' >&2
  if [ "$part" = spdk ] || [ "$part" = driver ]; then
    if [ "$part" = spdk ]; then table Pollux SPDK "$results"; else table "the device spdk" spdk_nvme_perf "$results"; fi
    kill -CONT "$SPDK_PID" "$POLLUX_PID"; end_process "$SPDK_PID"; SPDK_PID=
  else table "log store" "raw RAM disk" "$results"; fi
  say ""
done
