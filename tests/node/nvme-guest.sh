#!/usr/bin/env bash
# Pollux drives emulated NVMe controllers over VFIO in a QEMU guest with an IOMMU: binding and giving back, 4096- and 512-byte
# namespaces, an injected media error, the controller's own counters; then a node with a log store on one of them, loaded from this
# machine over NVMe/TCP, killed with SIGKILL, and the whole guest ended as by a power cut and started again on the same image.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
. "$ROOT/scripts/lib-guest.sh"
if ! reason=$(guest_prepare); then skip "userspace NVMe in a guest: $reason"; exit 0; fi
command -v nvme >/dev/null || { skip "userspace NVMe in a guest: nvme-cli is missing"; exit 0; }
work_dir
NODE_PORT=$(free_port) || die "no free port"
mkdir "$WORK_DIR/bin"; cp "$POLLUX" "$WORK_DIR/bin/pollux"; PATH=$WORK_DIR/bin:$PATH
for disk in large small log node bad; do truncate -s 64M "$WORK_DIR/$disk.img"; done
truncate -s 256M "$WORK_DIR/log.img"; truncate -s 512M "$WORK_DIR/node.img"; truncate -s 16M "$WORK_DIR/bad.img"
# One byte of the third disk can not be read: the sector at 4 MiB.
BAD_SECTOR=8192
drive() { echo "file=$WORK_DIR/$1.img,if=none,id=$1,format=raw"; }
MACHINE=(-pidfile "$WORK_DIR/qemu.pid"
  -drive "$(drive large)" -drive "$(drive small)" -drive "$(drive log)" -drive "$(drive node)"
  -drive "if=none,id=bad,format=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=$WORK_DIR/bad.img,file.inject-error.0.event=read_aio,file.inject-error.0.errno=5,file.inject-error.0.sector=$BAD_SECTOR,file.inject-error.0.iotype=read"
  -device nvme,id=nvme-main,serial=main,addr=0x10
  -device nvme-ns,drive=large,bus=nvme-main,nsid=1,logical_block_size=4096,physical_block_size=4096
  -device nvme-ns,drive=small,bus=nvme-main,nsid=2,logical_block_size=512,physical_block_size=512
  -device nvme,drive=log,serial=log,addr=0x11,logical_block_size=4096,physical_block_size=4096
  -device nvme,drive=node,serial=node,addr=0x12
  -device nvme,drive=bad,serial=bad,addr=0x13)
KARGS="quiet intel_iommu=on"
GUEST_MODULES="nvme vfio_pci vfio_iommu_type1 ext4 crc32c_generic" GUEST_PROGRAMS="pollux nvme mke2fs"
GUEST_FORWARD=",hostfwd=tcp:127.0.0.1:$NODE_PORT-10.0.2.15:4420"
GUEST_INPUT=$WORK_DIR/input; mkfifo "$GUEST_INPUT"; exec {INPUT}<>"$GUEST_INPUT"
tell() { echo "$1" >&"$INPUT"; }

load() { # seconds: a verifying run on the guest's node from here; what it knows of acknowledged writes stays in verify.log, here
  "$POLLUX" bench --cores "$CLIENT_CORE" --url "nvme+tcp://127.0.0.1:$NODE_PORT/$NQN" --rw randrw --rwmix 30 --bs 4096 --qd 8 --conns 2 \
    --time "$1" --timeout 10s --verify --verify-log "$WORK_DIR/verify.log" --json >"$WORK_DIR/bench.json" 2>"$WORK_DIR/bench.err"
}
field() { python3 - "$WORK_DIR/bench.json" "$1" <<'PY'
import json, sys
text = open(sys.argv[1]).read()
print(json.loads(text[text.index("{"):])[sys.argv[2]])
PY
}
verified() { # nobody ends the node: no error of any kind
  load "$1" || { tail -n 5 "$WORK_DIR/bench.err"; return 1; }
  [ "$(field verify_errors)" = 0 ] && [ "$(field errors)" = 0 ] || { cat "$WORK_DIR/bench.json" "$WORK_DIR/bench.err"; return 1; }
}
LOAD=
start_load() { load 60 & LOAD=$!; track "$LOAD"; }
end_load() { # what: the run sees its target go; wrong data before that is a failure
  local i errors=
  for ((i = 0; i < 200; i++)); do kill -0 "$LOAD" 2>/dev/null || break; sleep 0.1; done
  end_process "$LOAD"
  [ -s "$WORK_DIR/bench.json" ] && errors=$(field verify_errors)
  [ "${errors:-0}" = 0 ] && pass "$1: nothing wrong was read before it" || fail "$1: $errors wrong reads before it: $(tail -n 3 "$WORK_DIR/bench.err")"
}
power_cut() { # the QEMU that this suite started, at once and without a word to the guest
  kill -KILL "$(cat "$WORK_DIR/qemu.pid")" 2>/dev/null
}
guest_says() {
  case $1 in
    *"PASS "* | *"FAIL "* | *"SKIP "*) grep -oE '(PASS|FAIL|SKIP) .*' <<<"$1" ;;
    *"NODE-UP first"*) check "first verified run on the node in the guest" verified 3; start_load; sleep 3; tell kill ;;
    *"NODE-UP killed"*) end_load "kill -9 of the node"; check "kill -9 of the node: every acknowledged write is there" verified 3
      start_load; sleep 4; power_cut ;;
    *"NODE-UP cut"*) check "power cut: every acknowledged write is there" verified 3; tell stop ;;
  esac
}
boot() { # mode seconds arguments of QEMU...: runs the guest to its end; its console goes to console.MODE
  local mode=$1 seconds=$2 console=$WORK_DIR/console.$1; shift 2
  GUEST_QEMU=("$@" "${MACHINE[@]}")
  guest_start "$ROOT/tests/node/nvme-guest.guest" "$console" "$seconds" MODE="$mode" NQN="$NQN" BAD_SECTOR="$BAD_SECTOR"
  guest_lines "$console" guest_says
}
come_to_end() { # mode
  grep -q GUEST-DONE "$WORK_DIR/console.$1" && pass "the guest came to its end" ||
    { fail "the guest did not come to its end; its last words:"; tail -n 15 "$WORK_DIR/console.$1" | tr -d '\r'; }
}
# Once with an IOMMU that leaves interrupts alone, once with one that remaps them: VFIO has to be told of the first.
boot first "${GUEST_SECONDS:-200}" -device intel-iommu,intremap=off,caching-mode=on
if grep -q "NODE-UP killed" "$WORK_DIR/console.first"; then
  end_load "power cut"
  boot cut "${GUEST_SECONDS:-120}" -machine kernel-irqchip=split -device intel-iommu,intremap=on,caching-mode=on
  come_to_end cut
  check "fsck finds the store on the image sound" "$POLLUX" fsck "$WORK_DIR/node.img"
else come_to_end first; fi
FAILED=$((FAILED + $(cat "$WORK_DIR"/console.* | grep -c 'FAIL ')))
suite_end
