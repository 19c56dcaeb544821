#!/usr/bin/env bash
# `make install`, and then a program that knows only pkg-config. Ends with `install: N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/../.."

CXX=${CXX:-g++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0

make --no-print-directory install DESTDIR="$work/stage" PREFIX=/opt/concur >/dev/null
test -f "$work/stage/opt/concur/include/concur.hpp"
passed=$((passed + 1))

if command -v pkg-config >/dev/null; then
  export PKG_CONFIG_PATH=$work/stage/opt/concur/share/pkgconfig
  version=$(sed -n 's/^#define CONCUR_VERSION_STRING "\(.*\)"/\1/p' concur.hpp)
  [ "$(pkg-config --modversion concur)" = "$version" ]
  flags=$(PKG_CONFIG_SYSROOT_DIR=$work/stage pkg-config --cflags --libs concur)
  cp tests/install/user.cpp "$work/"
  # shellcheck disable=SC2086
  (cd "$work" && $CXX -std=c++17 user.cpp $flags -o user && ./user)
  passed=$((passed + 1))
fi

make --no-print-directory uninstall DESTDIR="$work/stage" PREFIX=/opt/concur >/dev/null
[ -z "$(find "$work/stage" -type f)" ]
passed=$((passed + 1))
echo "install: $passed passed, 0 failed"
