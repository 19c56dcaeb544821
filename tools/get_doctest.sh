#!/bin/sh
# Finds doctest, or gets it, and prints one make line saying where it is:
#
#     DOCTEST_FLAGS =                 the compiler finds it by itself
#     DOCTEST_FLAGS = -I<directory>   it was fetched there
#
# Tried in turn: the compiler's own path; the package manager, when we may install; the distribution's package, unpacked
# below the build directory, which needs no rights; the header from its home. Messages go to stderr.
#
# usage: get_doctest.sh <build directory>        CXX names the compiler
set -u
build=${1:?usage: get_doctest.sh <build directory>}
CXX=${CXX:-g++}
fetched=$build/doctest
version=2.4.11
address=https://raw.githubusercontent.com/doctest/doctest/v$version/doctest/doctest.h

# Whether the compiler finds doctest, with the flags given.
is_found() {
  # shellcheck disable=SC2086
  echo '#include <doctest/doctest.h>' | $CXX -std=c++17 "$@" -E -x c++ - >/dev/null 2>&1
}

answer() {
  echo "DOCTEST_FLAGS = $*"
  exit 0
}

has() { command -v "$1" >/dev/null 2>&1; }

# Runs a command with the rights to install, or fails at once when we have none; never asks for a password.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@" >&2
  elif has sudo && sudo -n true 2>/dev/null; then sudo -n "$@" >&2
  else return 1
  fi
}

install_package() {
  if has apt-get; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends doctest-dev && return 0
    as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y --no-install-recommends doctest-dev
  elif has brew; then brew install doctest >&2
  elif has dnf; then as_root dnf install -y doctest-devel
  elif has pacman; then as_root pacman -S --noconfirm doctest
  elif has apk; then as_root apk add doctest-dev
  elif has zypper; then as_root zypper --non-interactive install doctest-devel
  elif has pkg; then as_root pkg install -y doctest
  else return 1
  fi
}

# apt-get download and dpkg-deb need no rights; the package is one header.
unpack_package() {
  has apt-get && has dpkg-deb || return 1
  mkdir -p "$fetched" || return 1
  (cd "$fetched" && apt-get download doctest-dev >&2 && dpkg-deb -x doctest-dev_*.deb unpacked && rm -f doctest-dev_*.deb &&
    rm -rf include && mv unpacked/usr/include include && rm -rf unpacked)
}

download() {
  mkdir -p "$fetched/include/doctest" || return 1
  target=$fetched/include/doctest/doctest.h
  if has curl; then curl -fsSL --max-time 60 -o "$target.part" "$address"
  elif has wget; then wget -q -T 60 -O "$target.part" "$address"
  else return 1
  fi && mv "$target.part" "$target"
}

is_found && answer
is_found "-I$fetched/include" && answer "-I$fetched/include"

echo "doctest is missing; getting it (the tests need it, the library does not)" >&2
install_package && {
  is_found && answer
  has brew && is_found "-I$(brew --prefix)/include" && answer "-I$(brew --prefix)/include"
}
unpack_package && is_found "-I$fetched/include" && answer "-I$fetched/include"
download && is_found "-I$fetched/include" && answer "-I$fetched/include"

echo "doctest could not be installed or fetched. Install it with your package manager (Debian and Ubuntu: doctest-dev," >&2
echo "Fedora: doctest-devel, others: doctest), or put doctest.h into $fetched/include/doctest/, and run make again." >&2
exit 1
