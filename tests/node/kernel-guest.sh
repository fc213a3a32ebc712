#!/usr/bin/env bash
# The Linux kernel's own nvme-tcp initiator, in a QEMU guest, uses two volumes of log stores (4096- and 512-byte blocks) as a host
# would: discovery, a file system, data, discard, disconnect and reconnect, digests, and the node killed and restarted under it.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
. "$ROOT/scripts/lib-guest.sh"
if ! reason=$(guest_prepare); then skip "kernel initiator in a guest: $reason"; exit 0; fi
work_dir
HOST_NQN=nqn.2014-08.org.nvmexpress:uuid:5a0a2e3c-1b2d-4c3e-8f4a-000000000001

preallocate "$WORK_DIR/disk1" 512; preallocate "$WORK_DIR/disk2" 512
node_start
store_volume "$WORK_DIR/disk1" 4096 store1 volume 320
store_volume "$WORK_DIR/disk2" 512 store2 volume 320
export_bdevs "$HOST_NQN" store1/volume store2/volume

# The guest says "ROUND n" after each round of writing; the node is killed after the first and the third, under the guest's writes.
guest_says() {
  case $1 in
    *"PASS "* | *"FAIL "* | *"SKIP "*) grep -oE '(PASS|FAIL|SKIP) .*' <<<"$1" ;;
    *"ROUND 1" | *"ROUND 3") node_kill; node_start ;;
  esac
}
console=$WORK_DIR/console
guest_start "$ROOT/tests/node/kernel-guest.guest" "$console" "${GUEST_SECONDS:-300}" PORT="$NODE_PORT" NQN="$NQN" HOSTNQN="$HOST_NQN" RESTART=1
guest_lines "$console" guest_says
FAILED=$(grep -c 'FAIL ' "$console")
grep -q GUEST-DONE "$console" && pass "the guest came to its end" ||
  { fail "the guest did not come to its end; its last words:"; tail -n 15 "$console" | tr -d '\r'; tail -n 5 "$WORK_DIR/node.log"; }
check "the node stops cleanly" node_stop
suite_end
