#!/bin/sh
# What run.sh and lanes.sh share: where things are, building and running one test, and counting.
#
# CPPFLAGS is put before our include paths, CROSS_BUILD says where to build.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${CROSS_BUILD:-$root/build/cross}
mkdir -p "$build"
tests=$root/tests
include="${CPPFLAGS:-} -I$root -I$root/tests -I$build/include"
passed=0
failed=0

# The cross compilers do not look into /usr/include, where doctest is.
find_doctest() {
  flags=$(CXX=${HOST_CXX:-g++} sh "$root/tools/get_doctest.sh" "$build" | sed -n 's/^DOCTEST_FLAGS = *//p')
  directory=${flags#-I}
  mkdir -p "$build/include"
  ln -sfn "${directory:-/usr/include}/doctest" "$build/include/doctest"
}

# compile <log> <command...>: attempt, for compilers.
compile() {
  log=$1
  shift
  attempt "$*" "$log" "$@"
}

# attempt <what> <log> <command...>: runs it with a time limit; true when it ends well. What went wrong is printed.
attempt() {
  what=$1 log=$2
  shift 2
  if timeout "${LIMIT:-120}" "$@" >"$log" 2>&1; then
    return 0
  fi
  echo "--- $what: failed"
  tail -n 25 "$log"
  return 1
}

# is_red <what> <log> <command...>: true when it fails, crashes or hangs, as a program with a planted bug must.
is_red() {
  what=$1 log=$2
  shift 2
  if timeout "${LIMIT:-120}" "$@" >"$log" 2>&1; then
    echo "--- $what: not noticed"
    return 1
  fi
}

# count <line> <good> <all>: prints one line and adds to the sums.
count() {
  if [ "$2" = "$3" ]; then verdict=ok; else verdict=FAILED; fi
  printf '%-34s %2d of %2d  %s\n' "$1" "$2" "$3" "$verdict"
  passed=$((passed + $2))
  failed=$((failed + $3 - $2))
}

conclude() {
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
}

# has_plain_stack <program>: the program does not ask for an executable stack.
has_plain_stack() {
  readelf -lW "$1" | awk '/GNU_STACK/ { found = 1; if ($7 ~ /E/) bad = 1 } END { exit !(found && !bad) }'
}
