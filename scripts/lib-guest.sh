# shellcheck shell=bash
# A Linux guest in QEMU whose own initiators reach a target on this machine's loopback (10.0.2.2 inside).
# The guest is Debian's own kernel package, unpacked and never installed, with an initramfs made here; no disk, no root.
# Needs: qemu-system-x86_64, cpio, modinfo (kmod), apt-get and dpkg (to get the kernel), mke2fs (e2fsprogs).

GUEST_CACHE=${GUEST_CACHE:-$TARGET_DIR/guest}

guest_missing() { # prints the commands that are not here
  local c
  for c in qemu-system-x86_64 cpio modinfo apt-get dpkg mke2fs python3; do command -v "$c" >/dev/null || echo "$c"; done
}

guest_prepare() { # prints a reason and fails where there can be no guest
  local missing; missing=$(guest_missing | tr '\n' ' ')
  [ -z "$missing" ] || { echo "missing: $missing"; return 1; }
  [ -e "$GUEST_CACHE/ready" ] && return 0
  rm -rf "$GUEST_CACHE"; mkdir -p "$GUEST_CACHE"
  ( cd "$GUEST_CACHE" || exit 1
    kernel=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image/{print $2; exit}')
    [ -n "$kernel" ] || { echo "apt knows no linux-image-amd64 (run apt-get update)"; exit 1; }
    apt-get download -q "$kernel" busybox-static >apt.log 2>&1 || { echo "apt-get download of $kernel failed"; exit 1; }
    dpkg -x "$kernel"_*.deb kernel && dpkg -x busybox-static_*.deb busybox || { echo "unpacking failed"; exit 1; }
    rm -f ./*.deb; touch ready )
}

guest_modules() { # module names -> their files, dependencies first
  python3 - "$GUEST_CACHE/kernel/lib/modules" "$@" <<'PY'
import os, subprocess, sys
root, names, files, order = sys.argv[1], sys.argv[2:], {}, []
for folder, _, found in os.walk(root):
    for name in found:
        if name.split(".")[1:2] == ["ko"]:
            files[name.split(".")[0].replace("-", "_")] = os.path.join(folder, name)
def add(name):
    path = files.get(name.replace("-", "_"))
    if path is None or path in order:  # built into the kernel, or there already
        return
    depends = subprocess.run(["modinfo", "-F", "depends", path], capture_output=True, text=True).stdout.strip()
    for needed in filter(None, depends.split(",")):
        add(needed)
    order.append(path)
for name in names:
    add(name)
print("\n".join(order))
PY
}

guest_add_program() { # root program: the program and the libraries it is linked with
  local root=$1 path; path=$(readlink -f "$(command -v "$2")") || return 1
  mkdir -p "$root/bin"; cp "$path" "$root/bin/$2"
  ldd "$path" 2>/dev/null | grep -oE '/[^ ]+' | while read -r lib; do mkdir -p "$root$(dirname "$lib")"; cp -Ln "$lib" "$root$lib"; done
}

GUEST_PID=
# What the guest has besides busybox: modules of its kernel, programs of this machine where they are installed, files.
GUEST_MODULES="nvme_tcp ext4 crc32c_generic" GUEST_PROGRAMS="mke2fs e2fsck nvme" GUEST_FILES=()
# What its machine has besides a CPU and memory: more arguments of QEMU, ports of this machine that lead into the guest
# (",hostfwd=tcp:127.0.0.1:PORT-10.0.2.15:PORT"), and where its console takes lines from (a fifo that someone holds open).
GUEST_QEMU=() GUEST_FORWARD= GUEST_INPUT=/dev/null
guest_start() { # script console seconds NAME=VALUE...: SCRIPT (busybox sh) becomes the guest's init; its console goes to the file CONSOLE
  local script=$1 console=$2 seconds=$3 root list=; shift 3
  root=$(mktemp -d "$WORK_DIR/guest.XXXXXX")
  mkdir -p "$root"/{bin,dev,proc,sys,m,etc,mnt,run,tmp}
  cp "$GUEST_CACHE/busybox/bin/busybox" "$root/bin/"
  local program; for program in $GUEST_PROGRAMS; do command -v "$program" >/dev/null && guest_add_program "$root" "$program"; done
  local file; for file in "${GUEST_FILES[@]}"; do mkdir -p "$root$(dirname "$file")"; cp -Ln "$file" "$root$file"; done
  # shellcheck disable=SC2086
  for file in $(guest_modules virtio_pci virtio_net $GUEST_MODULES); do cp "$file" "$root/m/"; list="$list $(basename "$file")"; done
  cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin /lib
for a in \$(/bin/busybox --list); do [ -e /bin/\$a ] || /bin/busybox ln -s busybox /bin/\$a; done
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in$list; do insmod /m/\$m || echo "module \$m did not load"; done
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
. /settings; . /script
poweroff -f
INIT
  chmod +x "$root/init"; cp "$script" "$root/script"
  local setting; for setting; do printf '%s=%q\n' "${setting%%=*}" "${setting#*=}"; done >"$root/settings"
  ( cd "$root" && find . | cpio -o -H newc --quiet | gzip -1 ) >"$root.cpio.gz"
  rm -rf "$root"
  : >"$console" || return 1
  timeout "$seconds" qemu-system-x86_64 -machine q35,accel="${GUEST_ACCEL:-tcg}" -cpu max -smp 1 -m 768 -nographic -no-reboot \
    -kernel "$GUEST_CACHE"/kernel/boot/vmlinuz-* -initrd "$root.cpio.gz" -append "console=ttyS0 panic=-1 ${KARGS:-quiet}" \
    -nic "user,model=virtio-net-pci$GUEST_FORWARD" "${GUEST_QEMU[@]}" <"$GUEST_INPUT" >"$console" 2>&1 &
  GUEST_PID=$!; track "$GUEST_PID"
}
guest_lines() { # console command: calls COMMAND with each line that the guest prints, until the guest ends
  local line part= ended=
  exec {GUEST_FD}<"$1" || return 1
  while :; do
    if IFS= read -r -u "$GUEST_FD" line; then "$2" "$part${line%$'\r'}"; part=
    elif [ -n "$ended" ]; then break
    else part+=$line; kill -0 "$GUEST_PID" 2>/dev/null && sleep 0.05 || ended=1; fi
  done
  exec {GUEST_FD}<&-
  wait "$GUEST_PID"
}
