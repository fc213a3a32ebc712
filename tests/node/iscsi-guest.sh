#!/usr/bin/env bash
# Linux's own iSCSI initiator (open-iscsi, iscsi_tcp), in a QEMU guest, uses volumes of log stores (4096- and 512-byte blocks) as a host
# would: discovery, CHAP and mutual CHAP, file systems with checked data, digests, growing, discard, two paths, and the node killed and
# restarted under it.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
. "$ROOT/scripts/lib-install.sh"
. "$ROOT/scripts/lib-guest.sh"
need_commands qemu-system-x86_64=qemu-system-x86 cpio=cpio modinfo=kmod mke2fs=e2fsprogs python3=python3 iscsid=open-iscsi dmsetup=dmsetup || { skip "open-iscsi in a guest: $REASON"; exit 0; }
if ! reason=$(guest_prepare); then skip "open-iscsi in a guest: $reason"; exit 0; fi
work_dir
USER=someone SECRET=twelve-or-more-1 TARGET_USER=node TARGET_SECRET=twelve-or-more-2

preallocate "$WORK_DIR/disk1" 768; preallocate "$WORK_DIR/disk2" 512
node_start
store_volume "$WORK_DIR/disk1" 4096 store1 volume 256
store_volume "$WORK_DIR/disk2" 512 store2 volume 256
must_rpc bdev_lvol_create '{"lvs_name":"store1","lvol_name":"spare","size_in_mib":64,"thin_provision":true}' >/dev/null
must_rpc bdev_lvol_create '{"lvs_name":"store1","lvol_name":"locked","size_in_mib":16,"thin_provision":true}' >/dev/null
iscsi_portals 1 2
iscsi_initiators 1 iqn.2026-01.io.pollux.host:guest
must_rpc iscsi_create_auth_group "{\"tag\":1,\"secrets\":[{\"user\":\"$USER\",\"secret\":\"$SECRET\",\"muser\":\"$TARGET_USER\",\"msecret\":\"$TARGET_SECRET\"}]}" >/dev/null
iscsi_target disks 1:1 '"disable_chap":true' store1/volume store2/volume store1/spare
iscsi_target locked 1:1 '"require_chap":true,"chap_group":1' store1/locked

# The guest says "ROUND n" after each round of writing; the node is killed after the first and the third, under the guest's writes.
guest_says() {
  case $1 in
    *"PASS "* | *"FAIL "* | *"SKIP "*) grep -oE '(PASS|FAIL|SKIP) .*' <<<"$1" ;;
    *MUTUAL) rpc iscsi_target_node_set_auth "{\"name\":\"$IQN:locked\",\"require_chap\":true,\"mutual_chap\":true,\"chap_group\":1}" >/dev/null ;;
    *RESIZE) rpc bdev_lvol_resize '{"name":"store1/volume","size_in_mib":384}' >/dev/null ;;
    *"ROUND 1" | *"ROUND 3") node_kill; node_start ;;
  esac
}
console=$WORK_DIR/console
GUEST_MODULES="iscsi_tcp sd_mod ext4 crc32c_generic dm_multipath dm_round_robin" GUEST_PROGRAMS="mke2fs e2fsck resize2fs iscsid iscsiadm dmsetup"
guest_start "$ROOT/tests/node/iscsi-guest.guest" "$console" "${GUEST_SECONDS:-480}" PORT1="${ISCSI_PORTS[0]}" PORT2="${ISCSI_PORTS[1]}" \
  DISKS="$IQN:disks" LOCKED="$IQN:locked" USER=$USER SECRET=$SECRET TARGET_USER=$TARGET_USER TARGET_SECRET=$TARGET_SECRET
guest_lines "$console" guest_says
FAILED=$(grep -c 'FAIL ' "$console")
grep -q GUEST-DONE "$console" && pass "the guest came to its end" ||
  { fail "the guest did not come to its end; its last words:"; tail -n 25 "$console" | tr -d '\r'; tail -n 5 "$WORK_DIR/node.log"; }
check "the node stops cleanly" node_stop
suite_end
