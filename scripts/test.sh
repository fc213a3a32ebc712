#!/usr/bin/env bash
# Everything that must hold: format, lints, the crate's tests, the planted bugs, and suites with real processes. Installs what is
# missing where it may (root); what cannot be had is skipped, with the reason, in the last lines. Exit 0 only when nothing failed.
#
#   scripts/test.sh [step...]     steps: fmt clippy build unit planted quickstart idle cores declared spdk-rpc
#   spdk-tools spdk-device iscsi kernel-guest iscsi-guest nvme-guest kill-loop dpdk-veth      (default: all)
#
# KILL_LOOPS (5): how often the node is killed under load. SPDK_DIR: an SPDK build whose programs are used as hosts. Logs stay in target/test-logs.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
. "$ROOT/scripts/lib-install.sh"
cd "$ROOT" || exit 1
export CARGO_TARGET_DIR=$TARGET_DIR
STEPS=${*:-fmt clippy build unit planted quickstart idle cores declared spdk-rpc spdk-tools spdk-device iscsi kernel-guest iscsi-guest nvme-guest kill-loop dpdk-veth}
LOGS=$TARGET_DIR/test-logs; mkdir -p "$LOGS"
passed=0 failed=0 skipped=0 failures=() skips=()
note_skip() { skipped=$((skipped + 1)); skips+=("$1"); say "   skipped: $1"; }
note_fail() { failed=$((failed + 1)); failures+=("$1"); say "   FAILED: $1"; }

whole() { # step command...: a step that passes or fails as one
  local step=$1; shift
  if "$@" >"$LOGS/$step.log" 2>&1 </dev/null; then passed=$((passed + 1))
  else note_fail "$step"; tail -n 40 "$LOGS/$step.log"; return 1; fi
}
cargo_tests() { # step cargo-arguments...: counts what the test runner counts
  local step=$1 status counts ignored name; shift
  cargo "$@" >"$LOGS/$step.log" 2>&1 </dev/null; status=$?
  read -r -a counts < <(awk '/^test result:/{p += $4; f += $6} END{print p + 0, f + 0}' "$LOGS/$step.log")
  passed=$((passed + counts[0]))
  say "   ${counts[0]} passed, ${counts[1]} failed"
  if [ "${counts[1]}" -gt 0 ]; then
    while read -r name; do note_fail "$step: $name"; done < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$LOGS/$step.log" | sort -u)
    sed -n '/^failures:$/,/^test result/p' "$LOGS/$step.log" | head -n 120
  fi
  if [ $status -ne 0 ] && [ "${counts[1]}" -eq 0 ]; then note_fail "$step: cargo $* ended with status $status"; tail -n 40 "$LOGS/$step.log"; fi
  [ $status -ne 0 ] || [ "${counts[0]}" -gt 0 ] || note_fail "$step: no test ran"
  while read -r ignored; do note_skip "$step: $ignored"; done < <(sed -n 's/^test \(.* \.\.\. ignored.*\)$/\1/p' "$LOGS/$step.log")
}
suite() { # name seconds: a suite of tests/node, one PASS, FAIL or SKIP line a check
  local name=$1 seconds=$2 line status before=$failed count=0
  timeout -k 20 "$seconds" "tests/node/$name.sh" >"$LOGS/$name.log" 2>&1 </dev/null; status=$?
  while IFS= read -r line; do
    case $line in
      "PASS "*) passed=$((passed + 1)); count=$((count + 1)) ;;
      "FAIL "*) note_fail "$name: ${line#FAIL }" ;;
      "SKIP "*) note_skip "$name: ${line#SKIP }" ;;
    esac
  done <"$LOGS/$name.log"
  say "   $count checks passed"
  if [ $status -ne 0 ]; then
    [ "$failed" -gt "$before" ] || note_fail "$name: ended with status $status before its end"
    grep -vE '^(PASS|SKIP) ' "$LOGS/$name.log" | tail -n 30
  fi
}
install_toolchain || die "$REASON"
# With DPDK here, lints and unit tests are those of a build with it: the same tests and more, and no further build. The programs that
# the suites run are of the default build, which is put back in place afterwards (it is fresh: nothing is compiled).
FEATURES=()
case " $STEPS " in
  *" clippy "* | *" unit "*)
    if install_dpdk; then FEATURES=(--features dpdk); else note_skip "unit tests and lints of net/dpdk and net/stack: $REASON"; fi ;;
