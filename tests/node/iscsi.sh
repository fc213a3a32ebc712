#!/usr/bin/env bash
# The iSCSI target under programs that others wrote: libiscsi's whole test suite against a RAM disk with 512-byte blocks and a log-store
# volume with 4096-byte ones, over two portals, in one run each against one node; its listing and inquiry programs; qemu-img there and
# back; who may log in (CHAP, mutual CHAP, initiator groups), also after kill -9.
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"
. "$ROOT/scripts/lib-install.sh"
need_commands iscsi-test-cu=libiscsi-bin qemu-img=qemu-utils python3=python3 || { skip "iSCSI: $REASON"; exit 0; }
work_dir
ME=iqn.2026-01.io.pollux.host:one OTHER=iqn.2026-01.io.pollux.host:two
USER=someone SECRET=twelve-or-more-1 TARGET_USER=node TARGET_SECRET=twelve-or-more-2

preallocate "$WORK_DIR/disk" 1536
node_start
must_rpc bdev_malloc_create '{"name":"M0","block_size":512,"num_blocks":2097152}' >/dev/null
for n in 1 2 3 4; do must_rpc bdev_malloc_create "{\"name\":\"M$n\",\"block_size\":512,\"num_blocks\":131072}" >/dev/null; done
store_volume "$WORK_DIR/disk" 4096 store volume 1024
must_rpc bdev_lvol_create '{"lvs_name":"store","lvol_name":"fixed","size_in_mib":16,"thin_provision":true}' >/dev/null
must_rpc bdev_lvol_set_read_only '{"name":"store/fixed"}' >/dev/null
iscsi_portals 1 2
PORT1=${ISCSI_PORTS[0]} PORT2=${ISCSI_PORTS[1]}
iscsi_initiators 1 ANY
iscsi_initiators 2 "$ME"
OPEN='"disable_chap":true'
iscsi_target disks 1:1 "$OPEN" M0 store/volume store/fixed
iscsi_target image 1:1 "$OPEN" M1
iscsi_target private 1:2 "$OPEN" M2
url() { echo "iscsi://${3:+$3@}127.0.0.1:$1/$IQN:$2"; } # port target/lun user%secret

# --- libiscsi's test suite ---------------------------------------------------------------------------------------------
# What may be skipped, and why: a fixed disk has no medium to take out, and is not write protected (that test has a run of its own on
# one that is); where a logical block is a physical one there is nothing within it to be aligned to, and a restriction that is not there
# cannot be tested. WSNZ is 1: no blocks are not all blocks to the end, which the test sees refused (with 0, WriteSame10.UnmapUntilEnd
# takes a block of FFh for one that may be unmapped). To overwrite a thin volume would not reach its old data, and there are no keys for a
# cryptographic erase to change; erasing blocks is what SANITIZE does there, and what is tested.
cat >"$WORK_DIR/skips" <<'LIST'
NoMedia\..*             LUN is not removable
PreventAllow\..*        Logical unit is not removable
StartStopUnit\..*       (LUN|Media) is not removable
ReadOnly\..*            Logical unit is not write-protected
WriteAtomic16\.VPD       No (alignment|granularity) restrictions
WriteSame1[06]\.ZeroBlocks does not support 0-blocks
Sanitize\.(Overwrite|Readonly|Reservations|Reset) SANITIZE OVERWRITE is not implemented
Sanitize\.(CryptoErase.*|Readonly|Reservations) SANITIZE CRYPTO_ERASE is not implemented
.*                      LBPPB < 2
LIST
# What a test gets wrong by itself on a LUN with 4096-byte blocks, so that no target that keeps to the standards passes it.
cat >"$WORK_DIR/unfit" <<'LIST'
WriteAtomic16\.Simple        it writes 256 blocks as one, whatever MAXIMUM ATOMIC TRANSFER LENGTH says
LIST
: >"$WORK_DIR/none"
judge() { # output allowed-list least-run unfit-list: the three numbers, and which tests failed or were skipped with what words
  python3 - "$@" <<'PY'
import re, sys
text = open(sys.argv[1], errors="replace").read()
allowed = [line.split(None, 1) for line in open(sys.argv[2])]
unfit = [line.split(None, 1) for line in open(sys.argv[4])]
summary = re.search(r"^ +tests +(\d+) +(\d+) +(\d+) +(\d+)", text, re.M)
if not summary:
    sys.exit("it came to no end: " + " ".join(text.split()[-40:]))
total, ran, passed, failed = map(int, summary.groups())
suite = test = said = "?"
skipped, wrong, failures = set(), set(), {}
for line in text.splitlines():
    if m := re.match(r"Suite: (\S+)", line):
        suite = m[1]
    if m := re.match(r"  Test: (.+?) \.\.\.", line):
        test = m[1]
    if m := re.search(r"\[SKIPPED\] ?(.*)", line):
        name = f"{suite}.{test}"
        skipped.add(name)
        if not any(re.fullmatch(who, name) and re.search(why.strip(), m[1]) for who, why in allowed):
            wrong.add(f"{name} ({m[1]})")
    if m := re.search(r"\[FAILED\] ?(.*)", line):
        said = m[1]
    if m := re.match(r"    \d+\. (\S+\.c:\d+)", line):
        failures.setdefault(f"{suite}.{test}", f"{m[1]}, {said}")
known = {name: why.strip() for name in failures for who, why in unfit if re.fullmatch(who, name)}
print(f"{ran} run, {failed} failed, {len(known)} of them by a mistake of the test, {len(skipped)} skipped")
for name, why in known.items():
    print(f"unfit: {name}: {why}")
for name, why in failures.items():
    if name not in known:
        print(f"failed: {name} ({why})")
for name in sorted(wrong):
    print(f"skipped without leave: {name}")
sys.exit(ran < int(sys.argv[3]) or ran < total or failed != len(known) or bool(wrong))
PY
}
conforms() { # name least-run tests lun unfit-list: one run over both portals against the running node
  timeout 420 iscsi-test-cu -d -S -V -t "$3" "$(url "$PORT1" disks/"$4")" "$(url "$PORT2" disks/"$4")" >"$WORK_DIR/$1.out" 2>&1 </dev/null
  judge "$WORK_DIR/$1.out" "$WORK_DIR/skips" "$2" "$WORK_DIR/$5"; local status=$?
  kill -0 "$NODE_PID" || { echo "the node is gone: $(tail -n 3 "$WORK_DIR/node.log")"; return 1; }
  return $status
}
for run in "ram512 230 ALL,SCSI.ReportLUNs 0 none" "log4096 230 ALL,SCSI.ReportLUNs 1 unfit" "protected 1 SCSI.ReadOnly 2 none"; do
  # shellcheck disable=SC2086
  set -- $run
  # A failure names the tests; all of the words of the run stay in the log of this suite.
  if conforms "$@" >"$WORK_DIR/verdict"; then pass "iscsi-test-cu $3 on $1: $(head -n 1 "$WORK_DIR/verdict")"
  else
    fail "iscsi-test-cu $3 on $1: $(head -n 1 "$WORK_DIR/verdict")"
    while read -r line; do fail "iscsi-test-cu on $1: $line"; done < <(tail -n +2 "$WORK_DIR/verdict" | grep -v '^unfit: ')
    [ -z "${KEEP_OUT:-}" ] || cp "$WORK_DIR/$1.out" "$KEEP_OUT/"
  fi
  while read -r line; do skip "iscsi-test-cu on $1: $line"; done < <(sed -n 's/^unfit: //p' "$WORK_DIR/verdict")
