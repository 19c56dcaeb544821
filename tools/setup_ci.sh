#!/usr/bin/env bash
# Installs what `make ci` uses beyond g++ and make. Debian and Ubuntu only; elsewhere it says what is missing and goes on.
#
# usage: setup_ci.sh [test]      test: only what `make run` and `make test` like to have
set -euo pipefail

packages=(g++ make python3 curl doctest-dev)
if [ "${1:-}" != test ]; then
  packages+=(clang llvm lld meson ninja-build pkg-config binutils strace valgrind qemu-user
    g++-aarch64-linux-gnu g++-arm-linux-gnueabihf g++-riscv64-linux-gnu)
  # The i386 cross compiler exists for other hosts, and g++-multilib conflicts with it.
  [ "$(uname -m)" = x86_64 ] && packages+=(g++-i686-linux-gnu)
fi

as_root=()
has_lists=

# Installs what is not there yet. Ends the script when that cannot be done.
install() {
  local package missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -ne 0 ] || return 0
  if ! command -v apt-get >/dev/null; then
    echo "setup_ci: there is no apt-get here; these are needed by their names on this system: ${missing[*]}" >&2
    exit 0
  fi
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      echo "setup_ci: not root and no sudo without a password; cannot install: ${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo -n)
  fi
  echo "setup_ci: installing ${missing[*]}"
  if [ -z "$has_lists" ] && ! "${as_root[@]}" apt-get update >"$log" 2>&1; then
    tail -5 "$log" >&2
    echo "setup_ci: the package servers cannot be reached (apt-get update failed, see above)" >&2
    exit 1
  fi
  has_lists=1
  if ! "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
    tail -15 "$log" >&2
    echo "setup_ci: apt-get install failed, see above; wanted: ${missing[*]}" >&2
    exit 1
  fi
}

export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install "${packages[@]}"

# Debian's clang does not bring its sanitizers; they are in a package named after the compiler's version.
if command -v clang++ >/dev/null && ! echo 'int main() {}' | clang++ -x c++ -fsanitize=thread - -o /dev/null 2>/dev/null; then
  install "libclang-rt-$(clang++ -dumpversion | cut -d. -f1)-dev"
fi

# The fuzzer compares the HTTP example's parser with this one, where the system has it.
if [ "${1:-}" != test ] && apt-cache show node-llhttp >"$log" 2>&1; then
  install node-llhttp
fi
