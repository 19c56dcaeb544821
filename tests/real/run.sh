#!/bin/sh
# run.sh - builds the HTTP server example with both of Linux's pollers and lets real clients loose on each.
#
#     tests/real/run.sh [--only WORD]      ends with "N passed, N failed"
#
# CXX, CXXFLAGS and BUILD say how and where to build. curl and wrk are installed when they are missing and we may.
set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-build}/real
compiler=${CXX:-g++}
mkdir -p "$build"

for tool in curl wrk; do
  command -v "$tool" > "$build/which" 2>&1 && continue
  if [ "$(id -u)" = 0 ] && command -v apt-get > "$build/which" 2>&1; then
    echo "installing $tool"
    apt-get install -y --no-install-recommends "$tool" > "$build/install.log" 2>&1 ||
      { apt-get update && apt-get install -y --no-install-recommends "$tool"; } > "$build/install.log" 2>&1 ||
      echo "$tool could not be installed; see $build/install.log"
  else
    echo "$tool is missing: what it drives is left out"
  fi
done
command -v python3 > "$build/which" 2>&1 || { echo "python3 is needed"; echo "0 passed, 1 failed"; exit 1; }

# shellcheck disable=SC2086  # CXXFLAGS is a list
compile() { "$compiler" -std=c++17 ${CXXFLAGS:--O2} -Wall -Wextra -pthread -I. "$@"; }
compile examples/http_server.cpp -o "$build/http_server"
programs="default=$build/http_server"
if [ "$(uname -s)" = Linux ]; then
  compile -DCONCUR_POLLER_POLL examples/http_server.cpp -o "$build/http_server_poll"
  programs="$programs poll=$build/http_server_poll"
fi
# shellcheck disable=SC2086  # a list as well
exec python3 tests/real/http_conformance.py "$@" $programs
