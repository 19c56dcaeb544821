#!/bin/sh
# run.sh - builds the examples that are servers with both of Linux's pollers and lets real clients loose on each.
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
lanes=default
[ "$(uname -s)" = Linux ] && lanes="default poll"
for name in http_server chat_server; do
  programs=
  for lane in $lanes; do
    program=$build/${name}_$lane
    if [ "$lane" = poll ]; then
      compile -DCONCUR_POLLER_POLL "examples/$name.cpp" -o "$program"
    else
      compile "examples/$name.cpp" -o "$program"
    fi
    programs="$programs $lane=$program"
  done
  script=tests/real/http_conformance.py
  [ "$name" = chat_server ] && script=tests/real/chat.py
  # shellcheck disable=SC2086  # a list as well
  python3 "$script" "$@" $programs | tee "$build/$name.log"
done

# The sum of both. Without a last line of counts a script has broken off: that is a failure.
cat "$build/http_server.log" "$build/chat_server.log" | awk '
  /^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3; scripts++ }
  END { failed += 2 - scripts
        print passed + 0 " passed, " failed + 0 " failed"
        exit failed > 0 || passed == 0 }'
