#!/usr/bin/env bash
# A node from a configuration file alone: what it declares is made once, is there after kill -9 and with a new state directory, and a
# store that cannot be read is not written over although the file says `format = true`.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
work_dir
preallocate "$WORK_DIR/disk" 128
NODE_PORT=$(free_port) || die "no free port"
cat >"$WORK_DIR/node.toml" <<TOML
[[bdevs]]
name = "disk0"
type = "uring"
filename = "$WORK_DIR/disk"
block_size = 4096
[[bdevs]]
name = "ram0"
type = "malloc"
size = "64MiB"
[[stores]]
name = "lvs"
bdev = "disk0"
format = true
[[volumes]]
store = "lvs"
name = "vol"
size = "64MiB"
[[subsystems]]
nqn = "$NQN"
allow_any_host = true
namespaces = [{ bdev = "lvs/vol" }, { bdev = "ram0", visible_to = ["nqn.2026-01.io.pollux:seer"] }]
listeners = ["127.0.0.1:$NODE_PORT"]
TOML
start() { node_start --config "$WORK_DIR/node.toml"; }
load() { # nsid flags...
  "$POLLUX" bench --cores "$CLIENT_CORE" --url "nvme+tcp://127.0.0.1:$NODE_PORT/$NQN?nsid=$1" --rw randrw --bs 4096 --qd 8 --time 1 --verify "${@:2}"; }
kept() { load 1 --verify-log "$WORK_DIR/verify.log"; }
fails() { ! "$@"; }
start
check "a verified run on the declared volume" kept
check "the hidden namespace is seen by its host" load 2 --hostnqn nqn.2026-01.io.pollux:seer
check "and by no other" fails load 2
node_kill; start
check "after kill -9: every acknowledged write is there" kept
check "nothing was made twice" test "$(rpc bdev_get_bdevs | grep -c '"product_name"')" = 3
node_kill; rm -r "$WORK_DIR/state"; start
check "with a new state directory: every acknowledged write is there" kept
check "the node stops cleanly" node_stop
# All four copies of the superblock (blocks 0, 8, 16 and 24) are damaged, as by a disk that lost its first blocks.
dd if="$WORK_DIR/disk" of="$WORK_DIR/head" bs=128k count=1 status=none
for block in 0 8 16 24; do printf damaged | dd of="$WORK_DIR/disk" bs=1 seek=$((block * 4096 + 100)) conv=notrunc status=none; done
rm -r "$WORK_DIR/state"; dd if="$WORK_DIR/disk" of="$WORK_DIR/damaged" bs=128k count=1 status=none
start
check "a damaged store is a problem that is told" grep -q "damaged" "$WORK_DIR/node.log"
check "and there is no volume" fails rpc bdev_get_bdevs '{"name":"lvs/vol"}'
node_kill
check "it was not written over" cmp -n 131072 "$WORK_DIR/disk" "$WORK_DIR/damaged"
dd if="$WORK_DIR/head" of="$WORK_DIR/disk" bs=128k count=1 conv=notrunc status=none
rm -r "$WORK_DIR/state"; start
check "mended: every acknowledged write is there" kept
check "the node stops cleanly again" node_stop
suite_end
