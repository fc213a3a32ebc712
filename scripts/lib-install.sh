# shellcheck shell=bash
# What a fresh Debian machine lacks. Nothing is installed where nothing is missing; each install is announced first.
# On failure REASON says what is missing and how a person would get it.

REASON=
apt_install() { # packages...
  [ "$(id -u)" = 0 ] || { REASON="missing packages: $* (as root: apt-get install $*)"; return 1; }
  command -v apt-get >/dev/null || { REASON="missing: $*, and this system has no apt-get"; return 1; }
  say "installing with apt-get: $*"
  { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }; } </dev/null >"${TMPDIR:-/tmp}/pollux-apt.$$" 2>&1
  local status=$?
  [ $status -eq 0 ] || REASON="apt-get install $* failed: $(grep -E '^E:' "${TMPDIR:-/tmp}/pollux-apt.$$" | tail -n 1)"
  rm -f "${TMPDIR:-/tmp}/pollux-apt.$$"
  return $status
}
need_commands() { # command=package...: installs the packages of the commands that are missing
  local pair packages=()
  for pair; do command -v "${pair%%=*}" >/dev/null || packages+=("${pair#*=}"); done
  [ ${#packages[@]} -eq 0 ] || apt_install "${packages[@]}"
}
install_dpdk() { # what a build with the feature `dpdk` needs
  { command -v pkg-config >/dev/null && pkg-config --exists libdpdk && compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null; } ||
    apt_install libdpdk-dev pkg-config libclang-dev
}
version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; } # wanted have

install_toolchain() { # cc, and a cargo that is new enough for this crate
  [ -r "$HOME/.cargo/env" ] && ! command -v cargo >/dev/null && . "$HOME/.cargo/env"
  { command -v cc >/dev/null && [ -e /usr/include/stdio.h ]; } || apt_install gcc libc6-dev || return 1
  local wanted have=0
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
  command -v cargo >/dev/null && have=$(cargo --version | awk '{print $2}')
  version_at_least "$wanted" "$have" && return 0
  if command -v rustup >/dev/null; then
    say "cargo is $have, $wanted is needed: rustup toolchain install stable"
    rustup toolchain install stable --profile minimal && export RUSTUP_TOOLCHAIN=stable
  else
    need_commands curl=curl || return 1
    [ -e /etc/ssl/certs/ca-certificates.crt ] || apt_install ca-certificates || return 1
    say "no cargo $wanted or newer: installing the Rust toolchain with rustup into $HOME/.cargo"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --no-modify-path &&
      [ -r "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  fi
  command -v cargo >/dev/null && version_at_least "$wanted" "$(cargo --version | awk '{print $2}')" ||
    { REASON="no cargo $wanted or newer, and rustup could not bring one (https://rustup.rs)"; return 1; }
}
