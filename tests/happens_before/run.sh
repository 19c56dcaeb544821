#!/usr/bin/env bash
# Plays each case of edges.cpp under ThreadSanitizer, in a process of its own, and demands silence where there is an edge
# and a report where there is none.
#
# usage: run.sh                      all cases at all their places
#        run.sh --mutant number...   shows that it can fail: plants each bug (tests/mutants.txt) and demands that at least
#                                    one edge is reported; 112 113 114 124 171 172 173 take an order out of src/
#
# CXX is clang++, unless it is said. LIMIT: seconds for one case (30). Ends with `happens-before: N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/../.."

cxx=${CXX:-clang++}
case $cxx in *clang*) ;; *) cxx=clang++ ;; esac
export LIMIT=${LIMIT:-30}
jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export WORK=$work

echo 'int main() {}' >"$work/probe.cpp"
if ! $cxx -fsanitize=thread "$work/probe.cpp" -o "$work/probe" >"$work/log" 2>&1 || ! "$work/probe" >>"$work/log" 2>&1; then
  echo "left out: $cxx cannot build, or run, a program with -fsanitize=thread here:"
  head -5 "$work/log"
  echo "happens-before: 0 passed, 0 failed"
  exit 0
fi

# The tool's exit code is 66 when it has reported something; nothing of the environment may change that.
export TSAN_OPTIONS="exitcode=66 atexit_sleep_ms=0 halt_on_error=0 symbolize=0"

# Not optimised: the tool sees the same accesses and orders, and the compiler needs a third of the time.
build() {  # flags
  $cxx -std=c++17 -O0 -g1 -fsanitize=thread -pthread -I. -w "$@" tests/happens_before/edges.cpp -o "$work/edges"
  "$work/edges" list | grep -v '^#' >"$work/list"
}

play() {  # edge or none, case, place
  local status=0 wanted=0 log
  [ "$1" = edge ] || wanted=66
  log=$(mktemp "$WORK/log.XXXXXX")
  timeout "$LIMIT" "$WORK/edges" "$2" "$3" >"$log" 2>&1 || status=$?
  if grep -q 'a report of other memory' "$log"; then
    echo "FAILED $2, $3: a race was reported, on memory that is not the case's"
  elif [ $status = $wanted ]; then
    echo passed
  else
    case $status in
      0) echo "FAILED $2, $3: there is no edge, and nothing was reported" ;;
      66) echo "FAILED $2, $3: there is an edge, and a race was reported" ;;
      124) echo "FAILED $2, $3: it hangs" ;;
      *) echo "FAILED $2, $3: it ended with $status: $(head -1 "$log")" ;;
    esac
  fi
  rm -f "$log"
}
export -f play

# Each line of the list that the pattern finds, at each of its places.
play_all() {  # pattern
  local expected name places place
  grep -E "$1" "$work/list" | while read -r expected name places; do
    for place in $places; do
      printf '%s\0%s\0%s\0' "$expected" "$name" "$place"
    done
  done | xargs -0 -n 3 -P "$jobs" bash -c 'play "$@"' play
}

if [ "${1:-}" = --mutant ]; then
  shift
  passed=0
  failed=0
  for number in "$@"; do
    build "-DCONCUR_MUTANT=$number"
    play_all '^edge' >"$work/result"
    reported=$(grep -c 'a race was reported' "$work/result" || true)
    echo "mutant $number: $reported edges are reported, first: $(grep -m 1 'a race was' "$work/result" | cut -d: -f1 || true)"
    if [ "$reported" -gt 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  done
else
  build
  play_all . >"$work/result"
  grep -v '^passed$' "$work/result" || true
  passed=$(grep -c '^passed$' "$work/result" || true)
  failed=$(grep -vc '^passed$' "$work/result" || true)
fi
echo "happens-before: $passed passed, $failed failed"
[ "$failed" = 0 ]