esac
put_back() { whole put-back cargo build --release; }
has_cargo() { cargo "$1" --version >/dev/null 2>&1; }

for step in $STEPS; do
  start=$SECONDS
  say "== $step"
  case $step in
    fmt) if has_cargo fmt; then whole fmt cargo fmt --check; else note_skip "fmt: cargo fmt is not installed"; fi ;;
    clippy) if has_cargo clippy; then whole clippy cargo clippy --all-targets "${FEATURES[@]}" -- -D warnings && [ ${#FEATURES[@]} -eq 0 ] || whole clippy-default cargo clippy -- -D warnings; else note_skip "clippy: cargo clippy is not installed"; fi ;;
    build) whole build cargo build --release || break ;;
    unit) cargo_tests unit test --release --no-fail-fast "${FEATURES[@]}"; [ ${#FEATURES[@]} -eq 0 ] || put_back ;;
    planted) cargo_tests planted test --release --no-fail-fast --features planted-bugs planted ;;
    quickstart)
      if whole quickstart env RUN_SECONDS=2 scripts/quickstart.sh; then
        line=$(grep -i iops "$LOGS/quickstart.log" | tail -n 1)
        if [ -n "$line" ]; then say "   $line"; else note_fail "quickstart: it printed no IOPS"; fi
      fi ;;
    idle) if need_commands python3=python3; then suite idle 180; else note_skip "idle: $REASON"; fi ;;
    cores) suite cores 240 ;;
    declared) suite declared 120 ;;
    spdk-tools) suite spdk-tools 400 ;;
    spdk-device)
      REASON=
      if need_commands python3=python3; then suite spdk-device 3000; else note_skip "spdk-device: $REASON"; fi ;;
    spdk-rpc)
      REASON=
      if need_commands python3=python3 && { python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv; }; then suite spdk-rpc 300
      else note_skip "spdk-rpc: $REASON"; fi ;;
    kernel-guest)
      REASON=
      if need_commands qemu-system-x86_64=qemu-system-x86 cpio=cpio modinfo=kmod mke2fs=e2fsprogs nvme=nvme-cli python3=python3; then
        apt-cache show linux-image-amd64 >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update >/dev/null 2>&1
        suite kernel-guest 420
      else note_skip "kernel-guest: $REASON"; fi ;;
    iscsi)
      REASON=
      if need_commands iscsi-test-cu=libiscsi-bin qemu-img=qemu-utils python3=python3; then suite iscsi 900; else note_skip "iscsi: $REASON"; fi ;;
    iscsi-guest)
      REASON=
      if need_commands qemu-system-x86_64=qemu-system-x86 cpio=cpio modinfo=kmod mke2fs=e2fsprogs python3=python3 iscsid=open-iscsi dmsetup=dmsetup; then
        apt-cache show linux-image-amd64 >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update >/dev/null 2>&1
        suite iscsi-guest 600
      else note_skip "iscsi-guest: $REASON"; fi ;;
    nvme-guest)
      REASON=
      if need_commands qemu-system-x86_64=qemu-system-x86 cpio=cpio modinfo=kmod mke2fs=e2fsprogs nvme=nvme-cli python3=python3; then
        apt-cache show linux-image-amd64 >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update >/dev/null 2>&1
        suite nvme-guest 600
      else note_skip "nvme-guest: $REASON"; fi ;;
    kill-loop)
      if need_commands python3=python3; then suite kill-loop $((120 + 60 * ${KILL_LOOPS:-5})); else note_skip "kill-loop: $REASON"; fi ;;
    dpdk-veth)
      REASON=
      if install_dpdk && need_commands ip=iproute2 python3=python3 iscsi-inq=libiscsi-bin; then
        if whole dpdk-build cargo build --release --features dpdk && cp "$TARGET_DIR/release/pollux" "$TARGET_DIR/release/pollux-dpdk"; then
          POLLUX=$TARGET_DIR/release/pollux-dpdk suite dpdk-veth 420
        fi
        put_back
      else note_skip "dpdk-veth: $REASON"; fi ;;
    *) die "there is no step '$step'" ;;
  esac
  say "   $((SECONDS - start)) s"
done

say ""
[ ${#skips[@]} -eq 0 ] || printf 'skipped: %s\n' "${skips[@]}"
[ ${#failures[@]} -eq 0 ] || printf 'failed: %s\n' "${failures[@]:0:40}"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
