#!/usr/bin/env bash
# Programs of an SPDK build that SPDK_DIR names, as hosts: identify and discovery, load with and without digests, its NVMe fuzzer.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
BIN=${SPDK_DIR:-}/build/bin
[ -x "$BIN/spdk_nvme_perf" ] && [ -x "$BIN/spdk_nvme_identify" ] || { skip "SPDK's tools: SPDK_DIR names no SPDK build"; exit 0; }
work_dir
huge=()
free_huge=$(awk '/^HugePages_Free/{print $2}' /proc/meminfo)
grep -q hugetlbfs /proc/mounts && [ "${free_huge:-0}" -ge 256 ] || huge=(--no-huge)
MASK=$(printf '0x%x' $((1 << CLIENT_CORE)))
preallocate "$WORK_DIR/disk" 512
node_start
must_rpc bdev_malloc_create '{"name":"M0","block_size":512,"num_blocks":131072}' >/dev/null
store_volume "$WORK_DIR/disk" 4096 store volume 256
export_bdevs any M0 store/volume
where() { echo "trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:$NODE_PORT subnqn:$1"; }
says() { local out; out=$(timeout 60 "${@:2}" 2>&1); local status=$?; grep -qE -- "$1" <<<"$out" && [ $status -eq 0 ] || { echo "status $status: $out"; return 1; }; }
check "discovery lists the subsystem" says "$NQN" "$BIN/spdk_nvme_identify" -r "$(where nqn.2014-08.org.nvmexpress.discovery)"
check "identify" says 'Namespace ID:2' "$BIN/spdk_nvme_identify" -r "$(where $NQN)"
for nsid in 1 2; do for more in "" "-H" "-I" "-H -I"; do for rw in randrw rw; do for size in 512 4096 8192 131072; do
  [ "$nsid" = 2 ] && [ "$size" = 512 ] && continue
  # shellcheck disable=SC2086
  check "spdk_nvme_perf $rw $size on namespace $nsid $more" says '^Total' "$BIN/spdk_nvme_perf" -c "$MASK" -s 256 "${huge[@]}" \
    -q 64 -o "$size" -w "$rw" -M 50 -t 1 $more -r "$(where $NQN) ns:$nsid"
done; done; done; done
FUZZ=$SPDK_DIR/test/app/fuzz/nvme_fuzz/nvme_fuzz
if [ -x "$FUZZ" ]; then
  fuzz() { # nqn seed flags...: it says how many commands it sent; without that it did not fuzz
    timeout 120 "$FUZZ" -m "$MASK" -s 256 "${huge[@]}" -t 15 -U -N -S "$2" "${@:3}" -F "$(where "$1")" -r "$SOCKET_DIR/fuzz.sock" >"$WORK_DIR/fuzz.log" 2>&1
    tail -n 8 "$WORK_DIR/fuzz.log"
    kill -0 "$NODE_PID" && grep -qE 'Total commands completed: [1-9]' "$WORK_DIR/fuzz.log"
  }
  check "nvme_fuzz with I/O commands leaves the node alive" fuzz $NQN 1
  # With two namespaces the program runs out of requests for the admin queue that they share, and waits for one it never sent.
  ONE=$NQN-one
  must_rpc nvmf_create_subsystem "{\"nqn\":\"$ONE\",\"allow_any_host\":true}" >/dev/null
  must_rpc nvmf_subsystem_add_ns "{\"nqn\":\"$ONE\",\"namespace\":{\"bdev_name\":\"store/volume\"}}" >/dev/null
  must_rpc nvmf_subsystem_add_listener "{\"nqn\":\"$ONE\",\"listen_address\":{\"trtype\":\"TCP\",\"traddr\":\"127.0.0.1\",\"trsvcid\":\"$NODE_PORT\"}}" >/dev/null
  check "nvme_fuzz with admin commands leaves the node alive" fuzz $ONE 2 -a
else skip "nvme_fuzz is not built in SPDK_DIR"; fi
check "the node still serves" says 'IOPS' "$POLLUX" bench --cores "$CLIENT_CORE" --url "nvme+tcp://127.0.0.1:$NODE_PORT/$NQN" --rw randrw --bs 4096 --qd 8 --time 1 --verify
check "the node stops cleanly" node_stop
suite_end
