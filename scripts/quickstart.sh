#!/usr/bin/env bash
# From a fresh clone to figures on the screen: installs what is missing, builds, starts a node on a file, makes a volume on a
# crash-safe log store, exports it over NVMe/TCP, drives it with the built-in load generator, and stops what it started.
# Non-interactive. Root is needed only where something has to be installed. RUN_SECONDS (5) is the length of each run.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$ROOT/scripts/lib-install.sh"
RUN_SECONDS=${RUN_SECONDS:-5}
step() { say ""; say "== $*"; }

step "1. What is needed: a C linker and a Rust toolchain"
install_toolchain || die "$REASON"
say "cargo: $(cargo --version), linker: $(cc --version | head -n 1)"

step "2. Build (release)"
( cd "$ROOT" && CARGO_TARGET_DIR=$TARGET_DIR cargo build --release ) || die "the build failed"

step "3. Start a node on core $TARGET_CORE, empty, set up by RPC"
work_dir
size_mib=1024
free_mib=$(df -Pm "$WORK_DIR" | awk 'NR == 2 {print $4}')
[ "$free_mib" -gt $((size_mib + 512)) ] || die "only $free_mib MiB are free under $TARGET_DIR; this run wants $size_mib MiB there"
preallocate "$WORK_DIR/disk" $size_mib
say "pollux serve --cores $TARGET_CORE --rpc-socket $RPC_SOCKET --state-dir $WORK_DIR/state"
node_start

step "4. A log store on a file, a volume in it, exported over NVMe/TCP"
store_volume "$WORK_DIR/disk" 4096 store volume 512
export_bdevs any store/volume
say "bdev_uring_create, bdev_lvol_create_lvstore, bdev_lvol_create, nvmf_create_transport, nvmf_create_subsystem,"
say "nvmf_subsystem_add_ns, nvmf_subsystem_add_listener: volume store/volume is at 127.0.0.1:$NODE_PORT as $NQN"

url="nvme+tcp://127.0.0.1:$NODE_PORT/$NQN"
run() { # title flags...: one run of the load generator, shown as it is
  step "$1"; shift
  say "pollux bench --cores $CLIENT_CORE --url $url $*"
  "$POLLUX" bench --cores "$CLIENT_CORE" --url "$url" "$@" || { tail -n 5 "$WORK_DIR/node.log"; die "the run failed"; }
}
run "5. Durable random writes, verified" --rw randwrite --bs 4096 --qd 32 --time "$RUN_SECONDS" --verify
run "6. Random reads" --rw randread --bs 4096 --qd 32 --time "$RUN_SECONDS"

step "7. How a Linux host would connect (as root, while a node runs; this one stops now)"
say "modprobe nvme-tcp; nvme connect -t tcp -a 127.0.0.1 -s $NODE_PORT -n $NQN"

step "8. Stop"
node_stop || die "the node did not stop cleanly"
say "the node has stopped; its files are removed"