done
not_skipped() { ! grep 'not write-protected' "$WORK_DIR/protected.out"; }
check "the write-protected LUN was tested as one" not_skipped

# --- listing and inquiry ---------------------------------------------------------------------------------------------------
lists() { # initiator url wanted unwanted flags...
  local out; out=$(timeout 30 iscsi-ls "${@:5}" -i "$1" "$2" 2>&1) || { echo "$out"; return 1; }
  grep -qE -- "$3" <<<"$out" || { echo "no $3 in: $out"; return 1; }
  [ -z "$4" ] || ! grep -qE -- "$4" <<<"$out" || { echo "$4 in: $out"; return 1; }
}
inquires() { # wanted url flags...
  local out; out=$(timeout 30 iscsi-inq "${@:3}" "$2" 2>&1) || { echo "$out"; return 1; }
  grep -qiE -- "$1" <<<"$out" || { echo "no $1 in: $out"; return 1; }
}
for port in "$PORT1" "$PORT2"; do
  check "discovery through port $port lists target, portal and LUN" lists "$OTHER" "iscsi://127.0.0.1:$port" "Target:$IQN:disks Portal:127.0.0.1:$port" ""
done
check "a LUN with its size" lists "$ME" "iscsi://127.0.0.1:$PORT1" 'Lun:0 .*DIRECT_ACCESS.*(1G|1023M)' "" -s
check "inquiry" inquires 'Peripheral Device Type:DIRECT_ACCESS' "$(url "$PORT1" disks/0)"
while read -r page words; do check "inquiry page $page" inquires "$words" "$(url "$PORT1" disks/0)" -e 1 -c $((16#$page)); done <<'PAGES'
00 SUPPORTED_VPD_PAGES|BLOCK_LIMITS
80 Unit Serial Number:
83 DEVICE DESIGNATOR|Designator
b0 maximum compare and write length:[1-9]
b1 Medium Rotation Rate
b2 lbpu:1
PAGES

# --- images ----------------------------------------------------------------------------------------------------------------
if qemu-img --help | grep -q iscsi || apt_install qemu-block-extra; then
  image() { # an image with holes, there and back
    python3 -c 'import random,sys
r = random.Random(7)
with open(sys.argv[1], "wb") as f:
    f.truncate(64 << 20)
    for at in range(0, 64 << 20, 3 << 20):
        f.seek(at + r.randrange(1 << 20)); f.write(r.randbytes(r.randrange(1, 1 << 20)))' "$WORK_DIR/image" &&
      qemu-img convert -n -f raw -O raw "$WORK_DIR/image" "$(url "$PORT1" image/0)" &&
      qemu-img convert -f raw -O raw "$(url "$PORT2" image/0)" "$WORK_DIR/back" && cmp "$WORK_DIR/image" "$WORK_DIR/back" &&
      qemu-img compare -f raw -F raw "$WORK_DIR/image" "$(url "$PORT1" image/0)" && rm "$WORK_DIR/back"
  }
  check "qemu-img converts an image to a LUN and back, byte for byte" image
else skip "qemu-img over iSCSI: $REASON"; fi

# --- who may ---------------------------------------------------------------------------------------------------------------
logs_in() { timeout 30 iscsi-inq -i "${2:-$OTHER}" "$1"; }
refused() { # url [initiator]: it must not get in, and must be told so, not left waiting
  local out; out=$(timeout 30 iscsi-inq -i "${2:-$OTHER}" "$1" 2>&1); local status=$?
  [ $status -ne 0 ] && [ $status -ne 124 ] || { echo "status $status: $out"; return 1; }
  grep -qiE 'login|auth|failed' <<<"$out" || { echo "$out"; return 1; }
}
check "an initiator of the group sees its target" lists "$ME" "iscsi://127.0.0.1:$PORT1" "$IQN:private" ""
check "any other does not" lists "$OTHER" "iscsi://127.0.0.1:$PORT1" "$IQN:disks" "$IQN:private"
check "an initiator of the group logs in" logs_in "$(url "$PORT1" private/0)" "$ME"
check "any other is refused" refused "$(url "$PORT1" private/0)" "$OTHER"
check "a target that does not exist is refused" refused "$(url "$PORT1" nosuch/0)"
bars() { # an initiator group for a network that this machine is not on
  must_rpc iscsi_create_initiator_group '{"tag":3,"initiators":["ANY"],"netmasks":["192.0.2.0/24"]}' && iscsi_target far 1:3 "$OPEN" M3; }
check "a target for another network" bars
check "this network is refused" refused "$(url "$PORT1" far/0)"

must_rpc iscsi_create_auth_group "{\"tag\":1,\"secrets\":[{\"user\":\"$USER\",\"secret\":\"$SECRET\",\"muser\":\"$TARGET_USER\",\"msecret\":\"$TARGET_SECRET\"}]}" >/dev/null
check "a target with CHAP" iscsi_target locked 1:1 '"require_chap":true,"chap_group":1' M4
mutual() { # target-user target-secret: both sides prove themselves
  LIBISCSI_CHAP_TARGET_USERNAME=$1 LIBISCSI_CHAP_TARGET_PASSWORD=$2 timeout 30 iscsi-inq "$(url "$PORT1" locked/0 "$USER%$SECRET")"; }
fails() { ! "$@"; }
chap() { # when: what must hold of the locked target
  check "$1: the right secret logs in" logs_in "$(url "$PORT1" locked/0 "$USER%$SECRET")"
  check "$1: a wrong secret is refused" refused "$(url "$PORT1" locked/0 "$USER%${SECRET}x")"
  check "$1: an unknown user is refused" refused "$(url "$PORT1" locked/0 "nobody%$SECRET")"
  check "$1: no secret is refused" refused "$(url "$PORT1" locked/0)"
}
chap "CHAP"
check "require both sides" must_rpc iscsi_target_node_set_auth "{\"name\":\"$IQN:locked\",\"require_chap\":true,\"mutual_chap\":true,\"chap_group\":1}"
check "mutual CHAP logs in" mutual "$TARGET_USER" "$TARGET_SECRET"
check "mutual CHAP: the initiator finds a wrong target out" fails mutual "$TARGET_USER" "${TARGET_SECRET}x"
check "mutual CHAP: a wrong secret is refused" refused "$(url "$PORT1" locked/0 "$USER%${SECRET}x")"
check "require CHAP of discovery" must_rpc iscsi_set_discovery_auth '{"require_chap":true,"chap_group":1}'
check "discovery without a secret is refused" fails timeout 30 iscsi-ls "iscsi://127.0.0.1:$PORT1"
check "discovery with a wrong secret is refused" fails timeout 30 iscsi-ls "iscsi://$USER%${SECRET}x@127.0.0.1:$PORT1"
check "discovery with the secret" lists "$OTHER" "iscsi://$USER%$SECRET@127.0.0.1:$PORT1" "$IQN:disks" ""

# --- a restart -------------------------------------------------------------------------------------------------------------
node_kill; node_start
check "after kill -9: discovery without a secret is refused" fails timeout 30 iscsi-ls "iscsi://127.0.0.1:$PORT1"
check "after kill -9: an initiator of the group logs in" logs_in "$(url "$PORT2" private/0)" "$ME"
check "after kill -9: any other is refused" refused "$(url "$PORT2" private/0)" "$OTHER"
check "after kill -9: mutual CHAP logs in" mutual "$TARGET_USER" "$TARGET_SECRET"
check "after kill -9: a wrong secret is refused" refused "$(url "$PORT1" locked/0 "$USER%${SECRET}x")"
check "after kill -9: no secret is refused" refused "$(url "$PORT1" locked/0)"
check "the node stops cleanly" node_stop
suite_end
